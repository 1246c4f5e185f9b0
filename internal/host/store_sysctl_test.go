//go:build linux

package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"golang.org/x/sys/unix"
)

// confs returns every sysctl of net.ipv4.conf, net.ipv6.conf and net.ipv4.ip_forward of the thread's
// namespace.
func confs(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, glob := range []string{"ipv4/conf/*/*", "ipv6/conf/*/*", "ipv4/ip_forward"} {
		files, err := filepath.Glob("/proc/sys/net/" + glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if filepath.Base(file) == "stable_secret" { // cannot be read until it was written
				continue
			}
			value, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString(file + " = " + string(value))
		}
	}
	return out.String()
}

func sysctl(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func TestSysctlStore(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []remediate.Step
	}{
		{"one of a link", []remediate.Step{remediate.Set("sysctl", "net.ipv4.conf.eth0/100.forwarding", "0", "1")}},
		{"global", []remediate.Step{remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "1")}},
		{"global under its other name", []remediate.Step{remediate.Set("sysctl", "net.ipv4.conf.all.forwarding", "0", "1")}},
		{"default", []remediate.Step{remediate.Set("sysctl", "net.ipv4.conf.default.rp_filter", "0", "1")}},
		{"IPv6", []remediate.Step{
			remediate.Set("sysctl", "net.ipv6.conf.eth0/100.accept_ra", "1", "2"),
			remediate.Set("sysctl", "net.ipv6.conf.all.forwarding", "0", "1"),
		}},
		{"both families", []remediate.Step{
			remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "1"),
			remediate.Set("sysctl", "net.ipv6.conf.all.forwarding", "0", "1"),
			remediate.Set("sysctl", "net.ipv4.conf.all.rp_filter", "0", "2"),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ownNetns(t)
			ip(t, "link add eth0.100 type veth peer name peer\nlink add br0 type bridge\nlink set lo up")
			// Hosts differ from link to link, and a global value that is written hides that.
			sysctl(t, "ipv4/conf/br0/forwarding", "1")
			sysctl(t, "ipv4/conf/default/accept_redirects", "0")
			sysctl(t, "ipv4/conf/peer/accept_redirects", "0")
			sysctl(t, "ipv6/conf/br0/forwarding", "1")
			roundTrip(t, test.steps, func() string { return confs(t) }, nil)
		})
	}
}

// What was switched off after it had been on is not as it was before: only the vector brings it back.
func TestSysctlUnequal(t *testing.T) {
	ownNetns(t)
	ip(t, "link add v0 type veth peer name v1")
	sysctl(t, "ipv4/ip_forward", "1")
	sysctl(t, "ipv4/ip_forward", "0")
	sysctl(t, "ipv4/conf/v1/forwarding", "1")
	sysctl(t, "ipv4/conf/all/accept_redirects", "0")
	roundTrip(t, []remediate.Step{remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "1")},
		func() string { return confs(t) }, nil)
}

// A process that is killed between writing a global value and the vector leaves what the kernel made of it.
func TestSysctlCutOff(t *testing.T) {
	ownNetns(t)
	ip(t, "link add v0 type veth peer name v1")
	sysctl(t, "ipv4/conf/v1/forwarding", "1")
	before := confs(t)
	store := Stores()["sysctl"]
	step, _, err := store.Look(context.Background(), remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "1"))
	if err != nil {
		t.Fatal(err)
	}
	back := step.Reverse()
	back.Settle = true
	for _, value := range []string{"1", "1\n0"} { // killed on the way there, and once more on the way back
		for _, one := range strings.Fields(value) {
			sysctl(t, "ipv4/ip_forward", one)
		}
		if _, err := store.Swap(context.Background(), []remediate.Step{back}); err != nil {
			t.Fatal(err)
		}
		if confs(t) != before {
			t.Errorf("cut off at %q: not restored", value)
		}
	}
}

