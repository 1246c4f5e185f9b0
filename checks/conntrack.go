package checks

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Conntrack looks at the table of connections, which decides on every packet but the first.
var Conntrack = &Check{
	Name:  "conntrack",
	Title: "connection tracking has room, and no stale entry",
	Doc: `Every translated connection has an entry in the kernel's table. When that is full, new connections are dropped.
An entry also keeps the decision of its first packet: a UDP client that sent while the container was away
goes on being sent where it was sent then, for as long as it does not pause. Engines before 23 leave such
entries behind when they start a container.`,
	Needs:    netstate.Engine | netstate.Sysctls | netstate.Conntrack,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		const limit = "net.netfilter.nf_conntrack_max"
		count, known := number(h, "net.netfilter.nf_conntrack_count")
		most, limited := number(h, limit)
		if known && limited && most > 0 && count*10 >= most*9 {
			f := Finding{Object: "sysctl " + limit, At: packet.DNAT, Warning: count < most,
				Problem:  fmt.Sprintf("the table of connections is full: %d of %d entries", count, most),
				Evidence: []string{fmt.Sprintf("net.netfilter.nf_conntrack_count = %d", count), fmt.Sprintf("%s = %d", limit, most)},
				Advice:   fmt.Sprintf("sysctl -w %s=%d, and find who holds them: conntrack -L", limit, 2*most)}
			if f.Warning {
				f.Problem = fmt.Sprintf("the table of connections is nearly full: %d of %d entries", count, most)
			}
			findings = append(findings, f)
		}
		if flow := stale(h, t); flow != nil {
			o := flow.Original
			findings = append(findings, Finding{At: packet.DNAT, Warning: t.Assumed || t.Client != o.Src.Addr() || t.SPort != 0 && t.SPort != o.Src.Port(),
				Object:   fmt.Sprintf("flow udp %s → %s", o.Src, o.Dst),
				Problem:  fmt.Sprintf("%s is still sent to %s, as was decided before the container had its present address", o.Src.Addr(), flow.Reply.Src),
				Evidence: []string{fmt.Sprintf("udp %ds src=%s dst=%s sport=%d dport=%d, reply src=%s dst=%s", flow.Timeout, o.Src.Addr(), o.Dst.Addr(), o.Src.Port(), o.Dst.Port(), flow.Reply.Src, flow.Reply.Dst)},
				Advice:   fmt.Sprintf("conntrack -D -p udp --orig-dst %s --orig-port-dst %d", o.Dst.Addr(), o.Dst.Port())})
		}
		return findings
	},
}

func number(h *Host, sysctl string) (int, bool) {
	text, ok := h.Host.Sysctl(sysctl)
	n, err := strconv.Atoi(text)
	return n, ok && err == nil
}

// stale returns a flow to the target's UDP port that does not lead to the container, although its packets
// do by now, or nil.
func stale(h *Host, t netstate.Target) *netstate.Flow {
	c := h.Container(t.ID)
	if t.Direction != netstate.In || t.Port.Proto != "udp" || c == nil || h.Walk(t).Via != "forward" {
		return nil
	}
	mine := map[netip.Addr]bool{}
	for i := range c.Endpoints {
		mine[c.Endpoints[i].Addr(t.Family)] = true
	}
	for i := range h.Host.Flows {
		f := &h.Host.Flows[i]
		to := f.Original.Dst
		if f.Proto == "udp" && to.Port() == t.Host.Port() && !to.Addr().IsLoopback() && h.whole.snapshot.Host.LinkWith(to.Addr()) != nil && !mine[f.Reply.Src.Addr()] && !mine[f.Original.Src.Addr()] {
			return f
		}
	}
	return nil
}
