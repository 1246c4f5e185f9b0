//go:build linux

package checks

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	machine "github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// inputRules puts rules and a policy of INPUT into a snapshot, for IPv4.
func inputRules(s *netstate.Snapshot, policy string, rules ...string) {
	chain := netstate.IptablesChain{Name: "INPUT", Policy: policy}
	for _, rule := range rules {
		chain.Rules = append(chain.Rules, netstate.IptablesRule{Text: rule})
	}
	set := s.Host.IptablesSet("nft", netstate.IPv4)
	for i := range set.Tables {
		table := &set.Tables[i]
		for j := range table.Chains {
			if table.Name == "filter" && table.Chains[j].Name == "INPUT" {
				table.Chains[j] = chain
			}
		}
	}
}

// TestOpenFixOpensNoMore: the fix lets this container's packets pass before what stops them, or takes out what is
// about an address or port; nothing is opened for everybody, and no rule of the host for one of a container.
func TestOpenFixOpensNoMore(t *testing.T) {
	for _, c := range []struct {
		name, policy string
		rules        []string
		stop         packet.Stop
		via, want    string // want: New of the step
	}{
		{"in a container", "ACCEPT", []string{"-p tcp -m tcp --dport 80 -j DROP"},
			packet.Stop{Hop: packet.Container, Kind: packet.Filter, Object: "iptables filter INPUT 1: -p tcp -m tcp --dport 80 -j DROP in container cA", Owner: "yours"}, "forward", ""},
		{"another rule has its number", "ACCEPT", []string{"-p tcp -m tcp --dport 80 -j DROP"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: "iptables filter INPUT 1: -j DROP", Owner: "yours"}, "docker-proxy", ""},
		{"a policy, docker-proxy", "DROP", []string{"-i lo -j ACCEPT"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Policy, Object: "iptables filter INPUT policy DROP"}, "docker-proxy",
			"-i lo -j ACCEPT\n-i ext0 -p tcp -m tcp --dport 8080 -j ACCEPT\n$"},
		{"a rule for all, docker-proxy", "ACCEPT", []string{"-j REJECT --reject-with icmp-port-unreachable"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: "iptables filter INPUT 1: -j REJECT --reject-with icmp-port-unreachable", Owner: "yours"}, "docker-proxy",
			"^\n-i ext0 -p tcp -m tcp --dport 8080 -j ACCEPT\n-j REJECT --reject-with icmp-port-unreachable"},
		{"its reply", "ACCEPT", []string{"-j DROP"},
			packet.Stop{Hop: packet.Accept.Reply(), Kind: packet.Filter, Object: "iptables filter INPUT 1: -j DROP", Owner: "yours"}, "docker-proxy",
			"^\n-s 192.0.2.2/32 -i brA -p tcp -m tcp --sport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-j DROP"},
		{"its reply, accepted already on another leg", "ACCEPT", []string{"-s 192.0.2.2/32 -i brA -p tcp -m tcp --sport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j DROP"},
			packet.Stop{Hop: packet.Accept.Reply(), Kind: packet.Filter, Object: "iptables filter INPUT 2: -j DROP", Owner: "yours"}, "docker-proxy", ""},
		{"a policy where none can be written", "DROP", nil,
			packet.Stop{Hop: packet.Accept, Kind: packet.Policy, Object: "iptables filter INPUT policy DROP"}, "", ""},
		{"a rule for all where none can be written", "ACCEPT", []string{"-i ext0 -j DROP"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: "iptables filter INPUT 1: -i ext0 -j DROP", Owner: "yours"}, "", ""},
		{"a rule for all but some", "ACCEPT", []string{"! -s 192.0.2.0/24 -j DROP"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: "iptables filter INPUT 1: ! -s 192.0.2.0/24 -j DROP", Owner: "yours"}, "", ""},
		{"a rule for all whose comment is not", "ACCEPT", []string{`-i ext0 -m comment --comment "not -d \"x\" -d y" -j DROP`},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: `iptables filter INPUT 1: -i ext0 -m comment --comment "not -d \"x\" -d y" -j DROP`, Owner: "yours"}, "", ""},
		{"a rule for all whose comment is one word", "ACCEPT", []string{"-m comment --comment --dport -j DROP"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: "iptables filter INPUT 1: -m comment --comment --dport -j DROP", Owner: "yours"}, "", ""},
		{"a rule for both directions whose comment is for one", "ACCEPT", []string{`-m comment --comment "by -i eth9 alone" -j DROP`},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: `iptables filter INPUT 1: -m comment --comment "by -i eth9 alone" -j DROP`, Owner: "yours"}, "forward",
			"^\n-d 192.0.2.2/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT\n" +
				"-s 192.0.2.2/32 -i brA ! -o brA -p tcp -m tcp --sport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n" +
				`-m comment --comment "by -i eth9 alone" -j DROP`},
		{"a narrow rule", "ACCEPT", []string{"-p tcp -m tcp --dport 8080 -j DROP"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: "iptables filter INPUT 1: -p tcp -m tcp --dport 8080 -j DROP", Owner: "yours"}, "", "^\n$"},
		{"a narrow rule of a program", "ACCEPT", []string{"-p tcp -m tcp --dport 8080 -j DROP"},
			packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: "iptables filter INPUT 1: -p tcp -m tcp --dport 8080 -j DROP", Owner: "ufw"}, "", ""},
	} {
		s := recorded(t, "29.7.2-iptables-proxy")
		inputRules(s, c.policy, c.rules...)
		h, web := NewHost(s), published(t, s)
		h.whole.traces[web] = &packet.Trace{Via: c.via, Uplink: "ext0"}
		got := ""
		if fix := openFix(h, web, c.stop); fix != nil {
			got = *fix.Steps[0].New
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// published returns cA's target of 0.0.0.0:8080, from outside.
func published(t *testing.T, s *netstate.Snapshot) netstate.Target {
	t.Helper()
	targets, _, err := Targets(s, Ask{})
	i := slices.IndexFunc(targets, func(t netstate.Target) bool {
		return t.Container == "cA" && t.Family == netstate.IPv4 && t.Host.Port() == 8080
	})
	if err != nil || i < 0 {
		t.Fatal(err, targets)
	}
	return targets[i]
}

// What stops two containers of a network, and what stops all that comes in by a link, is met by an accept too.
func TestFlowsOfPeersAndLinks(t *testing.T) {
	s := recorded(t, "29.7.2-iptables-proxy")
	h, web := NewHost(s), published(t, s)
	h.whole.traces[web] = &packet.Trace{Via: "forward", Uplink: "ext0"}
	if f, ok := flowOf(h, web, packet.Uplink); !ok || f.nft() != `iifname "ext0" tcp dport 8080 accept` {
		t.Errorf("at the uplink: %v %s", ok, f.nft())
	}
	other := *h.Container(web.ID)
	other.ID, other.Endpoints = "other", slices.Clone(other.Endpoints)
	other.Endpoints[0].IPv4 = netip.MustParsePrefix("192.0.2.77/24")
	s.Containers = append(s.Containers, other)
	h = NewHost(s)
	peer := netstate.Target{ID: web.ID, ToID: "other", Direction: netstate.Peer, Family: netstate.IPv4, Port: web.Port, To: netip.MustParseAddrPort("192.0.2.77:80")}
	h.whole.traces[peer] = &packet.Trace{Via: "bridge"}
	for hop, want := range map[packet.Hop]string{
		packet.Accept:         "-s 192.0.2.2/32 -d 192.0.2.77/32 -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT",
		packet.Accept.Reply(): "-s 192.0.2.77/32 -d 192.0.2.2/32 -i brA -o brA -p tcp -m tcp --sport 80 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
	} {
		if f, ok := flowOf(h, peer, hop); !ok || f.iptables() != want {
			t.Errorf("%s of a peer: %v %s", hop, ok, f.iptables())
		}
	}
}

func TestTakeOut(t *testing.T) {
	for object, want := range map[string]string{
		`iptables filter INPUT 3: ! -s 192.0.2.0/24 -p tcp -j DROP`:                       "iptables -t filter -D INPUT ! -s 192.0.2.0/24 -p tcp -j DROP",
		`ip6tables-legacy raw X 1: -m comment --comment "it's $(reboot) \"now\"" -j DROP`: `ip6tables-legacy -t raw -D X -m comment --comment 'it'\''s $(reboot) "now"' -j DROP`,
		`nft inet fw pre handle 2: tcp dport 80 drop`:                                     "nft delete rule inet fw pre handle 2",
		`iptables filter INPUT 1: -j DROP in container web`:                               "",
		`nft inet fw pre handle 2: tcp dport 80 drop in container web`:                    "",
		`iptables filter INPUT policy DROP`:                                               "",
	} {
		if got := takeOut(object); got != want {
			t.Errorf("%s: %q, want %q", object, got, want)
		}
		said := advice(packet.Stop{Kind: packet.Filter, Object: object, Owner: "Docker"})
		if strings.Contains(said, "takes it out") {
			t.Errorf("of Docker's rule: %s", said)
		}
	}
}

// TestJoined makes fixes that put rules before one that another takes out, and takes them back.
func TestJoined(t *testing.T) {
	newNamespace(t)
	nft(t, `table inet fw { chain f { type filter hook forward priority 0; policy accept; tcp dport 22 accept; tcp dport 80 drop; udp dport 53 accept; }; chain g { udp dport 53 drop; }; }`)
	before := nftList(t)
	set := func(chain string, old, new string) remediate.Step {
		return remediate.Set("nft", "inet fw "+chain, old, new)
	}
	fixes := joined([]*remediate.Fix{
		{Title: "one", Opens: true, Steps: []remediate.Step{
			set("f", "tcp dport 22 accept\ntcp dport 80 drop", "tcp dport 22 accept\nip daddr 192.0.2.2 accept\ntcp dport 80 drop"),
			set("g", "^\nudp dport 53 drop", "^\nip daddr 192.0.2.2 accept\nudp dport 53 drop")}},
		{Title: "two", Opens: true, Steps: []remediate.Step{set("f", "tcp dport 22 accept\ntcp dport 80 drop\nudp dport 53 accept", "tcp dport 22 accept\nudp dport 53 accept")}},
		{Title: "three", Opens: true, Steps: []remediate.Step{set("f", "tcp dport 22 accept\ntcp dport 80 drop", "tcp dport 22 accept\nip daddr 192.0.2.3 accept\ntcp dport 80 drop")}},
	})
	plan, err := remediate.NewPlan(fixes, false)
	if err != nil || len(plan.Steps) != 2 {
		t.Fatalf("%v: %s", err, plan.Diff())
	}
	journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	if _, err := journal.Apply(context.Background(), plan, machine.Stores(), machine.Facts(nil)); err != nil {
		t.Fatal(err)
	}
	now := strings.Join(nftList(t), "\n")
	if !strings.Contains(now, "tcp dport 22 accept\n\t\tip daddr 192.0.2.2 accept\n\t\tip daddr 192.0.2.3 accept\n\t\tudp dport 53 accept") {
		t.Errorf("made:\n%s", now)
	}
	if _, err := journal.Undo(context.Background(), "", machine.Stores(), machine.Facts(nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, nftList(t)); diff != "" {
		t.Errorf("undo left:\n%s", diff)
	}
}
