package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Path walks one packet through everything that was read and reports whatever stops it.
var Path = &Check{
	Name:  "path",
	Title: "nothing else on the way stops the packet",
	Doc: `One packet is walked through the whole host as the kernel would: every table of every family, whoever made
it, the routing tables, the bridge, the container's own rules, and the reply on its way back. It names
what the other checks have no name for: a rule of somebody else that drops the packet, a rule that
sends it elsewhere. What depends on chance, time or content, or is not understood, is said as unknown.`,
	Needs:    netstate.Engine,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.Walk(t).Stops {
			finding := found(stop)
			if !finding.Unknown && (stop.Owner != "" || stop.Kind == packet.Policy) {
				finding.Advice = advice(stop)
				finding.Fix = openFix(h, t, stop)
				if command := letPass(h, t, stop); command != "" && finding.Fix == nil {
					finding.Advice += "; what lets it pass until then: " + command
				}
			}
			findings = append(findings, finding)
		}
		return findings
	},
}

// advice says what to do about a rule, by who made it.
func advice(stop packet.Stop) string {
	if stop.Kind != packet.Filter && stop.Kind != packet.Policy && stop.Kind != packet.Diverted {
		return ""
	}
	if stop.Owner == "" {
		return "let this traffic pass by a rule of that chain, in the program or file that sets the policy"
	}
	said := fmt.Sprintf("the rule is %s: change it there, or let this traffic pass before it", owner(stop.Owner))
	if command := takeOut(stop.Object); command != "" && stop.Owner == "yours" {
		said += "; what takes it out: " + command
	}
	return said
}

// owner words who made a rule.
func owner(name string) string {
	if name == "yours" {
		return "of no program that is known here"
	}
	return name + "'s"
}
