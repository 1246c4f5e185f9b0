package checks

import (
	"fmt"
	"net/netip"
	"slices"

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
		case bridge != "" && f.Zone(dockerZone) == nil && h.Engine.AtLeast(20, 10, 0):
			finding.Object = "firewalld zone " + dockerZone
			finding.Problem = fmt.Sprintf("firewalld has no zone %s: it was started or reset behind the engine's back, and does not know its bridges", dockerZone)
			finding.Hits = hits(h, t, "")
			finding.Advice = "restart the engine, which makes the zone and its rules anew (with live-restore no container stops); start firewalld before it"
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
		case zone != nil && zone.Name == dockerZone && zone.Target != "ACCEPT":
			finding.Object = "firewalld zone " + dockerZone
			finding.Problem = fmt.Sprintf("the target of firewalld's zone %s is %s instead of ACCEPT", dockerZone, zone.Target)
			finding.Evidence = append([]string{"zone " + dockerZone + " target: " + zone.Target}, finding.Evidence...)
			finding.Advice = fmt.Sprintf("firewall-cmd --permanent --zone=%s --set-target=ACCEPT, then a reload, which loses firewalld's runtime configuration%s", dockerZone, lostByReload(f))
		case sourceZone(h, t) != nil:
			name, source := sourceZone(h, t)[0], sourceZone(h, t)[1]
			finding.Object = "firewalld zone " + name
			finding.Problem = fmt.Sprintf("firewalld's zone %s claims the container's address as a source: %s", name, source)
			finding.Fix = &remediate.Fix{
				Title: fmt.Sprintf("take the source %s out of firewalld's zone %s", source, name),
				Steps: []remediate.Step{remediate.Remove("firewalld-source", source, name)},
				Opens: true,
			}
			for _, permanent := range f.Permanent {
				if permanent.Name == name && slices.Contains(permanent.Sources, source) {
					finding.Fix.Persist = []remediate.Step{remediate.Remove("firewalld-source-permanent", source, name)}
				}
			}
		case t.Direction == netstate.In && h.Walk(t).Via == "docker-proxy":
			name := f.DefaultZone
			if uplink := f.ZoneOf(h.Walk(t).Uplink); uplink != nil {
				name = uplink.Name
			}
			finding.Object = "firewalld zone " + name
			finding.Problem = fmt.Sprintf("docker-proxy serves this client, and firewalld's zone %s does not let it in", name)
			finding.Advice = fmt.Sprintf("firewall-cmd --zone=%s --add-port=%d/%s", name, t.Host.Port(), t.Port.Proto)
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

// sourceZone returns the zone that has the container's address among its sources, and the source, or nil.
func sourceZone(h *Host, t netstate.Target) []string {
	c := h.Container(t.ID)
	if c == nil {
		return nil
	}
	for _, zone := range h.Firewalld.Zones {
		for _, source := range zone.Sources {
			prefix, err := netip.ParsePrefix(source)
			if err != nil {
				continue
			}
			for i := range c.Endpoints {
				if addr := c.Endpoints[i].Addr(t.Family); addr.IsValid() && prefix.Contains(addr) {
					return []string{zone.Name, source}
				}
			}
		}
	}
	return nil
}
