package dockerd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// load returns a captured host.
func load(t *testing.T, name string) *netstate.Snapshot {
	t.Helper()
	s, err := fixture.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// iptablesCases returns the names of the captures of engines that program iptables.
func iptablesCases() []string {
	return slices.DeleteFunc(fixture.Cases(), func(name string) bool { return strings.Contains(name, "nftables") })
}

// Every rule that an engine made is expected of it, and every rule expected of it it made.
func TestExpectedIsWhatEnginesMake(t *testing.T) {
	for _, name := range iptablesCases() {
		t.Run(name, func(t *testing.T) {
			s := load(t, name)
			p := Expected(s)
			for _, family := range families {
				if why := p.Unjudged(family); why != "" {
					t.Errorf("%s is not judged: %s", family, why)
				}
			}
			want := map[string]bool{}
			for _, r := range p.Rules {
				want[fmt.Sprint(r.Family, " ", r.Table, " ", r.Chain, " ", r.Text)] = true
			}
			for _, c := range p.Chains {
				want[fmt.Sprint(c.Family, " ", c.Table, " :", c.Name)] = true
			}
			for _, set := range s.Host.Iptables {
				for _, table := range set.Tables {
					for _, chain := range table.Chains {
						if key := fmt.Sprint(set.Family, " ", table.Name, " :", chain.Name); chain.Policy == "" {
							if !want[key] {
								t.Errorf("not expected: %s", key)
							}
							delete(want, key)
						}
						for _, rule := range chain.Rules {
							key := fmt.Sprint(set.Family, " ", table.Name, " ", chain.Name, " ", rule.Text)
							if !want[key] {
								t.Errorf("not expected: %s", key)
							}
							delete(want, key)
						}
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
