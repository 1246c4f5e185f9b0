//go:build linux

package checks

import (
	"encoding/json"
	"fmt"
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

// recorded returns a recorded host with what a recording lacks: an uplink with its carrier, and the
// namespaces of its containers as the engine makes them, with a program on every published port.
func recorded(t *testing.T, name string) *netstate.Snapshot {
	t.Helper()
	s, err := fixture.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	s.Missing, s.Parts = nil, netstate.All
	for i := range s.Host.Links {
		if l := &s.Host.Links[i]; strings.HasPrefix(l.Name, "ext") {
			l.Up, l.Carrier, l.State = true, true, "up"
		}
	}
	for i := range s.Host.Routes {
		for j := range s.Host.Routes[i].Hops {
			s.Host.Routes[i].Hops[j].Flags = nil
		}
	}
	s.Host.Routes = append(s.Host.Routes, way(netstate.IPv6, "ext0", netip.MustParsePrefix("::/0"), netip.MustParseAddr("2001:db8:f::1")))
	if messages, err := os.ReadFile("../internal/netstate/nftwire/testdata/docker-" + name + ".netlink"); err == nil {
		s.Host.Nft = nftRecorded(t, messages)
	}
	s.Sandboxes, s.Asked = map[string]*netstate.Namespace{}, nil
	used := map[int]bool{}
	for i := range s.Containers {
		if c := &s.Containers[i]; c.Running {
			s.Sandboxes[c.ID] = inside(t, s, c, used)
			s.Asked = append(s.Asked, c.ID)
		}
	}
	return s
}

func nftRecorded(t *testing.T, data []byte) *netstate.Ruleset {
	t.Helper()
	messages, err := syscall.ParseNetlinkMessage(data)
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

func way(family netstate.Family, dev string, to netip.Prefix, by netip.Addr) netstate.Route {
	return netstate.Route{Family: family, Table: 254, Type: "unicast", Dst: to, Hops: []netstate.RouteHop{{Dev: dev, Gateway: by}}}
}

// inside makes the namespace of a running container.
func inside(t *testing.T, s *netstate.Snapshot, c *netstate.Container, used map[int]bool) *netstate.Namespace {
	t.Helper()
	ns := &netstate.Namespace{
		ID:    "net:[" + c.ID[:8] + "]",
		Links: []netstate.Link{{Index: 1, Name: "lo", Up: true, Carrier: true, State: "unknown", Loopback: true, MTU: 65536}},
		Addrs: []netstate.Addr{{Link: "lo", Prefix: netip.MustParsePrefix("127.0.0.1/8"), Scope: "host"}},
		// The engine's resolver, and the rules that lead to it.
		Sockets: []netstate.Socket{{Proto: "udp", State: "unconnected", Local: netip.MustParseAddrPort("127.0.0.11:40000")}},
		Iptables: []netstate.IptablesSet{{Variant: "nft", Family: netstate.IPv4, Tables: []netstate.IptablesTable{{Name: "nat", Chains: []netstate.IptablesChain{
			{Name: "DOCKER_OUTPUT", Rules: []netstate.IptablesRule{{Text: "-d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:40000"}}}}}}}},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.forwarding": "1"},
	}
	for i, e := range c.Endpoints {
		bridge := s.Host.Link(s.Network(e.NetworkID).Bridge())
		at := slices.IndexFunc(s.Host.Links, func(l netstate.Link) bool {
			return l.Kind == "veth" && l.Master == bridge.Index && !used[l.Index]
		})
		if at < 0 {
			t.Fatalf("container %s has no veth on %s", c.Name, bridge.Name)
		}
		port, name := s.Host.Links[at], "eth"+string(rune('0'+i))
		used[port.Index], ns.NSID = true, port.PeerNS
		ns.Links = append(ns.Links, netstate.Link{Index: port.Peer, Name: name, Kind: "veth", Up: true, Carrier: true, State: "up", MTU: 1500, MAC: e.MAC, Peer: port.Index, PeerNS: new(int)})
		for _, addr := range []struct {
			prefix  netip.Prefix
			gateway netip.Addr
		}{{e.IPv4, e.Gateway4}, {e.IPv6, e.Gateway6}} {
			if !addr.prefix.IsValid() {
				continue
			}
			family := netstate.FamilyOf(addr.prefix.Addr())
			ns.Addrs = append(ns.Addrs, netstate.Addr{Link: name, Prefix: addr.prefix, Scope: "global"})
			local := way(family, name, netip.PrefixFrom(addr.prefix.Addr(), addr.prefix.Addr().BitLen()), netip.Addr{})
			local.Table, local.Type = 255, "local"
			ns.Routes = append(ns.Routes, way(family, name, addr.prefix.Masked(), netip.Addr{}), local)
			if addr.gateway.IsValid() {
				everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
				if family == netstate.IPv6 {
					everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
				}
				ns.Routes = append(ns.Routes, way(family, name, everywhere, addr.gateway))
			}
		}
	}
	for _, b := range bindings(c) {
		state, dual := map[string]string{"udp": "unconnected"}[b.Port.Proto], false
		if state == "" {
			state = "listen"
		}
		ns.Sockets = append(ns.Sockets, netstate.Socket{Proto: b.Port.Proto, State: state, Local: netip.AddrPortFrom(netip.IPv6Unspecified(), b.Port.Number), V6Only: &dual, Program: "app"})
	}
	return ns
}

// judgeRecorded judges the targets of the containers on plain networks: default settings, both families.
func judgeRecorded(t *testing.T, s *netstate.Snapshot) *Report {
	t.Helper()
	targets, _, err := Targets(s, Ask{})
	if err != nil {
		t.Fatal(err)
	}
	targets = slices.DeleteFunc(targets, func(t netstate.Target) bool {
		// Without docker-proxy no kernel lets a reply to ::1 in: that binding fails, and rightly.
		return t.Container != "cA" && t.Container != "c6" && t.Container != "cNI" || len(s.Proxies) == 0 && t.Host.Addr() == netip.IPv6Loopback()
	})
	return Judge(Suite, NewHost(s), targets)
}

// TestRecordedHostsAreWell judges what engine 29 made of a host, by either backend.
func TestRecordedHostsAreWell(t *testing.T) {
	for _, name := range fixture.Cases() {
		if !strings.HasPrefix(name, "29") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			report := judgeRecorded(t, recorded(t, name))
			if len(report.Targets) == 0 {
				t.Fatal("nothing was judged")
			}
			for _, j := range report.Targets {
				for _, r := range j.Results {
					if r.Status != Pass {
						text, _ := json.Marshal(r)
						t.Errorf("%s: %s", Name(j.Target), text)
					}
				}
			}
		})
	}
}

