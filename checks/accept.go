package checks

import (
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Accept looks at Docker's rules that let the packets pass.
var Accept = &Check{
	Name:  "accept",
	Title: "Docker's rules let the packets pass, and are reached",
	Doc: `The engine sets the policy of FORWARD to DROP, or drops what is not published by a rule of its own, and
accepts the published ports, the replies and what its containers send. Whoever flushes the filter table
takes the accepts and leaves the policy.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Iptables | netstate.Nftables,
	Requires: []*Check{Running, Published},
	Run: func(h *Host, t netstate.Target) []Finding {
		differences := h.differences(t, isAccept)
		if len(differences) == 0 {
			return nil
		}
		return []Finding{h.rulesFinding(t, packet.Accept, differences, func(stop packet.Stop) bool {
			return stop.Hop.Place() == packet.Accept &&
				(stop.Kind == packet.Policy && stop.Owner != "firewalld" || stop.Kind == packet.Filter && stop.Owner == "Docker")
		})}
	},
}
