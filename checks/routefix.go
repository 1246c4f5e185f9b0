package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

const tableMain = 254

// routeFix is the fix for a wrong way to or from the container, or nil: the bridge's own route where the host
// has lost it; else, for what somebody else made, the narrowest exception.
func routeFix(h *Host, t netstate.Target, stop packet.Stop) *remediate.Fix {
	bridge := h.Host.Link(bridgeOf(h, t))
	c := h.Container(t.ID)
	if bridge == nil || c == nil {
		return nil
	}
	endpoint := h.Program().Gateway(c, t.Family)
	if endpoint == nil || !endpoint.Addr(t.Family).IsValid() {
		return nil
	}
	to := (t.Direction == netstate.In) != stop.Hop.IsReply()
	fix := &remediate.Fix{Opens: true}
	switch addr := endpoint.Addr(t.Family); {
	case strings.HasPrefix(stop.Object, "neigh ") && to:
		fix = forgetNeighbour(&h.Host, stop.Object)
	case strings.HasPrefix(stop.Object, "rule "):
		fix = beforeRule(h, t, stop.Object, addr, to)
	case to:
		if fix = bridgeRoute(h, addr, bridge.Name); fix == nil {
			fix = pastRoute(h, t.Family, stop.Object, addr, bridge.Name)
		}
	default:
		return nil // of the client: how it is reached is not known
	}
	if fix != nil {
		for i := range fix.Steps {
			fix.Steps[i] = fix.Steps[i].Guarded(remediate.GuardIfindex+" "+bridge.Name, fmt.Sprint(bridge.Index))
		}
	}
	return fix
}

// bridgeRoute gives the host back the route that the kernel made with the bridge's address in the container's subnet;
// nil if it has it.
func bridgeRoute(h *Host, container netip.Addr, bridge string) *remediate.Fix {
	for _, a := range h.Host.Addrs {
		subnet := a.Prefix.Masked()
		if a.Link != bridge || !subnet.Contains(container) || a.Prefix.IsSingleIP() ||
			slices.ContainsFunc(h.Host.Routes, func(r netstate.Route) bool {
				return r.Dst == subnet && r.Table == tableMain && len(r.Hops) == 1 && r.Hops[0].Dev == bridge
			}) {
			continue
		}
		name, value := subnet.String(), fmt.Sprintf("dev %s proto kernel src %s", bridge, a.Prefix.Addr())
		if container.Is6() { // as addrconf makes it
			name, value = name+" metric 256", fmt.Sprintf("dev %s proto kernel", bridge)
		}
		return &remediate.Fix{Title: fmt.Sprintf("give the host its route to %s back", bridge), Steps: []remediate.Step{remediate.Add("route", name, value)}}
	}
	return nil
}

// pastRoute is a route to the container alone, by its bridge, in the table whose route takes its packets elsewhere;
// where that one is about the container alone, it is taken out.
func pastRoute(h *Host, family netstate.Family, object string, addr netip.Addr, bridge string) *remediate.Fix {
	if !strings.HasPrefix(object, "route ") {
		return nil
	}
	name, table := addr.String(), uint32(tableMain)
	if _, number, ok := strings.Cut(object, " table "); ok {
		if _, err := fmt.Sscan(number, &table); err != nil {
			return nil // local or default: the kernel's own
		}
		name += fmt.Sprintf(" table %d", table)
	}
	if family == netstate.IPv6 {
		name += " metric 1024"
	}
	for _, r := range h.Host.Routes {
		if r.Family != family || r.Table != table || r.Dst != netip.PrefixFrom(addr, addr.BitLen()) {
			continue
		}
		value, ok := routeValue(r)
		if !ok {
			return nil
		}
		return &remediate.Fix{Opens: true, Title: fmt.Sprintf("take the %s out", object), Steps: []remediate.Step{remediate.Remove("route", name, value)}}
	}
	return &remediate.Fix{Opens: true, Title: fmt.Sprintf("route %s by %s, past the %s", addr, bridge, object),
		Steps: []remediate.Step{remediate.Add("route", name, "dev "+bridge)}}
}

// routeValue writes a plain route as its step does; ok says that it is one.
func routeValue(r netstate.Route) (value string, ok bool) {
	if r.Family != netstate.IPv4 || r.Metric != 0 || r.TOS != 0 || r.Nexthop != 0 || r.MTU != 0 || len(r.Hops) > 1 {
		return "", false
	}
	var words []string
	if r.Type != "unicast" {
		words = append(words, r.Type)
	}
	for _, hop := range r.Hops {
		if hop.Gateway.IsValid() {
			words = append(words, "via "+hop.Gateway.String())
		}
		words = append(words, "dev "+hop.Dev)
	}
	if r.Protocol != "boot" {
		words = append(words, "proto "+r.Protocol)
	}
	if r.PrefSrc.IsValid() {
		words = append(words, "src "+r.PrefSrc.String())
	}
	return strings.Join(words, " "), true
}

// beforeRule is a rule that takes the container's packets, and no others, to the main table before the one that
// does something else with them.
func beforeRule(h *Host, t netstate.Target, object string, addr netip.Addr, to bool) *remediate.Fix {
	var priority uint32
	if _, err := fmt.Sscanf(object, "rule %d:", &priority); err != nil || priority < 2 {
		return nil
	}
	way := "from all to"
	if !to {
		way = "from"
	}
	name := fmt.Sprintf("%d: %s %s lookup %d", priority-1, way, addr, tableMain)
	if t.Family == netstate.IPv6 {
		name = "-6 " + name
	}
	return &remediate.Fix{Opens: true, Title: fmt.Sprintf("route the traffic of %s by the main table, before the %s", Name(t), object),
		Steps: []remediate.Step{remediate.Add("rule", name, "-")}}
}

// forgetNeighbour takes a permanent entry out: those that the kernel learns it learns anew.
func forgetNeighbour(ns *netstate.Namespace, object string) *remediate.Fix {
	for _, n := range ns.Neighs {
		name := n.Addr.String() + " dev " + n.Link
		if object == "neigh "+name && n.State == "permanent" && !n.Proxy && n.Master == "" {
			return &remediate.Fix{Opens: true, Title: "take the permanent neighbour " + name + " out",
				Steps: []remediate.Step{remediate.Remove("neigh", name, "lladdr "+n.MAC)}}
		}
	}
	return nil
}
