package packet

import (
	"net/netip"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

func (p *parser) addrtype(word string, negated bool) bool {
	switch word {
	case "--limit-iface-in", "--limit-iface-out":
		return true // seen below
	case "--src-type", "--dst-type":
	default:
		return false
	}
	types := strings.Split(strings.ToLower(p.next()), ",")
	ns := p.ns
	rest := p.words[p.at:]
	limit := ""
	for _, word := range rest {
		if ends(word) {
			break
		}
		if strings.HasPrefix(word, "--limit-iface-") {
			limit = word
		}
	}
	p.add("addrtype", func(_ *walker, q *skb) answer {
		addr := q.dst
		if word == "--src-type" {
			addr = q.src
		}
		var dev *link
		switch limit {
		case "--limit-iface-in":
			dev = q.in
		case "--limit-iface-out":
			dev = q.out
		}
		return ns.addrTypeIs(q.family, addr, dev, types).invert(negated)
	})
	return true
}

// addrTypeIs answers addrtype's question. Sources: xt_addrtype's match_type and match_type6.
func (n *netns) addrTypeIs(family netstate.Family, addr netip.Addr, dev *link, types []string) answer {
	have := n.fib(family).addrType(addr, dev)
	is := no
	for _, t := range types {
		switch {
		case t == have:
			is = yes
		case family == netstate.IPv6 && t == "unicast":
			is = is.or(answerOf(!addr.IsMulticast() && !addr.IsUnspecified()))
		case t == "unspec":
			is = is.or(answerOf(addr.IsUnspecified()))
		case t == "blackhole", t == "unreachable", t == "prohibit", t == "throw", t == "nat", t == "xresolve":
			if family == netstate.IPv6 {
				is = is.or(maybe)
			}
		}
	}
	return is
}

// rpfilter reads the options of the match of that name and asks the FIB.
func (p *parser) rpfilter() {
	var loose, validmark, acceptLocal, inverted bool
	for p.more() && !ends(p.words[p.at]) {
		switch p.next() {
		case "--loose":
			loose = true
		case "--validmark":
			validmark = true
		case "--accept-local":
			acceptLocal = true
		case "--invert":
			inverted = true
		}
	}
	ns := p.ns
	p.add("rpfilter", func(w *walker, q *skb) answer {
		return answerOf(ns.rpfilterMatches(w, q, loose, validmark, acceptLocal)).invert(inverted)
	})
}

// rpfilterMatches says whether the reply to q would leave where q came in. Source: ipt_rpfilter, ip6t_rpfilter.
func (n *netns) rpfilterMatches(w *walker, q *skb, loose, validmark, acceptLocal bool) bool {
	if q.in == nil || q.in.Loopback {
		return true
	}
	if q.src.IsUnspecified() || q.src.IsMulticast() {
		return true
	}
	f := flow{src: q.dst, dst: q.src, proto: q.proto, uid: -1, vrf: q.in.vrf()}
	if validmark {
		f.mark = q.mark
	}
	d := n.fib(q.family).lookup(w, f)
	if !d.found() {
		return false
	}
	if d.local() && (!acceptLocal || q.family == netstate.IPv6 || d.route.Type != "local") {
		return acceptLocal && q.family == netstate.IPv6
	}
	if loose || d.out == q.in {
		return true
	}
	for _, hop := range d.others {
		if hop.Dev == q.in.Name {
			return true
		}
	}
	return false
}
