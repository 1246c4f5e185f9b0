package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// peer returns the container that --to names, or nil.
func (ask Ask) peer(s *netstate.Snapshot) (*netstate.Container, error) {
	if ask.ToName == "" {
		return nil, nil
	}
	var found *netstate.Container
	for i := range s.Containers {
		c := &s.Containers[i]
		switch {
		case c.Name == ask.ToName || c.ID == ask.ToName:
			return c, nil
		case strings.HasPrefix(c.ID, ask.ToName) && len(ask.ToName) >= 2:
			if found != nil {
				return nil, fmt.Errorf("--to %s: more than one container has an ID that begins so", ask.ToName)
			}
			found = c
		}
	}
	if found == nil {
		return nil, fmt.Errorf("--to %s: was not read", ask.ToName)
	}
	return found, nil
}

// peers returns the ways from one container to another: one for each port of it, to an address in a
// network that both are in, or to its first one where they share none.
func (ask Ask) peers(s *netstate.Snapshot, from, to *netstate.Container) []netstate.Target {
	source, goal := donor(s, from), donor(s, to)
	t := netstate.Target{
		Container: from.Name, ID: source.ID, Direction: netstate.Peer, From: netstate.FromContainer,
		ToName: to.Name, ToID: goal.ID, Family: netstate.IPv4,
	}
	addr := meeting(source, goal)
	if addr.IsValid() {
		t.Family = netstate.FamilyOf(addr)
	}
	ports := []netstate.Port{ask.ToPort}
	if ask.ToPort == (netstate.Port{}) {
		ports = offered(s, goal)
	}
	var targets []netstate.Target
	for _, port := range ports {
		t.Port, t.To = port, netip.AddrPort{}
		if addr.IsValid() {
			t.To = netip.AddrPortFrom(addr, port.Number)
		}
		targets = append(targets, t)
	}
	return targets
}

// meeting returns the address by which a container reaches another one.
func meeting(from, to *netstate.Container) netip.Addr {
	var first netip.Addr
	for i := range to.Endpoints {
		theirs := &to.Endpoints[i]
		addr := theirs.IPv4.Addr()
		if !addr.IsValid() {
			addr = theirs.IPv6.Addr()
		}
		if !addr.IsValid() {
			continue
		}
		if slices.ContainsFunc(from.Endpoints, func(e netstate.Endpoint) bool { return e.NetworkID == theirs.NetworkID }) {
			return addr
		}
		if !first.IsValid() {
			first = addr
		}
	}
	return first
}

// offered returns the ports of a container that others may mean: those that its image or its ports name,
// else those that it listens on.
func offered(s *netstate.Snapshot, c *netstate.Container) []netstate.Port {
	var ports []netstate.Port
	add := func(port netstate.Port) {
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	for _, b := range bindings(c) {
		add(b.Port)
	}
	for _, port := range c.Exposed {
		add(port)
	}
	if ns := s.Sandboxes[c.ID]; len(ports) == 0 && ns != nil {
		for _, socket := range ns.Sockets {
			if socket.State == "listen" && !socket.Local.Addr().IsLoopback() {
				add(netstate.Port{Number: socket.Local.Port(), Proto: socket.Proto})
			}
		}
	}
	if len(ports) == 0 {
		ports = []netstate.Port{{}} // the way alone, without a socket at its end
	}
	return ports
}
