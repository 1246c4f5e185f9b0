package dockerd

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// edit changes the rules of one chain of a host.
func edit(s *netstate.Snapshot, family netstate.Family, table, chain string, change func([]netstate.IptablesRule) []netstate.IptablesRule) {
	c := s.Host.IptablesSet("nft", family).Table(table).Chain(chain)
	c.Rules = change(slices.Clone(c.Rules))
}

// texts returns the differences, one a line.
func texts(all []Difference) string {
	var lines []string
	for i := range all {
		lines = append(lines, all[i].String())
	}
	return strings.Join(lines, "\n")
}

// Whichever rule is taken away, that one and no other is missing.
func TestEachRuleIsMissed(t *testing.T) {
	for _, name := range iptablesCases() {
		t.Run(name, func(t *testing.T) {
			s := load(t, name)
			p := Expected(s)
			for i := range p.Rules {
				r := &p.Rules[i]
				chain := s.Host.IptablesSet("nft", r.Family).Table(r.Table).Chain(r.Chain)
				whole := chain.Rules
				chain.Rules = slices.DeleteFunc(slices.Clone(whole), func(found netstate.IptablesRule) bool { return found.Text == r.Text })
				got := Expected(s).Compare(s)
				if len(got) != 1 || got[0].Kind != MissingRule || got[0].Rule.Text != r.Text || got[0].Family != r.Family {
					t.Errorf("without %s %s %s:\n%s", r.Table, r.Chain, r.Text, texts(got))
				}
				chain.Rules = whole
			}
		})
	}
}

// Two neighbours in the wrong order are named if and only if the engine's order binds them.
func TestEachDisorderIsNamed(t *testing.T) {
	for _, name := range iptablesCases() {
		t.Run(name, func(t *testing.T) {
			s := load(t, name)
			p := Expected(s)
			bound, free := 0, 0
			for si := range s.Host.Iptables {
				set := &s.Host.Iptables[si]
				for ti := range set.Tables {
					for ci := range set.Tables[ti].Chains {
						chain := &set.Tables[ti].Chains[ci]
						for i := range chain.Rules[:max(0, len(chain.Rules)-1)] {
							a, b := ruleOf(p, set.Family, set.Tables[ti].Name, chain.Name, chain.Rules[i].Text), ruleOf(p, set.Family, set.Tables[ti].Name, chain.Name, chain.Rules[i+1].Text)
							chain.Rules[i], chain.Rules[i+1] = chain.Rules[i+1], chain.Rules[i]
							got := p.Compare(s)
							if a.precedes(b) {
								bound++
								if len(got) != 1 || got[0].Kind != Misplaced {
									t.Errorf("%s behind %s:\n%s", a.Text, b.Text, texts(got))
								}
							} else {
								free++
								if len(got) != 0 {
									t.Errorf("%s and %s are in free order:\n%s", a.Text, b.Text, texts(got))
								}
							}
							chain.Rules[i], chain.Rules[i+1] = chain.Rules[i+1], chain.Rules[i]
						}
					}
				}
			}
			if bound == 0 || free == 0 {
				t.Errorf("%d orders bind, %d are free", bound, free)
			}
		})
	}
}

func ruleOf(p *Program, family netstate.Family, table, chain, text string) *Rule {
	for i := range p.Rules {
		if r := &p.Rules[i]; r.Family == family && r.Table == table && r.Chain == chain && r.Text == text {
			return r
		}
	}
	return nil
}

