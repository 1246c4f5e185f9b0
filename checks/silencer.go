package checks

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// quiet matches the rules of iptables that drop what the host itself says of sizes, clamp those that make it
// needless.
var (
	quiet = regexp.MustCompile(`^(-o \S+ )?-p (icmp|ipv6-icmp)( -m icmp6? --icmp(v6)?-type (3|3/4|2|2/0|any))? -j (DROP|REJECT.*)$`)
	clamp = regexp.MustCompile(`-j TCPMSS `)
)

// silencer returns the rule that keeps the host from saying that a packet is too large, unless TCP is told
// beforehand.
func silencer(h *Host, family netstate.Family) (object, text string) {
	for i := range h.Host.Iptables {
		set := &h.Host.Iptables[i]
		if set.Family != family {
			continue
		}
		if chain := set.Table("mangle").Chain("FORWARD"); chain != nil &&
			slices.ContainsFunc(chain.Rules, func(r netstate.IptablesRule) bool { return clamp.MatchString(r.Text) }) {
			return "", ""
		}
		for _, table := range []string{"raw", "mangle", "filter"} {
			chain := set.Table(table).Chain("OUTPUT")
			if chain == nil || object != "" {
				continue
			}
			for n, rule := range chain.Rules {
				if quiet.MatchString(rule.Text) {
					object, text = fmt.Sprintf("%s %s OUTPUT %d: %s", set.Command(), table, n+1, rule.Text), rule.Text
					break
				}
				if rule.Text == "-j ACCEPT" {
					break
				}
			}
		}
	}
	return object, text
}
