//go:build linux

package probe

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// nftFamilies are nf_tables' families by number.
var nftFamilies = map[uint8]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_ARP: "arp",
	unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge",
}

// object names what a packet met, in the one way that objects are named: a rule of iptables by its number
// and text, one of nft by its handle and text.
func (n naming) object(ev traceEvent) string {
	family := nftFamilies[ev.family]
	t := n.rules.Table(family, ev.table)
	c := t.Chain(ev.chain)
	if set, chain := n.iptablesChain(family, ev.table, ev.chain); c != nil && chain != nil && len(chain.Rules) == len(c.Rules) {
		at := fmt.Sprintf("%s %s %s", set.Command(), ev.table, ev.chain)
		if ev.kind == tracePolicy {
			return at + " policy " + chain.Policy
		}
		if i := ruleAt(c, ev.handle); i >= 0 {
			return fmt.Sprintf("%s %d: %s", at, i+1, chain.Rules[i].Text)
		}
	}
	at := fmt.Sprintf("nft %s %s %s", family, ev.table, ev.chain)
	if ev.kind == tracePolicy {
		return at + " policy " + nftVerdicts[ev.verdict]
	}
	if c != nil {
		if i := ruleAt(c, ev.handle); i >= 0 {
			return n.print.Object(t, ev.chain, &c.Rules[i])
		}
	}
	return fmt.Sprintf("%s handle %d", at, ev.handle)
}

// ruleAt returns the place of the rule with that handle in a chain, or -1.
func ruleAt(c *netstate.NftChain, handle uint64) int {
	return slices.IndexFunc(c.Rules, func(r netstate.NftRule) bool { return r.Handle == handle })
}

// iptablesChain returns the chain of iptables-nft that an nft chain is, or nil.
func (n naming) iptablesChain(family, table, chain string) (*netstate.IptablesSet, *netstate.IptablesChain) {
	want := map[string]netstate.Family{"ip": netstate.IPv4, "ip6": netstate.IPv6}[family]
	for i := range n.iptables {
		set := &n.iptables[i]
		if want == 0 || set.Family != want || set.Variant != "nft" {
			continue
		}
		for j := range set.Tables {
			if set.Tables[j].Name != table {
				continue
			}
			for k := range set.Tables[j].Chains {
				if c := &set.Tables[j].Chains[k]; c.Name == chain {
					return set, c
				}
			}
		}
	}
	return nil, nil
}

// legacy says whether iptables-legacy holds rules of that family, which the kernel's trace does not show.
func (n naming) legacy(family netstate.Family) bool {
	for _, set := range n.iptables {
		if set.Family != family || set.Variant != "legacy" {
			continue
		}
		for _, table := range set.Tables {
			for _, chain := range table.Chains {
				if len(chain.Rules) > 0 || chain.Policy == "DROP" {
					return true
				}
			}
		}
	}
	return false
}

// hookHops are the hops that the hooks of netfilter stand for.
var hookHops = map[string]packet.Hop{
	"ingress": packet.Uplink, "prerouting": packet.DNAT, "input": packet.Accept, "forward": packet.Accept,
	"output": packet.Accept, "postrouting": packet.Masquerade, "egress": packet.Uplink,
}

// hop returns the hop of a base chain, or "" if the chain is none or not known.
func (n naming) hop(family, table, chain string) packet.Hop {
	c := n.rules.Table(family, table).Chain(chain)
	switch {
	case c == nil || c.Hook == nil:
		return ""
	case c.Hook.Name == "output" && (c.Hook.Type == "nat" || c.Hook.Priority < 0):
		return packet.DNAT
	case family == "bridge":
		return packet.Bridge
	}
	return hookHops[c.Hook.Name]
}

// nftVerdicts are the verdicts of nf_tables, from linux/netfilter/nf_tables.h and linux/netfilter.h.
var nftVerdicts = map[int32]string{
	-1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return",
	0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat",
}

// observed makes rules of trace messages, each with its hop and direction. table is the tracer's own,
// whose rules are left out.
func (n naming) observed(events []traceEvent, table string, flow Flow) []Rule {
	var rules []Rule
	hop := map[uint32]packet.Hop{} // of a packet: the hook that it is in
	toward := map[uint32]bool{}    // of a packet: it goes to the client
	for _, ev := range events {
		if f := decode(ev.header, false); f != nil {
			toward[ev.id] = f.toward(flow.Client)
		}
		if ev.table == table {
			continue
		}
		family := nftFamilies[ev.family]
		if base := n.hop(family, ev.table, ev.chain); base != "" {
			hop[ev.id] = base
		}
		if ev.kind != tracePolicy && ev.handle == 0 {
			continue // the end of a chain, which the policy's own message says
		}
		r := Rule{
			Hop: hop[ev.id], Object: n.object(ev), Verdict: nftVerdicts[ev.verdict], Family: family,
			Table: ev.table, Chain: ev.chain, Handle: ev.handle, Packet: ev.id,
		}
		if ev.jump != "" {
			r.Verdict += " " + ev.jump
		}
		if toward[ev.id] && r.Hop != "" {
			r.Hop = r.Hop.Reply()
		}
		rules = append(rules, r)
	}
	return rules
}