// The order that matters, and the order that does not, as it was observed of engines.
func TestOrder(t *testing.T) {
	const v4 = netstate.IPv4
	for _, test := range []struct{ name, host, chain, first, second, want string }{
		{"an accept behind its network's drop", "28.5.2-proxy", "DOCKER",
			"-d 192.0.3.2/32 ! -i brNI -o brNI -p tcp -m tcp --dport 60 -j ACCEPT", "! -i brNI -o brNI -j DROP", "misplaced"},
		{"an accept behind another network's drop", "28.5.2-proxy", "DOCKER",
			"-d 192.0.3.2/32 ! -i brNI -o brNI -p tcp -m tcp --dport 60 -j ACCEPT", "! -i docker0 -o docker0 -j DROP", ""},
		{"ICMP behind the drop", "29.7.2-iptables-proxy", "DOCKER", "-o brR -p icmp -j ACCEPT", "! -i brR -o brR -j DROP", "misplaced"},
		{"two published ports", "29.7.2-iptables-proxy", "DOCKER",
			"-d 192.0.2.2/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT", "-d 192.0.11.2/32 ! -i brNM -o brNM -p tcp -m tcp --dport 74 -j ACCEPT", ""},
		{"DOCKER-FORWARD before DOCKER-USER", "28.5.2-proxy", "FORWARD", "-j DOCKER-USER", "-j DOCKER-FORWARD", "misplaced"},
		{"the bridges' chain before that of established flows", "28.5.2-proxy", "DOCKER-FORWARD", "-j DOCKER-CT", "-j DOCKER-BRIDGE", "misplaced"},
		{"icc=false: the accept before the drop", "28.5.2-noproxy", "DOCKER-FORWARD", "-i brNI -o brNI -j DROP", "-i brNI ! -o brNI -j ACCEPT", "misplaced"},
		{"two networks", "28.5.2-noproxy", "DOCKER-FORWARD", "-i docker0 -j ACCEPT", "-i brNM -j ACCEPT", ""},
		{"isolation before what a routed network returns", "28.5.2-noproxy", "DOCKER-ISOLATION-STAGE-1",
			"-o brR -j RETURN", "-i brA ! -o brA -j DOCKER-ISOLATION-STAGE-2", "misplaced"},
		{"an internal network's drop among the jumps", "28.5.2-noproxy", "DOCKER-ISOLATION-STAGE-1",
			"! -s 192.0.4.0/24 -o brInt -j DROP", "-i brA ! -o brA -j DOCKER-ISOLATION-STAGE-2", ""},
		{"the isolation before DOCKER-USER", "20.10.24-proxy", "FORWARD", "-j DOCKER-USER", "-j DOCKER-ISOLATION-STAGE-1", "misplaced"},
		{"a network before the isolation", "26.1.5-proxy", "FORWARD", "-j DOCKER-ISOLATION-STAGE-1", "-o brA -j DOCKER", "misplaced"},
		{"two networks' blocks", "26.1.5-proxy", "FORWARD", "-i brNM ! -o brNM -j ACCEPT", "-i docker0 -o docker0 -j ACCEPT", ""},
		{"icc=false: the drop before the network's block", "26.1.5-proxy", "FORWARD", "-o brNI -j DOCKER", "-i brNI -o brNI -j DROP", "misplaced"},
		{"icc=false: the drop before another network's block", "26.1.5-proxy", "FORWARD", "-o docker0 -j DOCKER", "-i brNI -o brNI -j DROP", ""},
		{"the last RETURN first", "26.1.5-proxy", "DOCKER-ISOLATION-STAGE-2", "-o brNM -j DROP", "-j RETURN", "misplaced"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := load(t, test.host)
			edit(s, v4, "filter", test.chain, func(rules []netstate.IptablesRule) []netstate.IptablesRule {
				at := func(text string) int {
					i := slices.IndexFunc(rules, func(r netstate.IptablesRule) bool { return r.Text == text })
					if i < 0 {
						t.Fatalf("no rule %s", text)
					}
					return i
				}
				i, j := at(test.first), at(test.second)
				rules[i], rules[j] = rules[j], rules[i]
				return rules
			})
			got := Expected(s).Compare(s)
			if test.want == "" && len(got) > 0 || test.want != "" && (len(got) == 0 || string(got[0].Kind) != test.want) {
				t.Errorf("want %q, got:\n%s", test.want, texts(got))
			}
		})
	}
}

// Of a host of which one container and its network were inspected, what is not known is not judged.
func TestOneContainerInspected(t *testing.T) {
	for _, name := range append(iptablesCases(), nftCases...) {
		t.Run(name, func(t *testing.T) {
			s := load(t, name)
			s.Containers = slices.DeleteFunc(s.Containers, func(c netstate.Container) bool { return c.Name != "cA" })
			for i := range s.Networks {
				if s.Networks[i].Name != "netA" {
					s.Networks[i].Members = nil
				}
			}
			p := Expected(s)
			if got := p.Compare(s); len(got) > 0 {
				t.Error(texts(got))
			}
			if !slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Why == DNAT }) {
				t.Error("no DNAT is expected")
			}
		})
	}
}

