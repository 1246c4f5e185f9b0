package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

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
		if slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return e.Gateway(t.Family) == by }) {
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
		should := "its networks have none"
		right := h.Program().Gateway(c, t.Family).Gateway(t.Family)
		if right.IsValid() {
			should = "its network's gateway is " + right.String()
		}
		object := fmt.Sprintf("route default via %s dev %s", by, r.Hops[0].Dev)
		finding := Finding{Object: object + " in container " + c.Name, At: packet.Container, Evidence: []string{object},
			Problem:  fmt.Sprintf("the container's default route leads by %s, %s", by, should),
			Advice:   "docker restart " + arg(c.Name) + "; look for what changes routes in it (VPN, entrypoint)",
			explains: explains}
		value, plain := routeValue(r)
		if link := gatewayLink(h, t); plain && r.Type == "unicast" && r.Protocol == "boot" && !r.PrefSrc.IsValid() && right.IsValid() && link != "" {
			step := remediate.Set("route", "default", value, fmt.Sprintf("via %s dev %s", right, link))
			finding.Fix = &remediate.Fix{Title: fmt.Sprintf("lead the default route of %s by %s again", c.Name, right), Opens: true,
				Steps: []remediate.Step{insideOf(c, ns, step)}}
		}
		return []Finding{finding}
	}
	return nil
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
	network, gateway := h.Network(endpoint.NetworkID), endpoint.Gateway(t.Family)
	if network == nil || network.Bridge() == "" || !gateway.IsValid() || h.Host.LinkWith(gateway) != nil ||
		t.Family == netstate.IPv4 && network.Options["com.docker.network.bridge.inhibit_ipv4"] == "true" { // it never had it
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
	finding.Fix = &remediate.Fix{Title: fmt.Sprintf("give %s its address %s back", bridge, prefix), Steps: []remediate.Step{step}}
	return []Finding{finding}
}
