package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// dockerZone is the zone into which engines from 20.10 on put their bridges.
const dockerZone = "docker"

// Firewalld looks at what firewalld, which no iptables listing shows, does to the container's traffic.
var Firewalld = &Check{
	Name:  "firewalld",
	Title: "firewalld lets the container's network pass",
	Doc: `firewalld filters forwarded packets in tables of its own. The engine puts its bridges into the zone docker,
whose target is ACCEPT; a bridge in another zone, or in none, has its containers' traffic rejected, but
for published ports, which firewalld lets in as long as StrictForwardPorts is off. Policies stand between
zones, and may stop what the zone lets pass. A firewalld that starts after the engine takes the engine's
iptables rules away and knows nothing of its bridges.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Firewalld,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		f := h.Firewalld
		if f == nil {
			return nil
		}
		var stops []packet.Stop
		for _, stop := range h.Walk(t).Stops {
			if stop.Owner == "firewalld" && stop.Verdict.Stops() {
				stops = append(stops, stop)
			}
		}
		findings, stops := []Finding(nil), stops
		if !f.Panic {
			findings, stops = fenced(h, t, stops)
		}
		if len(stops) == 0 {
			return findings
		}
		finding := Finding{At: stops[0].Hop}
		for _, stop := range stops {
			finding.explains = append(finding.explains, stop.Object)
			finding.Evidence = append(finding.Evidence, stop.Object)
		}
		bridge := bridgeOf(h, t)
		zone := f.ZoneOf(bridge)
		switch {
		case f.Panic:
			finding.Object = "firewalld option panic"
			finding.Problem = "firewalld is in panic mode and drops everything"
			finding.Advice = "firewall-cmd --panic-off"
		case t.Direction == netstate.In && f.StrictForwardPorts != nil && *f.StrictForwardPorts:
			finding.Object = "firewalld option StrictForwardPorts"
			finding.Problem = "firewalld rejects ports that it did not forward itself, Docker's among them"
			finding.Evidence = append([]string{"StrictForwardPorts=yes"}, finding.Evidence...)
			finding.Advice = "set StrictForwardPorts=no in /etc/firewalld/firewalld.conf and reload firewalld: a reload loses its runtime configuration" + lostByReload(f)
		case bridge != "" && f.Zone(dockerZone) == nil && h.Engine.AtLeast(20, 10, 0):
			finding.Object = "firewalld zone " + dockerZone
			finding.Problem = fmt.Sprintf("firewalld has no zone %s: it was started or reset behind the engine's back, and does not know its bridges", dockerZone)
			finding.Hits = hits(h, t, "")
			finding.Advice = restartEngine(h) + ": it makes the zone and its rules anew; let firewalld start before it (systemctl enable firewalld)"
		case bridge != "" && (zone == nil || zone.Name != dockerZone) && f.Zone(dockerZone) != nil:
			finding.outside(h, t, bridge, zone)
		case zone != nil && zone.Name == dockerZone && zone.Target != "ACCEPT":
			finding.Object = "firewalld zone " + dockerZone
			finding.Problem = fmt.Sprintf("the target of firewalld's zone %s is %s instead of ACCEPT", dockerZone, zone.Target)
			finding.Evidence = append([]string{"zone " + dockerZone + " target: " + zone.Target}, finding.Evidence...)
			finding.Advice = fmt.Sprintf("firewall-cmd --permanent --zone=%s --set-target=ACCEPT, then a reload, which loses firewalld's runtime configuration%s", dockerZone, lostByReload(f))
		case sourceZone(h, t, stops) != nil:
			finding.claimed(h, sourceZone(h, t, stops))
		case t.Direction == netstate.In && h.Walk(t).Via == "docker-proxy":
			name := f.DefaultZone
			if uplink := f.ZoneOf(h.Walk(t).Uplink); uplink != nil {
				name = uplink.Name
			}
			finding.Object = "firewalld zone " + name
			finding.Problem = fmt.Sprintf("docker-proxy serves this client, and firewalld's zone %s does not let it in", name)
			finding.Advice = fmt.Sprintf("firewall-cmd --zone=%s --add-port=%d/%s", arg(name), t.Host.Port(), t.Port.Proto)
		default:
			return findings // a rule of firewalld's that is no matter of zones: path names it
		}
		return append(findings, finding)
	},
}