func TestSysctlRefuses(t *testing.T) {
	ownNetns(t)
	store := Stores()["sysctl"]
	before := confs(t)
	for _, test := range []struct {
		name string
		step remediate.Step
		want string
	}{
		{"changed", remediate.Set("sysctl", "net.ipv4.ip_forward", "7", "1"), `sysctl net.ipv4.ip_forward: changed since it was read: expected "7", found "0"`},
		{"gone", remediate.Set("sysctl", "net.ipv4.conf.none.forwarding", "0", "1"), `sysctl net.ipv4.conf.none.forwarding: changed since it was read: expected "0", found nothing`},
		{"removal", remediate.Remove("sysctl", "net.ipv4.ip_forward", "0"), "sysctl net.ipv4.ip_forward: a sysctl cannot be removed"},
		{"no value of it", remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "x"), `sysctl net.ipv4.ip_forward: write "x": invalid argument`},
		{"made of it", remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "01"), `sysctl net.ipv4.ip_forward: the kernel makes "1" of "01"`},
		{"elsewhere", remediate.Set("sysctl", "kernel.hostname", "a", "b"), `sysctl kernel.hostname: "kernel.hostname" is no sysctl of the network`},
		{"way out", remediate.Set("sysctl", "net.//.//.kernel.hostname", "a", "b"), `sysctl net.//.//.kernel.hostname: "net.//.//.kernel.hostname" is no name of a sysctl`},
		{"other namespace", remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "1").Guarded(remediate.GuardNetns, "net:[1]"), "sysctl net.ipv4.ip_forward: changed since it was read: this is namespace"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := store.Swap(context.Background(), []remediate.Step{test.step}); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	if after := confs(t); after != before {
		t.Error("something changed")
	}
	_, err := store.Swap(context.Background(), []remediate.Step{remediate.Set("sysctl", "net.ipv4.ip_forward", "7", "1")})
	if !errors.Is(err, remediate.ErrChanged) {
		t.Errorf("%v is no ErrChanged", err)
	}
}

// A default route from router advertisements is not lost.
func TestSysctlKeepsRoutes(t *testing.T) {
	ownNetns(t)
	ip(t, "link add v0 type veth peer name v1\nlink set v0 up\nlink set v1 up\nroute add ::/0 via fe80::1 dev v0 proto ra\n")
	before := confs(t)
	forward := remediate.Set("sysctl", "net.ipv6.conf.all.forwarding", "0", "1")
	accept := remediate.Set("sysctl", "net.ipv6.conf.v0.accept_ra", "1", "2")
	for _, step := range []remediate.Step{forward, remediate.Set("sysctl", "net.ipv6.conf.v0.forwarding", "0", "1")} {
		_, err := Stores()["sysctl"].Swap(context.Background(), []remediate.Step{step})
		if err == nil || !strings.HasSuffix(err.Error(), "v0 would lose its default route, which it has from router advertisements: it needs accept_ra = 2 first") {
			t.Errorf("%s: %v", step.Name, err)
		}
	}
	if confs(t) != before {
		t.Error("something changed")
	}
	roundTrip(t, []remediate.Step{accept, forward}, func() string { return confs(t) }, nil)
}

// Where /proc/sys cannot be written nothing changes, and the run is rolled back.
func TestSysctlReadOnly(t *testing.T) {
	ownNetns(t)
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // of this thread alone, which ends with the test
		t.Fatal(err)
	}
	for _, mount := range []struct {
		from, to string
		flags    uintptr
	}{{"", "/", unix.MS_REC | unix.MS_PRIVATE}, {"/proc/sys", "/proc/sys", unix.MS_BIND}, {"", "/proc/sys", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY}} {
		if err := unix.Mount(mount.from, mount.to, "", mount.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	plan := &remediate.Plan{Steps: []remediate.Step{remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "1")}}
	run, err := journal.Apply(context.Background(), plan, Stores(), Facts(nil))
	if !errors.Is(err, unix.EROFS) || err.Error() != "sysctl net.ipv4.ip_forward: read-only file system" || run.State != remediate.RolledBack {
		t.Errorf("%v, run %+v", err, run)
	}
}
