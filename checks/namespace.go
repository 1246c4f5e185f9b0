package checks

import (
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
		for _, stop := range h.stops(t, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.NoAddress, packet.NoNamespace, packet.IPv6Off, packet.NoRoute, packet.Unreachable, packet.Neighbour) {
			if stop.Hop.Place() != packet.Container {
				continue
			}
			finding := found(stop)
			name := linkOf(stop.Object)
			if name == "" {
				name = gatewayLink(h, t)
			}
			if finding.Fix = restoreInside(h, t, name); finding.Fix == nil {
				finding.Fix = insideFix(h, t, stop)
			}
			switch {
			case stop.Kind == packet.Neighbour && finding.Fix == nil:
				continue // learnt: path tells it
			case finding.Fix == nil:
				finding.byRestart(h, t)
			}
			findings = append(findings, finding)
		}
		return append(findings, twice(h, t)...)
	},
}
