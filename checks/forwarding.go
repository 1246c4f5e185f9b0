package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Forwarding looks at the sysctls that let the kernel pass packets from one link to another.
var Forwarding = &Check{
	Name:  "forwarding",
	Title: "the kernel forwards packets",
	Doc: `A published port is forwarded from the uplink to the bridge, and its replies back. For IPv4 each of the two
links has a switch of its own, net.ipv4.conf.LINK.forwarding; writing net.ipv4.ip_forward sets all of
them. IPv6 has net.ipv6.conf.all.forwarding alone. The engine switches forwarding on when it starts and
does not look again: a sysctl file that says 0, applied later, ends it. Ports still answer on the host
itself, through docker-proxy.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Routes | netstate.Sysctls | netstate.Files,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.Forwarding) {
			finding := found(stop)
			name := strings.TrimPrefix(stop.Object, "sysctl ")
			finding.Fix = forwardingFix(h, t, name)
			finding.Hits = hits(h, t, "")
			finding.SetBy = setBy(h.Snapshot, name)
			if finding.Fix == nil {
				finding.Advice = "sysctl -w " + arg(name+"=1")
			}
			findings = append(findings, finding)
		}
		if len(findings) == 0 && h.Walk(t).Via == "forward" {
			findings = offAtBoot(h, t.Family)
		}
		return findings
	},
}

// offAtBoot warns where forwarding is on but perhaps not after a reboot: a file says 0, no other that is known says 1,
// and this engine does not switch it on; systemd-networkd, which was not asked, may. As it then sets no policy either, the file may as well say 1.
func offAtBoot(h *Host, family netstate.Family) []Finding {
	name := "net.ipv4.ip_forward"
	if family == netstate.IPv6 {
		name = "net.ipv6.conf.all.forwarding"
	}
	lines := sysctlLines(h.Snapshot, name)
	if now, _ := h.Host.Sysctl(name); now != "1" || switchesForwardingOn(h) || len(lines) == 0 || lines[len(lines)-1].Value != "0" ||
		slices.ContainsFunc(lines, func(l sysctlLine) bool { return l.Glob && l.Value != "0" }) {
		return nil
	}
	last := lines[len(lines)-1]
	return []Finding{{
		Warning: true, At: packet.Route, Object: "sysctl " + name,
		Problem:  fmt.Sprintf("forwarding is on, but may not be after a reboot: %s says 0, and this engine does not switch it on", last.File),
		Evidence: []string{name + " = 1", fmt.Sprintf("%s:%d: %s", last.File, last.Line, strings.TrimSpace(strings.Split(h.Files[last.File], "\n")[last.Line-1]))},
		Fix: &remediate.Fix{
			Title:   "have " + name + " be 1 at the next boot",
			Steps:   []remediate.Step{},
			Persist: sysctlFiles(h, name),
		},
	}}
}

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
			Steps: []remediate.Step{remediate.Set("sysctl", name, value, "1")},
		}
	case len(foreignLinks(h)) < 2:
		return &remediate.Fix{
			Title:   "turn IPv4 forwarding on",
			Steps:   []remediate.Step{remediate.Set("sysctl", name, value, "1")},
			Persist: sysctlFiles(h, name),
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
	return fix
}

// foreignLinks returns the links of the host that are up and are neither loopback nor Docker's.
func foreignLinks(h *Host) []string {
	var names []string
	bridges := map[int]bool{}
	for i := range h.Networks {
		if link := h.Host.Link(h.Networks[i].Bridge()); link != nil {
			bridges[link.Index] = true
		}
	}
	for _, link := range h.Host.Links {
		if link.Up && !link.Loopback && !bridges[link.Index] && !bridges[link.Master] && link.Master == 0 && !slices.Contains(names, link.Name) {
			names = append(names, link.Name)
		}
	}
	return names
}
