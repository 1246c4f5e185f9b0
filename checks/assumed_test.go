package checks

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestLostClients says that a network with addresses of the internet is suspected only where they are not routed to.
func TestLostClients(t *testing.T) {
	for mode, want := range map[string]string{"": "if 11.0.0.0/24 is not this host's own", "nat": "if 11.0.0.0/24 is not this host's own", "routed": ""} {
		s := &netstate.Snapshot{Networks: []netstate.Network{{Name: "n", Driver: "bridge",
			Options: map[string]string{"com.docker.network.bridge.name": "br0", "com.docker.network.bridge.gateway_mode_ipv4": mode}}}}
		s.Host.Routes = []netstate.Route{{Family: netstate.IPv4, Type: "unicast", Dst: netip.MustParsePrefix("11.0.0.0/24"), Hops: []netstate.RouteHop{{Dev: "br0"}}}}
		got := strings.Join(lostClients(s, []netstate.Target{{From: netstate.FromOutside, Assumed: true}}), "\n")
		if (got != "") != (want != "") || !strings.Contains(got, want) {
			t.Errorf("gateway mode %q: %q, want %q", mode, got, want)
		}
	}
}

// TestRootlessNote says that what lies before a rootless engine's namespace is said not to be judged, whether or not
// RootlessKit was seen.
func TestRootlessNote(t *testing.T) {
	kit := &netstate.RootlessKit{Net: "slirp4netns", PortDriver: "builtin"}
	for _, c := range []struct {
		engine netstate.EngineState
		want   string
	}{
		{netstate.EngineState{Rootless: true, Local: true, RootlessKit: kit}, "port driver (builtin), slirp4netns and"},
		{netstate.EngineState{Rootless: true, Local: true}, "port driver (unknown), its network and"},
		{netstate.EngineState{Rootless: true, RootlessKit: kit}, ""},
		{netstate.EngineState{Local: true}, ""},
	} {
		_, notes, err := Targets(&netstate.Snapshot{Engine: &c.engine}, Ask{})
		if got := strings.Join(notes, "\n"); err != nil || (got != "") != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q %v, want %q", c.engine, got, err, c.want)
		}
	}
}
