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
		if broken := embeddedDNS(h, c); broken != nil {
			return broken
		}
		if h.Walk(t).Verdict.Stops() {
			return nil // its names are the least that it lacks
		}
		var findings []Finding
		servers := nameservers(h, c)
		for _, server := range servers {
			stops := h.Walk(netstate.Target{
				Container: t.Container, ID: t.ID, Direction: netstate.Out, From: t.From, Family: netstate.FamilyOf(server),
				Port: netstate.Port{Number: 53, Proto: "udp"}, To: netip.AddrPortFrom(server, 53),
			}).Stops
			i := slices.IndexFunc(stops, func(s packet.Stop) bool { return s.Verdict.Stops() && s.Kind != packet.NoListener })
			if i < 0 {
				return nil // one that can be reached is enough
			}
			if slices.ContainsFunc(h.Walk(t).Stops, func(s packet.Stop) bool { return s.Object == stops[i].Object }) {
				continue // it stops all that the container sends, which path says, with the remedy for all of it
			}
			finding := found(stops[i])
			finding.stop = nil
			finding.Problem = fmt.Sprintf("the name server %s cannot be reached from the container: %s", server, stops[i].Why)
			finding.Advice = "let DNS to it pass, or name one that can be reached: docker run --dns ADDR, or dns in daemon.json"
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
func embeddedDNS(h *Host, c *netstate.Container) []Finding {
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
		return []Finding{{Object: "socket " + embedded + ":53 in container " + c.Name, At: packet.Container,
			Problem: "the engine's resolver does not listen in the container's namespace",
			Advice:  "docker restart " + c.Name}}
	}
	return []Finding{{Object: fmt.Sprintf("iptables nat DOCKER_OUTPUT: missing -d %s/32 -p udp -m udp --dport 53 -j DNAT --to-destination %s in container %s", embedded, ns.Sockets[bound].Local, c.Name),
		At: packet.Container, Problem: "the rules in the container are gone that lead its questions to the engine's resolver",
		Advice: "docker restart " + c.Name + "; look for what flushes rules in it"}}
}

// nameservers returns the servers outside of the host that the container's questions go to from its own
// namespace, as its own resolv.conf has them, or where that leads to the engine, as the engine was told. There are
// none where one is asked in some other way: that may answer.
//
// Source: libnetwork's sandbox_dns_unix.go and internal/resolvconf. A container of the default network has the servers
// in its file; in others they are --dns, else the engine's own dns, else the host's, and engines from 25 on write
// them down. They are asked from the container's namespace, but for loopback addresses and what stands there as
// host(ADDR).
func nameservers(h *Host, c *netstate.Container) []netip.Addr {
	own, forwarders := servers(c.ResolvConf)
	if len(own) == 0 || slices.Contains(own, embedded) {
		own = slices.Concat(forwarders)
		for _, source := range [][]string{c.DNS, h.Engine.Config.DNS} {
			if len(own) == 0 {
				own = source
			}
		}
		if len(own) == 0 {
			own, _ = servers(strings.Split(h.Files["/etc/resolv.conf"], "\n"))
		}
	}
	var addrs []netip.Addr
	for _, text := range own {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.IsLoopback() {
			return nil
		}
		addrs = append(addrs, addr.Unmap())
	}
	return addrs
}

// servers returns the addresses behind the nameserver lines of a resolv.conf, and those to which the engine says that
// its own resolver passes questions on.
func servers(lines []string) (own, forwarders []string) {
	for _, line := range lines {
		if field := strings.Fields(line); len(field) > 1 && field[0] == "nameserver" {
			own = append(own, field[1])
		}
		if list, ok := strings.CutPrefix(line, "# ExtServers: "); ok {
			forwarders = strings.Fields(strings.Trim(list, "[]"))
		}
	}
	return own, forwarders
}
