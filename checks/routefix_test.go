package checks

import (
	"net/netip"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// TestPastRoute leads past a route of somebody else's, in its table, by one for the container alone; only one that is
// for the container alone itself is taken out, and only where it can be written as it was.
func TestPastRoute(t *testing.T) {
	addr := netip.MustParseAddr("172.17.0.2")
	alone := func(r netstate.Route) []netstate.Route {
		r.Family, r.Dst = netstate.IPv4, netip.MustParsePrefix("172.17.0.2/32")
		return []netstate.Route{r}
	}
	step := func(s remediate.Step) *remediate.Step { return &s }
	for _, c := range []struct {
		object string
		routes []netstate.Route
		want   *remediate.Step
	}{
		{"route 172.17.0.0/24 dev tun0", nil, step(remediate.Add("route", "172.17.0.2", "dev docker0"))},
		{"route 172.17.0.0/16 dev tailscale0 table 52 metric 7", nil, step(remediate.Add("route", "172.17.0.2 table 52", "dev docker0"))},
		{"route 172.17.0.2 dev tun0", alone(netstate.Route{Table: 254, Type: "unicast", Protocol: "static", Hops: []netstate.RouteHop{{Dev: "tun0", Gateway: netip.MustParseAddr("10.8.0.1")}}}),
			step(remediate.Remove("route", "172.17.0.2", "via 10.8.0.1 dev tun0 proto static"))},
		{"route blackhole 172.17.0.2", alone(netstate.Route{Table: 254, Type: "blackhole", Protocol: "boot"}), step(remediate.Remove("route", "172.17.0.2", "blackhole"))},
		{"route 172.17.0.0/24 dev tun0", alone(netstate.Route{Table: 52, Type: "blackhole", Protocol: "boot"}), step(remediate.Add("route", "172.17.0.2", "dev docker0"))},
		{"route 172.17.0.2 nhid 7", alone(netstate.Route{Table: 254, Type: "unicast", Protocol: "boot", Nexthop: 7}), nil},
		{"route local 172.17.0.0/24 dev lo table local", nil, nil},
		{"link docker0", nil, nil},
	} {
		h := NewHost(&netstate.Snapshot{Host: netstate.Namespace{Routes: c.routes}})
		fix := pastRoute(h, netstate.IPv4, c.object, addr, "docker0")
		switch {
		case c.want == nil && fix == nil:
		case fix == nil, c.want == nil, len(fix.Steps) != 1, !fix.Opens:
			t.Errorf("%s: %+v", c.object, fix)
		default:
			if diff := cmp.Diff(*c.want, fix.Steps[0]); diff != "" {
				t.Errorf("%s: %s", c.object, diff)
			}
		}
	}
}

// TestBridgeRoute gives the route to the container's subnet back where the main table has lost it, and no other of the bridge's.
func TestBridgeRoute(t *testing.T) {
	route := func(dst string, table uint32) netstate.Route {
		return netstate.Route{Family: netstate.IPv4, Table: table, Type: "unicast", Dst: netip.MustParsePrefix(dst), Hops: []netstate.RouteHop{{Dev: "docker0"}}}
	}
	for _, c := range []struct {
		name, want string
		routes     []netstate.Route
	}{
		{"it is there, that of another address is not", "", []netstate.Route{route("172.17.0.0/16", 254)}},
		{"it is in a VPN's table alone", "172.17.0.0/16", []netstate.Route{route("10.9.9.0/24", 254), route("172.17.0.0/16", 52)}},
		{"neither is there", "172.17.0.0/16", nil},
	} {
		h := NewHost(&netstate.Snapshot{Host: netstate.Namespace{Routes: c.routes, Addrs: []netstate.Addr{
			{Link: "docker0", Prefix: netip.MustParsePrefix("10.9.9.1/24")}, {Link: "docker0", Prefix: netip.MustParsePrefix("172.17.0.1/16")}}}})
		got := ""
		if fix := bridgeRoute(h, netip.MustParseAddr("172.17.0.2"), "docker0"); fix != nil {
			got = fix.Steps[0].Name
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestBeforeRule goes before the rule, for the container's packets of that direction alone.
func TestBeforeRule(t *testing.T) {
	for _, c := range []struct {
		object, addr, want string
		to                 bool
	}{
		{"rule 100: from 172.17.0.0/16 prohibit", "172.17.0.2", "99: from 172.17.0.2 lookup 254", false},
		{"rule 100: from all to 172.17.0.0/16 prohibit", "172.17.0.2", "99: from all to 172.17.0.2 lookup 254", true},
		{"rule 100: from fd00::/8 prohibit", "fd00::2", "-6 99: from fd00::2 lookup 254", false},
		{"rule 1: from all prohibit", "172.17.0.2", "", false}, // the place before it is the table local's
	} {
		addr := netip.MustParseAddr(c.addr)
		fix := beforeRule(&Host{}, netstate.Target{Family: netstate.FamilyOf(addr)}, c.object, addr, c.to)
		if c.want == "" && fix == nil {
			continue
		}
		if fix == nil || len(fix.Steps) != 1 || fix.Steps[0].Name != c.want || !fix.Opens {
			t.Errorf("%s: %+v", c.object, fix)
		}
	}
}
