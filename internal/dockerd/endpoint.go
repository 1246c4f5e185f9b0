package dockerd

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Gateway returns the endpoint through which the container has its default route and publishes its
// ports in that family, or nil if no network gives it one.
//
// The preference is the engine's own (libnetwork's Endpoint.Less and selectGatewayEndpoint): higher
// priority, not docker_gwbridge, not internal, both families, then by the network's name. Up to 27 one
// endpoint serves both families; 28 takes the first of both families for both; 29 chooses for each.
func (p *Program) Gateway(c *netstate.Container, family netstate.Family) *netstate.Endpoint {
	both := func(e *netstate.Endpoint) bool { return e.Gateway4.IsValid() && e.Gateway6.IsValid() }
	internal := func(e *netstate.Endpoint) bool { n := p.networks[e.NetworkID]; return n != nil && n.Internal }
	var order []*netstate.Endpoint
	for i := range c.Endpoints {
		if e := &c.Endpoints[i]; e.IPv4.IsValid() || e.IPv6.IsValid() {
			order = append(order, e)
		}
	}
	slices.SortStableFunc(order, func(a, b *netstate.Endpoint) int {
		return cmp.Or(
			cmp.Compare(b.GwPriority, a.GwPriority),
			falseFirst(a.Network == "docker_gwbridge", b.Network == "docker_gwbridge"),
			falseFirst(internal(a), internal(b)),
			falseFirst(!both(a), !both(b)),
			cmp.Compare(a.Network, b.Network),
		)
	})
	var gateway4, gateway6 *netstate.Endpoint
	for _, e := range order {
		if internal(e) {
			continue
		}
		switch {
		case p.Generation < V28Sets:
			if e.Gateway4.IsValid() || e.Gateway6.IsValid() {
				return e
			}
			continue
		case p.Generation < V29 && both(e):
			return e
		}
		if gateway4 == nil && e.Gateway4.IsValid() {
			gateway4 = e
		}
		if gateway6 == nil && e.Gateway6.IsValid() {
			gateway6 = e
		}
	}
	if family == netstate.IPv6 {
		return gateway6
	}
	return gateway4
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// A forward is one published port as rules carry it: to one endpoint, within one family.
type forward struct {
	container string
	network   *netstate.Network
	addr      netip.Addr // the endpoint's
	binding   netstate.Binding
}

// forwards returns the container's published ports for which there are rules in that family. A port
// that is published at an address of a family which the endpoint does not have is docker-proxy's alone.
func (p *Program) forwards(c *netstate.Container, family netstate.Family) []forward {
	if !c.Running {
		return nil
	}
	var list []forward
	add := func(e *netstate.Endpoint, b netstate.Binding) {
		n := p.networks[e.NetworkID]
		addr := e.Addr(family)
		if n == nil || n.Bridge() == "" || n.Internal || !addr.IsValid() {
			return
		}
		list = append(list, forward{c.ID, n, addr, b})
	}
	gateway := p.Gateway(c, family)
	for _, b := range c.Published {
		host := b.Host
		if !host.IsValid() {
			host = netip.IPv4Unspecified()
		}
		if netstate.FamilyOf(host) != family {
			continue
		}
		b.Host = host
		if b.HostPort != 0 {
			if gateway != nil && !p.routed(gateway.NetworkID, family) {
				add(gateway, b)
			}
			continue
		}
		// A routed network's ports have no host port; 29 opens them on every routed network.
		for i := range c.Endpoints {
			e := &c.Endpoints[i]
			if p.routed(e.NetworkID, family) && (p.Generation >= V29 || e == gateway) {
				add(e, b)
			}
		}
	}
	return list
}

// routed says whether the network with that ID is routed in that family.
func (p *Program) routed(id string, family netstate.Family) bool {
	n := p.networks[id]
	return n != nil && p.mode(n, family) == "routed"
}

// mode returns the network's gateway mode, which engines before 27 do not have.
func (p *Program) mode(n *netstate.Network, family netstate.Family) string {
	if p.Generation < V27 {
		return "nat"
	}
	return n.GatewayMode(family)
}

// An attached is an endpoint of a running container on a bridge network.
type attached struct {
	container string
	network   *netstate.Network
	addr      netip.Addr
}

// attachments returns the endpoints of all running containers in that family, whether they were
// inspected or only stand in the network's list.
func (p *Program) attachments(s *netstate.Snapshot, family netstate.Family) []attached {
	var list []attached
	for i := range s.Networks {
		n := &s.Networks[i]
		if n.Bridge() == "" {
			continue
		}
		for _, m := range n.Members {
			addr := m.IPv4.Addr()
			if family == netstate.IPv6 {
				addr = m.IPv6.Addr()
			}
			if addr.IsValid() {
				list = append(list, attached{m.ID, n, addr})
			}
		}
	}
	return list
}
