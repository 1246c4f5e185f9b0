//go:build linux

package host

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

const fence = `table inet fence {
	set hosts {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.2 }
	}
	chain forward {
		type filter hook forward priority 10; policy accept;
		ct state established,related counter packets 7 bytes 420 accept
		ip saddr @hosts drop
		iifname "eth0" tcp dport 80 counter packets 3 bytes 180 drop comment "nobody's port"
		limit rate 5/second log prefix "fence " continue
		tcp dport { 22, 23 } accept
		jump rest
	}
	chain rest {
		ip6 daddr fd00::/64 drop
	}
}
`

// A chain that is called elsewhere is a new one, and listed last.
const hooks = `table inet hooks {
	map jumps {
		type ifname : verdict
		elements = { "eth0" : jump a, "eth1" : jump b, "eth2" : goto a, "eth3" : drop, "eth4" : accept, "eth5" : return, "eth6" : continue }
	}
	chain a {
	}
	chain b {
	}
	chain bare {
	}
	chain base {
		type filter hook input priority 0; policy accept;
		counter packets 9 bytes 99 accept
	}
}
`

func TestNftStore(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []remediate.Step
		want  string
	}{
		{"insert", []remediate.Step{remediate.Set("nft", "inet fence forward",
			lines("ct state established,related counter accept", "ip saddr @hosts drop"),
			lines("ct state established,related counter accept", `ip daddr 172.17.0.2 iifname != "docker0" oifname "docker0" tcp dport 80 counter accept comment "netcheck's"`, "ip saddr @hosts drop"))},
			"accept\n\t\tip daddr 172.17.0.2 iifname != \"docker0\" oifname \"docker0\" tcp dport 80 counter packets 0 bytes 0 accept comment \"netcheck's\"\n\t\tip saddr @hosts drop"},
		{"at both ends", []remediate.Step{
			remediate.Set("nft", "inet fence forward", lines("^"), lines("^", "meta l4proto udp accept")),
			remediate.Set("nft", "inet fence rest", lines("$"), lines("ip6 saddr != fd00::/48 ct state new jump forward2", "$"))}, ""},
		{"take out", []remediate.Step{
			remediate.Set("nft", "inet fence forward", lines("ip saddr @hosts drop", `iifname "eth0" tcp dport 80 counter drop comment "nobody's port"`), lines("ip saddr @hosts drop")),
			remediate.Set("nft", "inet fence forward", lines("ip saddr @hosts drop"), ""),
			remediate.Set("nft", "inet fence rest", lines("^", "ip6 daddr fd00::/64 drop", "$"), lines("^", "$"))}, ""},
		{"netdev", []remediate.Step{remediate.Set("nft", "netdev early in", lines("^", "tcp dport 80 drop"), lines("^", `iifname "lo" tcp dport 80 accept`, "tcp dport 80 drop"))},
			"iifname \"lo\" tcp dport 80 accept\n\t\ttcp dport 80 drop"},
		{"policy", []remediate.Step{remediate.Set("nft", "inet fence forward policy", "accept", "drop")}, "policy drop"},
		{"moved within the chain", []remediate.Step{remediate.Set("nft", "inet fence forward",
			lines("ct state established,related counter accept", "ip saddr @hosts drop", `iifname "eth0" tcp dport 80 counter drop comment "nobody's port"`),
			lines("ip saddr @hosts drop", "ct state established,related counter accept", `iifname "eth0" tcp dport 80 counter drop comment "nobody's port"`))},
			"ip saddr @hosts drop\n\t\tct state established,related counter packets 7 bytes 420 accept"},
		{"a table", []remediate.Step{
			remediate.Add("nft", "ip6 new", "dormant"),
			remediate.Add("nft", "ip6 new jumps map", "type ifname : verdict"),
			remediate.Add("nft", "ip6 new in chain", "-"),
			remediate.Add("nft", "ip6 new base chain", "type nat hook prerouting priority -99; policy accept;"),
			remediate.Add("nft", `ip6 new jumps element "eth0"`, "jump in"),
			remediate.Set("nft", "ip6 new in", lines("^", "$"), lines("^", `iifname != { "docker0", "eth0" } counter drop`, "fib saddr type local return", `iifname != { "eth0" } accept`, "$")),
			remediate.Set("nft", "ip6 new base", lines("^", "$"), lines("^", "iifname vmap @jumps", "meta mark & 0xff == 0x1 tcp dport 80 dnat to [fd00::2]:80", "$")),
		}, `elements = { "eth0" : jump in }`},
		{"dormant", []remediate.Step{remediate.Set("nft", "inet hooks", "-", "dormant")}, "flags dormant"},
		{"another hook", []remediate.Step{
			remediate.Set("nft", "inet hooks base chain", "type filter hook input priority 0; policy accept;", "type filter hook forward priority 5; policy drop;"),
			remediate.Set("nft", "inet hooks base", lines("^", "counter accept"), lines("^", "udp dport 53 accept", "counter accept")),
			remediate.Set("nft", "inet hooks bare chain", "-", "type filter hook output priority 0; policy accept;"),
			remediate.Set("nft", `inet hooks jumps element "eth0"`, "jump a", "jump b"),
			remediate.Remove("nft", `inet hooks jumps element "eth1"`, "jump b"),
		}, "type filter hook forward priority filter + 5; policy drop;\n\t\tudp dport 53 accept\n\t\tcounter packets 9 bytes 99 accept"},
		{"elements of every verdict", []remediate.Step{
			remediate.Set("nft", `inet hooks jumps element "eth0"`, "jump a", "goto b"),
			remediate.Set("nft", `inet hooks jumps element "eth2"`, "goto a", "accept"),
			remediate.Remove("nft", `inet hooks jumps element "eth3"`, "drop"),
			remediate.Set("nft", `inet hooks jumps element "eth4"`, "accept", "continue"),
			remediate.Set("nft", `inet hooks jumps element "eth5"`, "return", "drop"),
			remediate.Set("nft", `inet hooks jumps element "eth6"`, "continue", "return"),
		}, `"eth0" : goto b`},
	} {
		t.Run(test.name, func(t *testing.T) {
			ownNetns(t)
			nft(t, fence+hooks+"table netdev early {\n\tchain in {\n\t\ttype filter hook ingress device lo priority 0\n\t\ttcp dport 80 drop\n\t}\n}\n"+
				"table inet fence {\n\tchain forward2 {\n\t}\n}\n")
			roundTrip(t, test.steps, func() string { return run(t, "nft", "list", "ruleset") }, func() {
				if text := run(t, "nft", "list", "ruleset"); !strings.Contains(text, test.want) {
					t.Errorf("%s\nis not in\n%s", test.want, text)
				}
			})
		})
	}
}

