package packet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// callsIP says whether a bridge's frames pass the IP hooks too: br_netfilter's sysctl or the bridge's own
// switch. Without br_netfilter there is no such sysctl.
func (n *netns) callsIP(bridge *link, family netstate.Family) bool {
	name, own := "net.bridge.bridge-nf-call-iptables", bridge.Bridge != nil && bridge.Bridge.CallIptables
	if family == netstate.IPv6 {
		name, own = "net.bridge.bridge-nf-call-ip6tables", bridge.Bridge != nil && bridge.Bridge.CallIp6tables
	}
	value, loaded := n.state.Sysctls[name]
	return loaded && (strings.TrimSpace(value) == "1" || own)
}

// intoBridge sends a packet of the IP layer out of a bridge, to the port behind which its next hop is.
func (w *walker) intoBridge(n *netns, bridge *link, p *skb) end {
	inside := w.behind(bridge, p.gateway)
	if inside == nil && w.goal != nil && !w.reply && w.goal.has(p.gateway) {
		return w.enterGoal(n, bridge, p)
	}
	if inside == nil {
		// Something on the bridge that no container has which was read: a machine, or the uplink's segment.
		w.bridgeHooks(n, p, nil, nil, hookOutput, hookPostrouting)
		w.neighbour(n, bridge, p.gateway, "")
		return end{left: bridge, packet: p}
	}
	port := w.x.peer(inside)
	w.neighbour(n, bridge, p.gateway, inside.MAC)
	vlan := w.admits(bridge, bridge)
	to, wrong := w.forwardTo(bridge, nil, port, inside.MAC, vlan)
	w.releases(to, vlan)
	w.bridgeHooks(n, p, nil, to, hookOutput, hookPostrouting)
	w.wrongPort(bridge, nil, port, wrong, inside.MAC, p)
	w.portForwards(n, port)
	w.device(n, port, hookEgress, p)
	return w.cross(inside, p)
}

// A priorities is the range in which br_netfilter may call the IP hooks among the bridge family's chains.
type priorities struct{ first, last int }

// bridgePrerouting is NF_BR_PRI_BRNF. At postrouting the IP hooks come last.
var bridgePrerouting = priorities{0, 0}

// bridgeForward is where they are at forward: one before NF_BR_PRI_BRNF, since Linux 6.7 there itself, and in
// distributors' older kernels either.
func (x *Index) bridgeForward() priorities {
	var major, minor int
	fmt.Sscanf(x.snap.Kernel, "%d.%d", &major, &minor)
	if major > 6 || major == 6 && minor >= 7 {
		return priorities{0, 0}
	}
	return priorities{-1, 0}
}

// bridgeHooks sends the packet through the bridge family's hooks.
func (w *walker) bridgeHooks(n *netns, p *skb, in, out *link, hooks ...string) {
	for _, hook := range hooks {
		w.bridgeHook(n, p, in, out, hook, priorities{}, nil)
	}
}

// bridgeHook sends the packet through one, with what is called in its midst, between the chains before and
// behind at.
func (w *walker) bridgeHook(n *netns, p *skb, in, out *link, hook string, at priorities, midst func()) {
	bases := w.bases(n, "bridge", hook)
	for _, b := range bases {
		if midst != nil && (b.priority > at.last || b.priority >= at.first && w.older(b)) {
			midst()
			midst = nil
		}
		was, state, ct := [4]*link{p.in, p.out, p.physIn, p.physOut}, p.state, p.ct
		p.in, p.out = in, out
		w.runBase(n, Bridge, b, p)
		p.in, p.out, p.physIn, p.physOut = was[0], was[1], was[2], was[3]
		p.state, p.ct = state, ct
	}
	if midst != nil {
		midst()
	}
}

// older says whether a bridge chain at the priority of br_netfilter was registered before it, and so runs behind
// it. Nothing tells; a chain without rules does the same at either place.
func (w *walker) older(b *base) bool {
	if b.count == 0 {
		return false
	}
	older, asked := w.olderTables[b.table]
	if !asked {
		older = w.may()
		if w.olderTables == nil {
			w.olderTables = map[string]bool{}
		}
		w.olderTables[b.table] = older
	}
	return older
}

