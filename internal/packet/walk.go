package packet

import (
	"fmt"
	"net/netip"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// walk sends the target's packets: the first, the reply to it, and one that follows.
func (w *walker) walk(t netstate.Target) {
	if t.Direction == netstate.In {
		w.inward(t)
		return
	}
	w.outward(t)
}

// assumedPort is what a container is taken to ask for outside, where nobody said.
const assumedPort = 443

// first returns the first packet of a connection to a port.
func first(family netstate.Family, proto string, dport port) *skb {
	p := &skb{family: family, dscp: -1, uid: -1}
	p.proto, p.sport, p.dport = protoTCP, anyPort, dport
	switch proto {
	case "udp":
		p.proto = protoUDP
	case "sctp":
		p.proto = protoSCTP
	default:
		p.flags = tcpSYN
	}
	return p
}

// answer returns the first packet back.
func (p *skb) answer() *skb {
	back := &skb{family: p.family, tuple: p.tuple.reverse(), dscp: -1, uid: -1}
	switch {
	case p.proto == protoTCP:
		back.flags = tcpSYN | tcpACK
	case p.proto == protoICMP && p.icmpType == 8:
		back.icmpType = 0
	case p.proto == protoICMPv6 && p.icmpType == 128:
		back.icmpType = 129
	}
	return back
}

// goalOf returns the goal of a walk to that container.
func (w *walker) goalOf(id, name string, proto uint8, at port) *goal {
	g := &goal{x: w.x, id: id, name: name, proto: proto, port: at, container: w.x.container(id)}
	if g.container == nil {
		return g
	}
	g.ns = w.x.namespace(g.container)
	for i := range g.container.Endpoints {
		e := &g.container.Endpoints[i]
		for _, addr := range []netip.Addr{e.IPv4.Addr(), e.IPv6.Addr()} {
			if addr.IsValid() {
				g.addrs = append(g.addrs, addr)
			}
		}
	}
	return g
}

// beyond returns an address behind the default route that nothing more is known of: a documentation address.
func (x *Index) beyond(family netstate.Family) netip.Addr {
	candidates := []string{"203.0.113.9", "198.51.100.9", "192.0.2.9"}
	if family == netstate.IPv6 {
		candidates = []string{"2001:db8::9", "2001:db8:ffff::9", "3fff::9"}
	}
	f := x.host.fib(family)
	for _, text := range candidates {
		addr := netip.MustParseAddr(text)
		if d := f.lookup(&walker{x: x}, flow{dst: addr, uid: -1}); d.found() && d.route.Dst.Bits() == 0 {
			return addr
		}
	}
	return netip.MustParseAddr(candidates[0])
}

// uplink returns the link by which client is reached, or nil.
func (w *walker) uplink(client netip.Addr) *link {
	d := w.x.host.fib(netstate.FamilyOf(client)).lookup(w, flow{dst: client, uid: -1})
	if !d.found() || d.local() {
		return nil
	}
	return d.out
}

// hostAddr returns the address of the host that a client would use on that link.
func (w *walker) hostAddr(family netstate.Family, dev *link) netip.Addr {
	if dev != nil {
		for _, a := range w.x.host.addrs(dev.Name, family) {
			if a.Scope == "global" || a.Scope == "" {
				return a.Prefix.Addr()
			}
		}
	}
	for _, a := range w.x.host.state.Addrs {
		l := w.x.host.link(a.Link)
		if netstate.FamilyOf(a.Prefix.Addr()) == family && (a.Scope == "global" || a.Scope == "") && l != nil && l.Kind != "bridge" && !l.Loopback {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

// inward walks a client's packet to a published port.
func (w *walker) inward(t netstate.Target) {
	host := w.x.host
	hostPort := port(t.Host.Port())
	if hostPort == 0 {
		hostPort = port(t.Port.Number)
	}
	p := first(t.Family, t.Port.Proto, hostPort)
	g := w.goalOf(t.ID, t.Container, p.proto, port(t.Port.Number))
	g.published = g.ns != host
	w.goal = g
	p.dst = t.Host.Addr().Unmap()
	given := p.dst.IsValid() && !p.dst.IsUnspecified()
	if !w.ready(t.ID, t.Container) {
		return
	}
	var start func(p *skb) end
	switch t.From {
	case netstate.FromHost, netstate.FromLocalhost:
		if !given || t.From == netstate.FromLocalhost && !loopback(p.dst) {
			p.dst = w.hostAddr(t.Family, w.uplink(w.x.beyond(t.Family)))
			if t.From == netstate.FromLocalhost {
				p.dst = netip.IPv6Loopback()
				if t.Family == netstate.IPv4 {
					p.dst = netip.AddrFrom4([4]byte{127, 0, 0, 1})
				}
			}
		}
		if !p.dst.IsValid() {
			w.noAddress(t.Family)
			return
		}
		start = func(p *skb) end { return w.send(host, p) }
	default:
		client := t.Client.Unmap()
		if !client.IsValid() {
			client = w.x.beyond(t.Family)
		}
		dev := w.ingress(t, client)
		if dev == nil {
			if why := host.why(netstate.Links|netstate.Routes, t.Family, ""); why != "" {
				w.stop(Stop{Hop: Uplink, Kind: Unread, Object: "route to " + client.String(), Verdict: May,
					Why: "the host's links and routes are not known: " + why}, nil)
				return
			}
			w.stop(Stop{Hop: Uplink, Kind: NoLink, Object: "route to " + client.String() + ": none", Verdict: Drop,
				Why: "no link leads to " + client.String()}, nil)
			return
		}
		if t.SPort != 0 {
			p.sport = port(t.SPort)
			w.needs(host, DNAT, netstate.Conntrack, 0, "connections")
		}
		if p.src = client; !given {
			if p.dst = w.hostAddr(t.Family, dev); !p.dst.IsValid() {
				w.noAddress(t.Family)
				return
			}
		}
		g.uplink, g.client = dev, client
		w.trace.Uplink, w.trace.Packet = dev.Name, p.String()
		start = func(p *skb) end { return w.arrive(dev, p) }
	}
	w.converse(start, p, func(e end) bool { return g.published && e.ns == host })
}

func (w *walker) noAddress(family netstate.Family) {
	w.stop(Stop{Hop: Uplink, Kind: NotLocal, Object: "address: none", Verdict: Drop,
		Why: fmt.Sprintf("the host has no %s address that a client could use", familyWords(family))}, nil)
}

func familyWords(family netstate.Family) string {
	if family == netstate.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// ready says whether there is a container to walk to.
func (w *walker) ready(id, name string) bool {
	c := w.x.container(id)
	switch {
	case c == nil && id == "":
		return true // what any container would meet
	case c == nil:
		w.stop(Stop{Hop: Container, Kind: Unread, Object: "container " + name, Verdict: May, Why: "nothing is known of container " + name}, nil)
		return false
	case !c.Running:
		w.stop(Stop{Hop: Container, Kind: NoNamespace, Object: "container " + name, Verdict: Drop, Why: "the container is " + c.Status + ": it has no network"}, nil)
		return false
	}
	return true
}

// ingress returns the link by which the client's packets come in, or nil.
func (w *walker) ingress(t netstate.Target, client netip.Addr) *link {
	if t.Iface != "" {
		return w.x.host.link(t.Iface)
	}
	if l := w.uplink(client); l != nil && !w.x.isDockers(l) && w.x.plugged(l) == nil {
		return l
	}
	// Nothing leads back, or a way into one of Docker's networks; that is said where the reply needs it. It
	// comes in where there is an address.
	var found *link
	for _, a := range w.x.host.state.Addrs {
		l := w.x.host.link(a.Link)
		if l == nil || l.Loopback || w.x.isDockers(l) || netstate.FamilyOf(a.Prefix.Addr()) != t.Family || a.Scope == "link" || a.Scope == "host" {
			continue
		}
		if found == nil || !found.Up && l.Up {
			found = l
		}
	}
	if found != nil {
		return found
	}
	for i := range w.x.host.state.Links {
		l := w.x.host.link(w.x.host.state.Links[i].Name)
		if !l.Loopback && l.Master == 0 && l.Kind == "" {
			return l
		}
	}
	return nil
}

// isDockers says whether the link is the bridge of a Docker network.
func (x *Index) isDockers(l *link) bool {
	return l.Name == "docker0" || x.dockerBridge(l.Name)
}

// arrive takes a packet from outside into the host.
func (w *walker) arrive(dev *link, p *skb) end {
	host := w.x.host
	w.linkUp(host, dev, Uplink)
	var port *link
	if dev.Bridge != nil || dev.Kind == "bridge" {
		port = w.segment(dev)
		if port != nil {
			w.linkUp(host, port, Uplink)
			w.device(host, port, hookIngress, p)
			return w.fromPort(dev, port, netip.Addr{}, p)
		}
		w.bridgeHooks(host, p, nil, nil, hookPrerouting, hookInput)
	}
	w.device(host, dev, hookIngress, p)
	return w.receive(host, dev, p)
}

// segment returns the port by which a bridge reaches the outside, or nil where that is not plain.
func (w *walker) segment(bridge *link) *link {
	var found *link
	for i := range w.x.host.state.Links {
		l := w.x.host.link(w.x.host.state.Links[i].Name)
		if l.Master == bridge.Index && w.x.plugged(l) == nil && l.Kind != "tun" && (l.Kind != "veth" || found == nil) {
			if found != nil && found.Kind != "veth" {
				return nil
			}
			found = l
		}
	}
	return found
}

// converse sends the first packet, its answer, and a packet that follows. proxied says whether the packet
// got to a program that makes a connection of its own to the container.
func (w *walker) converse(start func(*skb) end, p *skb, proxied func(end) bool) {
	again := *p
	w.depth = 0
	e := start(p)
	if proxied(e) {
		// docker-proxy: the host's own connection to the container, which has to get there and back.
		q := w.onward(e)
		innerFirst := *q
		published := w.goal.published
		w.goal.published = false
		inner := func(q *skb) end { w.depth = 0; return w.send(w.x.host, q) }
		far := inner(q)
		w.arrived(far)
		if far.packet != nil {
			w.trace.Arrives = far.packet.String()
		}
		w.back(far)
		w.later = true
		follow := innerFirst
		follow.flags = follow.flags&^tcpSYN | tcpACK
		if follow.proto != protoTCP {
			follow.flags = 0
		}
		inner(&follow)
		w.later = false
		w.goal.published = published
	} else {
		w.arrived(e)
		if e.packet != nil && e.ns != nil {
			w.trace.Arrives = e.packet.String()
		}
	}
	w.back(e)
	if e.packet == nil {
		return
	}
	w.later, w.depth = true, 0
	if again.proto == protoTCP {
		again.flags = tcpACK
	}
	if !again.src.IsValid() {
		again.src = p.firstSrc
	}
	start(&again)
	w.later = false
}

// onward returns the first packet of docker-proxy's connection.
func (w *walker) onward(e end) *skb {
	p := e.packet
	q := first(p.family, protoName(p.proto), w.goal.port)
	if e.proxy != nil && e.proxy.Container.IsValid() {
		q.dst, q.dport = e.proxy.Container.Addr().Unmap(), port(e.proxy.Container.Port())
		q.family = netstate.FamilyOf(q.dst)
		if !w.goal.has(q.dst) || w.goal.port != 0 && q.dport != w.goal.port {
			w.stop(Stop{Hop: Socket, Kind: Diverted, Object: "docker-proxy", Verdict: Drop,
				Why: "docker-proxy sends it to " + q.destination() + ", the container has " + w.goal.destination(q.family)}, nil)
			if w.goal.has(q.dst) {
				q.dport = w.goal.port
			} else {
				w.retarget(q)
			}
		}
		return q
	}
	for _, addr := range w.goal.addrs {
		if !q.dst.IsValid() || netstate.FamilyOf(addr) == p.family {
			q.dst, q.family = addr, netstate.FamilyOf(addr)
		}
	}
	return q
}

// arrived says so where the packet did not get to the goal.
func (w *walker) arrived(e end) {
	g := w.goal
	if g == nil || g.ns == nil || e.ns == g.ns {
		return
	}
	where := "it gets nowhere"
	object := "container " + g.name
	switch {
	case e.left != nil:
		where, object = "it leaves the host by "+e.left.Name, "link "+e.left.Name
	case e.ns != nil && e.ns.container != "":
		where, object = "it gets to container "+e.ns.name, "container "+e.ns.name
	case e.ns != nil:
		where = "it ends on the host itself"
	}
	for _, s := range w.trace.Stops {
		if s.Kind == Diverted || s.Kind == WrongRoute || s.Kind == NoRoute || s.Kind == Unreachable || s.Kind == NotLocal {
			return // said already
		}
	}
	w.stop(Stop{Hop: Route, Kind: Diverted, Object: object, Verdict: Drop, Why: where + ", not to container " + g.name}, nil)
}

// back walks the reply from where the packet got to.
func (w *walker) back(e end) {
	if e.packet == nil {
		return
	}
	w.reply, w.depth = true, 0
	defer func() { w.reply = false }()
	q := e.packet.answer()
	switch {
	case e.ns != nil:
		w.send(e.ns, q)
	case e.left != nil && w.outside:
		q.tuple = e.packet.tuple.reverse()
		if own := w.x.inLAN(q.dst); own != nil {
			w.receive(own.ns, own, q)
			return
		}
		w.arrive(e.left, q)
	case w.goal != nil && w.goal.ns == nil && e.left == nil:
		if bridge := w.x.bridgeOf(e.packet.dst); bridge != nil {
			w.receive(w.x.host, bridge, q)
		}
	}
}

// inLAN returns the link of a container that is in the LAN itself, past the host's own network layer, by its
// address: macvlan, ipvlan.
func (x *Index) inLAN(addr netip.Addr) *link {
	for _, l := range x.byAddr[addr] {
		switch l.Kind {
		case "macvlan", "ipvlan", "macvtap":
			return l
		}
	}
	return nil
}

// outward walks a container's packet to the world or to another container.
func (w *walker) outward(t netstate.Target) {
	if !w.ready(t.ID, t.Container) {
		return
	}
	c := w.x.container(t.ID)
	if c == nil {
		return
	}
	proto, at := t.Port.Proto, port(t.To.Port())
	if at == 0 {
		at = port(t.Port.Number)
	}
	p := first(t.Family, proto, at)
	p.dst = t.To.Addr().Unmap()
	if t.Direction == netstate.Peer {
		w.goal = w.goalOf(t.ToID, t.ToName, p.proto, at)
		if !w.ready(t.ToID, t.ToName) {
			return
		}
		if !p.dst.IsValid() {
			p.dst = w.shared(c, w.goal, t.Family)
		}
		if !p.dst.IsValid() {
			w.stop(Stop{Hop: Container, Kind: NotLocal, Object: "container " + t.ToName, Verdict: Drop,
				Why: "container " + t.ToName + " has no " + familyWords(t.Family) + " address"}, nil)
			return
		}
	} else {
		w.goal = &goal{x: w.x, id: t.ID, name: t.Container, proto: p.proto, port: at}
		w.goal.container = c
		w.outside = true
		if !p.dst.IsValid() {
			p.dst = w.x.beyond(t.Family)
		}
		w.goal.uplink = w.uplink(p.dst)
		if w.goal.uplink != nil {
			w.trace.Uplink = w.goal.uplink.Name
		}
		if w.x.host.has(p.dst) || loopback(p.dst) {
			w.outside = false
		}
	}
	if p.dport == 0 {
		p.dport = assumedPort
	}
	ns := w.x.namespace(c)
	src := netip.Addr{}
	for i := range c.Endpoints {
		if addr := c.Endpoints[i].Addr(t.Family); addr.IsValid() && !src.IsValid() {
			src = addr
		}
	}
	if ns == nil {
		why := w.x.snap.Why(netstate.Key{Part: netstate.Links, Container: c.ID})
		if why == "" {
			why = "it was not read"
		}
		w.stop(Stop{Hop: Container, Kind: Unread, Object: "container " + c.Name, Verdict: May,
			Why: "the container's namespace is not known: " + why}, nil)
		bridge := w.x.bridgeOf(src)
		if bridge == nil {
			return
		}
		p.src = src
		w.trace.Packet = p.String()
		w.converse(func(p *skb) end { return w.receive(w.x.host, bridge, p) }, p, never)
		return
	}
	w.converse(func(p *skb) end { return w.send(ns, p) }, p, never)
}

func never(end) bool { return false }

// shared returns an address of the goal that the container reaches over a network of both, or any.
func (w *walker) shared(c *netstate.Container, g *goal, family netstate.Family) netip.Addr {
	var any netip.Addr
	if g.container == nil {
		return any
	}
	for i := range g.container.Endpoints {
		theirs := &g.container.Endpoints[i]
		addr := theirs.Addr(family)
		if !addr.IsValid() {
			continue
		}
		if !any.IsValid() {
			any = addr
		}
		for j := range c.Endpoints {
			if c.Endpoints[j].NetworkID == theirs.NetworkID {
				return addr
			}
		}
	}
	return any
}
