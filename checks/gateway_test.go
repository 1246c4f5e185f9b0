//go:build linux

package checks

import (
	"net/netip"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// TestWrongGatewayOfAnotherLink leads the default route back by the link on which its gateway is: by the one that the
// wrong route has, the kernel would not take it.
func TestWrongGatewayOfAnotherLink(t *testing.T) {
	for _, c := range []struct{ name, mac, want string }{
		{"the link is known", "", "via 192.0.2.1 dev eth0"},
		{"the link is not known", "02:00:00:00:00:99", ""},
	} {
		s := recorded(t, "28.5.2-noproxy")
		web := published(t, s)
		ns := s.Sandboxes[web.ID]
		ns.Links = append(ns.Links, netstate.Link{Index: 99, Name: "eth1", Up: true, Carrier: true})
		if c.mac != "" {
			ns.Link("eth0").MAC = c.mac
		}
		for i := range ns.Routes {
			if r := &ns.Routes[i]; r.Family == netstate.IPv4 && r.Dst.Bits() == 0 {
				r.Protocol = "boot"
				r.Hops = []netstate.RouteHop{{Dev: "eth1", Gateway: netip.MustParseAddr("172.30.0.77")}}
			}
		}
		h, out := NewHost(s), netstate.Target{Container: web.Container, ID: web.ID, Direction: netstate.Out, Family: netstate.IPv4}
		h.whole.traces[out] = &packet.Trace{Stops: []packet.Stop{{Hop: packet.Container, Kind: packet.Neighbour, Verdict: packet.Drop,
			Why: "no answer from 172.30.0.77", Object: "neigh 172.30.0.77 dev eth1 in container cA"}}}
		findings, got := wrongGateway(h, out), ""
		if len(findings) != 1 {
			t.Fatalf("%s: %+v", c.name, findings)
		}
		if fix := findings[0].Fix; fix != nil {
			got = *fix.Steps[0].New
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
