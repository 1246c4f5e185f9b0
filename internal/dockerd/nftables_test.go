package dockerd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

var nftCases = []string{"29.7.2-nftables-proxy", "29.7.2-nftables-noproxy"}

func nftChain(s *netstate.Snapshot, family netstate.Family, name string) *netstate.NftChain {
	return s.Host.Nft.Table(nftFamily(family), nftTable).Chain(name)
}

// Everything in the tables is expected, and everything expected is in the tables.
func TestExpectedIsWhatTheNftablesBackendMakes(t *testing.T) {
	for _, name := range nftCases {
		t.Run(name, func(t *testing.T) {
			s := load(t, name)
			p := Expected(s)
			if !p.Nftables {
				t.Fatal("the backend is taken for iptables")
			}
			want := map[string]bool{}
			for i := range p.Rules {
				r := &p.Rules[i]
				want[fmt.Sprint(r.Family, " ", r.Chain, " ", r.canonical(r.Text))] = true
			}
			for _, c := range p.Chains {
				want[fmt.Sprint(c.Family, " ", c.Name, " ", c.Map, " ", hookText(c.Hook))] = true
			}
			take := func(key string) {
				if !want[key] {
					t.Errorf("not expected: %s", key)
				}
				delete(want, key)
			}
			for _, family := range families {
				c := p.comparison(s, family)
				for _, chain := range c.table.Chains {
					take(fmt.Sprint(family, " ", chain.Name, " false ", hookText(chain.Hook)))
					for _, l := range c.nftLines(chain.Name) {
						take(fmt.Sprint(family, " ", chain.Name, " ", l.canonical))
					}
				}
				for _, set := range c.table.Sets {
					if set.Anonymous {
						continue
					}
					take(fmt.Sprint(family, " ", set.Name, " true no hook"))
					for _, l := range c.nftLines(set.Name) {
						take(fmt.Sprint(family, " ", set.Name, " ", l.canonical))
					}
				}
			}
			for key := range want {
				t.Errorf("expected, but not made: %s", key)
			}
			for _, d := range p.Compare(s) {
				t.Errorf("a whole host differs: %s", &d)
			}
		})
	}
}

// Whichever rule, element, chain or map is taken away, it is missed.
func TestEachNftObjectIsMissed(t *testing.T) {
	for _, name := range nftCases {
		t.Run(name, func(t *testing.T) {
			s := load(t, name)
			p := Expected(s)
			for i := range p.Rules {
				r := &p.Rules[i]
				restore := without(s, r.Family, r)
				got := p.Compare(s)
				if len(got) != 1 || got[0].Kind != MissingRule || got[0].Rule != r {
					t.Errorf("without %s %s:\n%s", r.Chain, r.Text, texts(got))
				}
				restore()
			}
			for _, c := range p.Chains {
				table := s.Host.Nft.Table(nftFamily(c.Family), nftTable)
				chains, sets := table.Chains, table.Sets
				table.Chains = slices.DeleteFunc(slices.Clone(chains), func(found netstate.NftChain) bool { return found.Name == c.Name })
				table.Sets = slices.DeleteFunc(slices.Clone(sets), func(found netstate.NftSet) bool { return found.Name == c.Name })
				got := p.Compare(s)
				if len(got) == 0 || got[0].Kind != MissingChain && got[0].Kind != MissingMap || got[0].Chain != c.Name {
					t.Errorf("without %s:\n%s", c.Name, texts(got))
				}
				table.Chains, table.Sets = chains, sets
			}
		})
	}
}

// without takes the rule or element away and returns how to put it back.
func without(s *netstate.Snapshot, family netstate.Family, r *Rule) (restore func()) {
	table := s.Host.Nft.Table(nftFamily(family), nftTable)
	lines := (&Program{Nftables: true}).comparison(s, family).nftLines(r.Chain)
	at := slices.IndexFunc(lines, func(l line) bool { return l.canonical == r.canonical(r.Text) })
	if r.Element {
		set := table.Set(r.Chain)
		whole := set.Elements
		link, _, _ := strings.Cut(strings.TrimPrefix(r.Text, `"`), `"`)
		set.Elements = slices.DeleteFunc(slices.Clone(whole), func(e netstate.NftElement) bool { return strings.TrimRight(string(e.Key), "\x00") == link })
		return func() { set.Elements = whole }
	}
	chain := table.Chain(r.Chain)
	whole := chain.Rules
	chain.Rules = slices.Delete(slices.Clone(whole), at, at+1)
	return func() { chain.Rules = whole }
}

