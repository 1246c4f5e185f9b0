//go:build linux

package packet

import (
	"slices"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A bridge that filters VLANs lets a frame through where its ports and itself have the VLAN, untagged.
func TestBridgesThatFilterVLANs(t *testing.T) {
	has := func(id int) []netstate.BridgeVLAN { return []netstate.BridgeVLAN{{ID: id, PVID: true, Untagged: true}} }
	for _, test := range []struct {
		what          string
		bridge, port  []netstate.BridgeVLAN
		peer          []netstate.BridgeVLAN // the other container's port
		in, away, aim bool                  // a client's packet, the container's own, and to the other container: they pass
	}{
		{"all have it", has(1), has(1), has(1), true, true, true},
		{"the port has another", has(1), has(7), has(7), false, false, true},
		{"the port has none", has(1), nil, has(1), false, false, false},
		{"the port's has no PVID", has(1), []netstate.BridgeVLAN{{ID: 1, Untagged: true}}, has(1), false, false, false},
		{"the port gives it out tagged", has(1), []netstate.BridgeVLAN{{ID: 1, PVID: true}}, has(1), false, false, false},
		{"the bridge has none", nil, has(1), has(1), false, false, true},
		{"the other port has another", has(1), has(1), has(2), true, true, false},
	} {
		s := healthy(t, "28.5.2-noproxy")
		x := New(s)
		x.prepare()
		own := x.peer(x.sandboxes[container(t, s, "cA").ID].link("eth0"))
		bridge := s.Host.LinkAt(own.Master)
		bridge.Bridge.VLANFiltering, bridge.VLANs = true, test.bridge
		target := out(t, s, "cA", netstate.IPv4)
		for i := range s.Host.Links {
			switch l := &s.Host.Links[i]; {
			case l.Index == own.Index:
				l.VLANs = test.port
			case l.Master == bridge.Index:
				l.VLANs = test.peer
			}
		}
		for i := range s.Host.Neighs { // the bridge's table is another one for each VLAN
			if s.Host.Neighs[i].Master == bridge.Name {
				s.Host.Neighs[i].VLAN = 1
			}
		}
		x = New(s)
		if got := x.Walk(web(t, s)).Stop(Switching) == nil; got != test.in {
			t.Errorf("%s: in passes: %t\n%s", test.what, got, describe(x.Walk(web(t, s))))
		}
		if got := x.Walk(target).Stop(Switching) == nil; got != test.away {
			t.Errorf("%s: out passes: %t\n%s", test.what, got, describe(x.Walk(target)))
		}
		second := slices.IndexFunc(s.Containers, func(c netstate.Container) bool {
			ns := x.sandboxes[c.ID]
			if c.Name == "cA" || ns == nil || ns.link("eth0") == nil {
				return false
			}
			port := x.peer(ns.link("eth0"))
			return port != nil && port.Master == bridge.Index
		})
		if second >= 0 {
			aim := peer(t, s, "cA", s.Containers[second].Name, 80)
			if got := x.Walk(aim).Stop(Switching) == nil; got != test.aim {
				t.Errorf("%s: to the other container passes: %t\n%s", test.what, got, describe(x.Walk(aim)))
			}
		}
	}
}

// That a bridge has no entry, or a port no VLAN, is not known where they were not read.
func TestABridgesTableThatWasNotRead(t *testing.T) {
	for what, edit := range map[string]func(*netstate.Link){
		"no flooding": func(l *netstate.Link) { l.Port.Flood, l.Port.Learning = false, false },
		"locked":      func(l *netstate.Link) { l.Port.Locked = true },
	} {
		for _, unread := range []bool{false, true} {
			s := healthy(t, "28.5.2-noproxy")
			target, want := web(t, s), Drop
			s.Host.Neighs = nil
			for i := range s.Host.Links {
				if s.Host.Links[i].Port != nil {
					edit(&s.Host.Links[i])
				}
			}
			if unread {
				want = May
				s.Lacks(netstate.Key{Part: netstate.Links}, "neighbours: interrupted")
			}
			if trace := New(s).Walk(target); trace.Verdict != want || (trace.Stop(Switching) == nil) != unread {
				t.Errorf("%s, unread: %t: want %s\n%s", what, unread, want, describe(trace))
			}
		}
	}
}
