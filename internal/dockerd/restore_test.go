package dockerd

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/google/go-cmp/cmp"
)

// ways of breaking every chain of a host.
var breakages = []struct {
	name string
	do   func(*netstate.IptablesSet)
}{
	{"flushed", func(set *netstate.IptablesSet) {
		everyChain(set, func(c *netstate.IptablesChain) { c.Rules = nil })
	}},
	{"flushed and chains deleted", func(set *netstate.IptablesSet) {
		for i := range set.Tables {
			set.Tables[i].Chains = slices.DeleteFunc(set.Tables[i].Chains, func(c netstate.IptablesChain) bool { return c.Policy == "" })
			for j := range set.Tables[i].Chains {
				set.Tables[i].Chains[j].Rules = nil
			}
		}
	}},
	{"gone", func(set *netstate.IptablesSet) { set.Tables = nil }},
	{"reversed", func(set *netstate.IptablesSet) {
		everyChain(set, func(c *netstate.IptablesChain) { slices.Reverse(c.Rules) })
	}},
	{"with foreign rules around", func(set *netstate.IptablesSet) {
		everyChain(set, func(c *netstate.IptablesChain) {
			c.Rules = []netstate.IptablesRule{{Text: "-s 198.51.100.7/32 -j LOG"}, {Text: "-i virbr0 -j ACCEPT"}}
		})
	}},
	{"behind a foreign drop", func(set *netstate.IptablesSet) {
		everyChain(set, func(c *netstate.IptablesChain) {
			if c.Policy != "" {
				c.Rules = []netstate.IptablesRule{{Text: "-i lo -j ACCEPT"}, {Text: "-j DROP"}}
			}
		})
	}},
	{"with old addresses", func(set *netstate.IptablesSet) {
		everyChain(set, func(c *netstate.IptablesChain) {
			for i := range c.Rules {
				c.Rules[i].Text = strings.ReplaceAll(strings.ReplaceAll(c.Rules[i].Text, "192.0.2.2", "192.0.2.9"), "fd00:5::2", "fd00:5::9")
			}
		})
	}},
	{"shuffled, half of it", func(set *netstate.IptablesSet) {
		r := rand.New(rand.NewPCG(1, 2))
		everyChain(set, func(c *netstate.IptablesChain) {
			r.Shuffle(len(c.Rules), func(i, j int) { c.Rules[i], c.Rules[j] = c.Rules[j], c.Rules[i] })
			c.Rules = c.Rules[:len(c.Rules)/2]
		})
	}},
}

func everyChain(set *netstate.IptablesSet, do func(*netstate.IptablesChain)) {
	for i := range set.Tables {
		for j := range set.Tables[i].Chains {
			do(&set.Tables[i].Chains[j])
		}
	}
}

// However a host's rules were broken, after the edits nothing differs, and nothing foreign is lost.
func TestRestore(t *testing.T) {
	for _, name := range iptablesCases() {
		for _, breakage := range breakages {
			t.Run(name+" "+breakage.name, func(t *testing.T) {
				s := load(t, name)
				// How the engine is set cannot be told from rules that are gone.
				p := Expected(s)
				s.Engine.Config.UserlandProxy, s.Engine.Config.Ip6tables = &p.Proxy.On, &p.IPv6.On
				for i := range s.Host.Iptables {
					breakage.do(&s.Host.Iptables[i])
				}
				before := load(t, name)
				for i := range before.Host.Iptables {
					breakage.do(&before.Host.Iptables[i])
				}
				p = Expected(s)
				found := p.Compare(s)
				if len(found) == 0 {
					t.Fatal("the breakage is not seen")
				}
				edits := p.Restore(s, found)
				after := Edited(s, edits)
				if diff := cmp.Diff(before.Host.Iptables, s.Host.Iptables); diff != "" {
					t.Fatalf("the snapshot itself was changed:\n%s", diff)
				}
				again := slices.DeleteFunc(Expected(after).Compare(after), func(d Difference) bool { return d.Kind == Stale })
				if len(again) > 0 {
					t.Errorf("after the edits:\n%s", texts(again))
				}
				for _, set := range s.Host.Iptables {
					for _, table := range set.Tables {
						for _, chain := range table.Chains {
							if lost := foreign(p, &set, table.Name, chain); !slices.Equal(lost, foreign(p, &set, table.Name, *after.Host.IptablesSet(set.Variant, set.Family).Table(table.Name).Chain(chain.Name))) &&
								breakage.name != "with old addresses" && !strings.HasPrefix(breakage.name, "shuffled") {
								t.Errorf("%s %s %s: foreign rules are not what they were: %q", set.Family, table.Name, chain.Name, lost)
							}
						}
					}
				}
				// Texts around a place say where it is as well as its number does.
				anchored(t, s, edits)
			})
		}
	}
}

