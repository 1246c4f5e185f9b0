package checks

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// The objects of the walk that a rule can be put before: command or family, table, chain, number or handle.
var (
	ruleObject   = regexp.MustCompile(`^(ip6?tables(?:-legacy)?) (\S+) (\S+) (?:(\d+): .*|policy DROP)$`)
	nftObject    = regexp.MustCompile(`^nft (inet|ip6?) (\S+) (\S+) (?:handle (\d+): .*|policy drop)$`)
	oneDirection = regexp.MustCompile(`(^| )(-i|-o|-d|-s|--dports?|--sports?|--ctstate|iifname|oifname|iif|oif|saddr|daddr|dport|sport|ct state) `)
)

// passBefore is the narrowest fix for a rule or policy of somebody else that stops the target's packets: a
// rule before it, or at the end of its chain, that accepts this container's traffic and nothing else. It
// opens what somebody may have closed on purpose. It is nil for what it does not suit: whatever is no
// filter of forwarded packets.
func passBefore(h *Host, t netstate.Target, stop packet.Stop) *remediate.Fix {
	if stop.Kind != packet.Filter && stop.Kind != packet.Policy || stop.Hop.Place() != packet.Accept || h.Walk(t).Via != "forward" && t.Direction == netstate.In {
		return nil
	}
	language := iptablesRule
	part := ruleObject.FindStringSubmatch(stop.Object)
	if part == nil {
		language = nftRule
		part = nftObject.FindStringSubmatch(stop.Object)
	} else if part[2] != "filter" {
		return nil
	}
	if part == nil {
		return nil
	}
	before, at := rulesOf(h, t, part)
	accept := acceptRule(h, t, stop.Hop.IsReply(), language)
	if at < 0 || accept == "" {
		return nil
	}
	accepts := []string{accept}
	// What stops packets of either direction would stop the other one next.
	if part[4] == "" && !stop.Hop.IsReply() || part[4] != "" && !oneDirection.MatchString(stop.Object) {
		if other := acceptRule(h, t, !stop.Hop.IsReply(), language); !slices.Contains(before[:at], other) {
			accepts = append(accepts, other)
		}
	}
	old, new := window(before, slices.Insert(slices.Clone(before), at, accepts...))
	kind, name := "iptables", strings.Join(part[1:4], " ")
	if nftObject.MatchString(stop.Object) {
		kind = "nft"
	}
	return &remediate.Fix{
		Title: fmt.Sprintf("accept the traffic of %s in %s", Name(t), part[3]),
		Steps: []remediate.Step{remediate.Set(kind, name, old, new)},
		Opens: true,
	}
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

// A ruleLanguage writes an accepting rule: of packets to the container's address or from it, through its
// bridge, of a port ("" proto: of any) on their side, and of replies alone.
type ruleLanguage func(toContainer bool, addr netip.Addr, bridge, proto string, toPort bool, port uint16, reply bool) string

// iptablesRule writes as iptables-save does.
func iptablesRule(toContainer bool, addr netip.Addr, bridge, proto string, toPort bool, port uint16, reply bool) string {
	var rule strings.Builder
	if toContainer {
		fmt.Fprintf(&rule, "-d %s/%d ! -i %s -o %s", addr, addr.BitLen(), bridge, bridge)
	} else {
		fmt.Fprintf(&rule, "-s %s/%d -i %s ! -o %s", addr, addr.BitLen(), bridge, bridge)
	}
	if proto != "" {
		fmt.Fprintf(&rule, " -p %s -m %[1]s %s %d", proto, pick(toPort, "--dport", "--sport"), port)
	}
	if reply {
		rule.WriteString(" -m conntrack --ctstate RELATED,ESTABLISHED")
	}
	return rule.String() + " -j ACCEPT"
}

// nftRule writes as nft does.
func nftRule(toContainer bool, addr netip.Addr, bridge, proto string, toPort bool, port uint16, reply bool) string {
	var rule strings.Builder
	network := pick(addr.Is4(), "ip", "ip6")
	if toContainer {
		fmt.Fprintf(&rule, "%s daddr %s iifname != %q oifname %[3]q", network, addr, bridge)
	} else {
		fmt.Fprintf(&rule, "%s saddr %s iifname %q oifname != %[3]q", network, addr, bridge)
	}
	if proto != "" {
		fmt.Fprintf(&rule, " %s %s %d", proto, pick(toPort, "dport", "sport"), port)
	}
	if reply {
		rule.WriteString(" ct state established,related")
	}
	return rule.String() + " accept"
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// acceptRule returns the rule that accepts the target's packets on the host's
// way between its bridge and the world.
func acceptRule(h *Host, t netstate.Target, reply bool, write ruleLanguage) string {
	c, bridge := h.Container(t.ID), bridgeOf(h, t)
	if c == nil || bridge == "" || t.Direction == netstate.Peer {
		return ""
	}
	endpoint := h.Program().Gateway(c, t.Family)
	addr := endpoint.Addr(t.Family)
	if !addr.IsValid() {
		return ""
	}
	proto, port := "", uint16(0)
	if t.Direction == netstate.In {
		proto, port = t.Port.Proto, t.Port.Number
	}
	return write((t.Direction == netstate.In) != reply, addr, bridge, proto, !reply, port, reply)
}

// joined returns the fixes with those steps made one that put rules into the same place of a chain.
func joined(fixes []*remediate.Fix) []*remediate.Fix {
	type place struct{ kind, name, old string }
	rules := map[place][]string{}
	each := func(fix *remediate.Fix, f func(i int, at place, inserted []string)) {
		for i, step := range fix.Steps {
			if step.Kind != "iptables" && step.Kind != "nft" || step.Old == nil || step.New == nil {
				continue
			}
			old, new := strings.Split(*step.Old, "\n"), strings.Split(*step.New, "\n")
			if len(old) == 2 && len(new) > 2 && new[0] == old[0] && new[len(new)-1] == old[1] {
				f(i, place{step.Kind, step.Name, *step.Old}, new[1:len(new)-1])
			}
		}
	}
	for _, fix := range fixes {
		each(fix, func(_ int, at place, inserted []string) {
			for _, rule := range inserted {
				if !fix.Opens || !slices.Contains(rules[at], rule) {
					rules[at] = append(rules[at], rule)
				}
			}
		})
	}
	var all []*remediate.Fix
	for _, fix := range fixes {
		one := *fix
		one.Steps = slices.Clone(fix.Steps)
		each(fix, func(i int, at place, _ []string) {
			neighbours := strings.Split(at.old, "\n")
			text := strings.Join(slices.Concat(neighbours[:1], rules[at], neighbours[1:]), "\n")
			one.Steps[i].New = &text
		})
		all = append(all, &one)
	}
	return all
}
