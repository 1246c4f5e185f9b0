package packet

import (
	"net/netip"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An end is where a packet got to.
type end struct {
	ns     *netns           // the namespace whose socket it is for; nil: it left the machine, or is lost
	socket *netstate.Socket // that takes it; nil: none, or not looked for
	left   *link            // the link by which it left the machine
	packet *skb             // as it arrived
	proxy  *netstate.Proxy  // that holds the host's socket
}

// maxDepth bounds how often a packet may go from one namespace or link to the next.
const maxDepth = 12

// receive takes a packet that came in by dev to where it goes.
func (w *walker) receive(n *netns, dev *link, p *skb) end {
	if w.depth++; w.depth > maxDepth {
		return w.circles(n, dev, p)
	}
	p.in, p.out, p.local, p.hook = dev, nil, false, hookPrerouting
	w.admit6(n, dev, p)
	was := p.tuple
	w.bound = nil
	w.pass(n, DNAT, hookPrerouting, p)
	return w.routed(n, dev, p, was)
}

// admit6 checks what IPv6 refuses before any of its rules. Source: ip6_rcv_core.
func (w *walker) admit6(n *netns, dev *link, p *skb) {
	if p.family != netstate.IPv6 || dev.Loopback {
		return
	}
	if off, _ := n.conf(netstate.IPv6, dev.Name, "disable_ipv6"); off > 0 {
		name := confName(netstate.IPv6, dev.Name, "disable_ipv6")
		w.stop(Stop{Hop: Route, Kind: IPv6Off, Object: "sysctl " + name, Verdict: Drop,
			Why: "IPv6 is switched off on " + dev.Name, Evidence: n.quote(name)}, n)
	}
	if loopback(p.src) || loopback(p.dst) {
		w.stop(Stop{Hop: Route, Kind: Martian, Object: "link " + dev.Name, Verdict: Drop,
			Why: "the kernel takes no packet from or to ::1 on any link but lo"}, n)
	}
}

func (w *walker) circles(n *netns, dev *link, p *skb) end {
	w.stop(Stop{Hop: Route, Kind: WrongRoute, Object: "link " + dev.Name, Verdict: Drop, Why: "the packet goes round in circles"}, n)
	return end{packet: p}
}

// routed takes a packet on that came in by dev and passed prerouting; was is what it was before.
func (w *walker) routed(n *netns, dev *link, p *skb, was tuple) end {
	if !w.reply && n == w.x.host {
		w.diverted(n, p, was)
	}
	d := decision{route: &netstate.Route{Type: "local"}}
	if !dev.Loopback || p.dst != was.dst {
		// What comes over lo was routed on its way out, unless it was translated since.
		d = w.routeIn(n, dev, p)
	}
	if d.local() {
		if !w.reply && n == w.x.host && w.goal != nil && w.goal.ns != n && w.goal.published {
			if e, here := w.published(n, dev, p); here {
				return e
			}
			d = w.routeIn(n, dev, p) // as though it had been translated
			return w.forward(n, dev, d, p)
		}
		return w.input(n, p)
	}
	return w.forward(n, dev, d, p)
}

// forward sends a packet through, from one link to another.
func (w *walker) forward(n *netns, dev *link, d decision, p *skb) end {
	if n.container == "" && !w.reply && !w.later && w.trace.Via == "" {
		w.trace.Via = "forward"
	}
	w.watch(n, p)
	p.out, p.gateway, p.hook = d.out, d.gateway, hookForward
	if p.ttl > 0 {
		p.ttl--
	}
	if d.out != nil && d.route != nil && len(d.route.Hops) > 0 {
		w.step(Step{Hop: Route, Object: routeText(d.route), Did: "by " + d.out.Name}, n)
	}
	w.pass(n, Accept, hookForward, p)
	p.hook = hookPostrouting
	w.pass(n, Masquerade, hookPostrouting, p)
	return w.transmit(n, p)
}

// input hands a packet to this namespace's own sockets.
func (w *walker) input(n *netns, p *skb) end {
	p.hook = hookInput
	w.pass(n, Accept, hookInput, p)
	e := end{ns: n, packet: p}
	if w.reply || w.later {
		return e
	}
	if n.container == "" && w.trace.Via == "" {
		w.trace.Via = "local"
	}
	e.socket = w.deliver(n, p)
	return e
}

// send sends a packet that a process of n makes.
func (w *walker) send(n *netns, p *skb) end {
	if w.depth++; w.depth > maxDepth {
		return end{packet: p}
	}
	p.local, p.in, p.hook = true, nil, hookOutput
	was := p.src
	d := w.routeOut(n, p)
	p.firstSrc = p.src
	if d.out != nil && d.route != nil && len(d.route.Hops) > 0 {
		w.step(Step{Hop: Route, Object: routeText(d.route), Did: "by " + d.out.Name}, n)
	}
	if !was.IsValid() && !w.reply && w.trace.Packet == "" {
		w.trace.Packet = p.String()
	}
	if p.family == netstate.IPv6 && d.out != nil && !d.out.Loopback {
		if off, _ := n.conf(netstate.IPv6, d.out.Name, "disable_ipv6"); off > 0 {
			name := confName(netstate.IPv6, d.out.Name, "disable_ipv6")
			w.stop(Stop{Hop: Route, Kind: IPv6Off, Object: "sysctl " + name, Verdict: Drop,
				Why: "IPv6 is switched off on " + d.out.Name, Evidence: n.quote(name)}, n)
		}
	}
	p.out, p.gateway = d.out, d.gateway
	before := p.tuple
	p.rerouted = nil
	w.bound = nil
	w.pass(n, DNAT, hookOutput, p)
	translated := p.dst
	if n == w.x.host && !w.reply {
		w.diverted(n, p, before)
	}
	if p.dst != translated {
		w.reroute(n, p) // where it should have been translated to
	}
	if p.rerouted != nil {
		p.out, p.gateway = p.rerouted.out, p.rerouted.gateway
	}
	p.hook = hookPostrouting
	w.pass(n, Masquerade, hookPostrouting, p)
	return w.transmit(n, p)
}

// reroute looks again for the way of a packet that starts here. Source: ip_route_me_harder.
func (w *walker) reroute(n *netns, p *skb) {
	d := w.routeOut(n, p)
	p.rerouted = &d
}

// transmit sends the packet out of p.out.
func (w *walker) transmit(n *netns, p *skb) end {
	out := p.out
	if out == nil {
		return w.lost(n, p)
	}
	if out.Loopback {
		// The packet keeps its connection: it is neither tracked nor translated again.
		p.local = false
		return w.receive(n, out, p)
	}
	w.linkUp(n, out, w.placeOf(out))
	w.device(n, out, hookEgress, p)
	switch {
	case n.container != "":
		return w.leaveContainer(n, out, p)
	case out.Bridge != nil || out.Kind == "bridge":
		return w.intoBridge(n, out, p)
	case out.Kind == "veth":
		if inside := w.x.plugged(out); inside != nil {
			return w.cross(inside, p)
		}
	}
	w.neighbour(n, out, p.gateway, "")
	return end{left: out, packet: p}
}

// placeOf is the hop that a link of the host stands for.
func (w *walker) placeOf(l *link) Hop {
	switch {
	case w.goal != nil && w.goal.isBridge(l):
		return Bridge
	case l.Kind == "veth" && l.Master != 0 || w.x.plugged(l) != nil:
		return Veth
	case l.Kind == "bridge" && l != w.uplinkOf():
		return Bridge
	}
	return Uplink
}

func (w *walker) uplinkOf() *link {
	if w.goal == nil {
		return nil
	}
	return w.goal.uplink
}

// linkUp checks that a link carries packets.
func (w *walker) linkUp(n *netns, l *link, hop Hop) {
	switch {
	case !l.Up:
		w.stop(Stop{Hop: hop, Kind: LinkDown, Object: "link " + l.Name, Verdict: Drop, Why: l.Name + " is down"}, n)
	case !l.Carrier && l.State != "unknown" && !l.Loopback && l.Kind != "tun" && l.Kind != "wireguard":
		w.stop(Stop{Hop: hop, Kind: NoCarrier, Object: "link " + l.Name, Verdict: Drop, Why: l.Name + " has no carrier"}, n)
	}
}

// device sends the packet through the hooks of a link itself.
func (w *walker) device(n *netns, l *link, hook string, p *skb) {
	hop := w.placeOf(l)
	in, out := p.in, p.out
	p.in, p.out = nil, l
	if hook == hookIngress {
		p.in, p.out = l, nil
	}
	state, ct := p.state, p.ct
	if hook == hookIngress {
		p.state, p.ct = 0, nil
	}
	for _, b := range w.bases(n, "netdev", hook) {
		w.runBase(n, hop, b, p)
	}
	for _, b := range w.bases(n, "inet-"+ipFamily(p.family), hook) {
		w.runBase(n, hop, b, p)
	}
	p.in, p.out, p.state, p.ct = in, out, state, ct
	if n.container != "" {
		return
	}
	if hook == hookIngress && l.XDP {
		w.stop(Stop{Hop: hop, Kind: Opaque, Object: "link " + l.Name, Verdict: May, Why: "an XDP program on " + l.Name + " may drop it"}, n)
	}
	for _, q := range n.filters {
		if q.Link != l.Name {
			continue
		}
		ingress := q.Parent == "ingress" || q.Kind == "ingress"
		if ingress == (hook == hookIngress) || q.Kind == "clsact" && q.Parent != "ingress" && q.Parent != "egress" {
			w.stop(Stop{Hop: hop, Kind: Opaque, Object: "link " + l.Name, Verdict: May,
				Why: "a tc filter (" + q.Filter + ") on " + l.Name + " may drop it", Evidence: evidence(q.Text)}, n)
		}
	}
}

func evidence(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// neighbour checks what is known of the next hop on a link. mac is what it should be, where that is known.
func (w *walker) neighbour(n *netns, out *link, next netip.Addr, mac string) {
	if out.PointTo || out.NoARP {
		return
	}
	for _, e := range n.neigh(next) {
		if e.Link != out.Name || e.Proxy {
			continue
		}
		object := "neigh " + next.String() + " dev " + out.Name
		switch {
		case mac != "" && e.MAC != "" && e.MAC != mac:
			s := Stop{Hop: w.placeOf(out), Kind: Neighbour, Object: object, Verdict: May,
				Why:      next.String() + " is taken for " + e.MAC + ", its interface has " + mac,
				Evidence: []string{object + " lladdr " + e.MAC + " " + e.State}}
			if e.State == "permanent" || e.State == "noarp" {
				s.Verdict = Drop
			}
			w.stop(s, n)
		case mac == "" && (e.State == "failed" || e.State == "incomplete"):
			w.stop(Stop{Hop: w.placeOf(out), Kind: Neighbour, Object: object, Verdict: May,
				Why: "the next hop " + next.String() + " did not answer on " + out.Name, Evidence: []string{object + " " + e.State}}, n)
		}
	}
}

// lost is the end of a packet that has nowhere to go. Where it has to get to is known all the same.
func (w *walker) lost(n *netns, p *skb) end {
	if n.container != "" {
		// Out of a container every way leads over its first interface.
		for i := range n.state.Links {
			if l := n.links[n.state.Links[i].Name]; !l.Loopback {
				if p.out = l; p.src.IsUnspecified() { // with a route it would have this one
					if src := n.source(l, netip.Addr{}, p.dst, false); src.IsValid() {
						p.src = src
					}
				}
				return w.leaveContainer(n, l, p)
			}
		}
	}
	return end{packet: p}
}
