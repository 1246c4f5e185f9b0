package checks

import (
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
restart of the container makes it anew.`,
	Needs:    netstate.Engine | netstate.Links,
	Inside:   netstate.Links | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
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
		return findings
	},
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