// TestRecordedRuleMissing takes each rule away, one at a time: where it hits a target, it has to be named.
func TestRecordedRuleMissing(t *testing.T) {
	for _, name := range []string{"29.7.2-iptables-proxy", "29.7.2-nftables-proxy"} {
		t.Run(name, func(t *testing.T) {
			hits := 0
			eachRule(recorded(t, name), func(place string, take func(*netstate.Snapshot)) {
				s := recorded(t, name)
				take(s)
				h := NewHost(s)
				targets, _, _ := Targets(s, Ask{})
				if !slices.ContainsFunc(targets, func(target netstate.Target) bool {
					return target.Container == "cA" && len(h.Program().Hits(s, h.compared(), target)) > 0
				}) {
					return
				}
				hits++
				if !names(judgeRecorded(t, s), "missing") {
					t.Errorf("%s is gone, and nobody says so", place)
				}
			})
			if hits < 5 {
				t.Errorf("only %d rules hit a target", hits)
			}
		})
	}
}

// eachRule calls f for each rule that iptables has or, of the nftables backend, Docker's tables have.
func eachRule(s *netstate.Snapshot, f func(place string, take func(*netstate.Snapshot))) {
	if NewHost(s).Program().Nftables {
		for i, table := range s.Host.Nft.Tables {
			for j, chain := range table.Chains {
				for k := range chain.Rules {
					if table.Name == "docker-bridges" {
						f(fmt.Sprintf("%s %s, rule %d", table.Family, chain.Name, k+1), func(s *netstate.Snapshot) {
							c := &s.Host.Nft.Tables[i].Chains[j]
							c.Rules = slices.Delete(c.Rules, k, k+1)
						})
					}
				}
			}
		}
		return
	}
	for i, set := range s.Host.Iptables {
		for j, table := range set.Tables {
			for k, chain := range table.Chains {
				for l, rule := range chain.Rules {
					f(fmt.Sprintf("%s %s %s %s", set.Command(), table.Name, chain.Name, rule.Text), func(s *netstate.Snapshot) {
						c := &s.Host.Iptables[i].Tables[j].Chains[k]
						c.Rules = slices.Delete(c.Rules, l, l+1)
					})
				}
			}
		}
	}
}

// names says whether a finding has an object with that text.
func names(r *Report, text string) bool {
	for _, j := range r.Targets {
		for _, result := range j.Results {
			if slices.ContainsFunc(result.Findings, func(f Finding) bool {
				return strings.Contains(f.Object, text) || slices.ContainsFunc(f.Evidence, func(e string) bool { return strings.Contains(e, text) })
			}) {
				return true
			}
		}
	}
	return false
}
