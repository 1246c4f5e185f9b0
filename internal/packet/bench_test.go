//go:build linux

package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// crowded returns a host with that many containers, each with a published port, and that many rules of
// iptables beside Docker's: half of them block lists, half services.
func crowded(containers, more int) *netstate.Snapshot {
	s := &netstate.Snapshot{Parts: netstate.All, Engine: &netstate.EngineState{Version: "28.5.2"}, Sandboxes: map[string]*netstate.Namespace{}}
	h := &s.Host
	h.ID = "net:[1]"
	h.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.forwarding": "1", "net.ipv4.conf.all.rp_filter": "2"}
	h.Links = []netstate.Link{
		{Index: 1, Name: "lo", Up: true, Carrier: true, Loopback: true},
		{Index: 2, Name: "eth0", Up: true, Carrier: true, MAC: "02:00:00:00:00:15"},
		{Index: 3, Name: "docker0", Kind: "bridge", Up: true, Carrier: true, Bridge: &netstate.Bridge{}},
	}
	h.Addrs = []netstate.Addr{{Link: "lo", Prefix: netip.MustParsePrefix("127.0.0.1/8"), Scope: "host"}, {Link: "eth0", Prefix: netip.MustParsePrefix("198.51.100.15/24"), Scope: "global"},
		{Link: "docker0", Prefix: netip.MustParsePrefix("172.17.0.1/16"), Scope: "global"}}
	h.Routes = append(fixture.RoutesOf("eth0", h.Addrs[1].Prefix, netip.MustParseAddr("198.51.100.1")), fixture.RoutesOf("docker0", h.Addrs[2].Prefix, netip.Addr{})...)
	network := netstate.Network{ID: "n", Name: "bridge", Driver: "bridge", Options: map[string]string{"com.docker.network.bridge.name": "docker0"}}
	var dnat, forward, raw []netstate.IptablesRule
	rule := func(list *[]netstate.IptablesRule, format string, args ...any) {
		*list = append(*list, netstate.IptablesRule{Text: fmt.Sprintf(format, args...)})
	}
	for i := range containers {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 172<<24|17<<16|uint32(i+2))
		addr := netip.AddrFrom4(b)
		id := fmt.Sprintf("c%063d", i)
		c := netstate.Container{ID: id, Name: fmt.Sprintf("c%d", i), Status: "running", Running: true, NetworkMode: "bridge",
			Published: []netstate.Binding{{Port: netstate.Port{Number: 80, Proto: "tcp"}, Host: netip.IPv4Unspecified(), HostPort: uint16(10000 + i)}},
			Endpoints: []netstate.Endpoint{{Network: "bridge", NetworkID: "n", IPv4: netip.PrefixFrom(addr, 16), Gateway4: h.Addrs[2].Prefix.Addr()}}}
		s.Containers = append(s.Containers, c)
		h.Links = append(h.Links, netstate.Link{Index: 10 + i, Name: fmt.Sprintf("veth%d", i), Kind: "veth", Up: true, Carrier: true, Master: 3, Peer: 2, PeerNS: &i, Port: &netstate.BridgePort{State: "forwarding"}})
		s.Sandboxes[id] = &netstate.Namespace{ID: "net:[" + id + "]", NSID: &i,
			Links:   []netstate.Link{{Index: 1, Name: "lo", Loopback: true, Up: true, Carrier: true}, {Index: 2, Name: "eth0", Kind: "veth", Up: true, Carrier: true, Peer: 10 + i}},
			Addrs:   []netstate.Addr{{Link: "eth0", Prefix: netip.PrefixFrom(addr, 16), Scope: "global"}},
			Routes:  fixture.RoutesOf("eth0", netip.PrefixFrom(addr, 16), h.Addrs[2].Prefix.Addr()),
			Sockets: []netstate.Socket{{Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort("0.0.0.0:80")}}}
		rule(&dnat, "! -i docker0 -p tcp -m tcp --dport %d -j DNAT --to-destination %s:80", 10000+i, addr)
		rule(&forward, "-d %s/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT", addr)
		rule(&raw, "-d %s/32 ! -i docker0 -j DROP", addr)
	}
	s.Networks = []netstate.Network{network}
	var user, input []netstate.IptablesRule
	for i := range more / 2 {
		rule(&user, "-s 10.%d.%d.%d/32 -j DROP", i>>16&255, i>>8&255, i&255)
		rule(&input, "-p tcp -m tcp --dport %d -m comment --comment \"service %d\" -j ACCEPT", 20000+i, i)
	}
	rule(&forward, "! -i docker0 -o docker0 -j DROP")
	chain := func(name, policy string, rules ...netstate.IptablesRule) netstate.IptablesChain {
		return netstate.IptablesChain{Name: name, Policy: policy, Rules: rules}
	}
	text := func(t string) netstate.IptablesRule { return netstate.IptablesRule{Text: t} }
	h.Iptables = []netstate.IptablesSet{{Family: netstate.IPv4, Variant: "nft", Tables: []netstate.IptablesTable{
		{Name: "raw", Chains: []netstate.IptablesChain{chain("PREROUTING", "ACCEPT", raw...)}},
		{Name: "nat", Chains: []netstate.IptablesChain{chain("PREROUTING", "ACCEPT", text("-m addrtype --dst-type LOCAL -j DOCKER")), chain("DOCKER", "", dnat...),
			chain("POSTROUTING", "ACCEPT", text("-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"))}},
		{Name: "filter", Chains: []netstate.IptablesChain{chain("INPUT", "ACCEPT", input...),
			chain("FORWARD", "DROP", text("-j DOCKER-USER"), text("-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"), text("-o docker0 -j DOCKER"), text("-i docker0 -j ACCEPT")),
			chain("DOCKER-USER", "", user...), chain("DOCKER", "", forward...)}},
	}}}
	return s
}

