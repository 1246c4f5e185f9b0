package checks

import (
	"slices"
	"strings"

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
the engine puts them back only when it starts. Its ports have to forward: not be disabled, nor isolated
from each other, and send back by the port that a packet came in by where there is no docker-proxy. Its table
has to lead to the container's port, and its VLANs, if somebody gave it any, have to let it through.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		if gone := bridgeGone(h, t); gone != nil {
			return gone
		}
		findings := gatewayLost(h, t)
		for _, stop := range h.stops(t, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.BridgePort, packet.Switching) {
			if stop.Hop.Place() != packet.Bridge {
				continue
			}
			finding := found(stop)
			name := linkOf(stop.Object)
			finding.Hits = hits(h, t, name)
			switch port := h.Host.Link(name); {
			case stop.Kind == packet.LinkDown:
				finding.Fix = linkUp(h, name)
			case stop.Kind == packet.Switching:
				finding.switching(h, t, stop.Object)
			case stop.Kind != packet.BridgePort || port == nil || port.Port == nil:
			case port.Port.Isolated:
				finding.Fix = portFix(port, "isolated", "on", "off", true)
				if i := slices.IndexFunc(findings, func(f Finding) bool { return f.stop != nil && f.stop.Kind == packet.BridgePort }); i >= 0 {
					findings[i].explains = append(findings[i].explains, stop.Object) // the same two ports, on the way back
					continue
				}
			case port.Port.State != "forwarding":
				finding.Fix = portFix(port, "state", port.Port.State, "forwarding", false)
			default:
				finding.Fix = portFix(port, "hairpin", "off", "on", false)
			}
			if finding.Fix == nil && finding.Advice == "" {
				finding.Advice = restartEngine(h) + ": it makes the bridge and its address anew"
			}
			findings = append(findings, finding)
		}
		return findings
	},
}

// bridgeGone says so where the network's bridge is no longer there: nothing else can then be said.
func bridgeGone(h *Host, t netstate.Target) []Finding {
	bridge := bridgeOf(h, t)
	if bridge == "" || h.Host.Link(bridge) != nil {
		return nil
	}
	finding := Finding{Object: "link " + bridge, At: packet.Bridge, Hits: hits(h, t, bridge),
		Problem: "the bridge " + bridge + " is gone",
		Advice:  restartEngine(h) + ": it makes the bridge anew; then docker restart those of its network that still run"}
	for _, stop := range h.Walk(t).Stops {
		finding.explains = append(finding.explains, stop.Object)
	}
	return []Finding{finding}
}

// switching says what to do where the bridge sends a frame elsewhere or nowhere, which the engine's never do of themselves.
func (f *Finding) switching(h *Host, t netstate.Target, object string) {
	bridge, port := bridgeOf(h, t), h.Host.Link(linkOf(object))
	f.Hits = hits(h, t, bridge)
	if entry := strings.Fields(object); len(entry) == 4 && entry[0] == "fdb" {
		f.Advice = "take the entry out of the bridge's table: " + commandLine([]string{"bridge", "fdb", "del", entry[1], "dev", entry[3], "master"})
		return
	}
	switch b := h.Host.Link(bridge); {
	case b != nil && b.Bridge != nil && b.Bridge.VLANFiltering:
		f.Advice = "the engine's bridges have no VLANs: " + commandLine([]string{"ip", "link", "set", bridge, "type", "bridge", "vlan_filtering", "0"})
	case port == nil || port.Port == nil:
	case port.Port.Locked:
		f.Fix = portFix(port, "locked", "on", "off", true)
	case !port.Port.Flood:
		f.Fix = portFix(port, "flood", "off", "on", true)
	}
}
