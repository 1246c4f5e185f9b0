package checks

import (
	"fmt"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// DNAT looks at Docker's rules that take a published port to the container.
var DNAT = &Check{
	Name:  "dnat",
	Title: "Docker's rules take the port to the container",
	Doc: `For each published port the engine programs a rule that turns the packet to the container's address, and
jumps that lead there. iptables -t nat -F, a firewall that loads its own file, or a firewalld that starts
after the engine take them away, and the engine does not notice. docker-proxy still serves TCP and UDP
ports then, slowly, and the program in the container sees the bridge's address instead of the client's.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Iptables | netstate.Nftables,
	Requires: []*Check{Running, Published},
	Run: func(h *Host, t netstate.Target) []Finding {
		if t.Direction != netstate.In {
			return nil
		}
		differences := h.differences(t, isDNAT)
		if len(differences) == 0 {
			return append(h.unjudged(t), h.shadowed(t)...)
		}
		return []Finding{h.rulesFinding(t, packet.DNAT, differences, func(stop packet.Stop) bool {
			return stop.Kind == packet.NotPublished || stop.Kind == packet.Diverted || stop.Hop == packet.DNAT ||
				stop.Kind == packet.NoListener && stop.Hop == packet.Socket && h.Walk(t).Via != "forward" ||
				// Translated, it would not have been for the host itself.
				h.Walk(t).Via == "docker-proxy" && stop.Hop == packet.Accept && !strings.Contains(stop.Object, " in container ")
		})}
	},
}

// shadowed returns the rule of somebody else that takes the packet elsewhere before Docker's can, or the older
// connection that does so past all rules.
func (h *Host) shadowed(t netstate.Target) []Finding {
	var findings []Finding
	for _, stop := range h.stops(t, packet.Diverted) {
		if stop.Hop != packet.DNAT {
			continue
		}
		finding := found(stop)
		if strings.HasPrefix(stop.Object, "flow ") {
			finding.Advice = fmt.Sprintf("conntrack -D -p %s --orig-src %s --sport %d", t.Port.Proto, t.Client, t.SPort)
			findings = append(findings, finding)
			continue
		}
		finding.Advice = fmt.Sprintf("the rule is %s: give one of the two another port, then take this rule away", owner(stop.Owner))
		findings = append(findings, finding)
	}
	return findings
}
