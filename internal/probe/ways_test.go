//go:build linux

package probe

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// healthy starts a host with a web server on 8080, and over UDP an echo on 5353.
func healthy(t *testing.T, o lab.Options) *lab.Host {
	t.Helper()
	h := lab.New(t, o)
	if err := h.Web(t.Context(), "web", "-p", "8080:80", "-p", "5353:53/udp"); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestEveryOrigin makes a connection from each place that there is, by each protocol.
func TestEveryOrigin(t *testing.T) {
	h := healthy(t, lab.Options{IPv6: true, Daemon: v6Daemon})
	if err := h.Web(t.Context(), "peer"); err != nil {
		t.Fatal(err)
	}
	web, err := h.Container(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := h.ContainerAddr(t.Context(), "peer", "bridge")
	if err != nil {
		t.Fatal(err)
	}
	stop, err := web.Echo("0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	peer := netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
	targets := []insideTarget{
		{From: netstate.FromOutside, Client: nobody},
		{From: netstate.FromOutside, Client: nobody, HTTP: true},
		{From: netstate.FromOutside, Client: nobody, Proto: "udp"},
		{From: netstate.FromOutside, Client: nobody, ICMP: true},
		{From: netstate.FromOutside, Client: nobody, Lacks: []string{"tcx"}},
		{From: netstate.FromOutside, Client: nobody6, V6: true},
		{From: netstate.FromOutside, Client: nobody6, V6: true, ICMP: true},
		{From: netstate.FromOutside, Client: nobody6, V6: true, HTTP: true},
		{From: netstate.FromHost},
		{From: netstate.FromLocalhost},
		{From: netstate.FromHost, V6: true},
		{From: netstate.FromLocalhost, V6: true},
		{To: peer},
		{To: netip.AddrPortFrom(peer.Addr(), 0)},
	}
	before := leftovers(t, h)
	a := observeIn(t, h, "web", targets...)
	for i, o := range a.Observations {
		if a.Errors[i] != "" {
			t.Errorf("%+v: %s", targets[i], a.Errors[i])
			continue
		}
		v := Compare(packet.New(a.Snapshot).Walk(o.Target), o)
		t.Logf("%s from %s: %s (%s), %d copies, %d rules, %d drops, conntrack %v; %s: %s", o.Flow, o.Target.From, o.Outcome, o.Answer, len(o.Copies), len(o.Rules), len(o.Drops), o.Conntrack != nil, v.Result, v.Why)
		if !o.Outcome.Well() || len(o.Missing) > 0 {
			t.Errorf("%s: %s %v", o.Flow, o.Outcome, o.Missing)
		}
		if targets[i].HTTP && !strings.HasPrefix(o.Answer, "HTTP/1.") {
			t.Errorf("%s: answer %q", o.Flow, o.Answer)
		}
		if o.Conntrack == nil {
			t.Errorf("%s: no conntrack entry", o.Flow)
		}
	}
	if after := leftovers(t, h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestOtherUplinks has a bridge, and a tunnel without link layer, where the packets come in or go out.
func TestOtherUplinks(t *testing.T) {
	for _, c := range []struct {
		name, script, iface string
		outcome             Outcome
		replyBy             string
	}{
		{"a bridge", `ip link add br0 type bridge; ip addr flush dev eth0; ip link set br0 up; ip link set eth0 master br0
			ip addr add 198.51.100.15/24 dev br0; ip route add default via 198.51.100.2`, "br0", Connected, "br0"},
		{"a bond", `ip link add bond0 type bond mode active-backup; ip addr flush dev eth0; ip link set eth0 down; ip link set eth0 master bond0
			ip link set bond0 up; ip addr add 198.51.100.15/24 dev bond0; ip route add default via 198.51.100.2`, "bond0", Connected, "bond0"},
		{"a tunnel back", `ip tuntap add tun0 mode tun; ip addr add 10.8.0.1/24 dev tun0; ip link set tun0 up; ip route replace default dev tun0`, "eth0", Connected, "tun0"},
		{"a tunnel", `ip tuntap add tun0 mode tun; ip addr add 10.8.0.1/24 dev tun0; ip link set tun0 up; ip route replace default dev tun0`, "tun0", Connected, "tun0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := healthy(t, lab.Options{})
			if out, err := h.Sh(t.Context(), c.script); err != nil {
				if strings.Contains(err.Error(), "Unknown device type") || strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "/dev/net/tun") {
					t.Skipf("NOT COVERED here, %s as uplink: the kernel has no such links: %v", c.name, err)
				}
				t.Fatal(out, err)
			}
			if strings.Contains(c.script, "tuntap") {
				// Without a program that holds it a tunnel has no carrier, and packets for it are dropped.
				hold(t, h, "tun0")
			}
			segment := listenOnSegment(t, h)
			a := observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Client: nobody, Iface: c.iface})
			segment(nobody)
			if a.Errors[0] != "" {
				t.Fatal(a.Errors[0])
			}
			o := a.Observations[0]
			if o.Outcome != c.outcome || !slices.Equal(o.ReplyBy, []string{c.replyBy}) {
				t.Errorf("%s (%s), reply by %v: %+v", o.Outcome, o.Answer, o.ReplyBy, o.Copies)
			}
		})
	}
}

// hold opens a tunnel's device inside of the host, as a VPN's program does.
func hold(t *testing.T, h *lab.Host, name string) {
	t.Helper()
	err := h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0) // belongs to this namespace
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	if err != nil {
		t.Skip(err)
	}
}

