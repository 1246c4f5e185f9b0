package checks

import (
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// forwardingFix switches forwarding on by the narrowest switch. The global one is taken only where the
// host has one link beside Docker's: with two it would make a router of a host that perhaps must not be
// one, and the switches of the uplink and the bridge suffice.
func forwardingFix(h *Host, t netstate.Target, name string) *remediate.Fix {
	value, ok := h.Host.Sysctl(name)
	if !ok {
		return nil
	}
	switch {
	case name == "net.ipv6.conf.all.forwarding":
		return ipv6ForwardingFix(h, value)
	case name != "net.ipv4.ip_forward":
		return &remediate.Fix{
			Title: "turn IPv4 forwarding on for " + strings.Split(name, ".")[3],
			Steps: []remediate.Step{remediate.Set("sysctl", name, value, "1")}, Persist: offInFiles(h, name),
		}
	case len(foreignLinks(h)) < 2:
		return &remediate.Fix{
			Title:   "turn IPv4 forwarding on",
			Steps:   []remediate.Step{remediate.Set("sysctl", name, value, "1")},
			Persist: offInFiles(h, name),
		}
	}
	fix := &remediate.Fix{Title: "turn IPv4 forwarding on between the uplink and the bridge"}
	for _, link := range []string{h.Walk(t).Uplink, bridgeOf(h, t)} {
		own := "net.ipv4.conf." + sysctlLink(link) + ".forwarding"
		if value, ok := h.Host.Sysctl(own); ok && value == "0" {
			fix.Steps = append(fix.Steps, remediate.Set("sysctl", own, value, "1"))
		}
	}
	if len(fix.Steps) == 0 {
		return nil
	}
	return fix
}

// offInFiles returns the steps that correct what switches forwarding off at boot.
func offInFiles(h *Host, name string) []remediate.Step {
	return append(sysctlFiles(h, name), networkdFiles(h, name)...)
}

// ipv6ForwardingFix turns IPv6 forwarding on. A host that forwards ignores router advertisements and
// drops at once the default route that it learnt from one, unless accept_ra is 2 before.
func ipv6ForwardingFix(h *Host, value string) *remediate.Fix {
	fix := &remediate.Fix{Title: "turn IPv6 forwarding on", Opens: len(foreignLinks(h)) > 1}
	for _, r := range h.Host.Routes {
		if r.Family != netstate.IPv6 || r.Dst.Bits() != 0 || r.Protocol != "ra" {
			continue
		}
		for _, hop := range r.Hops {
			own := "net.ipv6.conf." + sysctlLink(hop.Dev) + ".accept_ra"
			now, ok := h.Host.Sysctl(own)
			if !ok {
				return nil
			}
			if now != "2" {
				fix.Steps = append(fix.Steps, remediate.Set("sysctl", own, now, "2"))
			}
		}
	}
	fix.Steps = append(fix.Steps, remediate.Set("sysctl", "net.ipv6.conf.all.forwarding", value, "1"))
	fix.Persist = networkdFiles(h, "net.ipv6.conf.all.forwarding")
	return fix
}

// foreignLinks returns the links of the host that are up and are neither loopback nor Docker's; of a bridge or
// bond only itself.
func foreignLinks(h *Host) []string {
	var names []string
	bridges := map[int]bool{}
	for i := range h.Networks {
		if link := h.Host.Link(h.Networks[i].Bridge()); link != nil {
			bridges[link.Index] = true
		}
	}
	for _, link := range h.Host.Links {
		if link.Up && !link.Loopback && link.Master == 0 && !bridges[link.Index] {
			names = append(names, link.Name)
		}
	}
	return names
}
