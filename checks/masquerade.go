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
		return []Finding{h.rulesFinding(t, packet.Masquerade, differences, masquerading)}
	},
}

// masquerading says whether the stop is that nothing rewrites the source.
func masquerading(stop packet.Stop) bool { return stop.Hop.Place() == packet.Masquerade }
