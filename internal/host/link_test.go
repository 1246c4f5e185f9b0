//go:build linux

package host

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"golang.org/x/sys/unix"
)

// newNetns returns a namespace of its own, with a function that runs a command there.
func newNetns(t *testing.T) (netns, func(command string)) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	var n netns
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	runtime.LockOSThread()
	if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
		n.file, err = os.Open("/proc/thread-self/ns/net")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
	t.Cleanup(func() { n.Close() })
	return n, func(command string) {
		t.Helper()
		if err := n.do(func() error {
			out, err := exec.Command("sh", "-ec", command).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %s", command, out)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// Every field of a link's IPv4 and IPv6 settings is at the place where the kernel has it: each is
// changed alone, and read.
func TestLinkSysctlPlaces(t *testing.T) {
	n, sh := newNetns(t)
	sh("ip link add v0 type veth peer name v1; ip link set v0 up")
	conn, err := dialRoute(n)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	values := func() map[string]string {
		_, values, err := readLinks(conn)
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	before := values()
	changed := 0
	for prefix, fields := range map[string][]confField{"net.ipv4.conf.v0.": ipv4Conf, "net.ipv6.conf.v0.": ipv6Conf} {
		for _, field := range fields {
			name := prefix + field.name
			path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
			var old string
			err := n.do(func() error {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				old = strings.TrimSpace(string(data))
				return os.WriteFile(path, []byte(flip(old)), 0)
			})
			if os.IsNotExist(err) { // an older kernel
				if _, ok := before[name]; ok {
					t.Errorf("%s was read, and is not there", name)
				}
				continue
			}
			if err != nil { // mc_forwarding is read-only
				if before[name] != old {
					t.Errorf("%s: read %q, is %q", name, before[name], old)
				}
				continue
			}
			changed++
			if before[name] != old || values()[name] != flip(old) {
				t.Errorf("%s: %q then %q, want %q then %q", name, before[name], values()[name], old, flip(old))
			}
			if err := n.do(func() error { return os.WriteFile(path, []byte(old), 0) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if changed < 25 {
		t.Errorf("only %d fields could be tried", changed)
	}
}

// flip returns another value for a switch.
func flip(value string) string {
	n, _ := strconv.Atoi(value)
	return strconv.Itoa(1 - min(n, 1))
}

// A thread that read in a namespace goes back: what runs later is in the program's own.
func TestNetnsGoesBack(t *testing.T) {
	n, _ := newNetns(t)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var inside string
		if err := n.do(func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if inside == own {
			t.Fatal("not inside")
		}
	}
	// Threads that other tests left may be about to end.
	left := []string{""}
	for deadline := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(deadline); {
		left = nil
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if now, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && now != own {
				left = append(left, "thread "+task.Name()+" in "+now)
			}
		}
	}
	if len(left) > 0 {
		t.Errorf("the program is in %s, and there are left: %s", own, left)
	}
}

// /proc/sys/net is that of the thread that opens it.
func TestSysctlsOfNamespace(t *testing.T) {
	n, sh := newNetns(t)
	sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.default.rp_filter=2 net.ipv4.ip_local_reserved_ports=8080,9000-9010")
	var values map[string]string
	if err := n.do(func() (err error) {
		values, err = machine{}.readSysctls(true)
		for _, name := range namespaceSysctls {
			text, missing := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
			if value, ok := values[name]; ok != (missing == nil) || value != strings.TrimSuffix(string(text), "\n") && name != "net.netfilter.nf_conntrack_count" {
				t.Errorf("%s = %q (there: %t), its file says %q, %v", name, value, ok, text, missing)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.forwarding": "1", "net.ipv4.conf.default.rp_filter": "2",
		"net.ipv4.ip_local_reserved_ports": "8080,9000-9010",
	} {
		if values[name] != want {
			t.Errorf("%s = %q, want %q", name, values[name], want)
		}
	}
}

// The VLANs of a port are those of its message of AF_BRIDGE.
func TestParseVLANs(t *testing.T) {
	info := func(flags, id uint16) []byte {
		return attribute(iflaBridgeVLANInfo, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, flags), id))
	}
	index, vlans, err := parseVLANs(message(linkHeader(7), attribute(unix.IFLA_AF_SPEC, slices.Concat(info(6, 1), info(4, 7), info(0, 9)))))
	want := []netstate.BridgeVLAN{{ID: 1, PVID: true, Untagged: true}, {ID: 7, Untagged: true}, {ID: 9}}
	if err != nil || index != 7 || !slices.Equal(vlans, want) {
		t.Errorf("link %d: %v, %v; want %v", index, vlans, err, want)
	}
}
