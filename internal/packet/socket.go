package packet

import (
	"fmt"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// listener returns the socket of the namespace that takes the packet, or nil, and whether that is sure.
// Source: __inet_lookup_listener: a socket bound to the address goes before one for any address.
func (n *netns) listener(p *skb) (*netstate.Socket, answer) {
	var best *netstate.Socket
	rank, sure := -1, yes
	for i := range n.state.Sockets {
		s := &n.state.Sockets[i]
		if protoName(p.proto) != s.Proto || port(s.Local.Port()) != p.dport {
			continue
		}
		r := 0
		switch s.Proto {
		case "udp":
			if s.State == "established" || s.Remote.Port() != 0 {
				if s.Remote.Addr().Unmap() != p.src || port(s.Remote.Port()) != p.sport {
					continue
				}
				r += 4
			}
		default:
			if s.State != "listen" {
				continue
			}
		}
		local := s.Local.Addr()
		switch {
		case local.IsUnspecified() && local.Is4():
			if p.family != netstate.IPv4 {
				continue
			}
			r++
		case local.IsUnspecified():
			if p.family == netstate.IPv4 && s.V6Only != nil && *s.V6Only {
				continue
			}
		case local.Unmap() != p.dst:
			continue
		default:
			r += 8
		}
		if s.Dev != "" {
			if s.Dev != nameOf(p.in) {
				continue
			}
			r += 2
		}
		if r > rank {
			best, rank = s, r
			sure = answerOf(!(local.IsUnspecified() && local.Is6() && p.family == netstate.IPv4 && s.V6Only == nil))
			if sure == no {
				sure = maybe
			}
		}
	}
	return best, sure
}

// deliver hands the packet to a socket and says so where there is none.
func (w *walker) deliver(n *netns, p *skb) *netstate.Socket {
	if p.proto != protoTCP && p.proto != protoUDP && p.proto != protoSCTP {
		return nil // the kernel itself answers
	}
	if p.dport == 0 || w.goal != nil && w.goal.port == 0 {
		return nil
	}
	if why := n.why(netstate.Sockets, 0, ""); why != "" {
		w.unread(n, Socket, "sockets", why)
		return nil
	}
	s, sure := n.listener(p)
	if s == nil {
		verdict := Refuse
		stop := Stop{Hop: Socket, Kind: NoListener, Object: "socket " + p.destination(), Verdict: verdict,
			Why: "nobody listens on " + p.destination() + "/" + protoName(p.proto), Evidence: n.nearby(p)}
		w.stop(stop, n)
		return nil
	}
	if sure == maybe && w.may() {
		w.stop(Stop{Hop: Socket, Kind: NoListener, Object: socketText(s), Verdict: Drop,
			Why: "it may be for IPv6 only"}, n)
	}
	w.step(Step{Hop: Socket, Object: socketText(s), Did: "takes it"}, n)
	return s
}

// nearby lists the sockets on that port that do not take the packet, and those of the same program's other ports.
func (n *netns) nearby(p *skb) (lines []string) {
	for i := range n.state.Sockets {
		s := &n.state.Sockets[i]
		if port(s.Local.Port()) == p.dport && (s.State == "listen" || s.Proto == "udp") {
			lines = append(lines, s.Proto+" "+socketText(s))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func socketText(s *netstate.Socket) string {
	text := "socket " + s.Local.String()
	if s.Program != "" {
		text += " " + s.Program
	}
	return text
}

// diverted notices that the rules before routing sent the packet elsewhere than to the container.
func (w *walker) diverted(n *netns, p *skb, was tuple) {
	g := w.goal
	if g == nil || !g.published || p.dst == was.dst && p.dport == was.dport || w.later {
		return
	}
	if g.has(p.dst) && (g.port == 0 || p.dport == g.port) {
		return
	}
	object, owner := "nat", ""
	switch r := w.bound; {
	case p.ct != nil && p.ct.flow != nil:
		object = p.ct.object()
	case r != nil:
		object, owner = r.object(), r.owner(w.x)
	}
	if n.has(p.dst) || loopback(p.dst) {
		// To this host itself: a redirect. It counts only if nothing there sends the packet on.
		if proxy := w.proxyFor(p); proxy != nil && g.has(proxy.Container.Addr()) {
			return
		}
	}
	what := "another address"
	if g.has(p.dst) {
		what = "another port"
	} else if l := w.x.holder(p.dst, nil); l != nil {
		what = "container " + l.ns.name
	}
	w.stop(Stop{Hop: DNAT, Kind: Diverted, Object: object, Verdict: Drop, Owner: owner,
		Why: fmt.Sprintf("it is sent to %s, %s than the container's %s", p.destination(), what, g.destination(p.family)), Evidence: []string{object}}, n)
	w.retarget(p)
}

func (g *goal) destination(family netstate.Family) string {
	for _, addr := range g.addrs {
		if netstate.FamilyOf(addr) == family {
			return (&skb{tuple: tuple{dst: addr, dport: g.port, proto: g.proto}}).destination()
		}
	}
	return g.name
}

// retarget makes the packet one that was translated as it should be.
func (w *walker) retarget(p *skb) bool {
	for _, addr := range w.goal.addrs {
		if netstate.FamilyOf(addr) != p.family {
			continue
		}
		p.dst = addr
		if w.goal.port != 0 {
			p.dport = w.goal.port
		}
		if p.ct != nil {
			p.ct.reply.src, p.ct.reply.sport, p.ct.dnat, p.ct.dstDone = p.dst, p.dport, true, true
		}
		return true
	}
	return false
}

// proxyFor returns the docker-proxy that holds the packet's destination, or nil.
func (w *walker) proxyFor(p *skb) *netstate.Proxy {
	for i := range w.x.snap.Proxies {
		proxy := &w.x.snap.Proxies[i]
		host := proxy.Host
		if proxy.Proto != protoName(p.proto) || port(host.Port()) != p.dport {
			continue
		}
		if host.Addr() == p.dst || host.Addr().IsUnspecified() && netstate.FamilyOf(host.Addr()) == p.family {
			return proxy
		}
	}
	return nil
}

// published takes a packet for the host itself that should get to a container: docker-proxy does that, or
// nothing. It says whether the packet ends here.
func (w *walker) published(n *netns, dev *link, p *skb) (end, bool) {
	if w.later {
		return w.input(n, p), true
	}
	p.in = dev
	if why := n.why(netstate.Sockets, 0, ""); why != "" {
		w.unread(n, Socket, "sockets", why)
	}
	proxy := w.proxyFor(p)
	s, _ := n.listener(p)
	if proxy != nil && (s != nil || n.why(netstate.Sockets, 0, "") != "") || s != nil && s.Program == "docker-proxy" {
		w.trace.Via = "docker-proxy"
		w.pass(n, Accept, hookInput, p)
		if s != nil {
			w.step(Step{Hop: Socket, Object: socketText(s), Did: "takes it"}, n)
		}
		return end{ns: n, socket: s, proxy: proxy, packet: p}, true
	}
	// Where rules were not read, one of them may take the packet to the container, or an older connection's entry,
	// which it does where there is a nat chain; whose socket it is, may not be known then either.
	diverted, refused := Drop, Refuse
	if n.why(netstate.Iptables, p.family, "") != "" || n.why(netstate.Nftables, 0, "") != "" {
		diverted, refused = May, May
	}
	switch {
	case p.ct != nil && p.ct.flow != nil:
		w.stop(Stop{Hop: DNAT, Kind: Diverted, Object: p.ct.object(), Verdict: diverted,
			Why: "its connection began before it was sent to the container, and goes on ending on the host itself", Evidence: []string{p.ct.object()}}, n)
	case s != nil && s.Program != "dockerd":
		w.stop(Stop{Hop: Socket, Kind: Diverted, Object: socketText(s), Verdict: diverted,
			Why: "the host's own " + orUnknown(s.Program) + " takes the port", Evidence: []string{socketText(s)}}, n)
	default:
		why := "no rule sends " + p.destination() + "/" + protoName(p.proto) + " to the container, and no docker-proxy serves it"
		var lines []string
		if s != nil {
			lines = []string{socketText(s)}
		}
		w.stop(Stop{Hop: DNAT, Kind: NotPublished, Object: "port " + p.destination() + "/" + protoName(p.proto), Verdict: refused, Why: why, Evidence: lines}, n)
	}
	if dev.Loopback {
		return end{ns: n, packet: p}, true // as though docker-proxy did
	}
	if !w.retarget(p) {
		return end{packet: p}, true
	}
	return end{}, false
}

func orUnknown(program string) string {
	if program == "" {
		return "program"
	}
	return program
}
