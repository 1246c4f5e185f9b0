package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Of what a rule asks:
var (
	oneDirection = lazyregexp.New(`(^| )(-i|-o|-d|-s|--dports?|--sports?|--ctstate|iifname|oifname|iif|oif|saddr|daddr|dport|sport|ct state) `)

	// narrow finds an address or a port that a rule is about, and not all others but that one.
	narrow = lazyregexp.New(`(^|[^! ] )(-d|-s|--dports?|--sports?) |(saddr|daddr|dport|sport) [^!]`)

	// words finds what a rule says and does not ask: comments, and what it logs.
	words = lazyregexp.New(`(--comment )?"(?:\\.|[^"\\])*"|--comment \S+`)
)

// asks returns a rule's text, or its object, without what may read like a condition and is none.
func asks(rule string) string { return words().ReplaceAllString(rule, "") }

// openFix is the narrowest fix for a rule or policy of somebody else that stops the target's packets: a
// rule before it that accepts this container's traffic and nothing else, or where none can be written, the
// rule itself taken out if it is about some address or port alone. It opens what somebody may have closed on
// purpose. It is nil where neither suits: nothing is opened for everybody.
func openFix(h *Host, t netstate.Target, stop packet.Stop) *remediate.Fix {
	kind, part := ruleParts(stop.Object)
	if kind == "" || part[2] == "nat" || stop.Kind != packet.Filter && stop.Kind != packet.Policy {
		return nil
	}
	rules, at := rulesOf(h, part)
	if at < 0 {
		return nil
	}
	fix := &remediate.Fix{Opens: true}
	var after []string
	if accepts := acceptBefore(h, t, stop, rules[:at]); len(accepts) > 0 {
		fix.Title = fmt.Sprintf("accept the traffic of %s in %s", Name(t), part[3])
		after = slices.Insert(slices.Clone(rules), at, accepts...)
	} else {
		if stop.Kind != packet.Filter || stop.Owner != "yours" || !narrow().MatchString(asks(part[5])) || strings.Contains(part[5], "{") {
			return nil // its owner would bring it back, it keeps out more than this, or a set of its own would not come back
		}
		fix.Title = fmt.Sprintf("take the rule out of %s that stops %s: all that it stops gets through", part[3], Name(t))
		after = slices.Delete(slices.Clone(rules), at, at+1)
	}
	old, new := window(rules, after)
	fix.Steps = []remediate.Step{remediate.Set(kind, strings.Join(part[1:4], " "), old, new)}
	return fix
}

// acceptBefore returns the rules which, before the one that stops the target's packets, let them pass. What
// stops packets of either direction would stop the other one next. It is empty where such rules cannot be
// told or written.
func acceptBefore(h *Host, t netstate.Target, stop packet.Stop, before []string) []string {
	write := flow.iptables
	if strings.HasPrefix(stop.Object, "nft ") {
		write = flow.nft
	}
	policy := stop.Kind == packet.Policy
	f, ok := flowOf(h, t, stop.Hop)
	switch {
	case !ok, strings.HasPrefix(stop.Object, "nft bridge "), strings.HasPrefix(stop.Object, "nft netdev ") && (f.from.IsValid() || f.to.IsValid()):
		return nil // there an address is no word of its own
	}
	accepts := []string{write(f)}
	if slices.Contains(before, accepts[0]) {
		return nil // what stops is another leg: docker-proxy's answer to a client on the host
	}
	switch via := h.Walk(t).Via; {
	case (via == "local" || via == "docker-proxy") && stop.Hop.Place() == packet.Accept, stop.Hop.Place() == packet.Uplink:
		return accepts // either direction has its own chain
	}
	if policy && !stop.Hop.IsReply() || !policy && !oneDirection().MatchString(asks(stop.Object)) {
		back := stop.Hop.Reply()
		if stop.Hop.IsReply() {
			back = stop.Hop.Place()
		}
		f, ok := flowOf(h, t, back)
		if !ok {
			return nil
		}
		if !slices.Contains(before, write(f)) {
			accepts = append(accepts, write(f))
		}
	}
	return accepts
}