// behind returns the interface of a container on that bridge which has addr, or nil.
func (w *walker) behind(bridge *link, addr netip.Addr) *link {
	inside := w.x.holder(addr, bridge)
	if inside == nil {
		return nil
	}
	if port := w.x.peer(inside); port == nil || port.Master != bridge.Index {
		return nil
	}
	return inside
}

// portForwards checks that a bridge port lets frames through.
func (w *walker) portForwards(n *netns, port *link) {
	w.linkUp(n, port, Veth)
	if port.Port == nil {
		return
	}
	if state := port.Port.State; state != "" && state != "forwarding" && port.Up {
		w.stop(Stop{Hop: Bridge, Kind: BridgePort, Object: "link " + port.Name, Verdict: Drop,
			Why: "the bridge's port " + port.Name + " is " + state + ", not forwarding"}, n)
	}
}

// cross takes a packet over a veth into a container, whose interface is inside.
func (w *walker) cross(inside *link, p *skb) end {
	n := inside.ns
	hop := Container
	if !inside.Up || !inside.Carrier {
		w.linkUp(n, inside, hop)
	}
	p.reset()
	if !w.later {
		w.step(Step{Hop: Veth, Object: "link " + nameOf(w.x.peer(inside)), Did: "into the container, as " + inside.Name}, nil)
	}
	w.device(n, inside, hookIngress, p)
	return w.receive(n, inside, p)
}

// reset forgets what a packet loses when it changes its namespace. Source: skb_scrub_packet.
func (p *skb) reset() {
	p.ct, p.state, p.replyDir, p.mark, p.zone = nil, 0, false, 0, 0
	p.physIn, p.physOut, p.local, p.uid = nil, nil, false, -1
	p.gateway = netip.Addr{}
}

// enterGoal is the end of a packet for the container whose address is behind no port of the bridge.
func (w *walker) enterGoal(n *netns, bridge *link, p *skb) end {
	g := w.goal
	w.bridgeHooks(n, p, nil, nil, hookOutput, hookPostrouting)
	switch {
	case g.ns == nil:
		why := w.x.snap.Why(netstate.Key{Part: netstate.Links, Container: g.id})
		if why == "" {
			why = "it was not read"
		}
		w.stop(Stop{Hop: Container, Kind: Unread, Object: "container " + g.name, Verdict: May,
			Why: "the container's namespace is not known: " + why}, nil)
		return end{packet: p}
	case g.ns.why(netstate.Links, 0, "") != "":
		w.needs(g.ns, Container, netstate.Links, 0, "links")
		p.reset()
		return end{ns: g.ns, packet: p}
	}
	inside := g.inside(p.gateway)
	if inside == nil {
		w.stop(Stop{Hop: Container, Kind: NoLink, Object: "link eth0", Verdict: Drop,
			Why: "the container has no interface with " + p.gateway.String()}, g.ns)
		p.reset()
		return end{ns: g.ns, packet: p, socket: w.deliver(g.ns, p)}
	}
	port := w.x.peer(inside)
	switch {
	case port == nil:
		w.stop(Stop{Hop: Veth, Kind: NoLink, Object: "link " + inside.Name + " in container " + g.name, Verdict: Drop,
			Why: "the other end of the container's " + inside.Name + " is not on this host"}, nil)
	case port.Master != bridge.Index:
		why := port.Name + " belongs to no bridge"
		if m := port.master(); m != nil {
			why = port.Name + " belongs to " + m.Name
		}
		w.stop(Stop{Hop: Veth, Kind: NoMaster, Object: "link " + port.Name, Verdict: Drop, Why: why + ", not to " + bridge.Name}, nil)
		w.linkUp(n, port, Veth)
	default:
		w.portForwards(n, port)
		w.device(n, port, hookEgress, p)
	}
	if !inside.ns.has(p.gateway) {
		held := "no address"
		if addrs := g.ns.addrs(inside.Name, p.family); len(addrs) > 0 {
			held = addrs[0].Prefix.Addr().String()
		}
		w.stop(Stop{Hop: Container, Kind: NoAddress, Object: "link " + inside.Name, Verdict: Drop,
			Why: fmt.Sprintf("%s has %s, not %s", inside.Name, held, p.gateway)}, g.ns)
		w.linkUp(g.ns, inside, Container)
		p.reset()
		return end{ns: g.ns, packet: p, socket: w.deliver(g.ns, p)}
	}
	return w.cross(inside, p)
}

