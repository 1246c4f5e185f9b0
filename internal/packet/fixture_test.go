//go:build linux

package packet

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/nftwire"
)

// healthy returns a captured host on which everything works: its uplink has a carrier, every container's
// namespace is there as the engine makes it, and a socket listens on every published port.
func healthy(t testing.TB, name string) *netstate.Snapshot {
	t.Helper()
	s, err := fixture.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	s.Missing = nil
	for i := range s.Host.Links {
		if l := &s.Host.Links[i]; l.Name == "ext0" || l.Name == "ext1" {
			l.Up, l.Carrier, l.State = true, true, "up"
		}
	}
	for i := range s.Host.Routes {
		for j := range s.Host.Routes[i].Hops {
			s.Host.Routes[i].Hops[j].Flags = nil
		}
	}
	s.Sandboxes = map[string]*netstate.Namespace{}
	used := map[int]bool{}
	for i := range s.Containers {
		if c := &s.Containers[i]; c.Running {
			s.Sandboxes[c.ID] = sandbox(t, s, c, used)
		}
	}
	if recorded, err := os.ReadFile("../netstate/nftwire/testdata/docker-" + name + ".netlink"); err == nil {
		s.Host.Nft = ruleset(t, recorded)
	}
	s.Host.Routes = append(s.Host.Routes, netstate.Route{Family: netstate.IPv6, Table: tableMain, Type: "unicast", Dst: netip.MustParsePrefix("::/0"),
		Hops: []netstate.RouteHop{{Dev: "ext0", Gateway: netip.MustParseAddr("2001:db8:f::1")}}})
	return s
}

// ruleset decodes a recording of nf_tables' messages.
func ruleset(t testing.TB, recorded []byte) *netstate.Ruleset {
	t.Helper()
	messages, err := syscall.ParseNetlinkMessage(recorded)
	if err != nil {
		t.Fatal(err)
	}
	d := nftwire.NewDecoder()
	for _, m := range messages {
		if err := d.Add(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(m.Header.Type)}, Data: m.Data}); err != nil {
			t.Fatal(err)
		}
	}
	return &d.Ruleset
}

// sandbox makes the namespace of a running container, as an engine makes it.
func sandbox(t testing.TB, s *netstate.Snapshot, c *netstate.Container, used map[int]bool) *netstate.Namespace {
	t.Helper()
	ns := &netstate.Namespace{
		ID:      "net:[" + c.ID[:8] + "]",
		Links:   []netstate.Link{{Index: 1, Name: "lo", Up: true, Carrier: true, State: "unknown", Loopback: true, MTU: 65536}},
		Addrs:   []netstate.Addr{{Link: "lo", Prefix: netip.MustParsePrefix("127.0.0.1/8"), Scope: "host"}, {Link: "lo", Prefix: netip.MustParsePrefix("::1/128"), Scope: "host"}},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.forwarding": "1"},
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		bridge := s.Host.Link(s.Network(e.NetworkID).Bridge())
		var port *netstate.Link
		for j := range s.Host.Links {
			if l := &s.Host.Links[j]; l.Kind == "veth" && l.Master == bridge.Index && !used[l.Index] {
				port = l
				break
			}
		}
		if port == nil {
			t.Fatalf("container %s has no veth on %s", c.Name, bridge.Name)
			return nil
		}
		used[port.Index] = true
		name := "eth" + string(rune('0'+i))
		ns.NSID = port.PeerNS
		ns.Links = append(ns.Links, netstate.Link{Index: port.Peer, Name: name, Kind: "veth", Up: true, Carrier: true, State: "up", MTU: 1500,
			MAC: e.MAC, Peer: port.Index, PeerNS: new(int)})
		if e.IPv4.IsValid() {
			ns.Addrs = append(ns.Addrs, netstate.Addr{Link: name, Prefix: e.IPv4, Scope: "global"})
			ns.Routes = append(ns.Routes, routes(netstate.IPv4, name, e.IPv4, e.Gateway4)...)
		}
		if e.IPv6.IsValid() {
			ns.Addrs = append(ns.Addrs, netstate.Addr{Link: name, Prefix: e.IPv6, Scope: "global"})
			ns.Routes = append(ns.Routes, routes(netstate.IPv6, name, e.IPv6, e.Gateway6)...)
		}
	}
	for _, b := range slices.Concat(c.Published, c.Configured) {
		state := "listen"
		if b.Port.Proto == "udp" {
			state = "unconnected"
		}
		dual := false
		ns.Sockets = append(ns.Sockets, netstate.Socket{Proto: b.Port.Proto, State: state,
			Local: netip.AddrPortFrom(netip.IPv6Unspecified(), b.Port.Number), V6Only: &dual, Program: "app"})
	}
	return ns
}

// routes returns what a container with that address has.
func routes(family netstate.Family, dev string, addr netip.Prefix, gateway netip.Addr) []netstate.Route {
	hop := []netstate.RouteHop{{Dev: dev}}
	all := []netstate.Route{
		{Family: family, Table: tableMain, Type: "unicast", Dst: addr.Masked(), Protocol: "kernel", Hops: hop},
		{Family: family, Table: tableLocal, Type: "local", Dst: netip.PrefixFrom(addr.Addr(), addr.Addr().BitLen()), Protocol: "kernel", Hops: hop},
	}
	if gateway.IsValid() {
		all = append(all, netstate.Route{Family: family, Table: tableMain, Type: "unicast", Dst: netip.PrefixFrom(unspecified(family), 0),
			Hops: []netstate.RouteHop{{Dev: dev, Gateway: gateway}}})
	}
	return all
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
