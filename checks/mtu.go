package checks

import (
	"fmt"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// MTU looks at the sizes that the links on the way take, and at what slows them down.
var MTU = &Check{
	Name:  "mtu",
	Title: "large packets get through, at full speed",
	Doc: `A link that takes less than the container sends is no fault as long as the host may say so: it answers with
ICMP "fragmentation needed", and the sender makes its packets smaller. Where a rule drops that ICMP, small
answers arrive and large ones hang. Inside of the host nobody says so: the container's interface may not
be larger than the other end of its pair. A queueing discipline that limits, delays or loses (tbf, netem)
slows everything down.`,
	Needs:    netstate.Engine | netstate.Links | netstate.Routes | netstate.Traffic,
	Inside:   netstate.Links,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		port, inside := pair(h, t)
		if port == nil {
			return nil
		}
		var findings []Finding
		if inside.MTU > port.MTU {
			findings = append(findings, Finding{Object: "link " + port.Name, At: packet.Veth, Warning: true,
				Problem:  fmt.Sprintf("%s takes %d bytes, the container's %s sends up to %d: what is larger is lost without a word", port.Name, port.MTU, inside.Name, inside.MTU),
				Evidence: []string{fmt.Sprintf("link %s mtu %d", port.Name, port.MTU), fmt.Sprintf("link %s mtu %d in container %s", inside.Name, inside.MTU, t.Container)},
				Fix:      linkMTU(port, inside.MTU)})
		}
		uplink := h.Host.Link(h.Walk(t).Uplink)
		for _, link := range []*netstate.Link{port, h.Host.LinkAt(port.Master), uplink} {
			findings = append(findings, throttled(h, link)...)
		}
		if uplink == nil || uplink.MTU == 0 || uplink.MTU >= inside.MTU {
			return findings
		}
		if stop := silencer(h, t, uplink.MTU); stop != nil {
			lost := "is lost: large answers hang"
			if !stop.Verdict.Stops() {
				lost = "may be lost: then large answers hang"
			}
			findings = append(findings, Finding{Object: stop.Object, At: packet.Uplink, Warning: true, Unknown: !stop.Verdict.Stops(),
				Problem:  fmt.Sprintf("%s takes %d bytes, the container sends up to %d, and the ICMP that would tell it %s", uplink.Name, uplink.MTU, inside.MTU, lost),
				Evidence: append([]string{fmt.Sprintf("link %s mtu %d", uplink.Name, uplink.MTU), fmt.Sprintf("link %s mtu %d in container %s", inside.Name, inside.MTU, t.Container)}, stop.Evidence...),
				Advice:   fmt.Sprintf("let ICMP fragmentation-needed pass, or iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu; for good: network option com.docker.network.driver.mtu=%d", uplink.MTU)})
		}
		return findings
	},
}

// silencer returns what keeps the host from saying to the container that a packet is too large for the way out, unless
// a rule tells TCP beforehand; where nothing does so for certain, the first that may; else nil.
func silencer(h *Host, t netstate.Target, mtu int) *packet.Stop {
	if h.Walk(t).ClampsReplies(mtu) {
		return nil
	}
	stops := h.whole.index().TooLarge(t).Stops
	if len(stops) == 0 {
		return nil
	}
	return &stops[max(0, slices.IndexFunc(stops, func(s packet.Stop) bool { return s.Verdict.Stops() }))]
}

// pair returns the two ends of the container's link: the host's and its own; nil where they are not known.
func pair(h *Host, t netstate.Target) (port, inside *netstate.Link) {
	ns := h.Sandboxes[t.ID]
	if ns == nil {
		return nil, nil
	}
	if inside = ns.Link(gatewayLink(h, t)); inside == nil {
		return nil, nil
	}
	port = h.Host.LinkAt(inside.Peer)
	if port == nil || port.Kind != "veth" || port.Peer != inside.Index {
		return nil, nil
	}
	return port, inside
}
