//go:build linux

package packet

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// web is the target that most tests use: container cA's port 80, published as 8080.
func web(t testing.TB, s *netstate.Snapshot) netstate.Target {
	t.Helper()
	c := container(t, s, "cA")
	return netstate.Target{Container: "cA", ID: c.ID, Direction: netstate.In, From: netstate.FromOutside,
		Port: netstate.Port{Number: 80, Proto: "tcp"}, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Family: netstate.IPv4}
}

func out(t testing.TB, s *netstate.Snapshot, name string, family netstate.Family) netstate.Target {
	t.Helper()
	c := container(t, s, name)
	return netstate.Target{Container: name, ID: c.ID, Direction: netstate.Out, From: netstate.FromContainer, Family: family}
}

func peer(t testing.TB, s *netstate.Snapshot, from, to string, number uint16) netstate.Target {
	t.Helper()
	a, b := container(t, s, from), container(t, s, to)
	return netstate.Target{Container: from, ID: a.ID, Direction: netstate.Peer, From: netstate.FromContainer, Family: netstate.IPv4,
		ToName: to, ToID: b.ID, Port: netstate.Port{Number: number, Proto: "tcp"}}
}

func TestEgressOfHealthyHosts(t *testing.T) {
	for _, name := range fixture.Cases() {
		t.Run(name, func(t *testing.T) {
			s := healthy(t, name)
			x := New(s)
			for _, c := range s.Containers {
				network := s.Network(c.Endpoints[0].NetworkID)
				for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
					if !c.Endpoints[0].Addr(family).IsValid() {
						continue
					}
					trace := x.Walk(out(t, s, c.Name, family))
					// Nothing leaves an internal network, unless the engine leaves IPv6 alone; and the rules by which
					// engines from 28 on refuse direct access drop the replies to what was not masqueraded.
					want := Pass
					if network.Internal && !(family == netstate.IPv6 && name == "20.10.24-proxy") ||
						!network.Masquerade() && network.GatewayMode(family) == "nat" && name >= "28" {
						want = Drop
					}
					if trace.Verdict != want {
						t.Errorf("%s %s: want %s\n%s", c.Name, family, want, describe(trace))
					}
				}
			}
		})
	}
}

func TestContainersOfSeveralNetworksAreKeptApart(t *testing.T) {
	for _, name := range fixture.Cases() {
		t.Run(name, func(t *testing.T) {
			s := healthy(t, name)
			trace := New(s).Walk(peer(t, s, "cA", "cNM", 74))
			stop := trace.Stop(Filter, Policy)
			if trace.Verdict != Drop || stop == nil || stop.Owner != "Docker" {
				t.Errorf("want a drop by Docker:\n%s", describe(trace))
			}
		})
	}
}