func TestNftDifferences(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*netstate.Snapshot)
		want   string
	}{
		{"the drop before the accept", func(s *netstate.Snapshot) {
			rules := nftChain(s, netstate.IPv4, "filter-forward-in__brA").Rules
			last := len(rules) - 1
			rules[last-1], rules[last] = rules[last], rules[last-1]
		}, `nft ip docker-bridges filter-forward-in__brA 6: ip daddr 192.0.2.2 udp dport 82 counter accept stands behind rule 5: counter drop comment "UNPUBLISHED PORT DROP"`},
		{"two DNATs", func(s *netstate.Snapshot) {
			rules := nftChain(s, netstate.IPv4, "nat-prerouting-and-output").Rules
			rules[0], rules[3] = rules[3], rules[0]
		}, ""},
		{"a chain that is not called", func(s *netstate.Snapshot) { nftChain(s, netstate.IPv6, "nat-PREROUTING").Hook = nil },
			"nft ip6 docker-bridges nat-PREROUTING: no hook"},
		{"another policy", func(s *netstate.Snapshot) { nftChain(s, netstate.IPv4, "filter-FORWARD").Hook.Policy = "drop" },
			"nft ip docker-bridges filter-FORWARD: type filter hook forward priority 0; policy drop;"},
		{"a dormant table", func(s *netstate.Snapshot) { s.Host.Nft.Table("ip", nftTable).Dormant = true },
			"nft ip docker-bridges: dormant"},
		{"a stranger's table", func(s *netstate.Snapshot) {
			s.Host.Nft.Tables = append(s.Host.Nft.Tables, netstate.NftTable{Family: "inet", Name: "mine"})
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := load(t, nftCases[0])
			test.change(s)
			if got := texts(Expected(s).Compare(s)); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

// A container that moved: what was made for its old address is altered or stale, each with its place.
func TestNftOldAddress(t *testing.T) {
	s := load(t, nftCases[0])
	for i := range s.Networks {
		for j := range s.Networks[i].Members {
			if m := &s.Networks[i].Members[j]; m.Name == "cNI" {
				m.IPv4 = netip.MustParsePrefix("192.0.3.7/24")
			}
		}
	}
	for i := range s.Containers {
		if c := &s.Containers[i]; c.Name == "cNI" {
			c.Endpoints[0].IPv4 = netip.MustParsePrefix("192.0.3.7/24")
		}
	}
	const want = `nft ip docker-bridges nat-prerouting-and-output 4: iifname != "brNI" tcp dport 8060 counter dnat to 192.0.3.2:60 comment "DNAT" instead of iifname != "brNI" tcp dport 8060 counter dnat to 192.0.3.7:60 comment "DNAT"
nft ip docker-bridges filter-forward-in__brNI 3: ip daddr 192.0.3.2 tcp dport 60 counter accept instead of ip daddr 192.0.3.7 tcp dport 60 counter accept
nft ip docker-bridges raw-PREROUTING: missing ip daddr 192.0.3.7 iifname != "brNI" counter drop comment "DROP DIRECT ACCESS"
nft ip docker-bridges raw-PREROUTING 3: ip daddr 192.0.3.2 iifname != "brNI" counter drop comment "DROP DIRECT ACCESS" is for an address that no container has`
	got := strings.Split(texts(Expected(s).Compare(s)), "\n")
	lines := strings.Split(want, "\n")
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

// With the table gone everything is missing; with nf_tables not read nothing is said.
func TestNftGone(t *testing.T) {
	s := load(t, nftCases[1])
	p := Expected(s)
	s.Host.Nft.Tables = nil
	if got := len(p.Compare(s)); got != len(p.Rules)+len(p.Chains) {
		t.Errorf("%d differences, want %d", got, len(p.Rules)+len(p.Chains))
	}
	s.Host.Nft = nil
	s.Lacks(netstate.Key{Part: netstate.Nftables}, "permission denied")
	p = Expected(s)
	if got := p.Compare(s); len(got) > 0 || p.Unjudged(netstate.IPv4) != "permission denied" {
		t.Errorf("not read, but judged: %s", texts(got))
	}
}
