package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// DNS looks at what the container's names are resolved by.
var DNS = &Check{
	Name:  "dns",
	Title: "the container's resolver answers, and reaches its own",
	Doc: `In a user-defined network the container asks 127.0.0.11, which rules in its own namespace lead to the engine;
the engine asks the servers that --dns or the host's resolv.conf name, from the container's namespace. In
the default network the container asks those servers itself, and no container's name is known. What can
be judged is the way there, not what the servers answer.`,
	Needs:    netstate.Engine | netstate.Files,
	Inside:   netstate.Iptables | netstate.Nftables | netstate.Sockets,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		c := h.Container(t.ID)
		if !t.DNS || c == nil {
			return nil
		}
		if broken := embeddedDNS(h, t, c); broken != nil {
			return broken
		}
		if h.Walk(t).Verdict.Stops() {
			return nil // its names are the least that it lacks
		}
		var findings []Finding
		for _, server := range nameservers(h, c) {
			if server.Host || !server.Addr.IsValid() {
				problem := "whether the name server " + server.Text + " can be reached was not judged"
				if server.Host {
					problem = "the engine asks the name server " + server.Text + " on the host itself: that was not judged"
				}
				return []Finding{{Note: true, Problem: problem}} // it may answer, whatever becomes of the others
			}
			question := netstate.Target{
				Container: t.Container, ID: t.ID, Direction: netstate.Out, From: t.From, Family: netstate.FamilyOf(server.Addr),
				Port: netstate.Port{Number: 53, Proto: "udp"}, To: netip.AddrPortFrom(server.Addr, 53),
			}
			stops := h.Walk(question).Stops
			i := slices.IndexFunc(stops, func(s packet.Stop) bool {
				return s.Verdict.Stops() && (s.Kind != packet.NoListener || server.Addr.IsLoopback())
			})
			if i < 0 {
				return nil // one that can be reached is enough
			}
			if slices.ContainsFunc(h.Walk(t).Stops, func(s packet.Stop) bool { return s.Object == stops[i].Object }) {
				continue // it stops all that the container sends, which path says, with the remedy for all of it
			}
			finding := found(stops[i])
			finding.stop = nil
			finding.Problem = fmt.Sprintf("the name server %s cannot be reached from the container: %s", server.Addr, stops[i].Why)
			finding.Advice = "name one that can be reached: docker run --dns ADDR, or \"dns\": [\"ADDR\"] in /etc/docker/daemon.json"
			if command := letPass(h, question, stops[i]); command != "" {
				finding.advise("let DNS to it pass: " + command)
			}
			for _, s := range stops {
				finding.explains = append(finding.explains, s.Object)
			}
			findings = append(findings, finding)
		}
		return findings
	},
}

// embedded is the address of the engine's own resolver in a container of a user-defined network.
const embedded = "127.0.0.11"

// embeddedDNS says so where the rules are gone that lead the container's questions to the engine.
func embeddedDNS(h *Host, t netstate.Target, c *netstate.Container) []Finding {
	ns := h.Sandboxes[c.ID]
	if ns == nil || h.Program().Nftables || !slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool {
		return e.Network != "bridge" && e.Network != "host" && e.Network != "none"
	}) ||
		strings.HasPrefix(c.NetworkMode, "container:") {
		return nil
	}
	for i := range ns.Iptables {
		if chain := ns.Iptables[i].Table("nat").Chain("DOCKER_OUTPUT"); chain != nil {
			for _, rule := range chain.Rules {
				if strings.Contains(rule.Text, "-p udp") && strings.Contains(rule.Text, "-j DNAT") {
					return nil
				}
			}
		}
	}
	bound := slices.IndexFunc(ns.Sockets, func(s netstate.Socket) bool { return s.Proto == "udp" && s.Local.Addr().String() == embedded })
	if bound < 0 {
		finding := Finding{Object: "socket " + embedded + ":53 in container " + c.Name, At: packet.Container,
			Problem: "the engine's resolver does not listen in the container's namespace"}
		finding.byRestart(h, t)
		return []Finding{finding}
	}
	finding := Finding{Object: fmt.Sprintf("iptables nat DOCKER_OUTPUT: missing -d %s/32 -p udp -m udp --dport 53 -j DNAT --to-destination %s in container %s", embedded, ns.Sockets[bound].Local, c.Name),
		At: packet.Container, Problem: "the rules in the container are gone that lead its questions to the engine's resolver"}
	if finding.Fix = h.resolverFix(c, ns); finding.Fix == nil {
		finding.byRestart(h, t)
	}
	finding.Advice = strings.TrimPrefix(finding.Advice+"; look for what flushes rules in "+c.Name+": its entrypoint, a VPN client", "; ")
	return []Finding{finding}
}
