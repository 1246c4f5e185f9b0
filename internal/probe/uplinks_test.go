//go:build linux

package probe

import (
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// TestTwoUplinks has a client that the host reaches by another uplink than others, and that may come in by
// either: each time it meets what the real one meets, and the segment sees nothing of it.
func TestTwoUplinks(t *testing.T) {
	h := healthy(t, lab.Options{Clients: 2})
	client := h.Clients[1]
	secondUplink(t, h, client)
	const far, other = "192.0.2.50", "192.0.2.51" // the real client, and the probe's
	for _, c := range []struct {
		name, script, server, iface string
		outcome                     Outcome
		result                      string
	}{
		{"its own uplink", "", "10.9.9.1:8080", "eth1", Connected, Proved},
		{"by the other, back by its own", "", lab.HostAddr + ":8080", "eth0", Connected, Unproved},
		{"by the other, which is strict", "sysctl -qw net.ipv4.conf.eth0.rp_filter=1", lab.HostAddr + ":8080", "eth0", Silent, Proved},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := h.Sh(t.Context(), c.script); err != nil {
				t.Fatal(err)
			}
			met := lab.Outcome(connect(t, client.Netns, far, c.server, time.Second))
			segment := listenOnSegment(t, h)
			a := observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Client: netip.MustParseAddr(other), Iface: c.iface, Timeout: 700 * time.Millisecond})
			if a.Errors[0] != "" {
				t.Fatal(a.Errors[0])
			}
			segment(netip.MustParseAddr(other))
			o := a.Observations[0]
			v := Compare(packet.New(a.Snapshot).Walk(o.Target), o)
			t.Logf("a real client: %s, the probe: %s, reply by %v; %s: %s", met, o.outcome(), o.ReplyBy, v.Result, v.Why)
			if o.Outcome != c.outcome || met != outcomes[c.outcome] || v.Result != c.result {
				t.Errorf("should be %s and %s: %s", c.outcome, c.result, o)
			}
			if o.Outcome.Well() && !slices.Equal(o.ReplyBy, []string{"eth1"}) {
				t.Errorf("reply by %v", o.ReplyBy)
			}
		})
	}
}

// secondUplink gives the host eth1, at the other end of which is the client as 10.9.9.2, and 192.0.2.0/24
// behind it.
func secondUplink(t *testing.T, h *lab.Host, client *lab.Client) {
	t.Helper()
	var ns *os.File
	err := client.Do(func() (err error) {
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth1"
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerNamespace = "eth1", netlink.NsFd(ns.Fd())
		return netlink.LinkAdd(veth)
	})
	if err != nil {
		t.Fatal(err)
	}
	for n, script := range map[*lab.Netns]string{
		h.Netns: "ip addr add 10.9.9.1/24 dev eth1; ip link set eth1 up; ip route add 192.0.2.0/24 via 10.9.9.2",
		client.Netns: "ip addr add 10.9.9.2/24 dev eth1; ip link set eth1 up; ip addr add 192.0.2.50/32 dev lo; ip route add 172.17.0.0/16 via 10.9.9.1;" +
			"for l in all eth0 eth1; do echo 0 >/proc/sys/net/ipv4/conf/$l/rp_filter; done",
	} {
		if _, err := n.Sh(t.Context(), script); err != nil {
			t.Fatal(err)
		}
	}
}
