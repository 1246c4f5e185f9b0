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
restart of the container makes it anew.`,
	Needs:    netstate.Engine | netstate.Links,
	Inside:   netstate.Links | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.LinkDown, packet.NoLink, packet.NoAddress, packet.NoNamespace, packet.IPv6Off, packet.NoRoute, packet.Unreachable) {
			if stop.Hop.Place() != packet.Container {
				continue
			}
			finding := found(stop)
			finding.Advice = "docker restart " + t.Container
			if name := linkOf(stop.Object); stop.Kind == packet.LinkDown && name != "" {
				finding.Fix = linkUp(h, t, name)
				finding.Advice = ""
			}
			findings = append(findings, finding)
		}
		return findings
	},
}
