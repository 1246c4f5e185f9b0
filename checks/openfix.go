package checks

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// The objects of the walk that are rules or policies: command or family, table, chain, number or handle.
var (
	ruleObject   = regexp.MustCompile(`^(ip6?tables(?:-legacy)?) (\S+) (\S+) (?:(\d+): .*|policy DROP)$`)
	nftObject    = regexp.MustCompile(`^nft (inet|ip6?|netdev|bridge) (\S+) (\S+) (?:handle (\d+): .*|policy drop)$`)
	oneDirection = regexp.MustCompile(`(^| )(-i|-o|-d|-s|--dports?|--sports?|--ctstate|iifname|oifname|iif|oif|saddr|daddr|dport|sport|ct state) `)
)

// openFix is the narrowest fix for a rule or policy of somebody else that stops the target's packets: a
// rule before it that accepts this container's traffic and nothing else, or where none can be written, the
// rule itself taken out. It opens what somebody may have closed on purpose. It is nil where neither suits.
func openFix(h *Host, t netstate.Target, stop packet.Stop) *remediate.Fix {
	if stop.Kind != packet.Filter && stop.Kind != packet.Policy {
		return nil
	}
	kind, part := "iptables", ruleObject.FindStringSubmatch(stop.Object)
	if part == nil {
		kind, part = "nft", nftObject.FindStringSubmatch(stop.Object)
	}
	if part == nil || part[2] == "nat" {
		return nil
	}
	rules, at := rulesOf(h, t, part)
	if at < 0 {
		return nil
	}
	name := strings.Join(part[1:4], " ")
	if accepts := acceptBefore(h, t, stop, rules[:at]); len(accepts) > 0 {
		old, new := window(rules, slices.Insert(slices.Clone(rules), at, accepts...))
		return &remediate.Fix{
			Title: fmt.Sprintf("accept the traffic of %s in %s", Name(t), part[3]),
			Steps: []remediate.Step{remediate.Set(kind, name, old, new)},
			Opens: true,
		}
	}
	if stop.Owner != "yours" && stop.Owner != "" || strings.Contains(stop.Object, "{") {
		return nil // its owner would bring it back, or a set of its own would not come back
	}
	fix := &remediate.Fix{Opens: true}
	if stop.Kind == packet.Policy {
		drop, accept := "drop", "accept"
		if kind == "iptables" {
			drop, accept = "DROP", "ACCEPT"
		}
		fix.Title = fmt.Sprintf("have the policy of %s accept: all that its rules leave gets through", part[3])
		fix.Steps = []remediate.Step{remediate.Set(kind, name+" policy", drop, accept)}
		return fix
	}
	old, new := window(rules, slices.Delete(slices.Clone(rules), at, at+1))
	fix.Title = fmt.Sprintf("take the rule out of %s that stops %s: all that it stops gets through", part[3], Name(t))
	fix.Steps = []remediate.Step{remediate.Set(kind, name, old, new)}
	return fix
}

// acceptBefore returns the rules which, before the one that stops the target's packets, let them pass. What
// stops packets of either direction would stop the other one next. It is empty where such rules cannot be
// told or written.
func acceptBefore(h *Host, t netstate.Target, stop packet.Stop, before []string) []string {
	write := flow.iptables
	if strings.HasPrefix(stop.Object, "nft ") {
		write = flow.nft
		if !strings.HasPrefix(stop.Object, "nft i") { // inet, ip, ip6
			return nil
		}
	}
	policy := stop.Kind == packet.Policy
	f, ok := flowOf(h, t, stop.Hop)
	if !ok {
		return nil
	}
	accepts := []string{write(f)}
	if h.Walk(t).Via == "local" && stop.Hop.Place() == packet.Accept {
		return accepts // input and output are two chains
	}
	if policy && !stop.Hop.IsReply() || !policy && !oneDirection.MatchString(stop.Object) {
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

// takeOut is the command that takes a rule out, or "" for what is no rule.
func takeOut(object string) string {
	if part := ruleObject.FindStringSubmatch(object); part != nil && part[4] != "" {
		return fmt.Sprintf("%s -t %s -D %s %s", part[1], part[2], part[3], part[4])
	}
	if part := nftObject.FindStringSubmatch(object); part != nil && part[4] != "" {
		return fmt.Sprintf("nft delete rule %s %s %s handle %s", part[1], part[2], part[3], part[4])
	}
	return ""
}

// rulesOf returns the rules of the chain that an object's parts name, and the place of the rule that they
// name, which is the end for a policy and -1 if it is not there.
func rulesOf(h *Host, t netstate.Target, part []string) (rules []string, at int) {
	host := &h.whole.snapshot.Host
	at = -1
	if family := part[1]; !strings.HasPrefix(family, "ip6tables") && !strings.HasPrefix(family, "iptables") {
		if host.Nft == nil {
			return nil, -1
		}
		table := host.Nft.Table(family, part[2])
		chain := table.Chain(part[3])
		if chain == nil {
			return nil, -1
		}
		printer := host.NftPrinter()
		for i := range chain.Rules {
			if fmt.Sprint(chain.Rules[i].Handle) == part[4] {
				at = i
			}
			rules = append(rules, strings.ReplaceAll(printer.Rule(table, &chain.Rules[i]), "\n", " "))
		}
	} else {
		for i := range host.Iptables {
			set := &host.Iptables[i]
			chain := set.Table(part[2]).Chain(part[3])
			if set.Command() != part[1] || set.Family != t.Family || chain == nil {
				continue
			}
			if number, err := strconv.Atoi(part[4]); err == nil && number >= 1 && number <= len(chain.Rules) {
				at = number - 1
			}
			for _, rule := range chain.Rules {
				rules = append(rules, rule.Text)
			}
		}
	}
	if part[4] == "" {
		at = len(rules)
	}
	return rules, at
}
