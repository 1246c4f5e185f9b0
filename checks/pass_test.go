//go:build linux

package checks

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// TestLetPassHelps inserts what lets a client on the host pass, one after the other, until the packets get through:
// every command helps, and opens nothing but the way between the two ends.
func TestLetPassHelps(t *testing.T) {
	for _, c := range []struct {
		recorded, chain string
		want            []string // what is inserted, in order
	}{
		{"29.7.2-iptables-proxy", "INPUT", []string{
			"-d 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j ACCEPT",
			"-s 192.0.2.2/32 -p tcp -m tcp --sport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"-s 127.0.0.1/32 -p tcp -m tcp --sport 8080 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}},
		{"29.7.2-iptables-proxy", "OUTPUT", []string{
			"-d 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j ACCEPT",
			"-d 192.0.2.2/32 -p tcp -m tcp --dport 80 -j ACCEPT",
			"-s 127.0.0.1/32 -p tcp -m tcp --sport 8080 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}},
		{"28.5.2-noproxy", "OUTPUT", []string{"-d 192.0.2.2/32 -p tcp -m tcp --dport 80 -j ACCEPT"}},
	} {
		s := recorded(t, c.recorded)
		s.Host.Nft = nil
		chain := s.Host.IptablesSet("nft", netstate.IPv4).Table("filter").Chain(c.chain)
		chain.Rules = slices.Insert(chain.Rules, 0, netstate.IptablesRule{Text: "-p tcp -j DROP"})
		targets, _, err := Targets(s, Ask{From: netstate.FromLocalhost})
		at := slices.IndexFunc(targets, func(t netstate.Target) bool {
			return t.Container == "cA" && t.Family == netstate.IPv4 && t.Host.Port() == 8080
		})
		if err != nil || at < 0 {
			t.Fatal(targets, err)
		}
		var inserted []string
		verdict := packet.Drop
		for range 2 * len(c.want) {
			h := NewHost(s)
			trace := h.Walk(targets[at])
			if verdict = trace.Verdict; len(trace.Stops) == 0 {
				break
			}
			command := letPass(h, targets[at], trace.Stops[0])
			rule, ok := strings.CutPrefix(command, "iptables -t filter -I "+c.chain+" ")
			if !ok {
				t.Fatalf("%s %s: %q for %v", c.recorded, c.chain, command, trace.Stops[0])
			}
			inserted = append(inserted, rule)
			chain.Rules = slices.Insert(chain.Rules, 0, netstate.IptablesRule{Text: rule})
		}
		if verdict != packet.Pass || !slices.Equal(inserted, c.want) {
			t.Errorf("%s %s: %s after %q", c.recorded, c.chain, verdict, inserted)
		}
	}
}
