//go:build linux

package checks

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// The table of connections has one size for the whole machine, so no lab host can fill it.
func TestConntrackFull(t *testing.T) {
	for _, c := range []struct {
		count, limit string
		want         Status
	}{
		{"10", "262144", Pass}, {"89", "100", Pass}, {"90", "100", Warn}, {"100", "100", Fail}, {"5", "0", Pass}, {"", "", Pass},
	} {
		s := recorded(t, "28.5.2-proxy")
		s.Host.Sysctls["net.netfilter.nf_conntrack_count"], s.Host.Sysctls["net.netfilter.nf_conntrack_max"] = c.count, c.limit
		targets, _, err := Targets(s, Ask{})
		if err != nil {
			t.Fatal(err)
		}
		if got := Run([]*Check{Conntrack}, NewHost(s), targets[0])[0].Status; got != c.want {
			t.Errorf("%s of %s entries: %s, want %s", c.count, c.limit, got, c.want)
		}
	}
}

// A flow that was made while the container was away leads to the host itself.
func TestConntrackStale(t *testing.T) {
	s := recorded(t, "28.5.2-proxy")
	client, host := netip.MustParseAddr("203.0.113.200"), netip.MustParseAddr("203.0.113.10")
	flow := netstate.Flow{Family: netstate.IPv4, Proto: "udp",
		Original: netstate.Tuple{Src: netip.AddrPortFrom(client, 40000), Dst: netip.AddrPortFrom(host, 8082)},
		Reply:    netstate.Tuple{Src: netip.AddrPortFrom(host, 8082), Dst: netip.AddrPortFrom(client, 40000)}}
	s.Host.Flows = []netstate.Flow{flow}
	s.Asked = slices.DeleteFunc(s.Asked, func(id string) bool { return s.Container(id).Name != "cA" })
	judge := func(ask Ask) Status {
		ask.Port = netstate.Port{Number: 82, Proto: "udp"}
		targets, _, err := Targets(s, ask)
		if err != nil || len(targets) == 0 {
			t.Fatal(targets, err)
		}
		return Run([]*Check{Conntrack}, NewHost(s), targets[0])[0].Status
	}
	if got := judge(Ask{Client: client}); got != Fail {
		t.Errorf("for its client: %s, want fail", got)
	}
	if got := judge(Ask{}); got != Warn {
		t.Errorf("for another client: %s, want warn", got)
	}
	s.Host.Flows[0].Reply.Src = netip.AddrPortFrom(s.Container(s.Asked[0]).Endpoints[0].IPv4.Addr(), 82)
	if got := judge(Ask{}); got != Pass {
		t.Errorf("a flow to the container: %s, want pass", got)
	}
}
