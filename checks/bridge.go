package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Bridge looks at the bridge of the container's network.
var Bridge = &Check{
	Name:  "bridge",
	Title: "the network's bridge is up and has its address",
	Doc: `Each bridge network is a bridge on the host that holds the containers' gateway address. It has to be there,
up, and to have that address: without it the host has no route to the containers and they have no way
out. NetworkManager and systemd-networkd are known to take addresses off bridges that they think theirs;
the engine puts them back only when it starts. Its ports have to forward: not be disabled, nor isolated
from each other, and send back by the port that a packet came in by where there is no docker-proxy.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		if gone := bridgeGone(h, t); gone != nil {
			return gone
		}
		findings := gatewayLost(h, t)
		for _, stop := range h.stops(t, packet.LinkDown, packet.NoCarrier, packet.NoLink, packet.BridgePort) {
			if stop.Hop.Place() != packet.Bridge {
				continue
			}
			finding := found(stop)
			name := linkOf(stop.Object)
			finding.Hits = hits(h, t, name)
			switch port := h.Host.Link(name); {
			case stop.Kind == packet.LinkDown:
				finding.Fix = linkUp(h, name)
			case stop.Kind != packet.BridgePort || port == nil || port.Port == nil:
			case port.Port.Isolated:
				finding.Advice = "bridge link set dev " + name + " isolated off"
				if i := slices.IndexFunc(findings, func(f Finding) bool { return f.stop != nil && f.stop.Kind == packet.BridgePort }); i >= 0 {
					findings[i].explains = append(findings[i].explains, stop.Object) // the same two ports, on the way back
					continue
				}
			case port.Port.State != "forwarding":
				finding.Advice = "bridge link set dev " + name + " state 3"
			default:
				finding.Advice = "bridge link set dev " + name + " hairpin on, or let the engine run docker-proxy (userland-proxy)"
			}
			if finding.Fix == nil && finding.Advice == "" {
				finding.Advice = "restart the engine: it makes the bridge and its address anew"
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
		Advice:  "restart the engine, which makes the bridge anew, and then the containers of its network"}
	for _, stop := range h.Walk(t).Stops {
		finding.explains = append(finding.explains, stop.Object)
	}
	return []Finding{finding}
}

// gatewayLost says so where the bridge has not the address that its containers take for their gateway, and
// the packet is lost for it.
func gatewayLost(h *Host, t netstate.Target) []Finding {
	c := h.Container(t.ID)
	if c == nil {
		return nil
	}
	endpoint := h.Program().Gateway(c, t.Family)
	if endpoint == nil {
		return nil
	}
	network, gateway := h.Network(endpoint.NetworkID), endpoint.Gateway4
	if t.Family == netstate.IPv6 {
		gateway = endpoint.Gateway6
	}
	if network == nil || network.Bridge() == "" || !gateway.IsValid() || h.Host.LinkWith(gateway) != nil {
		return nil
	}
	subnet, ok := network.Subnet(t.Family)
	bridge := network.Bridge()
	finding := Finding{Object: "link " + bridge, At: packet.Bridge, Hits: hits(h, t, bridge),
		Problem: fmt.Sprintf("%s has lost its address %s, the containers' gateway", bridge, gateway)}
	for _, a := range h.Host.Addrs {
		if a.Link == bridge {
			finding.Evidence = append(finding.Evidence, "addr "+a.Prefix.String()+" dev "+bridge)
		}
	}
	for _, stop := range h.Walk(t).Stops {
		if stop.Kind == packet.NoRoute || stop.Kind == packet.WrongRoute || stop.Kind == packet.Neighbour || stop.Kind == packet.Martian {
			finding.explains = append(finding.explains, stop.Object)
		}
	}
	if !ok || len(finding.explains) == 0 {
		return nil
	}
	prefix := fmt.Sprintf("%s/%d", gateway, subnet.Prefix.Bits())
	finding.Advice = "something takes addresses off Docker's bridges: exclude them there (NetworkManager: unmanaged-devices, networkd: Unmanaged=yes)"
	value := "scope global nodad"
	if t.Family == netstate.IPv4 {
		value = "broadcast " + broadcast(subnet.Prefix).String() + " scope global"
	}
	step := remediate.Add("addr", prefix+" dev "+bridge, value)
	if link := h.Host.Link(bridge); link != nil {
		step = step.Guarded(remediate.GuardIfindex+" "+bridge, fmt.Sprint(link.Index))
	}
	finding.Fix = &remediate.Fix{Title: fmt.Sprintf("give %s its address %s back", bridge, strings.TrimSpace(prefix)), Steps: []remediate.Step{step}}
	return []Finding{finding}
}
