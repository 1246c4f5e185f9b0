package checks

import (
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Veth looks at the pair of links between the bridge and the container.
var Veth = &Check{
	Name:  "veth",
	Title: "the veth pair joins the container to its bridge",
	Doc: `A container hangs on its bridge by a pair of virtual links: one end is its eth0, the other is on the host,
a port of the bridge. It has to be there, up, on the right bridge and forwarding.`,
	Needs:    netstate.Engine | netstate.Links,
	Inside:   netstate.Links,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.NoMaster, packet.BridgePort) {
			if stop.Hop.Place() != packet.Veth {
				continue
			}
			finding := found(stop)
			switch name := linkOf(stop.Object); {
			case stop.Kind == packet.LinkDown:
				finding.Fix = linkUp(h, name)
			case stop.Kind == packet.NoMaster:
				finding.Fix = linkMaster(h, name, bridgeOf(h, t))
			}
			if finding.Fix == nil {
				finding.byRestart(h, t) // makes a new pair
			}
			findings = append(findings, finding)
		}
		return findings
	},
}
