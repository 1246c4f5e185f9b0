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
// DNAT they are known by the published port, behind it by the container's address.
func flowOf(h *Host, t netstate.Target, hop packet.Hop) (f flow, ok bool) {
	c, bridge, trace := h.Container(t.ID), bridgeOf(h, t), h.Walk(t)
	local := t.Direction == netstate.Out && trace.Via == "local" // the host itself answers
	if c == nil || bridge == "" || t.Direction == netstate.Peer || trace.Via != "forward" && !local {
		return f, false
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
	switch place := hop.Place(); {
	case place == packet.Accept && local && toContainer:
		f.out = bridge
	case place == packet.Accept && local:
		f.in = bridge
	case place == packet.Accept && toContainer:
		f.notIn, f.out = bridge, bridge
	case place == packet.Accept:
		f.in, f.notOut = bridge, bridge
	case place == packet.DNAT && !toContainer:
		f.in = bridge
	case place == packet.DNAT && t.Direction == netstate.In && t.From == netstate.FromOutside && trace.Uplink != "":
		f.in, f.to, f.toPort = trace.Uplink, t.Host.Addr(), t.Host.Port()
		if f.to.IsUnspecified() {
			f.to = netip.Addr{}
		}
	default:
		return f, false
	}
	f.reply = hop.IsReply() && hop.Place() == packet.Accept
	return f, true
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
