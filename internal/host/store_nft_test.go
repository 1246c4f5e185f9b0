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
		{"policy", []remediate.Step{remediate.Set("nft", "inet fence forward policy", "accept", "drop")}, "policy drop"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ownNetns(t)
			nft(t, fence+"table inet fence {\n\tchain forward2 {\n\t}\n}\n")
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
	nft(t, fence)
	before := run(t, "nft", "-a", "list", "ruleset")
	for _, test := range []struct{ name, old, new, want string }{
		{"inet fence forward", lines("tcp dport { 22, 23 } accept"), "", `nft inet fence forward: the rule "tcp dport { 22, 23 } accept" has a set or chain of its own`},
		{"inet fence forward", lines("drop"), lines("accept"), "nft inet fence forward: changed since it was read"},
		{"inet fence none", lines("^"), lines("^", "accept"), "nft inet fence none: changed since it was read"},
		{"inet fence", "", "accept", `nft: "inet fence" is not a family, a table and a chain`},
		{"inet fence forward", lines("^"), lines("^", "tcp dport 80-90 accept"), `nft inet fence forward: "tcp dport 80-90 accept": strconv.ParseUint`},
		{"inet fence forward", lines("^"), lines("^", "ip saddr fd00::1 accept"), `nft inet fence forward: "ip saddr fd00::1 accept": "fd00::1" is no address of ip`},
		{"inet fence forward", lines("^"), lines("^", "jump nowhere"), "nft: no such file or directory"},
		{"inet fence forward policy", "accept", "maybe", "nft inet fence forward policy: a policy is accept or drop"},
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
