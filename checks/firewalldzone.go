package checks

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// outside words that the bridge is in no zone or in another than Docker's, and moves it there.
func (f *Finding) outside(h *Host, t netstate.Target, bridge string, zone *netstate.Zone) {
	in, step := "no zone", remediate.Add("firewalld-zone", bridge, dockerZone)
	if zone != nil {
		in, step = "zone "+zone.Name, remediate.Set("firewalld-zone", bridge, zone.Name, dockerZone)
	}
	f.Object = "firewalld zone " + dockerZone
	f.Problem = fmt.Sprintf("the bridge %s is in %s instead of firewalld's zone %s", bridge, in, dockerZone)
	f.Hits = hits(h, t, bridge)
	f.Fix = &remediate.Fix{Title: fmt.Sprintf("put %s into firewalld's zone %s", bridge, dockerZone), Steps: []remediate.Step{step}}
	for _, permanent := range h.Firewalld.Permanent {
		if slices.Contains(permanent.Interfaces, bridge) && permanent.Name != dockerZone {
			// Somebody wrote that down.
			f.Fix.Opens = true
			f.Fix.Persist = []remediate.Step{remediate.Set("firewalld-zone-permanent", bridge, permanent.Name, dockerZone)}
			f.Evidence = append(f.Evidence, "permanent zone "+permanent.Name+": "+bridge)
		}
	}
}

// claimed words that a zone has the container's address among its sources, and takes it out.
func (f *Finding) claimed(h *Host, by []string) {
	name, source := by[0], by[1]
	f.Object = "firewalld zone " + name
	f.Problem = fmt.Sprintf("firewalld's zone %s claims the container's address as a source: %s", name, source)
	f.Fix = &remediate.Fix{
		Title: fmt.Sprintf("take the source %s out of firewalld's zone %s", source, name),
		Steps: []remediate.Step{remediate.Remove("firewalld-source", source, name)},
		Opens: true,
	}
	for _, permanent := range h.Firewalld.Permanent {
		if permanent.Name == name && slices.Contains(permanent.Sources, source) {
			f.Fix.Persist = []remediate.Step{remediate.Remove("firewalld-source-permanent", source, name)}
		}
	}
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
