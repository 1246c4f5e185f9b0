//go:build linux

package checks

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// recorded returns fixture.Healthy's host.
func recorded(t *testing.T, name string) *netstate.Snapshot {
	t.Helper()
	s, err := fixture.Healthy(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
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
