package checks

import (
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// iptablesRules returns the rules of a chain, none of one that is not there.
func iptablesRules(chain *netstate.IptablesChain) (rules []string) {
	if chain != nil {
		for _, rule := range chain.Rules {
			rules = append(rules, rule.Text)
		}
	}
	return rules
}

// nftRules returns the rules of a table's chain, none of one that is not there.
func nftRules(printer netstate.NftPrinter, table *netstate.NftTable, chain *netstate.NftChain) (rules []string) {
	if chain != nil {
		for i := range chain.Rules {
			rules = append(rules, printer.Rule(table, &chain.Rules[i]))
		}
	}
	return rules
}

// window returns the piece of a chain that changes, before and after, one rule a line and each with the
// neighbours that stay: "^" is the chain's start and "$" its end. A newline in a rule's comment is written \n.
func window(before, after []string) (old, new string) {
	before, after = framed(before), framed(after)
	head := 0
	for head < min(len(before), len(after)) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < min(len(before), len(after))-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	// One neighbour on either side.
	first, last := max(head-1, 0), max(tail-1, 0)
	return strings.Join(before[first:len(before)-last], "\n"), strings.Join(after[first:len(after)-last], "\n")
}

// framed returns the lines of a whole chain.
func framed(rules []string) []string {
	lines := []string{"^"}
	for _, rule := range rules {
		lines = append(lines, strings.ReplaceAll(rule, "\n", `\n`))
	}
	return append(lines, "$")
}
