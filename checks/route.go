package checks

import (
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Route looks at the routing decisions on the host.
var Route = &Check{
	Name:  "route",
	Title: "the host has a route to the container and one back to the client",
	Doc: `The packet is routed to the bridge, its reply to the client. Policy rules (ip rule), routes of VPNs that are
more specific than the bridge's own, blackhole routes and networks that overlap lead it elsewhere; ip
route get with from, iif and mark shows what the kernel does.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.NoRoute, packet.Unreachable, packet.WrongRoute, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.NotLocal, packet.IPv6Off, packet.Neighbour) {
			switch place := stop.Hop.Place(); {
			case place == packet.Container || place == packet.Socket:
				continue
			case (stop.Kind == packet.LinkDown || stop.Kind == packet.NoCarrier || stop.Kind == packet.NoLink) && place != packet.Uplink && place != packet.Route:
				continue // of the bridge or the veth pair: theirs to tell
			}
			findings = append(findings, found(stop))
		}
		return findings
	},
}
