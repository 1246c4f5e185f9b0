package checks

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// ruleObject is how the walk names a rule of iptables: command, table, chain, number, rule.
var ruleObject = regexp.MustCompile(`^(ip6?tables(?:-legacy)?) (\S+) (\S+) (\d+): (.*)$`)

// passBefore is the narrowest fix for a rule of somebody else that stops the target's packets: a rule
// before it that accepts this container's traffic of this direction and nothing else. It opens what
// somebody may have closed on purpose. It is nil for rules that it does not suit: those outside of filter
// chains for forwarded packets.
func passBefore(h *Host, t netstate.Target, stop packet.Stop) *remediate.Fix {
	part := ruleObject.FindStringSubmatch(stop.Object)
	if part == nil || stop.Kind != packet.Filter || part[2] != "filter" || h.Walk(t).Via != "forward" && t.Direction == netstate.In {
		return nil
	}
	number, err := strconv.Atoi(part[4])
	accept := acceptRule(h, t, stop.Hop.IsReply())
	if err != nil || accept == "" {
		return nil
	}
	for i := range h.whole.snapshot.Host.Iptables {
		set := &h.whole.snapshot.Host.Iptables[i]
		chain := set.Table(part[2]).Chain(part[3])
		if set.Command() != part[1] || set.Family != t.Family || chain == nil || number < 1 || number > len(chain.Rules) {
			continue
		}
		var before, after []string
		for j, rule := range chain.Rules {
			if j == number-1 {
				after = append(after, accept)
			}
			before, after = append(before, rule.Text), append(after, rule.Text)
		}
		old, new := window(before, after)
		return &remediate.Fix{
			Title: fmt.Sprintf("accept this traffic before rule %d of %s", number, part[3]),
			Steps: []remediate.Step{remediate.Set("iptables", strings.Join(part[1:4], " "), old, new)},
			Opens: true,
		}
	}
	return nil
}

// acceptRule returns the rule, as iptables-save prints it, that accepts the target's packets on the host's
// way between its bridge and the world.
func acceptRule(h *Host, t netstate.Target, reply bool) string {
	c, bridge := h.Container(t.ID), bridgeOf(h, t)
	if c == nil || bridge == "" || t.Direction == netstate.Peer {
		return ""
	}
	endpoint := h.Program().Gateway(c, t.Family)
	addr := endpoint.Addr(t.Family)
	if !addr.IsValid() {
		return ""
	}
	var rule strings.Builder
	toContainer := (t.Direction == netstate.In) != reply
	if toContainer {
		fmt.Fprintf(&rule, "-d %s/%d ! -i %s -o %s", addr, addr.BitLen(), bridge, bridge)
	} else {
		fmt.Fprintf(&rule, "-s %s/%d -i %s ! -o %s", addr, addr.BitLen(), bridge, bridge)
	}
	if t.Direction == netstate.In {
		side := "--dport"
		if reply {
			side = "--sport"
		}
		fmt.Fprintf(&rule, " -p %s -m %[1]s %s %d", t.Port.Proto, side, t.Port.Number)
	}
	if reply {
		rule.WriteString(" -m conntrack --ctstate RELATED,ESTABLISHED")
	}
	rule.WriteString(" -j ACCEPT")
	return rule.String()
}
