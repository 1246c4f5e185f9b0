package checks

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// A flow is the packets of one direction of a target, as they look at one place of the host. Zero values
// match anything.
type flow struct {
	in, notIn, out, notOut string // links
	from, to               netip.Addr
	proto                  string
	fromPort, toPort       uint16
	reply                  bool // only of connections that there are
}

// flowOf returns the flow of a target's packets at a hop; ok says that it can be told. Before the engine's
// DNAT, and before docker-proxy, they are known by the published port, behind them by the container's address.
func flowOf(h *Host, t netstate.Target, hop packet.Hop) (f flow, ok bool) {
	c, bridge, trace := h.Container(t.ID), bridgeOf(h, t), h.Walk(t)
	local := t.Direction == netstate.Out && trace.Via == "local" // the host itself answers
	proxy := t.Direction == netstate.In && trace.Via == "docker-proxy"
	place := hop.Place()
	switch {
	case t.Direction == netstate.Peer:
		return peerFlow(h, t, hop)
	case c == nil || bridge == "" || trace.Via != "forward" && !local && !proxy:
		return f, false
	case t.Direction == netstate.In && !hop.IsReply() && (place == packet.Uplink || proxy && place == packet.Accept || !proxy && place == packet.DNAT):
		f.in, f.proto, f.to, f.toPort = trace.Uplink, t.Port.Proto, t.Host.Addr(), t.Host.Port()
		if f.to.IsUnspecified() {
			f.to = netip.Addr{}
		}
		return f, t.From == netstate.FromOutside && f.in != "" && f.toPort != 0
	}
	endpoint := h.Program().Gateway(c, t.Family)
	if endpoint == nil || !endpoint.Addr(t.Family).IsValid() {
		return f, false
	}
	addr := endpoint.Addr(t.Family)
	var port uint16
	if t.Direction == netstate.In {
		f.proto, port = t.Port.Proto, t.Port.Number
	}
	toContainer := (t.Direction == netstate.In) != hop.IsReply()
	if toContainer {
		f.to, f.toPort = addr, port
	} else {
		f.from, f.fromPort = addr, port
	}
	switch {
	case place == packet.Accept && local && toContainer:
		f.out = bridge
	case place == packet.Accept && (local || proxy):
		f.in = bridge
	case place == packet.Accept && toContainer:
		f.notIn, f.out = bridge, bridge
	case place == packet.Accept:
		f.in, f.notOut = bridge, bridge
	case place == packet.DNAT && !toContainer && !proxy:
		f.in = bridge
	default:
		return f, false
	}
	f.reply = hop.IsReply() && place == packet.Accept
	return f, true
}

// peerFlow is flowOf for two containers of one network, whose packets the bridge shows to netfilter.
func peerFlow(h *Host, t netstate.Target, hop packet.Hop) (f flow, ok bool) {
	from, to := h.Container(t.ID), h.Container(t.ToID)
	if from == nil || to == nil || hop.Place() != packet.Accept || h.Walk(t).Via != "bridge" {
		return f, false
	}
	for i := range to.Endpoints {
		theirs := &to.Endpoints[i]
		if theirs.Addr(t.Family) != t.To.Addr() {
			continue
		}
		for j := range from.Endpoints {
			ours, network := &from.Endpoints[j], h.Network(theirs.NetworkID)
			if ours.NetworkID != theirs.NetworkID || network == nil || !ours.Addr(t.Family).IsValid() {
				continue
			}
			f = flow{in: network.Bridge(), out: network.Bridge(), proto: t.Port.Proto, from: ours.Addr(t.Family), to: t.To.Addr(), toPort: t.To.Port()}
			if f.reply = hop.IsReply(); f.reply {
				f.from, f.to, f.fromPort, f.toPort = f.to, f.from, f.toPort, 0
			}
			return f, f.in != "" && t.To.Port() != 0
		}
	}
	return f, false
}

// iptables returns the rule that accepts the flow, as iptables-save writes it.
func (f flow) iptables() string {
	var rule strings.Builder
	add := func(format string, value any, there bool) {
		if there {
			fmt.Fprintf(&rule, format+" ", value)
		}
	}
	add("-s %s", netip.PrefixFrom(f.from, f.from.BitLen()), f.from.IsValid())
	add("-d %s", netip.PrefixFrom(f.to, f.to.BitLen()), f.to.IsValid())
	add("! -i %s", f.notIn, f.notIn != "")
	add("-i %s", f.in, f.in != "")
	add("! -o %s", f.notOut, f.notOut != "")
	add("-o %s", f.out, f.out != "")
	add("-p %s -m %[1]s", f.proto, f.proto != "")
	add("--sport %d", f.fromPort, f.fromPort != 0)
	add("--dport %d", f.toPort, f.toPort != 0)
	if f.reply {
		rule.WriteString("-m conntrack --ctstate RELATED,ESTABLISHED ")
	}
	return rule.String() + "-j ACCEPT"
}

// nft returns the rule that accepts the flow, as nft writes it.
func (f flow) nft() string {
	var rule strings.Builder
	add := func(format string, value any, there bool) {
		if there {
			fmt.Fprintf(&rule, format+" ", value)
		}
	}
	network := "ip"
	if f.from.Is6() || f.to.Is6() {
		network = "ip6"
	}
	add(network+" saddr %s", f.from, f.from.IsValid())
	add(network+" daddr %s", f.to, f.to.IsValid())
	add("iifname != %q", f.notIn, f.notIn != "")
	add("iifname %q", f.in, f.in != "")
	add("oifname != %q", f.notOut, f.notOut != "")
	add("oifname %q", f.out, f.out != "")
	add(f.proto+" sport %d", f.fromPort, f.fromPort != 0)
	add(f.proto+" dport %d", f.toPort, f.toPort != 0)
	if f.reply {
		rule.WriteString("ct state established,related ")
	}
	return rule.String() + "accept"
}