// An edit breaks a healthy host; the walk has to say where, and that alone.
func TestOneFault(t *testing.T) {
	tests := []struct {
		name   string
		edit   func(*netstate.Snapshot)
		kind   Kind
		object string
	}{
		{"forwarding off", set("net.ipv4.ip_forward", "0", "net.ipv4.conf.all.forwarding", "0", "net.ipv4.conf.ext0.forwarding", "0", "net.ipv4.conf.brA.forwarding", "0"),
			Forwarding, "sysctl net.ipv4.ip_forward"},
		{"forwarding off on the uplink", set("net.ipv4.conf.ext0.forwarding", "0"), Forwarding, "sysctl net.ipv4.conf.ext0.forwarding"},
		{"forwarding off on the bridge", set("net.ipv4.conf.brA.forwarding", "0"), Forwarding, "sysctl net.ipv4.conf.brA.forwarding"},
		{"bridge down", func(s *netstate.Snapshot) { s.Host.Link("brA").Up = false }, LinkDown, "link brA"},
		{"uplink down", func(s *netstate.Snapshot) { s.Host.Link("ext0").Carrier = false; s.Host.Link("ext0").State = "down" }, NoCarrier, "link ext0"},
		{"more specific route elsewhere", route("192.0.2.0/25", "brNM"), WrongRoute, "route 192.0.2.0/25 dev brNM"},
		{"blackhole", func(s *netstate.Snapshot) {
			s.Host.Routes = append(s.Host.Routes, netstate.Route{Family: netstate.IPv4, Table: tableMain, Type: "blackhole", Dst: netip.MustParsePrefix("192.0.2.2/32")})
		}, Unreachable, "route blackhole 192.0.2.2"},
		{"drop in DOCKER-USER", rules("filter", "DOCKER-USER", "-i ext0 -j DROP"), Filter, "iptables filter DOCKER-USER 1: -i ext0 -j DROP"},
		{"drop in mangle", rules("mangle", "PREROUTING", "-p tcp -m tcp --dport 8080 -j DROP"), Filter, "iptables mangle PREROUTING 1: -p tcp -m tcp --dport 8080 -j DROP"},
		{"reject in raw", rules("filter", "FORWARD", "-s 192.0.2.2/32 -j REJECT --reject-with icmp-port-unreachable"), Filter,
			"iptables filter FORWARD 1: -s 192.0.2.2/32 -j REJECT --reject-with icmp-port-unreachable"},
		{"diverted", rules("nat", "PREROUTING", "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.99:80"), Diverted,
			"iptables nat PREROUTING 1: -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.99:80"},
		{"strict reverse path", func(s *netstate.Snapshot) {
			set("net.ipv4.conf.all.rp_filter", "1")(s)
			route("198.51.100.0/24", "brNM")(s)
		}, RPFilter, "sysctl net.ipv4.conf.all.rp_filter"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := healthy(t, "28.5.2-proxy")
			test.edit(s)
			target := web(t, s)
			target.Client, target.Iface = netip.MustParseAddr("198.51.100.9"), "ext0"
			trace := New(s).Walk(target)
			stop := trace.Stop(test.kind)
			if stop == nil || stop.Object != test.object || !trace.Verdict.Stops() {
				t.Errorf("want %s by %s:\n%s", test.kind, test.object, describe(trace))
			}
		})
	}
}

func set(pairs ...string) func(*netstate.Snapshot) {
	return func(s *netstate.Snapshot) {
		for i := 0; i < len(pairs); i += 2 {
			s.Host.Sysctls[pairs[i]] = pairs[i+1]
		}
	}
}

func route(dst, dev string) func(*netstate.Snapshot) {
	return func(s *netstate.Snapshot) {
		s.Host.Routes = append(s.Host.Routes, netstate.Route{Family: netstate.IPv4, Table: tableMain, Type: "unicast",
			Dst: netip.MustParsePrefix(dst), Hops: []netstate.RouteHop{{Dev: dev}}})
	}
}

// rules puts rules of IPv4 before the others of a chain, which it makes where there is none.
func rules(table, chain string, texts ...string) func(*netstate.Snapshot) {
	return func(s *netstate.Snapshot) {
		set := s.Host.IptablesSet("nft", netstate.IPv4)
		t := set.Table(table)
		if t == nil {
			set.Tables = append(set.Tables, netstate.IptablesTable{Name: table})
			t = &set.Tables[len(set.Tables)-1]
		}
		c := t.Chain(chain)
		if c == nil {
			t.Chains = append(t.Chains, netstate.IptablesChain{Name: chain, Policy: "ACCEPT"})
			c = &t.Chains[len(t.Chains)-1]
		}
		var all []netstate.IptablesRule
		for _, text := range texts {
			all = append(all, netstate.IptablesRule{Text: text})
		}
		c.Rules = append(all, c.Rules...)
	}
}

