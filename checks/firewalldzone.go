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

// outside words that the bridge is in no zone or in another than Docker's, and moves it there.
func (f *Finding) outside(h *Host, t netstate.Target, bridge string, zone *netstate.Zone) {
	in, step := "no zone", remediate.Add("firewalld-zone", bridge, dockerZone)
	if zone != nil {
		in, step = "zone "+zone.Name, remediate.Set("firewalld-zone", bridge, zone.Name, dockerZone)
	}
	f.Object = "firewalld zone " + dockerZone
	f.Problem = fmt.Sprintf("the bridge %s is in %s instead of firewalld's zone %s", bridge, in, dockerZone)
	f.Hits = hits(h, t, bridge)
	f.Fix = &remediate.Fix{
		Title: fmt.Sprintf("put %s into firewalld's zone %s", bridge, dockerZone), Steps: []remediate.Step{step},
		// Links come into the default zone by themselves; into another that closes, somebody put it.
		Opens: zone != nil && zone.Name != h.Firewalld.DefaultZone && (zone.Target == "DROP" || zone.Target == "%%REJECT%%"),
	}
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

// sourceZone returns the zone that has the container's address among its sources and in whose chain one of the
// stops is, and the source, the longest if there are several; or nil.
func sourceZone(h *Host, t netstate.Target, stops []packet.Stop) []string {
	c := h.Container(t.ID)
	if c == nil {
		return nil
	}
	var found []string
	longest := -1
	for _, zone := range h.Firewalld.Zones {
		if zone.Target == "ACCEPT" {
			continue
		}
		for _, source := range zone.Sources {
			if !slices.ContainsFunc(stops, func(s packet.Stop) bool {
				return ofZone(s.Chain, zone.Name) || strings.Contains(s.Object, " saddr "+source+" ")
			}) {
				continue
			}
			prefix, err := netip.ParsePrefix(source)
			if addr, single := netip.ParseAddr(source); single == nil {
				prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
			}
			if err != nil || prefix.Bits() <= longest {
				continue // a MAC address or an ipset, or one that says less
			}
			if slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return prefix.Contains(e.Addr(t.Family)) }) {
				found, longest = []string{zone.Name, source}, prefix.Bits()
			}
		}
	}
	return found
}

// chainSteps are what firewalld's names of a zone's or policy's chains end in.
var chainSteps = []string{"", "_pre", "_log", "_deny", "_allow", "_post"}

// ofZone says whether firewalld made the chain for that zone: filter_FWD_block, FWDI_block, filter_FWD_block_deny,
// and for what goes from it to another, filter_FWD_block_to_public.
func ofZone(chain, zone string) bool {
	return strings.Contains(chain, "_"+zone+"_to_") || slices.ContainsFunc(chainSteps, func(step string) bool { return strings.HasSuffix(chain, "_"+zone+step) })
}
