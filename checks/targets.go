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
	SPort  uint16        // its port: what is asked about is that connection; 0: a new one
	Iface  string        // link by which it comes in; "" by the route to it
	To     netip.AddrPort
	ToName string        // another container: its name, its ID or the beginning of one
	ToPort netstate.Port // of it; zero: each that it offers
}

// to says whether a destination was named.
func (ask Ask) to() bool { return ask.To.IsValid() || ask.ToName != "" }

// named says whether a port or a client was named.
func (ask Ask) named() bool {
	return ask.Port != (netstate.Port{}) || ask.Client.IsValid() || ask.From != ""
}

// Targets returns what is to be judged of the containers that were asked for, in their order, and what is
// to be said where there is nothing to judge.
func Targets(s *netstate.Snapshot, ask Ask) (targets []netstate.Target, notes []string, err error) {
	peer, err := ask.peer(s)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range s.Asked {
		c := s.Container(id)
		switch {
		case c == nil:
		case peer != nil:
			if c != peer {
				targets = append(targets, ask.peers(s, c, peer)...)
			}
		case ask.to():
			targets = append(targets, ask.out(s, c)...)
		default:
			in := ask.in(s, c)
			targets = append(targets, in...)
			if !ask.named() && (c.Running || len(in) == 0) {
				targets = append(targets, ask.out(s, c)...)
			}
			if note := design(s, c); note != "" {
				notes = append(notes, note)
			} else if len(in) == 0 && c.Running && cutOff(s, c) == "" {
				notes = append(notes, c.Name+" publishes no port: only its way out is judged")
			}
		}
	}
	if note := rootless(s); note != "" {
		notes = append(notes, note)
	}
	if peer != nil && len(targets) == 0 {
		return nil, nil, fmt.Errorf("--to %s: is the container itself", ask.ToName)
	}
	if ask.Iface != "" && s.Host.Link(ask.Iface) == nil && s.Why(netstate.Key{Part: netstate.Links}) == "" {
		return nil, nil, fmt.Errorf("--iface %s: this host has no such interface", ask.Iface)
	}
	return targets, append(notes, lostClients(s, targets)...), nil
}

// in returns one target a published port and address family, and one for each port that was to be published
// and is not.
func (ask Ask) in(s *netstate.Snapshot, c *netstate.Container) []netstate.Target {
	owner := donor(s, c)
	var targets []netstate.Target
	for _, b := range bindings(owner) {
		if ask.Port != (netstate.Port{}) && b.Port != ask.Port || b.HostPort == 0 && owner.Running && !ask.named() {
			continue
		}
		if t := ask.inTarget(s, c, owner, b); t != (netstate.Target{}) && !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	if len(targets) > 0 || ask.Port == (netstate.Port{}) || slices.ContainsFunc(bindings(owner), func(b netstate.Binding) bool { return b.Port == ask.Port }) {
		return targets
	}
	// The port was asked for by name: that it is not published is the answer. With the host's network it
	// needs no publishing.
	t := ask.inTarget(s, c, owner, netstate.Binding{Port: ask.Port, Host: netip.IPv4Unspecified(), HostPort: ask.Port.Number})
	if owner.NetworkMode != "host" {
		t.Host = netip.AddrPort{}
	}
	return []netstate.Target{t}
}

// inTarget returns the target of one binding; none if no client can come to it.
func (ask Ask) inTarget(s *netstate.Snapshot, c, owner *netstate.Container, b netstate.Binding) netstate.Target {
	if s.Engine != nil && s.Engine.Builtin() { // whoever the client is, the port driver connects in its stead
		ask.From, ask.Client, ask.SPort, ask.Iface = netstate.FromLocalhost, netip.Addr{}, 0, ""
	}
	host := b.Host
	if !host.IsValid() {
		host = netip.IPv4Unspecified()
	}
	t := netstate.Target{
		Container: c.Name, ID: owner.ID, Direction: netstate.In, Port: b.Port, From: ask.from(host),
		Host: netip.AddrPortFrom(host, b.HostPort), Family: netstate.FamilyOf(host),
	}
	if ask.Client.IsValid() && netstate.FamilyOf(ask.Client) != t.Family {
		return netstate.Target{}
	}
	if t.Family == netstate.IPv6 && !ask.Client.IsValid() && !servesIPv6(s, owner, host, t.From) {
		return netstate.Target{}
	}
	if t.From != netstate.FromOutside {
		if t.From == netstate.FromHost && t.Family == netstate.IPv6 && host.IsUnspecified() && !slices.ContainsFunc(s.Host.Addrs, func(a netstate.Addr) bool {
			link := s.Host.Link(a.Link)
			return netstate.FamilyOf(a.Prefix.Addr()) == netstate.IPv6 && a.Scope == "global" && link != nil && link.Kind != "bridge"
		}) {
			return netstate.Target{} // the host itself has no address to knock at
		}
		return t
	}
	t.Client, t.SPort, t.Iface = ask.Client, ask.SPort, ask.Iface
	if !t.Client.IsValid() {
		t.Client, t.Assumed = assume(s, t.Family), true
	}
	if t.Family == netstate.IPv6 && t.Assumed && !reachesOut(s, netstate.IPv6) {
		return netstate.Target{} // no client can come by IPv6 to a host that has none
	}
	return t
}

// bindings returns the container's published ports, and behind them those that it was to have and has not:
// a container that does not run has none yet, some networks give none.
func bindings(c *netstate.Container) []netstate.Binding {
	all := slices.Clone(c.Published)
	for _, b := range c.Configured {
		if !slices.ContainsFunc(c.Published, func(p netstate.Binding) bool { return p.Port == b.Port }) {
			all = append(all, b)
		}
	}
	return all
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

// out returns the container's ways out, one a family.
func (ask Ask) out(s *netstate.Snapshot, c *netstate.Container) []netstate.Target {
	families := waysOut(s, donor(s, c))
	if ask.To.IsValid() {
		families = []netstate.Family{netstate.FamilyOf(ask.To.Addr())}
	}
	var targets []netstate.Target
	for _, family := range families {
		t := netstate.Target{
			Container: c.Name, ID: donor(s, c).ID, Direction: netstate.Out, From: netstate.FromContainer, Family: family,
			To: ask.To,
		}
		if !t.To.IsValid() {
			t.To, t.Assumed = netip.AddrPortFrom(assume(s, family), 0), true
			t.DNS = len(targets) == 0
		}
		targets = append(targets, t)
	}
	return targets
}