// Removing any one of the rules that the packet needs stops it, or leaves it to docker-proxy.
func TestEveryNeededRuleIsNeeded(t *testing.T) {
	for _, name := range []string{"20.10.24-proxy", "26.1.5-proxy", "28.5.2-proxy", "29.7.2-iptables-proxy", "28.5.2-noproxy"} {
		t.Run(name, func(t *testing.T) {
			s := healthy(t, name)
			before := New(s).Walk(web(t, s))
			if before.Verdict != Pass || before.Via != "forward" {
				t.Fatal(describe(before))
			}
			needed := 0
			set := s.Host.IptablesSet("nft", netstate.IPv4)
			for i := range set.Tables {
				for j := range set.Tables[i].Chains {
					c := &set.Tables[i].Chains[j]
					all := c.Rules
					for k := range all {
						c.Rules = append(append([]netstate.IptablesRule{}, all[:k]...), all[k+1:]...)
						after := New(s).Walk(web(t, s))
						if after.Verdict != Pass || after.Via != before.Via {
							needed++
							if after.Verdict == May {
								t.Errorf("without %s %s: %s\n%s", c.Name, all[k].Text, after.Verdict, describe(after))
							}
						}
					}
					c.Rules = all
				}
			}
			if needed < 4 {
				t.Errorf("only %d rules are needed", needed)
			}
		})
	}
}

func TestWhatCannotBeToldIsMay(t *testing.T) {
	for _, rule := range []string{
		"-m statistic --mode random --probability 0.50000000000 -j DROP",
		"-m limit --limit 1/sec -j DROP",
		"-m geoip --source-country CN -j DROP",
		"-m nosuch --thing 1 2 3 -j DROP",
		"-p tcp -m tcp --sport 40000:50000 -j DROP",
		"-j NFQUEUE --queue-num 1",
		"-j NOSUCH --option",
		"-m string --string \"a -j ACCEPT\" --algo bm --to 65535 -j DROP",
	} {
		t.Run(rule, func(t *testing.T) {
			s := healthy(t, "28.5.2-proxy")
			rules("filter", "FORWARD", rule)(s)
			trace := New(s).Walk(web(t, s))
			if trace.Verdict != May || len(trace.Stops) == 0 {
				t.Errorf("want may:\n%s", describe(trace))
			}
			for _, stop := range trace.Stops {
				if stop.Verdict != May || !strings.Contains(stop.Object, "FORWARD 1:") || !strings.Contains(stop.Why, "depends on") {
					t.Errorf("%+v\n%s", stop, describe(trace))
				}
			}
		})
	}
	// Both ways end in a drop: that is certain.
	s := healthy(t, "28.5.2-proxy")
	rules("filter", "FORWARD", "-m limit --limit 1/sec -j DROP", "-j DROP")(s)
	if trace := New(s).Walk(web(t, s)); trace.Verdict != Drop {
		t.Errorf("want drop:\n%s", describe(trace))
	}
}

func TestUnreadIsMay(t *testing.T) {
	for _, key := range []netstate.Key{{Part: netstate.Iptables}, {Part: netstate.Nftables}, {Part: netstate.Routes}, {Part: netstate.Sysctls},
		{Part: netstate.Iptables, Family: netstate.IPv4, Variant: "legacy"}} {
		s := healthy(t, "28.5.2-proxy")
		s.Lacks(key, "permission denied")
		if trace := New(s).Walk(web(t, s)); trace.Verdict != May || trace.Stop(Unread) == nil {
			t.Errorf("%v: want may\n%s", key, describe(trace))
		}
	}
}

// What the ruleset of nf_tables that was not read does with a published port is not known: nothing of that is certain.
func TestNothingIsCertainOfAnUnreadRuleset(t *testing.T) {
	for _, name := range fixture.Cases() {
		s := healthy(t, name)
		s.Host.Nft, s.Host.Iptables = nil, slices.DeleteFunc(s.Host.Iptables, func(set netstate.IptablesSet) bool { return set.Variant == "nft" })
		s.Lacks(netstate.Key{Part: netstate.Nftables}, "permission denied")
		x := New(s)
		for _, target := range inTargets(s) {
			if trace := x.Walk(target); trace.Verdict != May {
				t.Errorf("%s %s from %s to %s: want may\n%s", name, target.Container, target.From, target.Host, describe(trace))
			}
		}
	}
}

