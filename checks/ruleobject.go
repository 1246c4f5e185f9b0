package checks

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// The objects of the walk that are rules or policies: command or family, table, chain, and of a rule its
// number or handle and its text.
var (
	ruleObject = lazyregexp.New(`^(ip6?tables(?:-legacy)?) (\S+) (\S+) (?:(\d+): (.*)|policy DROP)$`)
	nftObject  = lazyregexp.New(`^nft (inet|ip6?|netdev|bridge) (\S+) (\S+) (?:handle (\d+): (.*)|policy drop)$`)
)

// ruleParts returns the command or family, table, chain, number and text in an object that is a rule or policy of
// the host itself, and the kind of its steps; kind is "" for any other object.
func ruleParts(object string) (kind string, part []string) {
	if strings.Contains(object, " in container ") {
		return "", nil
	}
	if part = ruleObject().FindStringSubmatch(object); part != nil {
		return "iptables", part
	}
	if part = nftObject().FindStringSubmatch(object); part != nil {
		return "nft", part
	}
	return "", nil
}

// takeOut is the command that takes a rule of the host out, or "" for what is none.
func takeOut(object string) string {
	kind, part := ruleParts(object)
	if kind == "" || part[4] == "" {
		return ""
	}
	command := []string{"nft", "delete", "rule", part[1], part[2], part[3], "handle", part[4]}
	if kind == "iptables" { // by its text: meanwhile another rule may have its number
		command = append([]string{part[1], "-t", part[2], "-D", part[3]}, dockerd.Words(part[5])...)
	}
	return commandLine(command)
}

// rulesOf returns the rules of the chain that an object's parts name, and the place of the rule that they
// name, which is the end for a policy and -1 if it is not there or says something else.
func rulesOf(h *Host, part []string) (rules []string, at int) {
	host := &h.whole.snapshot.Host
	at = -1
	if i := slices.IndexFunc(host.Iptables, func(s netstate.IptablesSet) bool { return s.Command() == part[1] }); i >= 0 {
		chain := host.Iptables[i].Table(part[2]).Chain(part[3])
		if chain == nil {
			return nil, -1
		}
		rules = iptablesRules(chain)
		if number, err := strconv.Atoi(part[4]); err == nil && number <= len(rules) {
			at = number - 1
		}
	} else {
		table := host.Nft.Table(part[1], part[2])
		chain := table.Chain(part[3])
		if chain == nil {
			return nil, -1
		}
		rules = nftRules(host.NftPrinter(), table, chain)
		at = slices.IndexFunc(chain.Rules, func(r netstate.NftRule) bool { return fmt.Sprint(r.Handle) == part[4] })
	}
	switch {
	case part[4] == "":
		at = len(rules)
	case at >= 0 && rules[at] != part[5]:
		at = -1
	}
	return rules, at
}
