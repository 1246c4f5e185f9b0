package checks

import (
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Bridge looks at the bridge of the container's network.
var Bridge = &Check{
	Name:  "bridge",
	Title: "the network's bridge is up and has its address",
	Doc: `Each bridge network is a bridge on the host that holds the containers' gateway address. It has to be there,
up, and to have that address: without it the host has no route to the containers and they have no way
out. NetworkManager and systemd-networkd are known to take addresses off bridges that they think theirs;
the engine puts them back only when it starts.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.BridgePort) {
			if stop.Hop.Place() != packet.Bridge {
				continue
			}
			finding := found(stop)
			finding.Hits = hits(h, t, linkOf(stop.Object))
			if stop.Kind == packet.LinkDown {
				finding.Fix = linkUp(h, linkOf(stop.Object))
			}
			if finding.Fix == nil {
				finding.Advice = "restart the engine: it makes the bridge and its address anew"
			}
			findings = append(findings, finding)
		}
		return findings
	},
}