// A namespace that containers share is the one's that made it, whichever ID comes first.
func TestASharedNamespaceIsItsDonors(t *testing.T) {
	for i := range 20 { // chance would decide for each snapshot
		s, digit := healthy(t, "28.5.2-noproxy"), []string{"0", "f"}[i%2]
		c := container(t, s, "cA")
		member := netstate.Container{ID: strings.Repeat(digit, 64), Name: "sidecar", Running: true, NetworkMode: "container:" + c.ID}
		s.Containers = append([]netstate.Container{member}, s.Containers...)
		s.Sandboxes[member.ID] = s.Sandboxes[c.ID]
		s.Sandboxes[c.ID].Routes = nil
		if stop := New(s).Walk(out(t, s, "cA", netstate.IPv4)).Stop(NoRoute); stop == nil || !strings.HasSuffix(stop.Object, " in container cA") {
			t.Fatalf("%+v", stop)
		}
	}
}

// Without a route a packet is followed by the container's first interface.
func TestWithoutARouteTheFirstInterfaceIsFollowed(t *testing.T) {
	for range 20 {
		s := healthy(t, "28.5.2-noproxy")
		ns, other := s.Sandboxes[container(t, s, "cA").ID], s.Sandboxes[container(t, s, "c6").ID]
		second := *other.Link("eth0")
		second.Name, second.Index = "eth1", 99
		port := s.Host.LinkAt(second.Peer)
		port.Peer, port.PeerNS = second.Index, ns.NSID
		ns.Links = append(ns.Links, second)
		ns.Routes = slices.DeleteFunc(ns.Routes, func(r netstate.Route) bool { return r.Table == tableMain && r.Family == netstate.IPv4 })
		trace := New(s).Walk(out(t, s, "cA", netstate.IPv4))
		if len(trace.Stops) == 0 || !slices.ContainsFunc(trace.Request, func(s Step) bool { return strings.Contains(s.Object, "-i brA ") }) {
			t.Fatal(describe(trace))
		}
	}
}

// Which VLANs a bridge's port has is not read.
func TestVLANFilteringIsMay(t *testing.T) {
	s := healthy(t, "28.5.2-proxy")
	target := web(t, s)
	for i := range s.Host.Links {
		if b := s.Host.Links[i].Bridge; b != nil {
			b.VLANFiltering = true
		}
	}
	if trace := New(s).Walk(target); trace.Verdict != May || trace.Stop(Unread) == nil {
		t.Errorf("want may\n%s", describe(trace))
	}
}

func TestNobodyListens(t *testing.T) {
	s := healthy(t, "28.5.2-proxy")
	target := web(t, s)
	s.Sandboxes[target.ID].Sockets = []netstate.Socket{{Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort("127.0.0.1:80"), Program: "nginx"}}
	trace := New(s).Walk(target)
	stop := trace.Stop(NoListener)
	if trace.Verdict != Refuse || stop == nil || stop.Hop != Socket || len(stop.Evidence) != 1 {
		t.Errorf("want a refusal:\n%s", describe(trace))
	}
}

func TestIndependentFaultsAllComeOut(t *testing.T) {
	s := healthy(t, "28.5.2-proxy")
	set("net.ipv4.conf.ext0.forwarding", "0")(s)
	rules("filter", "DOCKER-USER", "-i ext0 -j DROP")(s)
	rules("mangle", "POSTROUTING", "-o brA -j DROP")(s)
	target := web(t, s)
	s.Sandboxes[target.ID].Sockets = nil
	trace := New(s).Walk(target)
	if len(trace.Stops) != 4 {
		t.Errorf("want four stops:\n%s", describe(trace))
	}
}
