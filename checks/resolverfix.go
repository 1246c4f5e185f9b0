package checks

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// resolverFix is the fix that leads a container's questions to the engine's resolver again, by the rules that the
// engine makes in its namespace: to the ports that the resolver has there, and back from them. It is nil where
// the resolver does not listen.
//
// Source: github.com/moby/moby, libnetwork/resolver_unix.go, setupIPTable.
func (h *Host) resolverFix(c *netstate.Container, ns *netstate.Namespace) *remediate.Fix {
	chains := []struct {
		name, calls string
		rules       []string
	}{{name: "OUTPUT", calls: "DOCKER_OUTPUT"}, {name: "POSTROUTING", calls: "DOCKER_POSTROUTING"}}
	for _, proto := range []string{"tcp", "udp"} {
		i := slices.IndexFunc(ns.Sockets, func(s netstate.Socket) bool {
			return s.Proto == proto && s.Local.Addr() == netip.MustParseAddr(embedded) && (s.State == "listen" || s.State == "unconnected")
		})
		if i < 0 {
			return nil
		}
		at := ns.Sockets[i].Local
		chains[0].rules = append(chains[0].rules, fmt.Sprintf("-d %s/32 -p %s -m %[2]s --dport 53 -j DNAT --to-destination %[3]s", embedded, proto, at))
		chains[1].rules = append(chains[1].rules, fmt.Sprintf("-s %s/32 -p %s -m %[2]s --sport %[3]d -j SNAT --to-source :53", embedded, proto, at.Port()))
	}
	set := &netstate.IptablesSet{Family: netstate.IPv4, Variant: h.Program().Variant(netstate.IPv4)}
	for i := range ns.Iptables {
		if own := &ns.Iptables[i]; own.Family == set.Family && own.Variant == set.Variant {
			set = own
		}
	}
	fix := &remediate.Fix{Title: "lead the questions of " + c.Name + " to the engine's resolver again"}
	add := func(step remediate.Step) { fix.Steps = append(fix.Steps, h.guarded(insideOf(c, ns, step))) }
	want := func(chain string, rules ...string) {
		now := iptablesRules(set.Table("nat").Chain(chain))
		missing := slices.DeleteFunc(rules, func(rule string) bool { return slices.Contains(now, rule) })
		if len(missing) > 0 {
			old, new := window(now, slices.Concat(missing, now))
			add(remediate.Set("iptables", set.Command()+" nat "+chain, old, new))
		}
	}
	for _, chain := range chains {
		if set.Table("nat").Chain(chain.calls) == nil {
			add(remediate.Add("iptables", set.Command()+" nat "+chain.calls+" chain", "-"))
		}
		want(chain.calls, chain.rules...)
		want(chain.name, fmt.Sprintf("-d %s/32 -j %s", embedded, chain.calls))
	}
	return fix
}
