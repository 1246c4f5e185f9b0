//go:build linux

package checks

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// What keeps the host from telling the container that a packet is too large is found where the ICMP itself dies.
func TestSilencer(t *testing.T) {
	const drop = "-p icmp -j DROP"
	for _, c := range []struct {
		name   string
		chain  string // of filter, or mangle's FORWARD
		rules  []string
		user   []string // of the chain user
		inside bool     // in the container's namespace
		want   string   // the rule
	}{
		{"nothing", "OUTPUT", nil, nil, false, ""},
		{"all of ICMP", "OUTPUT", []string{drop}, nil, false, drop},
		{"that type", "OUTPUT", []string{"-p icmp -m icmp --icmp-type 3/4 -j DROP"}, nil, false, "-p icmp -m icmp --icmp-type 3/4 -j DROP"},
		{"to the bridge", "OUTPUT", []string{"-o brA -p icmp -j DROP"}, nil, false, "-o brA -p icmp -j DROP"},
		{"to the uplink", "OUTPUT", []string{"-o ext0 -p icmp -j DROP"}, nil, false, ""},
		{"behind what accepts its type", "OUTPUT", []string{"-p icmp -m icmp --icmp-type 3 -j ACCEPT", drop}, nil, false, ""},
		{"behind what accepts pings", "OUTPUT", []string{"-p icmp -m icmp --icmp-type 8 -j ACCEPT", drop}, nil, false, drop},
		{"behind what accepts errors", "OUTPUT", []string{"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", drop}, nil, false, ""},
		{"behind what accepts answers", "OUTPUT", []string{"-m conntrack --ctstate ESTABLISHED -j ACCEPT", drop}, nil, false, drop},
		{"behind what accepts others", "OUTPUT", []string{"-d 172.31.0.0/16 -j ACCEPT", drop}, nil, false, drop},
		{"whatever it is", "OUTPUT", []string{"-j DROP"}, nil, false, "-j DROP"},
		{"behind a chain that accepts it", "OUTPUT", []string{"-j user", drop}, []string{"-m state --state RELATED,ESTABLISHED -j ACCEPT"}, false, ""},
		{"behind a chain that does not", "OUTPUT", []string{"-j user", drop}, []string{"-p udp -j ACCEPT"}, false, drop},
		{"in the container", "INPUT", []string{"-p icmp -j DROP"}, nil, true, "-p icmp -j DROP"},
		{"not known to be it", "OUTPUT", []string{`-p icmp -m u32 --u32 "0x0=0x0" -j DROP`}, nil, false, "unknown: iptables filter OUTPUT 1: -p icmp -m u32"},
		{"one a second", "OUTPUT", []string{"-p icmp -m limit --limit 1/sec -j DROP"}, nil, false, "unknown: iptables filter OUTPUT 1: -p icmp -m limit"},
		{"certain behind uncertain", "OUTPUT", []string{"-p icmp -m limit --limit 1/sec -j DROP", drop}, nil, false, "warn: iptables filter OUTPUT 2: " + drop},
		{"TCP is told beforehand", "OUTPUT", []string{drop}, []string{"clamp", "--clamp-mss-to-pmtu"}, false, ""},
		{"TCP is told a number", "OUTPUT", []string{drop}, []string{"clamp", "--set-mss 1260"}, false, ""},
		{"TCP is told one that is too large", "OUTPUT", []string{drop}, []string{"clamp", "--set-mss 1261"}, false, drop},
	} {
		s := recorded(t, "28.5.2-noproxy")
		s.Asked = slices.DeleteFunc(s.Asked, func(id string) bool { return s.Container(id).Name != "cA" })
		s.Host.Link("ext0").MTU = 1300
		ns := &s.Host
		if c.inside {
			ns = s.Sandboxes[s.Asked[0]]
		}
		put := func(table, chain string, texts []string) {
			set := ns.IptablesSet("nft", netstate.IPv4)
			if set == nil {
				ns.Iptables = append(ns.Iptables, netstate.IptablesSet{Variant: "nft", Family: netstate.IPv4})
				set = &ns.Iptables[len(ns.Iptables)-1]
			}
			if set.Table(table) == nil {
				set.Tables = append(set.Tables, netstate.IptablesTable{Name: table})
			}
			policy := "ACCEPT"
			if strings.ToUpper(chain) != chain {
				policy = ""
			}
			to := set.Table(table)
			to.Chains = slices.DeleteFunc(to.Chains, func(c netstate.IptablesChain) bool { return c.Name == chain })
			made := netstate.IptablesChain{Name: chain, Policy: policy}
			for _, text := range texts {
				made.Rules = append(made.Rules, netstate.IptablesRule{Text: text})
			}
			to.Chains = append(to.Chains, made)
		}
		if slices.Contains(c.user, "clamp") {
			put("mangle", "FORWARD", []string{"-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS " + c.user[1]})
		} else {
			put("filter", "user", c.user)
		}
		put("filter", c.chain, c.rules)
		targets, _, err := Targets(s, Ask{Port: netstate.Port{Number: 80, Proto: "tcp"}})
		if err != nil || len(targets) == 0 {
			t.Fatal(targets, err)
		}
		got := ""
		for _, f := range Run([]*Check{MTU}, NewHost(s), targets[0])[0].Findings {
			got += map[bool]string{true: "unknown: ", false: "warn: "}[f.Unknown] + f.Object
		}
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