// leaveContainer takes a packet out of a container, by its interface out.
func (w *walker) leaveContainer(n *netns, out *link, p *skb) end {
	host := w.x.host
	next := p.gateway
	switch out.Kind {
	case "macvlan", "ipvlan", "macvtap":
		parent := host.byIndex[out.Peer]
		return end{left: parent, packet: p}
	}
	port := w.x.peer(out)
	if port == nil {
		if out.Kind == "veth" || out.Kind == "" {
			w.stop(Stop{Hop: Veth, Kind: NoLink, Object: "link " + out.Name + " in container " + n.name, Verdict: Drop,
				Why: "the other end of the container's " + out.Name + " is not on this host"}, nil)
		}
		if br := w.goalBridge(n, p); br != nil {
			p.reset()
			return w.receive(host, br, p)
		}
		return end{packet: p}
	}
	w.neighbour(n, out, next, w.macOf(port, next))
	p.reset()
	bridge := port.master()
	if bridge == nil || bridge.Bridge == nil && bridge.Kind != "bridge" {
		if want := w.goalBridge(n, p); want != nil {
			w.stop(Stop{Hop: Veth, Kind: NoMaster, Object: "link " + port.Name, Verdict: Drop,
				Why: port.Name + " belongs to no bridge, not to " + want.Name}, nil)
			w.linkUp(host, port, Veth)
			return w.receive(host, want, p)
		}
		w.linkUp(host, port, Veth)
		w.device(host, port, hookIngress, p)
		return w.receive(host, port, p)
	}
	w.portForwards(host, port)
	w.device(host, port, hookIngress, p)
	return w.fromPort(bridge, port, next, p)
}

// macOf returns the address of the link layer that the next hop has, where the host itself has it.
func (w *walker) macOf(port *link, next netip.Addr) string {
	l := w.x.host.linkWith(next)
	if l == nil || port.master() == nil || l.Index != port.Master {
		return ""
	}
	return l.MAC
}

// goalBridge returns the bridge that a container's packet should come by.
func (w *walker) goalBridge(n *netns, p *skb) *link {
	c := w.x.container(n.container)
	if c == nil {
		return nil
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		if e.Addr(p.family) != p.src && len(c.Endpoints) > 1 {
			continue
		}
		if network := w.x.snap.Network(e.NetworkID); network != nil && network.Bridge() != "" {
			return w.x.host.link(network.Bridge())
		}
	}
	return nil
}

// fromPort takes a frame that came in by a port of a bridge of the host to where the bridge sends it.
func (w *walker) fromPort(bridge, port *link, next netip.Addr, p *skb) end {
	host := w.x.host
	w.linkUp(host, bridge, w.placeOf(bridge))
	calls := host.callsIP(bridge, p.family)
	was := p.tuple
	var first func()
	if calls {
		first = func() {
			p.physIn = port
			p.in, p.out, p.hook = bridge, nil, hookPrerouting
			w.bound = nil
			w.pass(host, DNAT, hookPrerouting, p)
			if p.family == netstate.IPv6 && p.dst != was.dst {
				w.refused6(host, bridge, p)
			}
		}
	}
	w.bridgeHook(host, p, port, nil, hookPrerouting, bridgePrerouting, first)
	w.locked(bridge, port, w.admits(bridge, port))
	if calls && p.dst != was.dst {
		if e, bridged := w.bridgedDNAT(host, bridge, next, p); bridged {
			return e
		}
		return w.up(bridge, port, p, was)
	}
	inside := w.behind(bridge, next)
	if inside == nil || host.has(next) {
		if next.IsValid() && !host.has(next) && !host.foreign(bridge) {
			w.stop(Stop{Hop: Bridge, Kind: Neighbour, Object: "link " + bridge.Name, Verdict: Drop,
				Why: fmt.Sprintf("nothing on %s has the next hop's address %s", bridge.Name, next)}, nil)
		}
		return w.up(bridge, port, p, was)
	}
	return w.relay(bridge, port, inside, next, p)
}

