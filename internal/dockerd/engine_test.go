package dockerd

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

func TestGenerationOf(t *testing.T) {
	for version, want := range map[string]Generation{
		"20.10.24+dfsg1": V20, "23.0.6": V23, "24.0.9": V23, "26.1.5-lab": V23, "27.5.1": V27, "28.0.0": V28Sets, "28.0.1": V28,
		"28.1.1": V28, "28.2.0": V28Raw, "28.5.2": V28Raw, "29.0.0": V29, "29.7.2-lab": V29, "dev": V29,
	} {
		if got := GenerationOf(&netstate.EngineState{Version: version}); got != want {
			t.Errorf("%s is of generation %s, want %s", version, got, want)
		}
	}
}

func TestUserlandProxy(t *testing.T) {
	off := false
	for _, test := range []struct {
		name   string
		change func(*netstate.Snapshot)
		want   Setting
	}{
		{"the configuration", func(s *netstate.Snapshot) {
			s.Engine.Config.UserlandProxy, s.Engine.Config.From = &off, map[string]string{"userland_proxy": "daemon.json"}
		}, Setting{false, "daemon.json"}},
		{"a process", func(*netstate.Snapshot) {}, Setting{true, "docker-proxy runs"}},
		{"the bridge's ports", func(s *netstate.Snapshot) { s.Proxies = nil }, Setting{true, "no hairpin mode"}},
		{"the nat table", func(s *netstate.Snapshot) { s.Proxies, s.Host.Links = nil, nil }, Setting{true, "rule of nat OUTPUT"}},
		{"nothing", func(s *netstate.Snapshot) { s.Proxies, s.Host.Links, s.Host.Iptables = nil, nil, nil }, Setting{true, "default"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := load(t, "28.5.2-proxy")
			test.change(s)
			if got := Expected(s).Proxy; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	s := load(t, "28.5.2-noproxy")
	if got := Expected(s).Proxy; got.On || !strings.HasPrefix(got.From, "hairpin mode of veth") {
		t.Errorf("of a host without: %+v", got)
	}
	s.Host.Links = nil
	if got := Expected(s).Proxy; got.On || got.From != "rule of nat OUTPUT" {
		t.Errorf("of a host without, by its rules: %+v", got)
	}
}

func TestIP6tables(t *testing.T) {
	if p := Expected(load(t, "26.1.5-proxy")); p.IPv6.On || p.Variant(netstate.IPv6) != "" {
		t.Errorf("off by default up to 26: %+v", p.IPv6)
	}
	if p := Expected(load(t, "26.1.5-noproxy-ip6tables")); !p.IPv6.On {
		t.Errorf("on by its chains: %+v", p.IPv6)
	}
	s := load(t, "28.5.2-proxy")
	for name := range s.Host.Sysctls {
		if strings.HasPrefix(name, "net.ipv6.") {
			delete(s.Host.Sysctls, name)
		}
	}
	if p := Expected(s); p.IPv6.On {
		t.Errorf("without IPv6 in the kernel: %+v", p.IPv6)
	}
}

func TestNothingIsExpected(t *testing.T) {
	off := false
	s := load(t, "28.5.2-proxy")
	s.Engine.Config.Iptables, s.Engine.Config.Ip6tables = &off, &off
	s.Host.Iptables = nil
	if p := Expected(s); len(p.Rules)+len(p.Chains)+len(p.Compare(s)) > 0 || p.Unjudged(netstate.IPv4) != "" {
		t.Errorf("iptables=false: %d rules, unjudged: %q", len(p.Rules), p.Unjudged(netstate.IPv4))
	}
	for _, test := range []struct {
		name   string
		change func(*netstate.Snapshot)
	}{
		{"rootless", func(s *netstate.Snapshot) { s.Engine.Rootless, s.Engine.Local = true, false }},
		{"another namespace", func(s *netstate.Snapshot) { s.Engine.Local = false }},
		{"no engine", func(s *netstate.Snapshot) { s.Engine = nil }},
		{"28.0.0", func(s *netstate.Snapshot) { s.Engine.Version = "28.0.0" }},
		{"tables not read", func(s *netstate.Snapshot) {
			s.Lacks(netstate.Key{Part: netstate.Iptables, Family: netstate.IPv4, Variant: "nft"}, "permission denied")
			s.Host.Iptables = slices.DeleteFunc(s.Host.Iptables, func(set netstate.IptablesSet) bool { return set.Family == netstate.IPv4 })
		}},
		{"the other variant not read, this one empty", func(s *netstate.Snapshot) {
			s.Lacks(netstate.Key{Part: netstate.Iptables, Family: netstate.IPv4, Variant: "legacy"}, "permission denied")
			s.Host.Iptables = nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := load(t, "28.5.2-proxy")
			test.change(s)
			p := Expected(s)
			if p.Unjudged(netstate.IPv4) == "" {
				t.Error("it is judged")
			}
			for _, d := range p.Compare(s) {
				if d.Family == netstate.IPv4 {
					t.Errorf("differs: %s", &d)
				}
			}
		})
	}
}

func TestVariant(t *testing.T) {
	// The engine's rules are legacy's, and an older start of it left a jump in nft's.
	s := load(t, "28.5.2-proxy")
	for i := range s.Host.Iptables {
		s.Host.Iptables[i].Variant = "legacy"
	}
	s.Host.Iptables = append(s.Host.Iptables, netstate.IptablesSet{Family: netstate.IPv4, Variant: "nft", Tables: []netstate.IptablesTable{{Name: "filter",
		Chains: []netstate.IptablesChain{{Name: "FORWARD", Policy: "DROP", Rules: []netstate.IptablesRule{{Text: "-s 192.0.2.1/32 -j ACCEPT"}, {Text: "-j DOCKER-USER"}}}, {Name: "DOCKER-USER"}}}}})
	p := Expected(s)
	if p.Variant(netstate.IPv4) != "legacy" || p.Variant(netstate.IPv6) != "legacy" {
		t.Errorf("variants %q and %q", p.Variant(netstate.IPv4), p.Variant(netstate.IPv6))
	}
	const want = "iptables filter FORWARD 2: -j DOCKER-USER is left over: the engine uses the other variant"
	if got := texts(p.Compare(s)); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}

	// With nothing of one family left, it belongs where the other family is.
	s.Host.Iptables = slices.DeleteFunc(s.Host.Iptables, func(set netstate.IptablesSet) bool { return set.Family == netstate.IPv6 || set.Variant == "nft" })
	if p := Expected(s); p.Variant(netstate.IPv6) != "legacy" {
		t.Errorf("variant of what is gone: %q", p.Variant(netstate.IPv6))
	}
}

func TestGateway(t *testing.T) {
	end := func(network string, priority int, addrs ...string) netstate.Endpoint {
		e := netstate.Endpoint{Network: network, NetworkID: network, GwPriority: priority}
		for _, text := range addrs {
			prefix := netip.MustParsePrefix(text)
			if prefix.Addr().Is4() {
				e.IPv4, e.Gateway4 = prefix, prefix.Masked().Addr().Next()
			} else {
				e.IPv6, e.Gateway6 = prefix, prefix.Masked().Addr().Next()
			}
		}
		return e
	}
	const four, six = "192.0.2.2/24", "fd00::2/64"
	for _, test := range []struct {
		name       string
		generation Generation
		endpoints  []netstate.Endpoint
		v4, v6     string
	}{
		{"by name", V29, []netstate.Endpoint{end("b", 0, four), end("a", 0, four)}, "a", ""},
		{"by priority", V29, []netstate.Endpoint{end("b", 1, four), end("a", 0, four)}, "b", ""},
		{"both families first", V29, []netstate.Endpoint{end("a", 0, four), end("b", 0, four, six)}, "b", "b"},
		{"an internal one last", V29, []netstate.Endpoint{end("inner", 0, four, six), end("z", 0, four)}, "z", ""},
		{"an internal one alone", V29, []netstate.Endpoint{end("inner", 0, four)}, "", ""},
		{"docker_gwbridge last", V28Raw, []netstate.Endpoint{end("docker_gwbridge", 0, four), end("z", 0, four)}, "z", ""},
		{"a family each", V29, []netstate.Endpoint{end("a", 0, four), end("b", 0, six)}, "a", "b"},
		{"29: each family by priority", V29, []netstate.Endpoint{end("a", 1, four), end("b", 0, four, six)}, "a", "b"},
		{"28: both families at one", V28Raw, []netstate.Endpoint{end("a", 1, four), end("b", 0, four, six)}, "b", "b"},
		{"27: one for both", V27, []netstate.Endpoint{end("a", 0, four), end("b", 0, four)}, "a", "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Program{Generation: test.generation, networks: map[string]*netstate.Network{"inner": {Internal: true}}}
			c := &netstate.Container{Endpoints: test.endpoints}
			name := func(family netstate.Family) string {
				if e := p.Gateway(c, family); e != nil {
					return e.Network
				}
				return ""
			}
			if v4, v6 := name(netstate.IPv4), name(netstate.IPv6); v4 != test.v4 || v6 != test.v6 {
				t.Errorf("got %q and %q, want %q and %q", v4, v6, test.v4, test.v6)
			}
		})
	}
}

// What a target needs: the rules that its check may name, and no others.
func TestFor(t *testing.T) {
	s := load(t, "28.5.2-proxy")
	p := Expected(s)
	id := func(name string) string {
		return s.Containers[slices.IndexFunc(s.Containers, func(c netstate.Container) bool { return c.Name == name })].ID
	}
	in := netstate.Target{ID: id("cA"), Direction: netstate.In, From: netstate.FromOutside, Port: netstate.Port{Number: 80, Proto: "tcp"},
		Host: netip.MustParseAddrPort("0.0.0.0:8080"), Family: netstate.IPv4}
	out := netstate.Target{ID: id("c6"), Direction: netstate.Out, Family: netstate.IPv6}
	proxied := in // the container has no IPv6 address: docker-proxy alone
	proxied.Family, proxied.Host = netstate.IPv6, netip.MustParseAddrPort("[::]:8080")
	inner := netstate.Target{ID: id("cInt"), Direction: netstate.Out, Family: netstate.IPv4}
	for _, test := range []struct {
		name   string
		target netstate.Target
		want   []string
	}{
		{"docker-proxy's", proxied, nil},
		{"of an internal network", inner, nil},
		{"in", in, []string{
			"nat PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
			"filter FORWARD -j DOCKER-FORWARD",
			"filter DOCKER-FORWARD -j DOCKER-BRIDGE",
			"filter DOCKER-BRIDGE -o brA -j DOCKER",
			"filter DOCKER-FORWARD -i brA -j ACCEPT",
			"filter DOCKER -d 192.0.2.2/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT",
			"nat DOCKER ! -i brA -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80",
		}},
		{"out", out, []string{
			"nat POSTROUTING -s fd00:5::/64 ! -o br6 -j MASQUERADE",
			"filter FORWARD -j DOCKER-FORWARD",
			"filter DOCKER-FORWARD -j DOCKER-CT",
			"filter DOCKER-CT -o br6 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"filter DOCKER-FORWARD -i br6 -j ACCEPT",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, r := range p.For(s, test.target) {
				if r.Needed&TrafficOf(test.target) != 0 {
					got = append(got, r.Table+" "+r.Chain+" "+r.Text)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// Of a flushed host, each target is hit by what it needs and by nothing else.
func TestHits(t *testing.T) {
	s := load(t, "28.5.2-noproxy")
	on := false
	s.Engine.Config.UserlandProxy = &on
	for i := range s.Host.Iptables {
		everyChain(&s.Host.Iptables[i], func(c *netstate.IptablesChain) { c.Rules = nil })
	}
	p := Expected(s)
	all := p.Compare(s)
	web := s.Containers[slices.IndexFunc(s.Containers, func(c netstate.Container) bool { return c.Name == "cA" })].ID
	for _, test := range []struct {
		from string
		want []string
	}{
		{netstate.FromOutside, []string{"PREROUTING", "DOCKER", "FORWARD", "DOCKER", "DOCKER-BRIDGE", "DOCKER-FORWARD", "DOCKER-FORWARD"}},
		{netstate.FromLocalhost, []string{"OUTPUT", "POSTROUTING", "DOCKER"}},
	} {
		target := netstate.Target{ID: web, Direction: netstate.In, From: test.from, Port: netstate.Port{Number: 80, Proto: "tcp"},
			Host: netip.MustParseAddrPort("0.0.0.0:8080"), Family: netstate.IPv4}
		var got []string
		for _, d := range p.Hits(s, all, target) {
			if d.Family != netstate.IPv4 || d.Rule.Network != "" && s.Network(d.Rule.Network).Name != "netA" {
				t.Errorf("from %s: %s", test.from, &d)
			}
			got = append(got, d.Chain)
		}
		slices.Sort(got)
		slices.Sort(test.want)
		if !slices.Equal(got, test.want) {
			t.Errorf("from %s: %q, want %q", test.from, got, test.want)
		}
	}
}

// An IPv6 binding of a container without an IPv6 address is docker-proxy's alone.
func TestPublished(t *testing.T) {
	s := load(t, "28.5.2-proxy")
	p := Expected(s)
	for _, c := range s.Containers {
		for _, b := range c.Published {
			want := b.Host.Is4() || c.Name == "c6" || c.Name == "cR"
			if got := p.Published(&c, b); got != want {
				t.Errorf("%s %s at %s: %v, want %v", c.Name, b.Port, b.Host, got, want)
			}
		}
	}
}