func TestAltered(t *testing.T) {
	const v4 = netstate.IPv4
	replace := func(from, to string) func([]netstate.IptablesRule) []netstate.IptablesRule {
		return func(rules []netstate.IptablesRule) []netstate.IptablesRule {
			for i := range rules {
				rules[i].Text = strings.Replace(rules[i].Text, from, to, 1)
			}
			return rules
		}
	}
	insert := func(text string) func([]netstate.IptablesRule) []netstate.IptablesRule {
		return func(rules []netstate.IptablesRule) []netstate.IptablesRule {
			return slices.Insert(rules, 0, netstate.IptablesRule{Text: text})
		}
	}
	for _, test := range []struct {
		name, host, table, chain string
		change                   func([]netstate.IptablesRule) []netstate.IptablesRule
		want                     string
	}{
		{"a DNAT to an old address", "28.5.2-proxy", "nat", "DOCKER", replace("192.0.2.2:80", "192.0.2.9:80"),
			"iptables nat DOCKER 8: ! -i brA -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.9:80 instead of ! -i brA -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80"},
		{"a DNAT to another port", "20.10.24-proxy", "nat", "DOCKER", replace("192.0.2.2:80", "192.0.2.2:8000"),
			"iptables nat DOCKER 7: ! -i brA -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:8000 instead of ! -i brA -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80"},
		{"an accept for an old address", "28.5.2-proxy", "filter", "DOCKER", replace("-d 192.0.2.2/32 ! -i brA -o brA -p tcp -m tcp --dport 80 ", "-d 192.0.2.9/32 ! -i brA -o brA -p tcp -m tcp --dport 80 "),
			"iptables filter DOCKER 8: -d 192.0.2.9/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT instead of -d 192.0.2.2/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT"},
		{"a masquerade of an old subnet", "28.5.2-proxy", "nat", "POSTROUTING", replace("-s 192.0.2.0/24", "-s 192.0.9.0/24"),
			"iptables nat POSTROUTING 5: -s 192.0.9.0/24 ! -o brA -j MASQUERADE instead of -s 192.0.2.0/24 ! -o brA -j MASQUERADE"},
		{"a left-over before the DNAT", "29.7.2-iptables-noproxy", "nat", "DOCKER", insert("-p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.9:80"),
			"iptables nat DOCKER 2: -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80 stands behind rule 1: -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.9:80\n" +
				"iptables nat DOCKER 1: -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.9:80 is for an address that no container has"},
		{"a left-over for another port", "29.7.2-iptables-noproxy", "nat", "DOCKER", insert("-p tcp -m tcp --dport 9999 -j DNAT --to-destination 192.0.2.9:80"),
			"iptables nat DOCKER 1: -p tcp -m tcp --dport 9999 -j DNAT --to-destination 192.0.2.9:80 is for an address that no container has"},
		{"a left-over of raw", "29.7.2-iptables-noproxy", "raw", "PREROUTING", insert("-d 192.0.2.9/32 ! -i brA -j DROP"),
			"iptables raw PREROUTING 1: -d 192.0.2.9/32 ! -i brA -j DROP is for an address that no container has"},
		{"another container's, of a network that was not inspected", "29.7.2-iptables-noproxy", "nat", "DOCKER", insert("-p tcp -m tcp --dport 9999 -j DNAT --to-destination 172.17.0.9:80"), ""},
		{"of a network that was deleted", "29.7.2-iptables-noproxy", "nat", "DOCKER", insert("-p tcp -m tcp --dport 9999 -j DNAT --to-destination 172.31.0.9:80"),
			"iptables nat DOCKER 1: -p tcp -m tcp --dport 9999 -j DNAT --to-destination 172.31.0.9:80 is for an address that no container has"},
		{"a user's rule in DOCKER-USER", "28.5.2-proxy", "filter", "DOCKER-USER", insert("-s 198.51.100.7/32 -j DROP"), ""},
		{"a user's rule in raw", "28.5.2-proxy", "raw", "PREROUTING", insert("-s 198.51.100.7/32 -j DROP"), ""},
		{"a user's drop before Docker's jump", "28.5.2-proxy", "filter", "FORWARD", insert("-j REJECT --reject-with icmp-port-unreachable"),
			"iptables filter FORWARD 2: -j DOCKER-USER stands behind rule 1: -j REJECT --reject-with icmp-port-unreachable\n" +
				"iptables filter FORWARD 3: -j DOCKER-FORWARD stands behind rule 1: -j REJECT --reject-with icmp-port-unreachable"},
		{"a user's narrow drop before Docker's jump", "28.5.2-proxy", "filter", "FORWARD", insert("-s 198.51.100.0/24 -j DROP"), ""},
		{"the same rule in other words", "28.5.2-proxy", "filter", "DOCKER",
			replace("-d 192.0.2.2/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT", "-p 6 --dport 80 --dst 192.0.2.2 -o brA ! -i brA -j ACCEPT"), ""},
		{"a repetition", "28.5.2-proxy", "filter", "DOCKER", insert("-d 192.0.2.2/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := load(t, test.host)
			edit(s, v4, test.table, test.chain, test.change)
			if got := texts(Expected(s).Compare(s)); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}
