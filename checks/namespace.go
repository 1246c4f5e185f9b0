package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Namespace looks at the container's own network namespace.
var Namespace = &Check{
	Name:  "namespace",
	Title: "the container's interface is up, with its address and its way back",
	Doc: `In the container's network namespace its interface has to be up and to hold the address that the engine gave
it, and its replies need a route. Programs with CAP_NET_ADMIN in the container can change all of it; a
restart of the container makes it anew. A container that has the network of another one is left in a dead
namespace when that one is restarted or made anew.`,
	Needs:    netstate.Engine | netstate.Links,
	Inside:   netstate.Links | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		if left := leftBehind(h, t); left != nil {
			return left
		}
		if kept := keptIn(h, t); kept != nil {
			return kept
		}
		findings := wrongGateway(h, t)
		for _, stop := range h.stops(t, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.NoAddress, packet.NoNamespace, packet.IPv6Off, packet.NoRoute, packet.Unreachable) {
			if stop.Hop.Place() != packet.Container {
				continue
			}
			finding := found(stop)
			name := linkOf(stop.Object)
			if name == "" {
				name = gatewayLink(h, t)
			}
			if finding.Fix = restoreInside(h, t, name); finding.Fix == nil {
				finding.Advice = "docker restart " + t.Container
			}
			findings = append(findings, finding)
		}
		return append(findings, twice(h, t)...)
	},
}

// leftBehind says so where the container was given the network of another one that is gone, or that has
// another network namespace by now.
func leftBehind(h *Host, t netstate.Target) []Finding {
	i := slices.IndexFunc(h.Containers, func(c netstate.Container) bool { return c.Name == t.Container })
	if i < 0 {
		return nil
	}
	member := &h.Containers[i]
	id, ok := strings.CutPrefix(member.NetworkMode, "container:")
	if !ok || !member.Running {
		return nil
	}
	finding := Finding{Object: "container " + member.Name, At: packet.Container, Evidence: []string{"NetworkMode = " + member.NetworkMode},
		Advice: "docker restart " + member.Name + "; if its donor was made anew, create it anew as well"}
	owner, own, theirs := h.Container(id), h.Sandboxes[member.ID], h.Sandboxes[id]
	switch {
	case owner == nil:
		finding.Problem = "it has the network of a container that is gone"
	case own != nil && theirs != nil && own.ID != "" && theirs.ID != "" && own.ID != theirs.ID:
		finding.Problem = fmt.Sprintf("it is still in the network that %s had before it was restarted", owner.Name)
		finding.Evidence = append(finding.Evidence, member.Name+": "+own.ID, owner.Name+": "+theirs.ID)
	default:
		return nil
	}
	for _, stop := range h.Walk(t).Stops {
		finding.explains = append(finding.explains, stop.Object)
	}
	return []Finding{finding}
}

// keptIn says so where a destination was named that the container was made not to reach.
func keptIn(h *Host, t netstate.Target) []Finding {
	c := h.Container(t.ID)
	if c == nil || t.Direction != netstate.Out {
		return nil
	}
	why := cutOff(h.Snapshot, c)
	if why == "" || t.To.Addr().IsLoopback() || slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool {
		return e.IPv4.Masked().Contains(t.To.Addr()) || e.IPv6.Masked().Contains(t.To.Addr())
	}) {
		return nil
	}
	finding := Finding{Object: "container " + c.Name, At: packet.Container, Problem: why, Evidence: []string{"NetworkMode = " + c.NetworkMode},
		Advice: "put it into a network that has a way out: docker network connect NETWORK " + c.Name}
	for _, stop := range h.Walk(t).Stops {
		finding.explains = append(finding.explains, stop.Object)
	}
	return []Finding{finding}
}

// twice says so where another container has the same address in the same network: which of them is met is
// luck. It shows only where the namespaces of both were read.
func twice(h *Host, t netstate.Target) []Finding {
	own, bridge := h.Sandboxes[t.ID], h.Host.Link(bridgeOf(h, t))
	c := h.Container(t.ID)
	if own == nil || c == nil || bridge == nil {
		return nil
	}
	for i := range h.Containers {
		other := &h.Containers[i]
		ns := h.Sandboxes[other.ID]
		if ns == nil || ns == own || ns.ID == own.ID {
			continue
		}
		for _, a := range ns.Addrs {
			link := ns.Link(a.Link)
			if !slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return e.Addr(t.Family) == a.Prefix.Addr() }) || link == nil {
				continue
			}
			if port := h.Host.LinkAt(link.Peer); port != nil && port.Master == bridge.Index {
				text := fmt.Sprintf("addr %s dev %s", a.Prefix, a.Link)
				return []Finding{{Object: text + " in container " + other.Name, At: packet.Container, Warning: true, Evidence: []string{text},
					Problem: fmt.Sprintf("%s has the address of %s as well: which of them is met is luck", other.Name, c.Name),
					Advice:  fmt.Sprintf("docker restart %s; look for what gives it that address", other.Name)}}
			}
		}
	}
	return nil
}

// wrongGateway says so where the container's default route leads by an address that is the gateway of none
// of its networks, and the packet is lost for it.
func wrongGateway(h *Host, t netstate.Target) []Finding {
	ns, c := h.Sandboxes[t.ID], h.Container(t.ID)
	stops := h.stops(t, packet.Neighbour)
	if ns == nil || c == nil || len(stops) == 0 {
		return nil
	}
	for _, r := range ns.Routes {
		if r.Family != t.Family || r.Dst.Bits() != 0 || len(r.Hops) != 1 || !r.Hops[0].Gateway.IsValid() {
			continue
		}
		by := r.Hops[0].Gateway
		if slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return e.Gateway4 == by || e.Gateway6 == by }) {
			continue
		}
		var explains []string
		for _, stop := range stops {
			if strings.Contains(stop.Why, by.String()) {
				explains = append(explains, stop.Object)
			}
		}
		if len(explains) == 0 {
			continue
		}
		endpoint, right := h.Program().Gateway(c, t.Family), netip.Addr{}
		if endpoint != nil {
			right = endpoint.Gateway4
			if t.Family == netstate.IPv6 {
				right = endpoint.Gateway6
			}
		}
		object := fmt.Sprintf("route default via %s dev %s", by, r.Hops[0].Dev)
		return []Finding{{Object: object + " in container " + c.Name, At: packet.Container, Evidence: []string{object},
			Problem:  fmt.Sprintf("the container's default route leads by %s, its network's gateway is %s", by, right),
			Advice:   "docker restart " + c.Name + "; look for what changes routes in it (VPN, entrypoint)",
			explains: explains}}
	}
	return nil
}

// gatewayLink returns the link of the container by which the engine gave it its default route, or "".
func gatewayLink(h *Host, t netstate.Target) string {
	ns, c := h.Sandboxes[t.ID], h.Container(t.ID)
	if ns == nil || c == nil {
		return ""
	}
	if e := h.Program().Gateway(c, t.Family); e != nil {
		for _, link := range ns.Links {
			if strings.EqualFold(link.MAC, e.MAC) {
				return link.Name
			}
		}
	}
	return ""
}