func nft(t *testing.T, text string) {
	t.Helper()
	child := exec.Command("nft", "-f", "-")
	child.Stdin = strings.NewReader(text)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

func TestNftRefuses(t *testing.T) {
	ownNetns(t)
	nft(t, fence+"table inet fence {\n\tchain early {\n\t\ttype filter hook ingress device lo priority 0\n\t}\n}\n")
	before := run(t, "nft", "-a", "list", "ruleset")
	for _, test := range []struct{ name, old, new, want string }{
		{"inet fence forward", lines("tcp dport { 22, 23 } accept"), "", `nft inet fence forward: the rule "tcp dport { 22, 23 } accept" has a set or chain of its own`},
		{"inet fence forward", lines("drop"), lines("accept"), "nft inet fence forward: changed since it was read"},
		{"inet fence none", lines("^"), lines("^", "accept"), "nft inet fence none: changed since it was read"},
		{"inet fence a b", "", "accept", `nft: "inet fence a b" is not a family, a table and what is in it`},
		{"inet fence forward", lines("^"), lines("^", "tcp dport 80-90 accept"), `nft inet fence forward: "tcp dport 80-90 accept": strconv.ParseUint`},
		{"inet fence forward", lines("^"), lines("^", "ip saddr fd00::1 accept"), `nft inet fence forward: "ip saddr fd00::1 accept": "fd00::1" is no address of ip`},
		{"inet fence forward", lines("^"), lines("^", "jump nowhere"), "nft: no such file or directory"},
		{"inet fence forward policy", "accept", "maybe", "nft inet fence forward policy: a policy is accept or drop"},
		{"inet fence rest chain", "-", "type filter hook ingress priority 0; policy accept;", `nft inet fence rest chain: chains of "type filter hook ingress priority 0; policy accept;" are not made here`},
		{"inet fence forward chain", "type filter hook forward priority 10; policy accept;", "type filter hook forward priority 11; policy accept;", `nft inet fence forward chain: the rule "tcp dport { 22, 23 } accept" has a set`},
		{"inet fence hosts map", "of another type", "type ifname : verdict", `nft inet fence hosts map: its type stays`},
		{"inet fence early chain", "type filter hook ingress devices lo priority 0; policy accept;", "", `nft inet fence early chain: a chain of "type filter hook ingress devices lo priority 0; policy accept;" could not be put back`},
		{"inet fence rest policy", "accept", "drop", "nft inet fence rest policy: changed since it was read"},
	} {
		journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
		_, err := journal.Apply(context.Background(), &remediate.Plan{Steps: []remediate.Step{remediate.Set("nft", test.name, test.old, test.new)}}, Stores(), Facts(nil))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s %q: got %v, want %s", test.name, test.new, err, test.want)
		}
	}
	if diff := cmp.Diff(before, run(t, "nft", "-a", "list", "ruleset")); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}
}
