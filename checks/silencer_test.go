package checks

import (
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestSilencer says which rule is accused of dropping the ICMP that a packet is too large for the way out.
func TestSilencer(t *testing.T) {
	const drop = "-p icmp -j DROP"
	for _, c := range []struct {
		name  string
		rules []string // of OUTPUT
		user  []string // of the chain user
		want  string   // the rule
	}{
		{"all of ICMP", []string{drop}, nil, drop},
		{"that type", []string{"-p icmp -m icmp --icmp-type 3/4 -j DROP"}, nil, "-p icmp -m icmp --icmp-type 3/4 -j DROP"},
		{"to the bridge", []string{"-o docker0 -p icmp -j DROP"}, nil, "-o docker0 -p icmp -j DROP"},
		{"to bridges", []string{"-o docker+ -p icmp -j DROP"}, nil, "-o docker+ -p icmp -j DROP"},
		{"to the uplink", []string{"-o eth0 -p icmp -j DROP"}, nil, ""},
		{"behind what accepts it", []string{"-p icmp -m icmp --icmp-type 3/4 -j ACCEPT", drop}, nil, ""},
		{"behind what accepts its type", []string{"-p icmp -m icmp --icmp-type 3 -j ACCEPT", drop}, nil, ""},
		{"behind what accepts pings", []string{"-p icmp -m icmp --icmp-type 8 -j ACCEPT", drop}, nil, drop},
		{"behind what accepts errors", []string{"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", drop}, nil, ""},
		{"behind what accepts answers", []string{"-m conntrack --ctstate ESTABLISHED -j ACCEPT", drop}, nil, drop},
		{"behind what accepts lo", []string{"-o lo -j ACCEPT", drop}, nil, drop},
		{"behind what accepts all but lo", []string{"! -o lo -j ACCEPT", drop}, nil, ""},
		{"behind what accepts TCP", []string{"-p tcp -j ACCEPT", drop}, nil, drop},
		{"behind what may accept it", []string{"-d 172.17.0.0/16 -j ACCEPT", drop}, nil, ""},
		{"behind a chain that accepts it", []string{"-j user", drop}, []string{"-m state --state RELATED,ESTABLISHED -j ACCEPT"}, ""},
		{"behind a chain that does not", []string{"-j user", drop}, []string{"-p udp -j ACCEPT", "-j user"}, drop},
		{"behind a chain for others", []string{"-o eth0 -j user", drop}, []string{"-j ACCEPT"}, drop},
	} {
		chain := func(name string, rules []string) netstate.IptablesChain {
			chain := netstate.IptablesChain{Name: name}
			for _, text := range rules {
				chain.Rules = append(chain.Rules, netstate.IptablesRule{Text: text})
			}
			return chain
		}
		s := &netstate.Snapshot{}
		s.Host.Iptables = []netstate.IptablesSet{{Variant: "nft", Family: netstate.IPv4, Tables: []netstate.IptablesTable{
			{Name: "filter", Chains: []netstate.IptablesChain{chain("OUTPUT", c.rules), chain("user", c.user)}}}}}
		if _, got := silencer(NewHost(s), netstate.IPv4, "docker0"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
