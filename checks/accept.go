package checks

import (
	"fmt"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Accept looks at Docker's rules that let the packets pass.
var Accept = &Check{
	Name:  "accept",
	Title: "Docker's rules let the packets pass, and are reached",
	Doc: `The engine sets the policy of FORWARD to DROP, or drops what is not published by a rule of its own, and
accepts the published ports, the replies and what its containers send. Whoever flushes the filter table
takes the accepts and leaves the policy. The rules with which the engine keeps networks apart, and others
away from what is not published, are looked at as well: without them everything gets through, and more.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Iptables | netstate.Nftables,
	Requires: []*Check{Running, Published},
	Run: func(h *Host, t netstate.Target) []Finding {
		differences := h.differences(t, isAccept)
		if len(differences) == 0 {
			return append(append(h.unjudged(t), h.keptApart(t)...), h.unshielded(t)...)
		}
		return []Finding{h.rulesFinding(t, packet.Accept, differences, func(stop packet.Stop) bool {
			return stop.Hop.Place() == packet.Accept &&
				(stop.Kind == packet.Policy && stop.Owner != "firewalld" || stop.Kind == packet.Filter && stop.Owner == "Docker")
		})}
	},
}

// keptApart returns the rule by which Docker itself keeps the packet back, as it was told to: containers of
// different networks, and those of one network whose icc is off.
func (h *Host) keptApart(t netstate.Target) []Finding {
	var finding Finding
	for _, stop := range h.stops(t, packet.Filter) {
		switch {
		case stop.Owner != "Docker":
		case t.Direction == netstate.Out && stop.Hop.IsReply(): // it comes to the container's own address: masquerade's
		case finding.Object == "":
			finding = found(stop)
		default:
			finding.explains = append(finding.explains, stop.Object)
		}
	}
	if finding.Object == "" {
		return nil
	}
	c, peer := h.Container(t.ID), h.Container(t.ToID)
	if t.Direction != netstate.Peer || c == nil || peer == nil {
		finding.Problem = "Docker itself drops it: " + finding.Problem
		return []Finding{finding}
	}
	for _, e := range c.Endpoints {
		if slices.ContainsFunc(peer.Endpoints, func(p netstate.Endpoint) bool { return p.NetworkID == e.NetworkID }) {
			finding.Problem = fmt.Sprintf("the network %s does not let its containers talk to each other (icc is off)", e.Network)
			finding.Advice = fmt.Sprintf("put both into a network of their own: docker network create NAME, docker network connect NAME %s, docker network connect NAME %s", arg(c.Name), arg(peer.Name))
			return []Finding{finding}
		}
	}
	finding.Problem = fmt.Sprintf("%s and %s share no network, and Docker keeps networks apart", c.Name, peer.Name)
	if len(peer.Endpoints) > 0 {
		finding.Advice = fmt.Sprintf("docker network connect %s %s, or the other way round", arg(peer.Endpoints[0].Network), arg(c.Name))
	}
	return []Finding{finding}
}
