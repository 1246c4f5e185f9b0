//go:build linux

package nftwire

import (
	"encoding/binary"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

var record = flag.Bool("record", false, "write the recordings anew: NAME.netlink and NAME.txt of each testdata/NAME.nft")

// TestLive loads each ruleset with nft, reads it from the kernel and compares our words with nft's.
func TestLive(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.nft")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rulesets: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c := newNamespace(t)
			if text, err := exec.Command("nft", "-f", path).CombinedOutput(); err != nil {
				t.Fatalf("nft: %v\n%s", err, text)
			}
			var messages []byte
			ruleset, err := Read(func(m netlink.Message) ([]netlink.Message, error) {
				answers, err := c.Execute(m)
				for _, answer := range answers {
					messages = appendMessage(messages, answer)
				}
				return answers, err
			})
			if err != nil {
				t.Fatal(err)
			}
			text, err := exec.Command("nft", "-a", "list", "ruleset").Output()
			if err != nil {
				t.Fatal(err)
			}
			if *record {
				base := strings.TrimSuffix(path, ".nft")
				if err := os.WriteFile(base+".netlink", messages, 0o644); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(base+".txt", text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			compareText(t, ruleset, text)
		})
	}
}

// appendMessage appends a message as the kernel sent it, with padding.
func appendMessage(b []byte, m netlink.Message) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(16+len(m.Data)))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Type))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.Header.Flags))
	b = binary.NativeEndian.AppendUint32(b, m.Header.Sequence)
	b = binary.NativeEndian.AppendUint32(b, 0) // whose netlink port it was means nothing later
	b = append(b, m.Data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// newNamespace gives the test a network namespace of its own, and connects to its nf_tables.
func newNamespace(t *testing.T) *netlink.Conn {
	t.Helper()
	lab.OwnNetns(t, "nft")
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
