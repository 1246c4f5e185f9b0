//go:build linux

package probe

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// TestWalkAgrees walks and probes the same random rules on a real host: outcome and deciding rule are the
// same. The rules are made from the packet, so that each match is true about every other time.
func TestWalkAgrees(t *testing.T) {
	suites, sets := []string{lab.Trixie}, 16
	if os.Getenv("NETCHECK_TEST_ALL") != "" {
		suites, sets = lab.Suites(), 150
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) { walkAgrees(t, suite, sets) })
	}
}

func walkAgrees(t *testing.T, suite string, sets int) {
	h := healthy(t, lab.Options{Suite: suite})
	ended, may := map[Outcome]int{}, 0
	for n := range sets {
		script := (&ruleMaker{rand.New(rand.NewPCG(6, uint64(n)))}).script()
		if _, err := h.Sh(t.Context(), flushRules+script); err != nil {
			t.Fatal(err)
		}
		a := observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Client: nobody, Timeout: 300 * time.Millisecond})
		if a.Errors[0] != "" {
			t.Fatal(a.Errors[0])
		}
		o := a.Observations[0]
		trace := packet.New(a.Snapshot).Walk(o.Target)
		ended[o.Outcome]++
		if trace.Verdict == packet.May {
			may++
		}
		if why := differs(trace, o); why != "" {
			t.Errorf("set %d: %s\n%s\nthe walk: %s %+v\n%s", n, why, script, trace.Verdict, trace.Stops, o)
		}
	}
	t.Logf("%v; of %d the walk cannot tell", ended, may)
	if may > sets/4 || ended[Connected] < sets/8 || ended[Silent] < sets/8 || ended[Refused]+ended[Unreachable] == 0 {
		t.Error("the rules are too much alike")
	}
}

// differs says how walk and packet differ, or "".
func differs(trace *packet.Trace, o *Observation) string {
	// A refusal may be told to the other side, or its answer be dropped in turn.
	want := map[packet.Verdict][]Outcome{packet.Pass: {Connected}, packet.Drop: {Silent}, packet.Refuse: {Refused, Unreachable, Silent}}[trace.Verdict]
	stop := certain(trace)
	if later := afterwards(trace); stop == nil && later != nil { // the handshake is answered, and then stopped
		stop, want = later, []Outcome{Connected}
	}
	switch {
	case trace.Verdict == packet.May, certain(trace) == nil && uncertain(trace): // the client's own port decides
		return ""
	case !slices.Contains(want, o.Outcome):
		return "the probe met " + o.outcome()
	case stop == nil:
		return ""
	}
	if !slices.ContainsFunc(o.Rules, func(r Rule) bool { return r.ends() && r.Object == stop.Object && r.Hop == stop.Hop }) {
		return "the rule was not seen to drop it: " + stop.Object
	}
	return ""
}

// flushRules takes away what a script of the ruleMaker makes.
const flushRules = "iptables -t raw -F PREROUTING; iptables -t mangle -F; iptables -F DOCKER-USER; nft destroy table inet drawn 2>/dev/null || nft delete table inet drawn 2>/dev/null || true\n"

// A ruleMaker makes random rules for the packet that nobody sends to web.
type ruleMaker struct{ *rand.Rand }

func (m *ruleMaker) of(words ...string) string { return words[m.IntN(len(words))] }

func (m *ruleMaker) script() string {
	var b strings.Builder
	for range 1 + m.IntN(4) {
		table, chain := "filter", "DOCKER-USER"
		if m.IntN(2) == 0 {
			table, chain = m.of("raw", "mangle"), "PREROUTING"
		}
		if table == "mangle" {
			chain = m.of("PREROUTING", "FORWARD", "POSTROUTING")
		}
		kinds, target := m.Perm(6)[:2], m.target(table)
		if strings.HasSuffix(target, "tcp-reset") {
			kinds = []int{0, 1 + m.IntN(5)} // it goes with -p tcp
		}
		fmt.Fprintf(&b, "iptables -t %s -A %s %s %s -j %s\n", table, chain, m.match(kinds[0], table, chain), m.match(kinds[1], table, chain), target)
	}
	if m.IntN(2) == 0 {
		fmt.Fprintf(&b, "nft 'add table inet drawn; add chain inet drawn c { type filter hook %s priority %d; policy accept; }'\n", m.of("prerouting", "forward", "postrouting"), m.IntN(400)-350)
		for range 1 + m.IntN(3) {
			fmt.Fprintf(&b, "nft 'add rule inet drawn c %s %s'\n", m.nft(), m.of("drop", "accept", "counter"))
		}
	}
	return b.String()
}

// target is of a rule in that table.
func (m *ruleMaker) target(table string) string {
	if table == "filter" {
		return m.of("DROP", "REJECT", "REJECT --reject-with tcp-reset", "REJECT --reject-with icmp-host-prohibited", "ACCEPT", "RETURN")
	}
	return m.of("DROP", "ACCEPT", "RETURN")
}

// match is one match of one of six kinds.
func (m *ruleMaker) match(kind int, table, chain string) string {
	not := m.of("", "", "! ")
	switch kind {
	case 0:
		return "-p tcp " + not + m.of("--dport 80", "--dport 8080", "--dport 81", "--sport 80", "--dport 79:80", "--dport 8081:9000", "--tcp-flags SYN,ACK SYN", "--tcp-flags ACK ACK")
	case 1:
		return not + m.of("-s 192.0.2.77", "-s 192.0.2.76", "-s 192.0.2.64/28", "-s 172.17.0.2")
	case 2:
		return not + m.of("-d 198.51.100.15", "-d 172.17.0.2", "-d 172.17.0.0/30", "-d 192.0.2.77")
	case 3:
		if chain != "POSTROUTING" {
			return not + m.of("-i eth0", "-i docker0", "-i eth+")
		}
		return not + m.of("-o eth0", "-o docker0", "-o dock+")
	case 4:
		if table != "raw" {
			return "-m conntrack " + not + m.of("--ctstate NEW", "--ctstate ESTABLISHED", "--ctstate DNAT", "--ctorigdstport 8080")
		}
	}
	return "-m comment --comment random"
}

func (m *ruleMaker) nft() string {
	return m.of("tcp dport 80", "tcp dport 8080", "tcp dport != 80", "tcp sport 80", "ip saddr 192.0.2.77", "ip saddr != 192.0.2.0/24", "ip daddr 172.17.0.2",
		"ct state new", "ct state established", "iifname eth0", "iifname docker0", "tcp flags syn / syn,ack", "meta mark 1", "ct status dnat")
}
