package checks

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// assumed are the addresses that stand for a client or destination that nobody named: nobody has them, as they
// are for documentation (RFC 5737, RFC 3849).
var assumed = map[netstate.Family][]netip.Addr{
	netstate.IPv4: {netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("192.0.2.9")},
	netstate.IPv6: {netip.MustParseAddr("2001:db8:ffff::9")},
}

// assume returns an address that lies beyond the default route of the host: in none of the networks
// that it reaches otherwise.
func assume(s *netstate.Snapshot, family netstate.Family) netip.Addr {
candidates:
	for _, addr := range assumed[family] {
		for _, r := range s.Host.Routes {
			if r.Family == family && r.Dst.Bits() > 0 && r.Dst.Contains(addr) {
				continue candidates
			}
		}
		return addr
	}
	return assumed[family][0]
}

// reachesOut says whether the host has a default route of that family, so that a client beyond it is
// conceivable at all. What could not be read counts as a yes: then it is unknown.
func reachesOut(s *netstate.Snapshot, family netstate.Family) bool {
	if s.Why(netstate.Key{Part: netstate.Routes}) != "" {
		return true
	}
	for _, r := range s.Host.Routes {
		if r.Family == family && r.Dst.Bits() == 0 && r.Type == "unicast" {
			return true
		}
	}
	return false
}

// servesIPv6 says whether an IPv6 binding is meant for anything: without docker-proxy, the engine lists the
// bindings of a container that has no IPv6 address, and nothing serves them; nor does anything take ::1 to
// a container, as IPv6 has no route_localnet.
func servesIPv6(s *netstate.Snapshot, c *netstate.Container, host netip.Addr, from string) bool {
	proxy := s.Engine == nil || s.Engine.Config.UserlandProxy == nil || *s.Engine.Config.UserlandProxy
	if from == netstate.FromLocalhost {
		return proxy
	}
	return proxy || !host.IsUnspecified() || slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return e.IPv6.IsValid() })
}

// lostClients says which clients of the internet the host answers into one of Docker's networks, where some
// client was assumed: the one that was lies elsewhere.
func lostClients(s *netstate.Snapshot, targets []netstate.Target) (notes []string) {
	if !slices.ContainsFunc(targets, func(t netstate.Target) bool { return t.From == netstate.FromOutside && t.Assumed }) {
		return nil
	}
	for _, r := range s.Host.Routes {
		if r.Family != netstate.IPv4 || r.Type != "unicast" || r.Dst.Bits() == 0 || !r.Dst.Addr().IsGlobalUnicast() || r.Dst.Addr().IsPrivate() || carrier.Contains(r.Dst.Addr()) {
			continue
		}
		for _, hop := range r.Hops {
			if slices.ContainsFunc(s.Networks, func(n netstate.Network) bool {
				return n.Bridge() == hop.Dev && hop.Dev != "" && n.GatewayMode(netstate.IPv4) != "routed" // its addresses are given out there
			}) {
				notes = append(notes, fmt.Sprintf("if %s is not this host's own, clients in it get no answer: this host takes them to be in Docker's network on %s (--client ADDR judges one)", r.Dst, hop.Dev))
			}
		}
	}
	return notes
}

// carrier is private in effect: RFC 6598.
var carrier = netip.MustParsePrefix("100.64.0.0/10")
