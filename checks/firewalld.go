package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// dockerZone is the zone into which engines from 20.10 on put their bridges.
const dockerZone = "docker"

// Firewalld looks at what firewalld, which no iptables listing shows, does to the container's traffic.
var Firewalld = &Check{
	Name:  "firewalld",
	Title: "firewalld lets the container's network pass",
	Doc: `firewalld filters forwarded packets in tables of its own. The engine puts its bridges into the zone docker,
whose target is ACCEPT; a bridge in another zone, or in none, has its containers' traffic rejected, but
for published ports, which firewalld lets in as long as StrictForwardPorts is off. A firewalld that
starts after the engine takes the engine's iptables rules away and knows nothing of its bridges.`,
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
		if len(stops) == 0 {
			return nil
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
		case bridge != "" && (zone == nil || zone.Name != dockerZone) && f.Zone(dockerZone) != nil:
			in := "no zone"
			finding.Fix = &remediate.Fix{Title: fmt.Sprintf("put %s into firewalld's zone %s", bridge, dockerZone)}
			step := remediate.Add("firewalld-zone", bridge, dockerZone)
			if zone != nil {
				in = "zone " + zone.Name
				step = remediate.Set("firewalld-zone", bridge, zone.Name, dockerZone)
			}
			finding.Fix.Steps = []remediate.Step{step}
			for _, permanent := range f.Permanent {
				for _, link := range permanent.Interfaces {
					if link == bridge && permanent.Name != dockerZone {
						// Somebody wrote that down.
						finding.Fix.Opens = true
						finding.Fix.Persist = []remediate.Step{remediate.Set("firewalld-zone-permanent", bridge, permanent.Name, dockerZone)}
						finding.Evidence = append(finding.Evidence, "permanent zone "+permanent.Name+": "+bridge)
					}
				}
			}
			finding.Object = "firewalld zone " + dockerZone
			finding.Hits = hits(h, t, bridge)
			finding.Problem = fmt.Sprintf("the bridge %s is in %s instead of firewalld's zone %s", bridge, in, dockerZone)
		default:
			return nil // a rule of firewalld's that is no matter of zones: path names it
		}
		return []Finding{finding}
	},
}

// lostByReload lists what a reload of firewalld would lose.
func lostByReload(f *netstate.FirewalldState) string {
	permanent := map[string]string{}
	for _, zone := range f.Permanent {
		for _, link := range zone.Interfaces {
			permanent[link] = zone.Name
		}
	}
	lost := ""
	for _, zone := range f.Zones {
		for _, link := range zone.Interfaces {
			if permanent[link] != zone.Name {
				lost += fmt.Sprintf("; %s in zone %s", link, zone.Name)
			}
		}
	}
	return lost
}
