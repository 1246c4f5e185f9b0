package packet

import (
	"fmt"
	"net/netip"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// routeIn decides where a packet that came in by dev goes: the kernel's ip_route_input and
// ip6_route_input, with what they refuse. Beyond a refusal it returns the way that the packet should take.
func (w *walker) routeIn(n *netns, dev *link, p *skb) decision {
	w.needs(n, Route, netstate.Routes, 0, "routes")
	w.needs(n, Route, netstate.Sysctls, 0, "sysctls")
	if p.family == netstate.IPv4 {
		w.martian4(n, dev, p)
	} else {
		w.loopback6(n, dev, p)
	}
	f := n.fib(p.family)
	d := f.lookup(w, flow{src: p.src, dst: p.dst, iif: dev, mark: p.mark, proto: p.proto, sport: p.sport, dport: p.dport,
		tos: p.tos(), uid: -1, vrf: dev.vrf()})
	if d.local() {
		if p.family == netstate.IPv4 {
			w.validateSource(n, dev, nil, p)
		}
		return d
	}
	w.forwarding(n, dev, p)
	out := d.out
	if !d.found() {
		w.noRoute(n, p, d)
	}
	d = w.want(n, p, d)
	if p.family == netstate.IPv4 && (out != nil || d.out != nil) {
		if out == nil {
			out = d.out
		}
		w.validateSource(n, dev, out, p)
	}
	if p.family == netstate.IPv6 && p.src.IsLinkLocalUnicast() {
		w.stop(Stop{Hop: Route, Kind: Martian, Object: "link " + dev.Name, Verdict: Drop,
			Why: "a packet from a link-local address is not forwarded"}, n)
	}
	return d
}

// loopback6 refuses a packet to ::1 that came in by another link than lo.
func (w *walker) loopback6(n *netns, dev *link, p *skb) {
	if loopback(p.dst) && !dev.Loopback {
		// Source: rt6_need_strict. There is no route_localnet of IPv6: a reply that was translated back to ::1 is lost.
		w.stop(Stop{Hop: Route, Kind: Martian, Object: "link " + dev.Name, Verdict: Drop,
			Why: "the kernel takes no packet to ::1 on any link but lo, translated or not"}, n)
	}
}

func (p *skb) tos() uint8 {
	if p.dscp < 0 {
		return 0
	}
	return uint8(p.dscp) << 2
}

// noRoute writes down that the tables have no way for the packet.
func (w *walker) noRoute(n *netns, p *skb, d decision) {
	s := Stop{Hop: Route, Kind: NoRoute, Object: "route to " + p.dst.String() + ": none", Verdict: Drop,
		Why: "there is no route to " + p.dst.String()}
	if d.forbidden != "" {
		s.Kind = Unreachable
		s.Why = "a " + d.forbidden + " route catches " + p.dst.String()
		s.Object = routeText(d.route)
		if d.route == nil {
			s.Object = "rule " + ruleText(d.rule)
			s.Why = "a " + d.forbidden + " rule catches the packet"
		} else if d.rule != nil {
			s.Evidence = append(s.Evidence, "rule "+ruleText(d.rule))
		}
		s.Evidence = append(s.Evidence, s.Object)
	}
	w.stop(s, n)
}

// want compares the decision with where the packet has to go, and returns the way that it has to take.
func (w *walker) want(n *netns, p *skb, d decision) decision {
	if n.container != "" || w.goal == nil {
		return d
	}
	out, to := w.x.bridgeOf(p.dst), p.dst
	if w.reply && p.dst == w.goal.client && w.goal.uplink != nil {
		if d.found() && d.out != nil && (d.out == w.goal.uplink || !w.x.isDockers(d.out) && w.x.plugged(d.out) == nil) {
			if d.out != w.goal.uplink {
				w.note("the reply leaves by %s, the request came in by %s", d.out.Name, w.goal.uplink.Name)
			}
			return d
		}
		out = w.goal.uplink
	}
	if out == nil || d.found() && d.out == out {
		return d
	}
	if d.found() && d.out != nil && d.out != out && !w.leadsTo(d.out, out) {
		s := Stop{Hop: Route, Kind: WrongRoute, Object: routeText(d.route), Verdict: Drop,
			Why: fmt.Sprintf("%s is routed by %s, not by %s", p.dst, d.out.Name, out.Name), Evidence: []string{routeText(d.route)}}
		if d.rule != nil {
			s.Evidence = append(s.Evidence, "rule "+ruleText(d.rule))
		}
		w.stop(s, n)
	}
	return decision{route: &netstate.Route{Family: p.family, Type: "unicast", Table: tableMain}, out: out, gateway: to}
}

// leadsTo says whether what leaves by one link gets to the other: a veth of the host straight into the
// container instead of its bridge.
func (w *walker) leadsTo(by, bridge *link) bool { return by.Master == bridge.Index && by.Master != 0 }

// martian4 refuses addresses that may not come in. Source: ip_route_input_slow.
func (w *walker) martian4(n *netns, dev *link, p *skb) {
	if dev.Loopback {
		return
	}
	bad := func(what string) {
		w.stop(Stop{Hop: Route, Kind: Martian, Object: "link " + dev.Name, Verdict: Drop, Why: what}, n)
	}
	zero := p.src.As4()[0] == 0
	if p.src.IsMulticast() || p.src == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || zero {
		bad(p.src.String() + " is no address to send from")
		return
	}
	for _, addr := range []netip.Addr{p.src, p.dst} {
		if loopback(addr) && !n.either(netstate.IPv4, dev.Name, "route_localnet") {
			name := confName(netstate.IPv4, dev.Name, "route_localnet")
			w.stop(Stop{Hop: Route, Kind: Martian, Object: "sysctl " + name, Verdict: Drop,
				Why: addr.String() + " may not come in by " + dev.Name + ": route_localnet is off", Evidence: n.quote(name)}, n)
			return
		}
	}
}

// quote returns "name = value" for the sysctls that are known.
func (n *netns) quote(names ...string) (lines []string) {
	for _, name := range names {
		if value, ok := n.state.Sysctls[name]; ok {
			lines = append(lines, name+" = "+value)
		}
	}
	return lines
}

// validateSource is the kernel's fib_validate_source: the reverse path filter, and sources that are the
// host's own. out is nil for a packet to this host.
func (w *walker) validateSource(n *netns, dev, out *link, p *skb) {
	f := n.fib(netstate.IPv4)
	mode := n.larger(netstate.IPv4, dev.Name, "rp_filter")
	acceptLocal := n.either(netstate.IPv4, dev.Name, "accept_local")
	redirects := true
	if dev.vrf() == nil {
		// IN_DEV_TX_REDIRECTS: ORed where the link forwards.
		all, ok1 := n.conf(netstate.IPv4, "all", "send_redirects")
		own, ok2 := n.conf(netstate.IPv4, dev.Name, "send_redirects")
		redirects = !ok1 && !ok2 || all > 0 || own > 0
	}
	martian := func() {
		name := confName(netstate.IPv4, dev.Name, "accept_local")
		w.stop(Stop{Hop: Route, Kind: Martian, Object: "sysctl " + name, Verdict: Drop,
			Why: fmt.Sprintf("%s comes in by %s and is one of the addresses here: accept_local is off", p.src, dev.Name), Evidence: n.quote(name)}, n)
	}
	if mode == 0 && (dev != out || !redirects) {
		if acceptLocal {
			return
		}
		if f.standard && !f.customLocal() {
			if n.has(p.src) && !dev.Loopback {
				martian()
			}
			return
		}
	}
	q := flow{src: p.dst, dst: p.src, iif: out, proto: p.proto, sport: p.dport, dport: p.sport, tos: p.tos(), uid: 0, vrf: dev.vrf()}
	if n.either(netstate.IPv4, dev.Name, "src_valid_mark") {
		q.mark = p.mark
	}
	d := f.lookup(w, q)
	refuse := func(why string) {
		name := confName(netstate.IPv4, dev.Name, "rp_filter")
		all := confName(netstate.IPv4, "all", "rp_filter")
		object := name
		if own, _ := n.conf(netstate.IPv4, dev.Name, "rp_filter"); own < mode {
			object = all
		}
		s := Stop{Hop: Route, Kind: RPFilter, Object: "sysctl " + object, Verdict: Drop,
			Why: "the reverse path filter of " + dev.Name + " drops it: " + why, Evidence: n.quote(all, name)}
		if d.route != nil {
			s.Evidence = append(s.Evidence, routeText(d.route))
		}
		w.stop(s, n)
	}
	if !d.found() {
		if mode > 0 {
			refuse("there is no route back to " + p.src.String())
		}
		return
	}
	if d.route.Type != "unicast" && d.route.Type != "" {
		if d.route.Type == "local" && dev.Loopback {
			return
		}
		if d.route.Type != "local" || !acceptLocal {
			martian()
			return
		}
	}
	if d.out == dev {
		return
	}
	for _, hop := range d.others {
		if hop.Dev == dev.Name {
			return
		}
	}
	if mode == 1 {
		by := "another link"
		if d.out != nil {
			by = d.out.Name
		}
		refuse("the way back to " + p.src.String() + " is by " + by)
	}
}

// customLocal says whether somebody added routes to the local table by hand.
func (f *fib) customLocal() bool {
	if t := f.tables[tableLocal]; t != nil {
		for _, routes := range t.routes {
			for _, r := range routes {
				if r.Protocol != "kernel" && r.Protocol != "" {
					return true
				}
			}
		}
	}
	return false
}

// forwarding checks the sysctls that let a packet through. Of IPv4 the incoming link's own counts, of IPv6
// the one for all links, or the incoming link's force_forwarding.
func (w *walker) forwarding(n *netns, dev *link, p *skb) {
	if n.why(netstate.Sysctls, 0, "") != "" {
		return // said already
	}
	family := p.family
	if family == netstate.IPv6 {
		name := confName(family, "all", "forwarding")
		all, known := n.conf(family, "all", "forwarding")
		force, _ := n.conf(family, dev.Name, "force_forwarding")
		switch {
		case all > 0 || force > 0:
		case !known:
			w.stop(Stop{Hop: Route, Kind: Unread, Object: "sysctl " + name, Verdict: May, Why: name + " is not known"}, n)
		default:
			w.stop(Stop{Hop: Route, Kind: Forwarding, Object: "sysctl " + name, Verdict: Drop, Why: "IPv6 forwarding is off", Evidence: n.quote(name)}, n)
		}
		return
	}
	name := confName(family, dev.Name, "forwarding")
	global, knownGlobal := n.conf(family, "all", "forwarding")
	if text, ok := n.state.Sysctls["net.ipv4.ip_forward"]; ok && !knownGlobal {
		knownGlobal = true
		global = btoi(text != "0")
	}
	own, known := n.conf(family, dev.Name, "forwarding")
	if !known {
		own, known = global, knownGlobal
	}
	switch {
	case !known:
		w.stop(Stop{Hop: Route, Kind: Unread, Object: "sysctl " + name, Verdict: May, Why: name + " is not known"}, n)
	case own > 0:
	case global == 0 && knownGlobal:
		w.stop(Stop{Hop: Route, Kind: Forwarding, Object: "sysctl net.ipv4.ip_forward", Verdict: Drop, Why: "IPv4 forwarding is off",
			Evidence: n.quote("net.ipv4.ip_forward", name)}, n)
	default:
		w.stop(Stop{Hop: Route, Kind: Forwarding, Object: "sysctl " + name, Verdict: Drop, Why: "IPv4 forwarding is off for what comes in by " + dev.Name,
			Evidence: n.quote("net.ipv4.ip_forward", name)}, n)
	}
}

// routeOut decides where a packet that starts here goes, and chooses its source where it has none.
func (w *walker) routeOut(n *netns, p *skb) decision {
	w.needs(n, Route, netstate.Routes, 0, "routes")
	d := n.fib(p.family).lookup(w, flow{src: p.src, dst: p.dst, mark: p.mark, proto: p.proto, sport: p.sport, dport: p.dport, tos: p.tos(), uid: p.uid})
	if !d.found() {
		w.noRoute(n, p, d)
		d = w.want(n, p, d)
	} else if d.local() {
		if lo := n.loopback(); lo != nil {
			d.out = lo
		}
	} else {
		d = w.want(n, p, d)
	}
	if !p.src.IsValid() {
		switch {
		case d.route != nil && d.route.PrefSrc.IsValid():
			p.src = d.route.PrefSrc
		case d.local():
			p.src = p.dst
		default:
			p.src = n.source(d.out, d.gateway, p.dst, false)
		}
		if !p.src.IsValid() {
			p.src = unspecified(p.family)
		}
	}
	if p.family == netstate.IPv4 && loopback(p.src) && d.out != nil && !d.out.Loopback && !n.either(netstate.IPv4, d.out.Name, "route_localnet") {
		// Source: __mkroute_output.
		name := confName(netstate.IPv4, d.out.Name, "route_localnet")
		w.stop(Stop{Hop: Route, Kind: Martian, Object: "sysctl " + name, Verdict: Drop,
			Why: "a packet from " + p.src.String() + " may not leave by " + d.out.Name + ": route_localnet is off", Evidence: n.quote(name)}, n)
	}
	return d
}

func (n *netns) loopback() *link {
	for _, l := range n.links {
		if l.Loopback {
			return l
		}
	}
	return nil
}

// needs notes that a part which decides could not be read.
func (w *walker) needs(n *netns, hop Hop, part netstate.Part, family netstate.Family, what string) {
	if why := n.why(part, family, ""); why != "" {
		w.unread(n, hop, what, why)
	}
}