// TestForeignIngress: beside tcx others' classifiers do not matter; on older kernels a probe does not
// touch a clsact discipline that somebody else has.
func TestForeignIngress(t *testing.T) {
	h := healthy(t, lab.Options{})
	if _, err := h.Sh(t.Context(), "tc qdisc add dev eth0 clsact"); err != nil {
		t.Fatal(err)
	}
	before := leftovers(t, h)
	a := observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Client: nobody}, insideTarget{From: netstate.FromOutside, Client: nobody, Lacks: []string{"tcx"}})
	if a.Errors[0] != "" || a.Observations[0].Outcome != Connected {
		t.Errorf("beside clsact: %s %+v", a.Errors[0], a.Observations[0])
	}
	if !strings.HasPrefix(a.Errors[1], ErrRefused.Error()) {
		t.Errorf("before tcx: %q %+v", a.Errors[1], a.Observations[1])
	}
	if after := leftovers(t, h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestKilled kills the probe at many points: the kernel takes everything away, and where it is an older
// one, what a journal says does.
func TestKilled(t *testing.T) {
	h := healthy(t, lab.Options{})
	before := leftovers(t, h)
	times := 10
	if n, err := strconv.Atoi(os.Getenv("NETCHECK_TEST_KILLS")); err == nil {
		times = n
	}
	kill := func(after time.Duration, o insideTarget) {
		words := insideWords(t, h, insideRequest{Container: "web", Targets: []insideTarget{o}})
		// The kernel ends what a killed process held; the next command is a moment later.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cmd := h.Command(ctx, words[0], words[1:]...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if o.Stay {
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
				t.Errorf("%q: %v", line, err)
			}
		} else {
			time.Sleep(after)
		}
		cancel()
		cmd.Wait()
	}
	for i := range times {
		kill(time.Duration(i)*200*time.Millisecond/time.Duration(times), insideTarget{From: netstate.FromOutside, Client: nobody})
	}
	kill(0, insideTarget{From: netstate.FromOutside, Client: nobody, Stay: true})
	gone(t, h, before)
	kill(0, insideTarget{Out: true, Client: nobody, Stay: true})
	gone(t, h, before)

	kill(0, insideTarget{From: netstate.FromOutside, Client: nobody, Stay: true, Lacks: []string{"tcx"}})
	tag := ""
	for line := range strings.Lines(leftovers(t, h)) {
		if _, rest, ok := strings.Cut(line, "netcheck-"); ok {
			tag = rest[:8]
		}
	}
	if tag == "" {
		t.Fatal("a killed probe of the older way left no filter: the test shows nothing")
	}
	// What the journal had been told before, undo takes away.
	err := h.Do(func() error { return undoProbe(t, &Request{Tag: tag, Client: nobody}) })
	if err != nil {
		t.Error(err)
	}
	gone(t, h, before)
}

// undoProbe writes a probe down in a journal, and takes it back.
func undoProbe(t *testing.T, r *Request) error {
	plan, err := remediate.NewPlan([]*remediate.Fix{{Title: "one live connection", Steps: r.Installs()}}, false)
	if err != nil {
		return err
	}
	facts := func(_ context.Context, step remediate.Step, guard string) (string, error) {
		return step.Guards[guard], nil // the same boot, the same namespace
	}
	journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	stores := remediate.Stores{Kind: Store{}}
	run, err := journal.Apply(t.Context(), plan, stores, facts)
	if err != nil {
		return err
	}
	if !run.Altered() {
		t.Error("the journal says that nothing was made")
	}
	_, err = journal.Undo(t.Context(), run.ID, stores, facts)
	return err
}

// TestOnLinkClient names a real neighbour as the client: the probe takes its part, and the neighbour
// notices nothing.
func TestOnLinkClient(t *testing.T) {
	h := healthy(t, lab.Options{Clients: 2})
	real := h.Clients[1]
	if err := real.Connect(t.Context(), lab.HostAddr+":8080"); err != nil { // now the host knows it
		t.Fatal(err)
	}
	confirm := fmt.Sprintf("set -- $(ip neigh show %s dev eth0); ip neigh replace %[1]s dev eth0 lladdr $3 nud reachable", real.Addr)
	if _, err := h.Sh(t.Context(), confirm); err != nil {
		t.Fatal(err)
	}
	before := leftovers(t, h)
	segment := listenOnSegment(t, h)
	a := observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Client: netip.MustParseAddr(real.Addr)})
	if a.Errors[0] != "" {
		t.Fatal(a.Errors[0])
	}
	if a.Observations[0].Outcome != Connected {
		t.Errorf("%s", a.Observations[0])
	}
	segment(netip.MustParseAddr(real.Addr))
	if err := real.Connect(t.Context(), lab.HostAddr+":8080"); err != nil {
		t.Errorf("the real client afterwards: %v", err)
	}
	if after := leftovers(t, h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	a = observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Client: netip.MustParseAddr("198.51.100.77")})
	if !strings.HasPrefix(a.Errors[0], ErrRefused.Error()) {
		t.Errorf("a neighbour that is not there: %q", a.Errors[0])
	}
}

// gone waits until a host is as it was: the kernel ends namespaces in its own time.
func gone(t *testing.T, h *lab.Host, before string) {
	t.Helper()
	var after string
	for range 100 {
		if after = leftovers(t, h); after == before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("before:\n%s\nafter:\n%s", before, after)
}
