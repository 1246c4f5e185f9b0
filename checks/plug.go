package checks

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// plug gives the container its veth pair on the bridge and a namespace with a program that listens.
func plug(s *netstate.Snapshot, bridge string, c *netstate.Container) {
	highest := 0
	s.Host.Links = slices.Clone(s.Host.Links)
	for i := range s.Host.Links {
		highest = max(highest, s.Host.Links[i].Index)
	}
	nsid := 1<<20 + highest
	master := s.Host.Link(bridge)
	master.Carrier, master.State = master.Up, map[bool]string{true: "up", false: "down"}[master.Up] // an idle bridge has no carrier
	zero := 0
	e := &c.Endpoints[0]
	s.Host.Links = append(s.Host.Links, netstate.Link{Index: highest + 1, Name: "veth-of-any", Kind: "veth", Up: true, Carrier: true, State: "up", MTU: master.MTU,
		Master: master.Index, Peer: 2, PeerNS: &nsid, Port: &netstate.BridgePort{State: "forwarding", Hairpin: true, Learning: true, Flood: true}})
	s.Host.Routes = slices.Clone(s.Host.Routes)
	for i := range s.Host.Routes {
		r := &s.Host.Routes[i]
		r.Hops = slices.Clone(r.Hops)
		for j := range r.Hops {
			if r.Hops[j].Dev == bridge && master.Up {
				r.Hops[j].Flags = slices.DeleteFunc(slices.Clone(r.Hops[j].Flags), func(f string) bool { return strings.Contains(f, "down") || f == "dead" })
			}
		}
	}
	hop := []netstate.RouteHop{{Dev: "eth0"}}
	sandboxes := map[string]*netstate.Namespace{c.ID: {
		ID: "net:[" + c.ID + "]", NSID: &nsid,
		Links: []netstate.Link{{Index: 1, Name: "lo", Up: true, Carrier: true, State: "unknown", Loopback: true, MTU: 65536},
			{Index: 2, Name: "eth0", Kind: "veth", Up: true, Carrier: true, State: "up", MTU: master.MTU, MAC: e.MAC, Peer: highest + 1, PeerNS: &zero}},
		Addrs: []netstate.Addr{{Link: "lo", Prefix: netip.MustParsePrefix("127.0.0.1/8"), Scope: "host"}, {Link: "eth0", Prefix: e.IPv4, Scope: "global"}},
		Routes: []netstate.Route{
			{Family: netstate.IPv4, Table: 255, Type: "local", Dst: netip.PrefixFrom(e.IPv4.Addr(), 32), Protocol: "kernel", Hops: hop},
			{Family: netstate.IPv4, Table: 254, Type: "unicast", Dst: e.IPv4.Masked(), Protocol: "kernel", Hops: hop},
			{Family: netstate.IPv4, Table: 254, Type: "unicast", Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Hops: []netstate.RouteHop{{Dev: "eth0", Gateway: e.Gateway4}}},
		},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.forwarding": "1"},
		Sockets: []netstate.Socket{{Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort("0.0.0.0:80")}},
	}}
	for id, ns := range s.Sandboxes {
		sandboxes[id] = ns
	}
	s.Sandboxes = sandboxes
}
