package packet

import (
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// rt loads what the packet's route knows.
func (m *machine) rt(e *netstate.NftRt) outcome {
	if m.p.out == nil && m.p.hook != hookInput {
		return broken // not routed yet
	}
	v6 := m.p.family == netstate.IPv6
	switch e.Key {
	case "nexthop4", "nexthop6":
		if v6 != (e.Key == "nexthop6") {
			return broken
		}
		to := m.p.gateway
		if !to.IsValid() {
			to = m.p.dst
		}
		return m.known(e.Dreg, to.AsSlice())
	case "ipsec":
		return m.number(e.Dreg, 0, 1)
	case "tcpmss":
		m.mss = e.Dreg
		return m.unknown(e.Dreg, 2)
	}
	return m.unknown(e.Dreg, 4)
}

// Values of RTN_*.
var routeTypes = map[string]uint64{"unspec": 0, "unicast": 1, "": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5,
	"blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9}

// fib asks the routing table. Sources: nft_fib_ipv4.c, nft_fib_ipv6.c.
func (m *machine) fib(e *netstate.NftFib) outcome {
	p := m.p
	asks := func(flag string) bool { return slices.Contains(e.Flags, flag) }
	var dev *link
	switch {
	case asks("iif"):
		dev = p.in
	case asks("oif"):
		dev = p.out
	}
	about, other := p.src, p.dst
	if asks("daddr") {
		about, other = p.dst, p.src
	}
	ns := m.table.ns
	f := ns.fib(p.family)
	if e.Result == "type" {
		kind := f.addrType(about, dev)
		if p.family == netstate.IPv6 && kind == "unicast" && !about.IsMulticast() {
			q := flow{src: other, dst: about, proto: p.proto, uid: -1}
			if asks("mark") {
				q.mark = p.mark
			}
			switch d := f.lookup(m.w, q); {
			case d.forbidden != "":
				kind = d.forbidden
			case d.route == nil:
				kind = "unreachable"
			}
		}
		if e.Present {
			return m.number(e.Dreg, 1, 1)
		}
		return m.number(e.Dreg, routeTypes[kind], 4)
	}
	answer := func(l *link) outcome {
		switch {
		case e.Present:
			return m.number(e.Dreg, uint64(btoi(l != nil)), 1)
		case e.Result == "oifname":
			return m.name(e.Dreg, nameOf(l))
		case l == nil:
			return m.number(e.Dreg, 0, 4)
		}
		return m.number(e.Dreg, uint64(l.Index), 4)
	}
	if p.in != nil && p.in.Loopback && (p.hook == hookPrerouting || p.hook == hookInput) {
		return answer(p.in)
	}
	q := flow{src: other, dst: about, proto: p.proto, uid: -1}
	if dev != nil {
		q.vrf = dev.vrf()
	}
	if asks("mark") {
		q.mark = p.mark
	}
	if p.family == netstate.IPv6 && about.IsLinkLocalUnicast() {
		q.oif = dev
	}
	d := f.lookup(m.w, q)
	if !d.found() || d.local() || d.out == nil {
		return answer(nil)
	}
	if p.family == netstate.IPv6 && dev != nil && d.mixed(dev) {
		// Which of several hops it looks at is up to a hash or to the hop that had its turn, by kernel.
		switch {
		case e.Present:
			return m.unknown(e.Dreg, 1)
		case e.Result == "oifname":
			return m.unknown(e.Dreg, 16)
		}
		return m.unknown(e.Dreg, 4)
	}
	if dev == nil || d.out == dev {
		return answer(d.out)
	}
	if !slices.ContainsFunc(d.others, func(h netstate.RouteHop) bool { return h.Dev == dev.Name }) {
		return answer(nil)
	}
	return answer(dev)
}

// mixed says whether some hops of the route lead over dev and others do not.
func (d decision) mixed(dev *link) bool {
	over, not := d.out == dev, d.out != dev
	for _, hop := range d.others {
		over, not = over || hop.Dev == dev.Name, not || hop.Dev != dev.Name
	}
	return over && not
}
