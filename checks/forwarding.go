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
does not look again: a sysctl file that says 0, or systemd-networkd's IPv4Forwarding=no, applied later,
ends it. Ports still answer on the host itself, through docker-proxy.`,
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
			if line := networkdLine(h, name); line != nil {
				finding.SetBy = fmt.Sprintf("%s:%d", line.File, line.Line)
				if len(networkdFiles(h, name)) == 0 {
					finding.Advice = "systemd-networkd sets it again whenever it sets the link up: let what makes " + line.File + " leave that line out"
				}
			}
			findings = append(findings, finding)
		}
		if len(findings) == 0 && h.Walk(t).Via == "forward" {
			findings = offAtBoot(h, t.Family)
		}
		return findings
	},
}

// offAtBoot warns where forwarding is on but may not be after a reboot: a file says 0, no other that is known
// says 1, and this engine does not switch it on. systemd-networkd, which was not asked, may. As such an engine
// sets no policy either, the file may as well say 1.
func offAtBoot(h *Host, family netstate.Family) []Finding {
	name := "net.ipv4.ip_forward"
	if family == netstate.IPv6 {
		name = "net.ipv6.conf.all.forwarding"
	}
	lines := h.atBoot(name)
	if now, _ := h.Host.Sysctl(name); now != "1" || switchesForwardingOn(h) || len(lines) == 0 || lines[len(lines)-1].Value != "0" ||
		slices.ContainsFunc(lines, func(l sysctlLine) bool { return l.Glob && l.Value != "0" }) {
		return nil
	}
	last := lines[len(lines)-1]
	finding := Finding{
		Warning: true, At: packet.Route, Object: "sysctl " + name,
		Problem:  fmt.Sprintf("forwarding is on, but may not be after a reboot: %s says 0, and this engine does not switch it on", last.File),
		Evidence: []string{name + " = 1", fmt.Sprintf("%s:%d: %s", last.File, last.Line, strings.TrimSpace(strings.Split(h.Files[last.File], "\n")[last.Line-1]))},
	}
	if steps := sysctlFiles(h, name); len(steps) > 0 {
		finding.Fix = &remediate.Fix{Title: "have " + name + " be 1 at the next boot", Steps: []remediate.Step{}, Persist: steps}
	} else { // by a glob, which says so of others as well
		finding.Advice = "let a file of its own in /etc/sysctl.d say " + name + " = 1"
	}
	return []Finding{finding}
}