// up takes a frame from a bridge's port to the bridge itself. Where br_netfilter calls the IP hooks, prerouting
// was passed already; was is the packet before it.
func (w *walker) up(bridge, port *link, p *skb, was tuple) end {
	host := w.x.host
	w.releases(bridge, w.admits(bridge, port))
	w.bridgeHooks(host, p, port, bridge, hookInput)
	w.device(host, bridge, hookIngress, p)
	if p.physIn == nil {
		return w.receive(host, bridge, p)
	}
	if w.depth++; w.depth > maxDepth {
		return w.circles(host, bridge, p)
	}
	w.admit6(host, bridge, p)
	return w.routed(host, bridge, p, was)
}

// refused6 is what becomes at once of a translated packet of IPv6 that has no way: the bridge's later chains do
// not see it. Source: br_nf_pre_routing_finish_ipv6.
func (w *walker) refused6(n *netns, bridge *link, p *skb) {
	w.loopback6(n, bridge, p)
	d := n.fib(p.family).lookup(w, flow{src: p.src, dst: p.dst, iif: bridge, mark: p.mark, proto: p.proto, sport: p.sport, dport: p.dport, tos: p.tos(), uid: -1})
	if !d.found() && !d.local() {
		w.noRoute(n, p, d)
	}
}

// bridgedDNAT sends on a packet that the IP hooks of a bridge translated to an address on the same bridge:
// it is bridged, not routed. Of IPv4 it needs forwarding all the same: without it the routing decision, made as
// for any packet, is unreachable, and the packet goes up to the bridge to be lost. Source: br_nf_pre_routing_finish,
// whose exception for what is bridged was never reached since Linux 3.6.
func (w *walker) bridgedDNAT(n *netns, bridge *link, next netip.Addr, p *skb) (end, bool) {
	d := n.fib(p.family).lookup(w, flow{src: p.src, dst: p.dst, iif: bridge, mark: p.mark, proto: p.proto, sport: p.sport, dport: p.dport, tos: p.tos(), uid: -1})
	if !d.found() || d.local() || d.out != bridge {
		return end{}, false
	}
	if p.family == netstate.IPv4 {
		w.martian4(n, bridge, p)
		if on, known := n.conf(p.family, bridge.Name, "forwarding"); on == 0 && known {
			w.bridgeHooks(n, p, p.physIn, bridge, hookInput)
			w.device(n, bridge, hookIngress, p)
		}
		w.needs(n, Route, netstate.Sysctls, 0, "sysctls")
		w.forwarding(n, bridge, p)
		w.validateSource(n, bridge, bridge, p)
	}
	inside := w.behind(bridge, d.gateway)
	if inside == nil {
		if w.goal != nil && w.goal.has(d.gateway) {
			return end{}, false // that is said on the way over the IP layer
		}
		return end{packet: p, left: bridge}, true
	}
	if e := n.forwardingEntry(bridge, inside.MAC, w.admits(bridge, p.physIn)); e != nil && e.State == "permanent" && (!next.IsValid() || n.has(next)) {
		return end{}, false // the frame came for the host and goes there
	}
	return w.relay(bridge, p.physIn, inside, d.gateway, p), true
}

