//go:build linux

package packet

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// healthy returns fixture.Healthy's host.
func healthy(t testing.TB, name string) *netstate.Snapshot {
	t.Helper()
	s, err := fixture.Healthy(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// container returns the container of that name.
func container(t testing.TB, s *netstate.Snapshot, name string) *netstate.Container {
	t.Helper()
	for i := range s.Containers {
		if s.Containers[i].Name == name {
			return &s.Containers[i]
		}
	}
	t.Fatalf("no container %s", name)
	return nil
}

// inTargets returns a target for each published port and each place to start from.
func inTargets(s *netstate.Snapshot) []netstate.Target {
	var targets []netstate.Target
	for _, c := range s.Containers {
		for _, b := range c.Published {
			if b.HostPort == 0 {
				continue
			}
			family := netstate.FamilyOf(b.Host)
			for _, from := range []string{netstate.FromOutside, netstate.FromHost, netstate.FromLocalhost} {
				if loopback(b.Host) != (from == netstate.FromLocalhost) && !b.Host.IsUnspecified() {
					continue
				}
				targets = append(targets, netstate.Target{Container: c.Name, ID: c.ID, Direction: netstate.In, From: from,
					Port: b.Port, Host: netip.AddrPortFrom(b.Host, b.HostPort), Family: family})
			}
		}
	}
	return targets
}

func describe(trace *Trace) string {
	text := trace.Packet + " via " + trace.Via + " verdict " + trace.Verdict.String() + " arrives " + trace.Arrives + "\n"
	for _, s := range trace.Request {
		text += "    " + string(s.Hop) + " | " + s.Object + " | " + s.Did + " [" + s.Verdict.String() + "] " + s.Owner + " " + s.Packet + "\n"
	}
	for _, s := range trace.Reply {
		text += "  < " + string(s.Hop) + " | " + s.Object + " | " + s.Did + " [" + s.Verdict.String() + "] " + s.Owner + " " + s.Packet + "\n"
	}
	for _, s := range trace.Stops {
		text += "  ! " + string(s.Hop) + " " + string(s.Kind) + " " + s.Verdict.String() + " | " + s.Object + " | " + s.Why + " | " + s.Owner + "\n"
	}
	for _, n := range trace.Notes {
		text += "  . " + n + "\n"
	}
	return text
}

func TestPublishedPortsOfHealthyHosts(t *testing.T) {
	for _, name := range fixture.Cases() {
		t.Run(name, func(t *testing.T) {
			s := healthy(t, name)
			x := New(s)
			targets := inTargets(s)
			if len(targets) < 10 {
				t.Fatalf("only %d targets", len(targets))
			}
			for _, target := range targets {
				trace := x.Walk(target)
				if target.From == netstate.FromLocalhost && target.Family == netstate.IPv6 && strings.Contains(name, "noproxy") {
					// Without docker-proxy nothing serves ::1: the reply cannot come in.
					if stop := trace.Stop(Martian); trace.Verdict != Drop || stop == nil || !stop.Hop.IsReply() {
						t.Errorf("%s %s from localhost: %s", target.Container, target.Port, describe(trace))
					}
					continue
				}
				if trace.Verdict != Pass {
					t.Errorf("%s %s from %s to %s:\n%s", target.Container, target.Port, target.From, target.Host, describe(trace))
				}
			}
		})
	}
}
