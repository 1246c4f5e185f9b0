package checks

import (
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Masquerade looks at Docker's rules that hide containers behind the host's address.
var Masquerade = &Check{
	Name:  "masquerade",
	Title: "what the container sends carries an address that can be answered",
	Doc: `A container's own address means nothing beyond the host, so the engine rewrites the source of what it sends
(MASQUERADE). Without that rule the packets leave and the answers never find back.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Iptables | netstate.Nftables,
	Requires: []*Check{Running, Published},
	Run: func(h *Host, t netstate.Target) []Finding {
		differences := h.differences(t, isMasquerade)
		if len(differences) == 0 {
			return nil
		}
		finding := h.rulesFinding(t, packet.Masquerade, differences, func(stop packet.Stop) bool {
			// The answer comes to the container's own address, as no foreign packet may.
			return stop.Hop.IsReply() && stop.Hop.Place() != packet.Container
		})
		if t.Direction == netstate.Out && finding.Warning && !rewritten(h.Walk(t)) {
			finding.Warning = false
			finding.Problem = "the packets leave with the container's own address: Docker's rule that hides it is missing"
		}
		return []Finding{finding}
	},
}

// rewritten says whether anything gives the packet another source on its way out.
func rewritten(trace *packet.Trace) bool {
	for _, step := range trace.Request {
		if step.Hop == packet.Masquerade && step.Packet != "" {
			return true
		}
	}
	return false
}
