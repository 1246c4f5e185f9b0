//go:build linux

package dockerd

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/nftwire"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// newNamespace moves the test into a network namespace of its own, with all programs that it starts. The
// test's goroutine stays locked to its thread: both end together, and the namespace with them.
func newNamespace(t *testing.T) *netlink.Conn {
	t.Helper()
	skip := t.Skip
	if os.Getenv("CI") != "" {
		skip = t.Fatal
	}
	if os.Getuid() != 0 {
		skip("needs root, to make a network namespace")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		skip(err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func nft(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, out, script)
	}
}

func nftList(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", append([]string{"-s", "list"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The kernel takes the script of the edits, whatever was broken, and then nothing differs.
func TestNftScript(t *testing.T) {
	for _, name := range nftCases {
		whole, err := fixture.Text(name, "nft.txt")
		if err != nil {
			t.Fatal(err)
		}
		for _, breakage := range []struct{ name, script string }{
			{"gone", "flush ruleset"},
			{"one table gone", "delete table ip6 docker-bridges"},
			{"flushed", "flush table ip docker-bridges\nflush table ip6 docker-bridges"},
			{"some chains", "flush chain ip docker-bridges filter-forward-in__brA\nflush chain ip docker-bridges nat-prerouting-and-output\nflush chain ip6 docker-bridges raw-PREROUTING"},
			{"elements", "flush map ip docker-bridges filter-forward-in-jumps\ndelete element ip6 docker-bridges nat-postrouting-out-jumps { \"br6\" }"},
			{"no hook", "flush chain ip docker-bridges nat-PREROUTING\ndelete chain ip docker-bridges nat-PREROUTING\nadd chain ip docker-bridges nat-PREROUTING\n" +
				"add rule ip docker-bridges nat-PREROUTING ip saddr 198.51.100.7 accept"},
			{"reversed", "flush chain ip docker-bridges filter-forward-in__brA\n" +
				"add rule ip docker-bridges filter-forward-in__brA counter drop comment \"UNPUBLISHED PORT DROP\"\n" +
				"add rule ip docker-bridges filter-forward-in__brA iifname \"brA\" counter accept comment \"ICC\"\n" +
				"add rule ip docker-bridges filter-forward-in__brA ct state established,related counter accept\n"},
			{"altered", "flush chain ip docker-bridges nat-prerouting-and-output\n" +
				"add rule ip docker-bridges nat-prerouting-and-output iifname != \"brA\" tcp dport 8080 counter dnat to 192.0.2.9:80 comment \"DNAT\"\n" +
				"add rule ip docker-bridges nat-prerouting-and-output ip saddr 198.51.100.7 accept\n"},
			{"half resurrected", "flush ruleset\nadd table ip docker-bridges\nadd chain ip docker-bridges raw-PREROUTING\nadd chain ip docker-bridges nat-prerouting-and-output\n" +
				"add chain ip docker-bridges filter-forward-in__brA\nadd rule ip docker-bridges raw-PREROUTING ip daddr 192.0.2.2 iifname != \"brA\" counter drop comment \"DROP DIRECT ACCESS\"\n"},
			{"dormant", "add table ip docker-bridges { flags dormant; }"},
		} {
			t.Run(name+" "+breakage.name, func(t *testing.T) {
				conn := newNamespace(t)
				nft(t, whole)
				before := strings.Split(nftList(t, "ruleset"), "\n")
				s := load(t, name)
				s.Host.Links = nil
				on := strings.HasSuffix(name, "-proxy")
				s.Engine.Config.UserlandProxy = &on
				read := func() {
					ruleset, err := nftwire.Read(conn.Execute)
					if err != nil {
						t.Fatal(err)
					}
					s.Host.Nft = ruleset
				}
				read()
				p := Expected(s)
				if got := p.Compare(s); len(got) > 0 {
					t.Fatalf("whole, but:\n%s", texts(got))
				}
				nft(t, breakage.script)
				read()
				found := p.Compare(s)
				if len(found) == 0 {
					t.Fatal("the breakage is not seen")
				}
				script, err := NftScript(p.Restore(s, found))
				if err != nil {
					t.Fatal(err)
				}
				nft(t, script)
				read()
				if got := p.Compare(s); len(got) > 0 {
					t.Errorf("restored, but:\n%s\nafter\n%s", texts(got), script)
				}
				after := strings.Split(nftList(t, "ruleset"), "\n")
				slices.Sort(before)
				slices.Sort(after)
				for _, line := range before {
					if !slices.Contains(after, line) && !strings.Contains(line, "elements =") && !strings.Contains(line, ": jump") {
						t.Errorf("restored, but there is no %s", line)
					}
				}
			})
		}
	}
}

func TestNftScriptRefuses(t *testing.T) {
	for _, text := range []string{"a\nflush ruleset", `iifname "x`, `a\b`} {
		if script, err := NftScript([]Edit{{Op: Insert, Table: nftTable, Chain: "c", Text: text}}); err == nil {
			t.Errorf("%q was written: %s", text, script)
		}
	}
}
