package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// quiet matches the rules of iptables that drop what the host itself says of sizes, clamp those that make it
// needless.
var (
	quiet = lazyregexp.New(`^(-o \S+ )?-p (icmp|ipv6-icmp)( -m icmp6? --icmp(v6)?-type (3|3/4|2|2/0|any))? -j (DROP|REJECT.*)$`)
	clamp = "-j TCPMSS "
)

// silencer returns the rule that keeps the host from saying to a container behind the link out that a packet is too
// large, unless TCP is told beforehand. A rule behind one that may accept it is not accused.
func silencer(h *Host, family netstate.Family, out string) (object, text string) {
	for i := range h.Host.Iptables {
		set := &h.Host.Iptables[i]
		if set.Family != family {
			continue
		}
		if chain := set.Table("mangle").Chain("FORWARD"); chain != nil &&
			slices.ContainsFunc(chain.Rules, func(r netstate.IptablesRule) bool { return strings.Contains(r.Text, clamp) }) {
			return "", ""
		}
		for _, name := range []string{"raw", "mangle", "filter"} {
			table := set.Table(name)
			chain := table.Chain("OUTPUT")
			if chain == nil || object != "" {
				continue
			}
			for n, rule := range chain.Rules {
				if quiet().MatchString(rule.Text) && mayBeTooLarge(rule.Text, family, out) {
					object, text = fmt.Sprintf("%s %s OUTPUT %d: %s", set.Command(), name, n+1, rule.Text), rule.Text
					break
				}
				if mayAccept(table, rule.Text, family, out, map[string]bool{}) {
					break
				}
			}
		}
	}
	return object, text
}

// mayAccept says whether a rule, or the chain that it leads to and that was not seen yet, may accept that ICMP.
func mayAccept(table *netstate.IptablesTable, rule string, family netstate.Family, out string, seen map[string]bool) bool {
	words := strings.Fields(rule)
	at := max(slices.Index(words, "-j"), slices.Index(words, "-g"))
	if at < 0 || at+1 >= len(words) || seen[words[at+1]] || !mayBeTooLarge(rule, family, out) {
		return false
	}
	if words[at+1] == "ACCEPT" {
		return true
	}
	seen[words[at+1]] = true // chains may be called in circles
	chain := table.Chain(words[at+1])
	return chain != nil && slices.ContainsFunc(chain.Rules, func(r netstate.IptablesRule) bool { return mayAccept(table, r.Text, family, out, seen) })
}

// mayBeTooLarge says whether a rule of OUTPUT may be met by the ICMP that says so. What else the rule asks counts as met.
func mayBeTooLarge(rule string, family netstate.Family, out string) bool {
	types := []string{"3", "3/4", "any"}
	if family == netstate.IPv6 {
		types = []string{"2", "2/0", "any"}
	}
	words := strings.Fields(rule)
	for i := 0; i+1 < len(words); i++ {
		met, value := true, words[i+1]
		switch words[i] {
		case "-o":
			prefix, wild := strings.CutSuffix(value, "+")
			met = value == out || wild && strings.HasPrefix(out, prefix)
		case "-p":
			met = value == "icmp" && family == netstate.IPv4 || value == "ipv6-icmp" && family == netstate.IPv6 || value == "all"
		case "--icmp-type", "--icmpv6-type":
			met = slices.Contains(types, value)
		case "--ctstate", "--state":
			met = slices.Contains(strings.Split(value, ","), "RELATED")
		default:
			continue
		}
		if negated := i > 0 && words[i-1] == "!"; met == negated {
			return false
		}
	}
	return true
}
