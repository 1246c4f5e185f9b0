package checks

import (
	"fmt"
	"slices"
	"strings"

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
		for _, stop := range h.stops(t, packet.NoRoute, packet.Unreachable, packet.WrongRoute, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.NotLocal, packet.IPv6Off, packet.Neighbour, packet.Martian) {
			switch place := stop.Hop.Place(); {
			case place == packet.Container || place == packet.Socket:
				continue
			case (stop.Kind == packet.LinkDown || stop.Kind == packet.NoCarrier || stop.Kind == packet.NoLink) && place != packet.Uplink && place != packet.Route:
				continue // of the bridge or the veth pair: theirs to tell
			}
			finding := found(stop)
			switch {
			case strings.HasSuffix(stop.Object, ".route_localnet"):
				finding.Advice = "sysctl -w " + arg(strings.TrimPrefix(stop.Object, "sysctl ")+"=1") + ", or let the engine run docker-proxy (userland-proxy)"
			case strings.HasPrefix(stop.Object, "neigh "):
				addr, link, _ := strings.Cut(strings.TrimPrefix(stop.Object, "neigh "), " dev ")
				finding.Advice = "ip neigh del " + arg(addr) + " dev " + arg(link)
				finding.Fix = routeFix(h, t, stop)
			case stop.Kind == packet.WrongRoute || stop.Kind == packet.Unreachable:
				finding.explains = refusedFor(h, t, stop.Object)
				finding.Fix = routeFix(h, t, stop)
				if finding.Fix != nil && !finding.Fix.Opens {
					break
				}
				finding.Advice = "take it away if nothing else needs it, or give Docker's networks another subnet (default-address-pools, bip); " + ownRoute(h, t)
			case linkOf(stop.Object) != "" && stop.Kind == packet.LinkDown:
				name := arg(linkOf(stop.Object))
				finding.Advice = fmt.Sprintf("ip link set dev %s up, then its routes anew as its network's configuration has them (networkctl reconfigure %[1]s, nmcli device connect %[1]s or ifup %[1]s)", name)
			case linkOf(stop.Object) != "" && stop.Kind == packet.NoCarrier:
				finding.Advice = "see to what " + linkOf(stop.Object) + " is plugged into: the cable, the switch's port, the virtual machine's network"
			case stop.Kind == packet.NoRoute:
				finding.Advice = "give the host a route: ip route add default via GATEWAY, as its network's configuration has it"
			}
			findings = append(findings, finding)
		}
		return findings
	},
}

// refusedFor returns what the reverse path filter says because of a route.
func refusedFor(h *Host, t netstate.Target, route string) (objects []string) {
	for _, stop := range h.stops(t, packet.RPFilter) {
		if slices.Contains(stop.Evidence, route) {
			objects = append(objects, stop.Object)
		}
	}
	return objects
}

// ownRoute says which route of Docker's own would win over a wrong one.
func ownRoute(h *Host, t netstate.Target) string {
	if bridge := bridgeOf(h, t); bridge != "" {
		for _, a := range h.Host.Addrs {
			if a.Link == bridge && netstate.FamilyOf(a.Prefix.Addr()) == t.Family {
				return fmt.Sprintf("the bridge's own is: %s dev %s proto kernel scope link src %s", a.Prefix.Masked(), bridge, a.Prefix.Addr())
			}
		}
	}
	return "ip route get shows the choice"
}