// relay sends a frame from one port of a bridge to the one behind which inside is.
func (w *walker) relay(bridge, port, inside *link, next netip.Addr, p *skb) end {
	host, own := w.x.host, w.x.peer(inside)
	calls := host.callsIP(bridge, p.family)
	vlan := w.admits(bridge, port)
	to, wrong := w.forwardTo(bridge, port, own, inside.MAC, vlan)
	if wrong != nil && wrong.State == "permanent" { // it goes up
		w.releases(bridge, vlan)
		w.bridgeHooks(host, p, port, bridge, hookInput)
		w.wrongPort(bridge, port, own, wrong, inside.MAC, p)
		to, wrong = own, nil
	}
	w.throughPorts(bridge, port, to)
	w.releases(to, vlan)
	var first func()
	if calls {
		first = func() {
			p.physOut = to
			p.in, p.out, p.hook = bridge, bridge, hookForward
			w.pass(host, Accept, hookForward, p)
		}
	}
	w.bridgeHook(host, p, port, to, hookForward, w.x.bridgeForward(), first)
	w.bridgeHooks(host, p, nil, to, hookPostrouting)
	if calls {
		p.in, p.hook = nil, hookPostrouting // the kernel does not say where it came in
		p.gateway = next
		w.pass(host, Masquerade, hookPostrouting, p)
	}
	if w.trace.Via == "" {
		w.trace.Via = "bridge"
	}
	w.wrongPort(bridge, port, own, wrong, inside.MAC, p)
	w.portForwards(host, to)
	w.device(host, to, hookEgress, p)
	return w.cross(inside, p)
}

// foreign says whether the bridge has ports that lead out of the host, so that what it reaches is not
// all known.
func (n *netns) foreign(bridge *link) bool {
	for _, l := range n.links {
		if l.Master == bridge.Index && l.Kind != "veth" {
			return true
		}
		if l.Master == bridge.Index && n.x.plugged(l) == nil {
			return true
		}
	}
	return false
}

// throughPorts checks what keeps two ports of a bridge apart.
func (w *walker) throughPorts(bridge, from, to *link) {
	if from == to {
		if from.Port != nil && !from.Port.Hairpin {
			w.stop(Stop{Hop: Bridge, Kind: BridgePort, Object: "link " + from.Name, Verdict: Drop,
				Why: "the packet would have to leave by the port that it came in by, and hairpin is off"}, nil)
		}
		return
	}
	if from.Port != nil && to.Port != nil && from.Port.Isolated && to.Port.Isolated {
		w.stop(Stop{Hop: Bridge, Kind: BridgePort, Object: "link " + from.Name, Verdict: Drop,
			Why:      "the ports " + from.Name + " and " + to.Name + " of " + bridge.Name + " are isolated from each other",
			Evidence: []string{"link " + from.Name + " isolated", "link " + to.Name + " isolated"}}, nil)
	}
}

// A goal is where the walk has to get to: what the target means.
type goal struct {
	x         *Index
	id, name  string
	container *netstate.Container
	ns        *netns // of the container; the host's for host networking; nil: not read
	addrs     []netip.Addr
	port      port // 0: any
	proto     uint8
	published bool // it is reached by a published port: a packet for the host has to be sent on
	uplink    *link
	client    netip.Addr
}

// has says whether addr is one of the container's.
func (g *goal) has(addr netip.Addr) bool { return slices.Contains(g.addrs, addr) }

// isBridge says whether the link is the bridge of one of the container's networks.
func (g *goal) isBridge(l *link) bool {
	if g.container == nil || l.ns != g.x.host {
		return false
	}
	for i := range g.container.Endpoints {
		if network := g.x.snap.Network(g.container.Endpoints[i].NetworkID); network != nil && network.Bridge() == l.Name {
			return true
		}
	}
	return false
}

// inside returns the container's interface that has or should have addr, or nil.
func (g *goal) inside(addr netip.Addr) *link {
	if l := g.ns.linkWith(addr); l != nil {
		return l
	}
	if g.container == nil {
		return nil
	}
	var only *link
	for i := range g.container.Endpoints {
		e := &g.container.Endpoints[i]
		mine := e.IPv4.Addr() == addr || e.IPv6.Addr() == addr
		for _, l := range g.ns.links {
			if l.Loopback {
				continue
			}
			if mine && e.MAC != "" && strings.EqualFold(e.MAC, l.MAC) {
				return l
			}
			only = l
		}
	}
	if len(g.ns.links) == 2 { // lo and one more
		return only
	}
	return nil
}