func targetsOf(s *netstate.Snapshot) []netstate.Target {
	var all []netstate.Target
	for _, c := range s.Containers {
		all = append(all, netstate.Target{Container: c.Name, ID: c.ID, Direction: netstate.In, From: netstate.FromOutside, Family: netstate.IPv4,
			Port: c.Published[0].Port, Host: netip.AddrPortFrom(c.Published[0].Host, c.Published[0].HostPort), Client: netip.MustParseAddr("203.0.113.9")})
	}
	return all
}

// BenchmarkWalk is the time of one target once the snapshot's rules were met.
func BenchmarkWalk(b *testing.B) {
	for _, size := range []struct{ containers, rules int }{{1, 10}, {1, 10000}, {300, 10}, {300, 10000}} {
		b.Run(fmt.Sprintf("containers=%d/rules=%d", size.containers, size.rules), func(b *testing.B) {
			s := crowded(size.containers, size.rules)
			x := New(s)
			targets := targetsOf(s)
			if trace := x.Walk(targets[0]); trace.Verdict != Pass {
				b.Fatal(describe(trace))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				t := targets[i%len(targets)]
				x.explore(t, func(w *walker) { w.walk(t) })
			}
		})
	}
}

// BenchmarkBridgeTable is the time of one target where the bridge knows many addresses.
func BenchmarkBridgeTable(b *testing.B) {
	for _, entries := range []int{0, 5000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			s := crowded(1, 10)
			for i := range entries {
				s.Host.Neighs = append(s.Host.Neighs, netstate.Neigh{Link: "eth0", MAC: fmt.Sprintf("02:00:00:01:%02x:%02x", i>>8, i&255), State: "reachable", Master: "docker0"})
			}
			x, t := New(s), targetsOf(s)[0]
			if trace := x.Walk(t); trace.Verdict != Pass {
				b.Fatal(describe(trace))
			}
			for b.Loop() {
				x.explore(t, func(w *walker) { w.walk(t) })
			}
		})
	}
}

// BenchmarkAll is a whole host: indexing and every target.
func BenchmarkAll(b *testing.B) {
	s := crowded(300, 10000)
	targets := targetsOf(s)
	b.ReportAllocs()
	for b.Loop() {
		x := New(s)
		for _, t := range targets {
			x.Walk(t)
		}
	}
}

// TestRulesRead counts the rules that are read for one packet of a host with thousands.
func TestRulesRead(t *testing.T) {
	x := New(crowded(300, 10000))
	if trace := x.Walk(targetsOf(x.snap)[7]); trace.Verdict != Pass {
		t.Fatal(describe(trace))
	}
	rules, read := 0, 0
	seen := map[*chain]bool{}
	var count func(*chain)
	count = func(c *chain) {
		if seen[c] {
			return
		}
		seen[c] = true
		rules += c.count
		for _, r := range c.rules {
			if r == nil {
				continue
			}
			read++
			for _, to := range jumpsOf(r.run.(*textRule), x.host) {
				count(to)
			}
		}
	}
	for _, h := range x.host.hooks {
		for _, b := range h.bases {
			count(b.chain)
		}
	}
	t.Logf("%d of %d rules were read", read, rules)
	if rules < 10000 || read > 50 {
		t.Errorf("%d of %d rules were read, want 50 of more than 10000 at most", read, rules)
	}
}
