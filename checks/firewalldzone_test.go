package checks

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// TestZoneOnPurposeOpens says when a bridge's way back into the zone docker needs consent: where somebody put it
// into a zone that closes, or wrote its zone down.
func TestZoneOnPurposeOpens(t *testing.T) {
	for _, c := range []struct {
		name, defaultZone string
		zone              *netstate.Zone
		permanent         string
		want              bool
	}{
		{"no zone", "public", nil, "", false},
		{"the default zone", "public", &netstate.Zone{Name: "public", Target: "default"}, "", false},
		{"a default zone that drops", "drop", &netstate.Zone{Name: "drop", Target: "DROP"}, "", false},
		{"another that filters", "public", &netstate.Zone{Name: "work", Target: "default"}, "", false},
		{"drop", "public", &netstate.Zone{Name: "drop", Target: "DROP"}, "", true},
		{"block", "public", &netstate.Zone{Name: "block", Target: "%%REJECT%%"}, "", true},
		{"its own that drops", "public", &netstate.Zone{Name: "quarantine", Target: "DROP"}, "", true},
		{"written down", "public", &netstate.Zone{Name: "public", Target: "default"}, "public", true},
	} {
		s := &netstate.Snapshot{Firewalld: &netstate.FirewalldState{DefaultZone: c.defaultZone}}
		if c.permanent != "" {
			s.Firewalld.Permanent = []netstate.Zone{{Name: c.permanent, Interfaces: []string{"docker0"}}}
		}
		var f Finding
		f.outside(NewHost(s), target, "docker0", c.zone)
		if f.Fix.Opens != c.want {
			t.Errorf("%s: opens %t, want %t", c.name, f.Fix.Opens, c.want)
		}
	}
}

// TestSourceZoneStopsThePacket says that of the zones with the container's address among their sources the one is
// named that stops the packet, and no other.
func TestSourceZoneStopsThePacket(t *testing.T) {
	zones := []netstate.Zone{
		{Name: "trusted", Target: "ACCEPT", Sources: []string{"172.17.0.2"}},
		{Name: "work", Target: "default", Sources: []string{"172.17.0.0/24", "52:54:00:00:00:01", "ipset:bad"}},
		{Name: "drop", Target: "DROP", Sources: []string{"172.16.0.0/12"}},
		{Name: "block", Target: "%%REJECT%%", Sources: []string{"172.17.0.0/16"}},
		{Name: "far", Target: "DROP", Sources: []string{"10.0.0.0/8"}},
		{Name: "one", Target: "DROP", Sources: []string{"172.17.0.2"}},
	}
	s := &netstate.Snapshot{Firewalld: &netstate.FirewalldState{Zones: zones}, Containers: []netstate.Container{{ID: target.ID,
		Endpoints: []netstate.Endpoint{{IPv4: netip.MustParsePrefix("172.17.0.2/16")}}}}}
	for _, c := range []struct {
		chains []string
		want   []string
	}{
		{[]string{"filter_FWD_block"}, []string{"block", "172.17.0.0/16"}},
		{[]string{"filter_FWDI_block_deny"}, []string{"block", "172.17.0.0/16"}},
		{[]string{"FWD_drop", "FWD_block"}, []string{"block", "172.17.0.0/16"}},
		{[]string{"filter_FWD_one"}, []string{"one", "172.17.0.2"}},
		{[]string{"filter_FWD_trusted"}, nil},
		{[]string{"filter_FWD_far"}, nil},
		{[]string{"filter_FWD_public"}, nil},
		{[]string{"filter_FORWARD"}, nil},
		{nil, nil},
	} {
		var stops []packet.Stop
		for _, chain := range c.chains {
			stops = append(stops, packet.Stop{Chain: chain})
		}
		if got := sourceZone(NewHost(s), target, stops); !slices.Equal(got, c.want) {
			t.Errorf("stopped in %v: %v, want %v", c.chains, got, c.want)
		}
	}
}
