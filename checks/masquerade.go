package checks

import (
	"fmt"
	"net/netip"
	"strings"

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
			return append(h.unjudged(t), h.wrongSource(t)...)
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
		if step.Hop == packet.Masquerade && (strings.HasPrefix(step.Did, "snat to ") || strings.HasPrefix(step.Did, "masquerade as ")) {
			return true
		}
	}
	return false
}

// wrongSource says so where what the container sends leaves with an address to which no answer comes: its
// own, because the engine was told not to hide it, or one that somebody else's rule gives it.
func (h *Host) wrongSource(t netstate.Target) []Finding {
	trace := h.Walk(t)
	uplink := h.Host.Link(trace.Uplink)
	if t.Direction != netstate.Out || uplink == nil {
		return nil
	}
	var explains []string // an answer to the container's own address, as no foreign packet may come
	for _, stop := range trace.Stops {
		if stop.Hop.IsReply() && stop.Hop.Place() != packet.Container {
			explains = append(explains, stop.Object)
		}
	}
	for _, step := range trace.Request {
		text, translates := strings.CutPrefix(step.Did, "snat to ")
		source, err := netip.ParseAddr(text)
		if !translates || step.Hop != packet.Masquerade || err != nil || h.Host.LinkWith(source) != nil {
			continue
		}
		for _, a := range h.Host.Addrs {
			if a.Link == uplink.Name && a.Prefix.Contains(source) {
				return []Finding{{Object: step.Object, At: packet.Masquerade, Evidence: []string{step.Object},
					Problem: fmt.Sprintf("the packets leave as %s, which is no address of this host: no answer finds back", source),
					Advice:  fmt.Sprintf("the rule is %s: change it there to an address that the host has", owner(step.Owner)), explains: explains}}
			}
		}
	}
	c := h.Engine.Config
	if c.IPMasq == nil || *c.IPMasq || rewritten(trace) || trace.Stop(packet.NoRoute, packet.Unreachable) != nil || bridgeOf(h, t) == "" {
		return nil
	}
	return []Finding{{Object: "engine option ip-masq", At: packet.Masquerade,
		Problem:  "the packets leave with the container's own address: the engine was told not to hide it",
		Evidence: []string{"ip-masq = false (" + c.From["ip_masq"] + ")"},
		explains: explains,
		Advice:   unset(h, "ip-masq", c.From["ip_masq"]) + "; or give every router a route to the network's subnet by this host"}}
}
