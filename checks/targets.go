package checks

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Ask says which targets of the named containers are judged. The zero value asks for every published
// port from outside, and for the way out.
type Ask struct {
	Port   netstate.Port // the container's; zero for each
	From   string        // netstate.FromOutside, FromHost, FromLocalhost; "" for what the binding is meant for
	Client netip.Addr    // outside client; zero: one is assumed
	Iface  string        // link by which it comes in; "" by the route to it
	To     netip.AddrPort
	ToName string // --to CONTAINER
}

// documentation addresses stand for a client or destination that nobody named: nobody has them
// (RFC 5737, RFC 3849).
var assumed = map[netstate.Family][]netip.Addr{
	netstate.IPv4: {netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("192.0.2.9")},
	netstate.IPv6: {netip.MustParseAddr("2001:db8:ffff::9")},
}

// Targets returns what is to be judged of the containers that were asked for, in their order, and what is
// to be said where there is nothing to judge.
func Targets(s *netstate.Snapshot, ask Ask) (targets []netstate.Target, notes []string, err error) {
	for _, id := range s.Asked {
		c := s.Container(id)
		if c == nil {
			continue
		}
		in := ask.in(s, c)
		if len(in) == 0 && ask.Port == (netstate.Port{}) && !ask.To.IsValid() && ask.ToName == "" {
			notes = append(notes, c.Name+" publishes no port: only its way out is judged")
		}
		if !ask.To.IsValid() && ask.ToName == "" {
			targets = append(targets, in...)
		}
		if ask.Port == (netstate.Port{}) && ask.From == "" && !ask.Client.IsValid() {
			targets = append(targets, ask.out(s, c)...)
		}
	}
	if ask.Iface != "" && s.Host.Link(ask.Iface) == nil && s.Why(netstate.Key{Part: netstate.Links}) == "" {
		return nil, nil, fmt.Errorf("--iface %s: this host has no such interface", ask.Iface)
	}
	return targets, notes, nil
}

// in returns one target a published port and address family.
func (ask Ask) in(s *netstate.Snapshot, c *netstate.Container) []netstate.Target {
	bindings := c.Published
	if !c.Running {
		bindings = c.Configured // a stopped container has no live ports; what it asked for fails `running`
	}
	var targets []netstate.Target
	for _, b := range bindings {
		if ask.Port != (netstate.Port{}) && b.Port != ask.Port {
			continue
		}
		host := b.Host
		if !host.IsValid() {
			host = netip.IPv4Unspecified()
		}
		t := netstate.Target{
			Container: c.Name, ID: c.ID, Direction: netstate.In, Port: b.Port,
			Host: netip.AddrPortFrom(host, b.HostPort), Family: netstate.FamilyOf(host),
		}
		if ask.Client.IsValid() && netstate.FamilyOf(ask.Client) != t.Family {
			continue
		}
		t.From = ask.from(host)
		if t.From == netstate.FromOutside {
			t.Client, t.Assumed = ask.Client, false
			if !t.Client.IsValid() {
				t.Client, t.Assumed = assume(s, t.Family), true
			}
			t.Iface = ask.Iface
			if t.Family == netstate.IPv6 && t.Assumed && !reachesOut(s, netstate.IPv6) {
				continue // no client can come by IPv6 to a host that has none
			}
		}
		if !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	if len(bindings) == 0 && c.NetworkMode != "host" && ask.Port != (netstate.Port{}) {
		// The port was asked for by name: that it is not published is the answer.
		targets = append(targets, netstate.Target{
			Container: c.Name, ID: c.ID, Direction: netstate.In, From: ask.from(netip.IPv4Unspecified()), Port: ask.Port,
			Family: netstate.IPv4, Client: assume(s, netstate.IPv4), Assumed: true,
		})
	}
	return targets
}

// from returns where the client is: where the user said; else on the host for a binding that only the
// host can reach, and outside for any other.
func (ask Ask) from(host netip.Addr) string {
	switch {
	case ask.From != "":
		return ask.From
	case ask.Client.IsValid():
		return netstate.FromOutside
	case host.IsLoopback():
		return netstate.FromLocalhost
	}
	return netstate.FromOutside
}

// out returns the container's ways out: one for each family in which it has a gateway.
func (ask Ask) out(s *netstate.Snapshot, c *netstate.Container) []netstate.Target {
	if !c.Running || c.NetworkMode == "none" {
		return nil
	}
	var targets []netstate.Target
	for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		if ask.To.IsValid() && netstate.FamilyOf(ask.To.Addr()) != family {
			continue
		}
		hasGateway := false
		for _, e := range c.Endpoints {
			if family == netstate.IPv4 && e.Gateway4.IsValid() || family == netstate.IPv6 && e.Gateway6.IsValid() {
				hasGateway = true
			}
		}
		if !hasGateway || family == netstate.IPv6 && !ask.To.IsValid() && !reachesOut(s, family) {
			continue
		}
		t := netstate.Target{
			Container: c.Name, ID: c.ID, Direction: netstate.Out, From: netstate.FromContainer, Family: family,
			To: ask.To,
		}
		if !t.To.IsValid() {
			t.To, t.Assumed = netip.AddrPortFrom(assume(s, family), 0), true
		}
		targets = append(targets, t)
	}
	return targets
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

// reachesOut says whether the host has a global address and a default route of that family, so that a
// client beyond it is conceivable at all. What could not be read counts as a yes: then it is unknown.
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

// Name returns what a person calls the target: "web 80/tcp", "web out".
func Name(t netstate.Target) string {
	switch t.Direction {
	case netstate.In:
		return fmt.Sprintf("%s %s", t.Container, t.Port)
	case netstate.Peer:
		return fmt.Sprintf("%s → %s", t.Container, t.ToName)
	}
	return t.Container + " out"
}