// foreign returns the rules of a chain that are not Docker's.
func foreign(p *Program, set *netstate.IptablesSet, table string, chain netstate.IptablesChain) []string {
	var list []string
	for _, r := range chain.Rules {
		if ruleOf(p, set.Family, table, chain.Name, r.Text) == nil {
			list = append(list, r.Text)
		}
	}
	return list
}

// anchored checks that each inserted rule's neighbours are what the edit says.
func anchored(t *testing.T, s *netstate.Snapshot, edits []Edit) {
	t.Helper()
	for i, e := range edits {
		if e.Op == NewChain {
			continue
		}
		now := Edited(s, edits[:i])
		rules := rulesOf(now.Host.IptablesSet(e.Variant, e.Family), e.Table, e.Chain)
		at := func(i int) string {
			if i < 0 || i >= len(rules) {
				return ""
			}
			return rules[i].Text
		}
		behind := e.Number - 1
		if e.Op != Insert {
			if at(behind) != e.Old {
				t.Errorf("edit %d: %+v, but there is %q", i, e, at(behind))
			}
			behind++
		}
		if at(e.Number-2) != e.After || at(behind) != e.Before {
			t.Errorf("edit %d: %+v, but it stands between %q and %q", i, e, at(e.Number-2), at(behind))
		}
	}
}

// A flushed host gets back what the engine itself had made, but for the order that is free.
func TestRestoreFlushedIsWhatTheEngineMade(t *testing.T) {
	for _, name := range iptablesCases() {
		t.Run(name, func(t *testing.T) {
			whole, s := load(t, name), load(t, name)
			p := Expected(whole)
			s.Engine.Config.UserlandProxy, s.Engine.Config.Ip6tables = &p.Proxy.On, &p.IPv6.On
			for i := range s.Host.Iptables {
				for j := range s.Host.Iptables[i].Tables {
					for k := range s.Host.Iptables[i].Tables[j].Chains {
						s.Host.Iptables[i].Tables[j].Chains[k].Rules = nil
					}
				}
			}
			p = Expected(s)
			after := Edited(s, p.Restore(s, p.Compare(s)))
			everyRule := func(s *netstate.Snapshot) (all []string) {
				for _, set := range s.Host.Iptables {
					for _, table := range set.Tables {
						for _, chain := range table.Chains {
							for _, rule := range chain.Rules {
								all = append(all, set.Command()+" "+table.Name+" "+chain.Name+" "+rule.Text)
							}
						}
					}
				}
				slices.Sort(all)
				return all
			}
			if diff := cmp.Diff(everyRule(whole), everyRule(after)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What a partial restoration needs comes with it.
func TestRestoreMakesTheChainOfAJump(t *testing.T) {
	s := load(t, "28.5.2-proxy")
	for i := range s.Host.Iptables {
		breakages[1].do(&s.Host.Iptables[i])
	}
	p := Expected(s)
	all := slices.DeleteFunc(p.Compare(s), func(d Difference) bool {
		return d.Rule == nil || d.Chain != "FORWARD" || d.Rule.Text != "-j DOCKER-FORWARD" || d.Family != netstate.IPv4
	})
	got := p.Restore(s, all)
	want := []Edit{
		{Op: NewChain, Family: netstate.IPv4, Variant: "nft", Table: "filter", Chain: "DOCKER-FORWARD"},
		{Op: Insert, Family: netstate.IPv4, Variant: "nft", Table: "filter", Chain: "FORWARD", Number: 1, Text: "-j DOCKER-FORWARD"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
