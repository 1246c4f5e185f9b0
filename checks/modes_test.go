package checks

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestEveryContainerIsJudged says that no container, however it was made, is passed over without a target.
func TestEveryContainerIsJudged(t *testing.T) {
	bridged := netstate.Endpoint{NetworkID: "b", IPv4: netip.MustParsePrefix("172.17.0.2/16"), Gateway4: netip.MustParseAddr("172.17.0.1")}
	internal := netstate.Endpoint{NetworkID: "i", IPv4: netip.MustParsePrefix("172.18.0.2/16")}
	v6 := netstate.Endpoint{NetworkID: "b", IPv6: netip.MustParsePrefix("fd00::2/64"), Gateway6: netip.MustParseAddr("fd00::1")}
	port := []netstate.Binding{{Port: netstate.Port{Number: 80, Proto: "tcp"}, HostPort: 80}}
	for _, test := range []struct {
		name      string
		container netstate.Container
		ask       Ask
		want      string // names of the targets
		reason    string // of the first
		check     string // that fails
	}{
		{"published", netstate.Container{Running: true, Endpoints: []netstate.Endpoint{bridged}, Published: port}, Ask{}, "c 80/tcp, c out", "", ""},
		{"not published", netstate.Container{Running: true, Endpoints: []netstate.Endpoint{bridged}}, Ask{}, "c out", "", ""},
		{"stopped", netstate.Container{Status: "exited", NetworkMode: "default"}, Ask{}, "c out", "", "running"},
		{"stopped, to be published", netstate.Container{Status: "exited", Configured: port}, Ask{}, "c 80/tcp", "", "running"},
		{"stopped, with a destination", netstate.Container{Status: "exited"}, Ask{To: netip.MustParseAddrPort("192.0.2.1:80")}, "c → 192.0.2.1:80", "", "running"},
		{"none", netstate.Container{Running: true, NetworkMode: "none"}, Ask{}, "c out", "no network", ""},
		{"none, with a destination", netstate.Container{Running: true, NetworkMode: "none"}, Ask{To: netip.MustParseAddrPort("192.0.2.1:80")}, "c → 192.0.2.1:80", "", "namespace"},
		{"internal", netstate.Container{Running: true, Endpoints: []netstate.Endpoint{internal}}, Ask{}, "c out", "internal", ""},
		{"internal, with a destination", netstate.Container{Running: true, Endpoints: []netstate.Endpoint{internal}}, Ask{To: netip.MustParseAddrPort("192.0.2.1:80")}, "c → 192.0.2.1:80", "", "namespace"},
		{"internal and another", netstate.Container{Running: true, Endpoints: []netstate.Endpoint{internal, bridged}}, Ask{}, "c out", "", ""},
		{"no network left", netstate.Container{Running: true, NetworkMode: "default"}, Ask{}, "c out", "taken out", ""},
		{"host", netstate.Container{Running: true, NetworkMode: "host"}, Ask{}, "c out", "", ""},
		{"IPv6 alone, on a host without", netstate.Container{Running: true, Endpoints: []netstate.Endpoint{v6}}, Ask{}, "c out", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.container.ID, test.container.Name = "c", "c"
			s := &netstate.Snapshot{Asked: []string{"c"}, Containers: []netstate.Container{test.container}, Engine: &netstate.EngineState{Local: true, Version: "28.5.2"},
				Networks: []netstate.Network{{ID: "b", Driver: "bridge", IPv4: true}, {ID: "i", Driver: "bridge", IPv4: true, Internal: true}}, Parts: netstate.All}
			targets, _, err := Targets(s, test.ask)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, target := range targets {
				names = append(names, Name(target))
			}
			if got := strings.Join(names, ", "); got != test.want {
				t.Fatalf("targets %s, want %s", got, test.want)
			}
			j := Judge(Suite, NewHost(s), targets).Targets[0]
			if test.reason != "" && (j.Status != Pass || !strings.Contains(j.Reason, test.reason)) || test.reason == "" && j.Reason != "" {
				t.Errorf("%s, reason %q, want one of %q", j.Status, j.Reason, test.reason)
			}
			if test.check != "" && (j.Cause == nil || j.Cause.Check != test.check || len(j.Causes) != 1) {
				t.Errorf("causes %v, want one of %s", j.Causes, test.check)
			}
		})
	}
}
