package packet

import (
	"encoding/binary"
	"net"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// payload loads bytes of the packet.
func (m *machine) payload(e *netstate.NftPayload) outcome {
	n := int(e.Len)
	if n <= 0 || n > 64 || e.Dreg == netstate.NoReg {
		return either
	}
	var data, dark []byte
	switch e.Base {
	case "network":
		data, dark = m.p.network()
	case "transport":
		data, dark = m.p.transport()
		if e.Offset == 0 && n == 2 && hasPorts(m.p.proto) && m.p.sport == anyPort ||
			e.Offset == 2 && n == 2 && hasPorts(m.p.proto) && m.p.dport == anyPort {
			out := m.unknown(e.Dreg, 2)
			if out == next {
				m.some[int(e.Dreg)/4] = true
			}
			return out
		}
	case "link":
		data, dark = m.p.linkLayer()
		if data == nil {
			return broken // a packet that starts here has no such header yet
		}
	default:
		m.unknown(e.Dreg, n)
		return either
	}
	from := int(e.Offset)
	if from+n > len(data) || from < 0 {
		// Beyond what every such packet has: options, payload, or behind its end.
		m.unknown(e.Dreg, n)
		return either
	}
	if !m.write(e.Dreg, data[from:from+n], dark[from:from+n]) {
		return either
	}
	return next
}

// fill marks bytes that are not known.
func fill(dark []byte, from, to int) {
	for i := from; i < to; i++ {
		dark[i] = 0xff
	}
}

// network returns the packet's IP header as far as it is known.
func (p *skb) network() (data, dark []byte) {
	if p.family == netstate.IPv6 {
		data, dark = make([]byte, 40), make([]byte, 40)
		data[0] = 0x60
		fill(dark, 1, 6) // flow label, length
		if p.dscp < 0 {
			dark[0] = 0x0f
		} else {
			data[0] |= byte(p.dscp >> 2)
			data[1], dark[1] = byte(p.dscp&3)<<6, 0x0f
		}
		if p.length > 0 {
			binary.BigEndian.PutUint16(data[4:], uint16(p.length-40))
			dark[4], dark[5] = 0, 0
		}
		data[6] = p.proto
		data[7], dark[7] = byte(p.ttl), 0
		if p.ttl == 0 {
			dark[7] = 0xff
		}
		copy(data[8:], p.src.AsSlice())
		copy(data[24:], p.dst.AsSlice())
		return data, dark
	}
	data, dark = make([]byte, 20), make([]byte, 20)
	data[0] = 0x45
	if p.dscp < 0 {
		dark[1] = 0xff
	} else {
		data[1] = byte(p.dscp) << 2
	}
	fill(dark, 2, 6) // length, id
	if p.length > 0 {
		binary.BigEndian.PutUint16(data[2:], uint16(p.length))
		dark[2], dark[3] = 0, 0
	}
	dark[6] = 0xc0 // "do not fragment" is the sender's choice
	data[8] = byte(p.ttl)
	if p.ttl == 0 {
		dark[8] = 0xff
	}
	data[9] = p.proto
	fill(dark, 10, 12)
	copy(data[12:], p.src.AsSlice())
	copy(data[16:], p.dst.AsSlice())
	return data, dark
}

// transport returns the packet's transport header as far as it is known.
func (p *skb) transport() (data, dark []byte) {
	switch p.proto {
	case protoTCP:
		data, dark = make([]byte, 20), make([]byte, 20)
		fill(dark, 4, 12)
		dark[12] = 0xff
		data[13] = p.flags
		fill(dark, 14, 20)
	case protoUDP:
		data, dark = make([]byte, 8), make([]byte, 8)
		fill(dark, 4, 8)
	case protoICMP, protoICMPv6:
		data, dark = make([]byte, 8), make([]byte, 8)
		data[0], data[1] = p.icmpType, p.icmpCode
		fill(dark, 2, 8)
		if p.sport >= 0 {
			binary.BigEndian.PutUint16(data[4:], uint16(p.sport))
			dark[4], dark[5] = 0, 0
		}
		return data, dark
	case protoSCTP:
		data, dark = make([]byte, 12), make([]byte, 12)
		fill(dark, 4, 12)
	default:
		return nil, nil
	}
	for i, at := range []port{p.sport, p.dport} {
		if at == anyPort {
			fill(dark, 2*i, 2*i+2)
		} else {
			binary.BigEndian.PutUint16(data[2*i:], uint16(at))
		}
	}
	return data, dark
}

// linkLayer returns the packet's Ethernet header as far as it is known, or nil: it has none.
func (p *skb) linkLayer() (data, dark []byte) {
	if p.local || p.in != nil && p.in.Loopback {
		return nil, nil
	}
	data, dark = make([]byte, 14), make([]byte, 14)
	fill(dark, 0, 12)
	if mac, err := net.ParseMAC(p.srcMAC); err == nil && len(mac) == 6 {
		copy(data[6:], mac)
		clear(dark[6:12])
	}
	if mac, err := net.ParseMAC(p.dstMAC); err == nil && len(mac) == 6 {
		copy(data, mac)
		clear(dark[:6])
	}
	binary.BigEndian.PutUint16(data[12:], p.etherType())
	return data, dark
}

func (p *skb) etherType() uint16 {
	if p.family == netstate.IPv6 {
		return 0x86dd
	}
	return 0x0800
}

// rewrite writes into the packet.
func (m *machine) rewrite(e *netstate.NftPayload) outcome {
	data, dark, ok := m.span(e.Sreg, int(e.Len))
	if !ok || !allZero(dark) {
		return either
	}
	p := m.p
	at := int(e.Offset)
	v6 := p.family == netstate.IPv6
	switch {
	case e.Base == "transport" && hasPorts(p.proto) && at == 0 && len(data) == 2:
		p.sport = port(binary.BigEndian.Uint16(data))
	case e.Base == "transport" && hasPorts(p.proto) && at == 2 && len(data) == 2:
		p.dport = port(binary.BigEndian.Uint16(data))
	case e.Base == "network" && (!v6 && at == 12 && len(data) == 4 || v6 && at == 8 && len(data) == 16):
		p.src, _ = m.addr(e.Sreg)
	case e.Base == "network" && (!v6 && at == 16 && len(data) == 4 || v6 && at == 24 && len(data) == 16):
		p.dst, _ = m.addr(e.Sreg)
	case e.Base == "network" && !v6 && at <= 1 && at+len(data) == 2:
		p.dscp = int(data[1-at] >> 2)
	case e.Base == "network" && v6 && at == 0 && len(data) >= 2:
		p.dscp = int(data[0]&0x0f)<<2 | int(data[1]>>6)
	case e.Base == "network" && (!v6 && at == 8 || v6 && at == 7) && len(data) == 1:
		p.ttl = int(data[0])
	case e.Base == "network" && !v6 && at == 8 && len(data) == 2:
		p.ttl = int(data[0])
	}
	return next
}

// meta loads what the kernel knows of the packet.
func (m *machine) meta(e *netstate.NftMeta) outcome {
	p := m.p
	dev := func(l *link, of func(*link) outcome) outcome {
		if l == nil {
			return broken
		}
		return of(l)
	}
	switch e.Key {
	case "len":
		if p.length == 0 {
			return m.unknown(e.Dreg, 4)
		}
		return m.number(e.Dreg, uint64(p.length), 4)
	case "protocol":
		var b [2]byte
		binary.BigEndian.PutUint16(b[:], p.etherType())
		return m.known(e.Dreg, b[:])
	case "nfproto":
		family := uint64(nfprotoIPv4)
		if p.family == netstate.IPv6 {
			family = nfprotoIPv6
		}
		if m.table.state.Family == "bridge" {
			family = nfprotoBridge
		}
		return m.number(e.Dreg, family, 1)
	case "l4proto":
		return m.number(e.Dreg, uint64(p.proto), 1)
	case "mark":
		return m.number(e.Dreg, uint64(p.mark), 4)
	case "iif", "oif":
		l := p.in
		if e.Key == "oif" {
			l = p.out
		}
		if l == nil {
			return m.number(e.Dreg, 0, 4)
		}
		return m.number(e.Dreg, uint64(l.Index), 4)
	case "iifname":
		return m.name(e.Dreg, nameOf(p.in))
	case "oifname":
		return m.name(e.Dreg, nameOf(p.out))
	case "iiftype":
		return dev(p.in, func(l *link) outcome { return m.linkType(e.Dreg, l) })
	case "oiftype":
		return dev(p.out, func(l *link) outcome { return m.linkType(e.Dreg, l) })
	case "iifkind":
		return dev(p.in, func(l *link) outcome { return m.kind(e.Dreg, l) })
	case "oifkind":
		return dev(p.out, func(l *link) outcome { return m.kind(e.Dreg, l) })
	case "ibrname":
		if l := bridgeOver(p.in); l != nil {
			return m.name(e.Dreg, l.Name)
		}
		return broken
	case "obrname":
		if l := bridgeOver(p.out); l != nil {
			return m.name(e.Dreg, l.Name)
		}
		return broken
	case "pkttype":
		kind := uint64(0) // PACKET_HOST
		if p.multicast {
			kind = 2
		}
		if p.local {
			return m.unknown(e.Dreg, 1)
		}
		return m.number(e.Dreg, kind, 1)
	case "skuid", "skgid":
		if !p.local {
			return broken
		}
		if e.Key == "skuid" && p.uid >= 0 {
			return m.number(e.Dreg, uint64(p.uid), 4)
		}
		m.unknown(e.Dreg, 4)
		return next
	case "secpath":
		return m.number(e.Dreg, 0, 1)
	case "sdif":
		if v := p.in.vrf(); v != nil && v != p.in {
			return m.number(e.Dreg, uint64(p.in.Index), 4)
		}
		return m.number(e.Dreg, 0, 4)
	case "sdifname":
		if v := p.in.vrf(); v != nil && v != p.in {
			return m.name(e.Dreg, nameOf(p.in))
		}
		return m.name(e.Dreg, "")
	case "nftrace":
		return m.number(e.Dreg, 0, 1)
	}
	size := map[string]int{"time": 8, "day": 1, "hour": 4, "ibrpvid": 2, "ibrvproto": 2, "broute": 1}[e.Key]
	if size == 0 {
		size = 4
	}
	return m.unknown(e.Dreg, size)
}

// linkType loads ARPHRD_*.
func (m *machine) linkType(reg netstate.NftReg, l *link) outcome {
	switch {
	case l.Loopback:
		return m.number(reg, 772, 2)
	case l.MAC != "" && len(l.MAC) == 17 && l.Kind != "wireguard" && l.Kind != "tun":
		return m.number(reg, 1, 2)
	}
	return m.unknown(reg, 2)
}

func (m *machine) kind(reg netstate.NftReg, l *link) outcome {
	if l.Kind == "" {
		return broken
	}
	return m.name(reg, l.Kind)
}

// bridgeOver returns the bridge that the link is a port of, or nil.
func bridgeOver(l *link) *link {
	if l == nil {
		return nil
	}
	if b := l.master(); b != nil && (b.Bridge != nil || b.Kind == "bridge") {
		return b
	}
	return nil
}

// setMeta changes what the kernel knows of the packet.
func (m *machine) setMeta(e *netstate.NftMeta) (outcome, verdict) {
	switch e.Key {
	case "mark":
		data, dark, ok := m.span(e.Sreg, 4)
		if !ok || !allZero(dark) {
			return either, verdict{}
		}
		m.p.mark = m.table.order.Uint32(data)
		return next, verdict{did: "sets mark " + hexNumber(m.p.mark)}
	case "pkttype":
		m.p.multicast = false
	}
	return next, verdict{}
}

// Bits of enum ip_conntrack_status.
const (
	ipsSeenReply  = 1 << 1
	ipsAssured    = 1 << 2
	ipsConfirmed  = 1 << 3
	ipsSrcNAT     = 1 << 4
	ipsDstNAT     = 1 << 5
	ipsSrcNATDone = 1 << 7
	ipsDstNATDone = 1 << 8
)

// ct loads what connection tracking knows of the packet.
func (m *machine) ct(e *netstate.NftCt) outcome {
	p := m.p
	if e.Key == "state" {
		state := p.state
		if state == 0 {
			state = ctInvalid
		}
		return m.number(e.Dreg, uint64(state), 4)
	}
	if p.ct == nil {
		return broken
	}
	way := p.ct.orig
	if e.Dir == "reply" {
		way = p.ct.reply
	}
	v6 := p.family == netstate.IPv6
	switch e.Key {
	case "direction":
		return m.number(e.Dreg, uint64(btoi(p.replyDir)), 1)
	case "status":
		return m.status(e.Dreg)
	case "mark":
		return m.number(e.Dreg, uint64(p.ct.mark), 4)
	case "l3proto":
		return m.number(e.Dreg, uint64(map[bool]int{false: nfprotoIPv4, true: nfprotoIPv6}[v6]), 1)
	case "protocol":
		return m.number(e.Dreg, uint64(p.proto), 1)
	case "saddr":
		return m.known(e.Dreg, way.src.AsSlice())
	case "daddr":
		return m.known(e.Dreg, way.dst.AsSlice())
	case "ip saddr", "ip6 saddr":
		if v6 != (e.Key == "ip6 saddr") {
			return broken
		}
		return m.known(e.Dreg, way.src.AsSlice())
	case "ip daddr", "ip6 daddr":
		if v6 != (e.Key == "ip6 daddr") {
			return broken
		}
		return m.known(e.Dreg, way.dst.AsSlice())
	case "proto-src", "proto-dst":
		at := way.sport
		if e.Key == "proto-dst" {
			at = way.dport
		}
		if at == anyPort {
			if m.unknown(e.Dreg, 2) != next {
				return either
			}
			m.some[int(e.Dreg)/4] = true
			return next
		}
		if !hasPorts(p.proto) {
			return m.unknown(e.Dreg, 2)
		}
		var b [2]byte
		binary.BigEndian.PutUint16(b[:], uint16(at))
		return m.known(e.Dreg, b[:])
	case "zone":
		return m.number(e.Dreg, uint64(p.ct.zone), 2)
	case "helper":
		return broken
	}
	size := map[string]int{"label": 16, "packets": 8, "bytes": 8, "avgpkt": 8}[e.Key]
	if size == 0 {
		size = 4
	}
	return m.unknown(e.Dreg, size)
}

// status loads the connection's status, of which some bits are the kernel's own affair.
func (m *machine) status(reg netstate.NftReg) outcome {
	ct := m.p.ct
	var bits, dark uint32
	set := func(bit uint32, is bool) {
		if is {
			bits |= bit
		}
	}
	set(ipsSrcNAT, ct.snat)
	set(ipsDstNAT, ct.dnat)
	set(ipsSrcNATDone, ct.srcDone)
	set(ipsDstNATDone, ct.dstDone)
	set(ipsSeenReply, ct.answered)
	set(ipsConfirmed, ct.answered)
	if ct.answered {
		dark |= ipsAssured
	} else if m.p.hook == hookInput || m.p.hook == hookPrerouting && m.p.in != nil && m.p.in.Loopback {
		dark |= ipsConfirmed
	}
	dark |= 1<<9 | 1<<14 | 1<<15 // dying, offloaded
	var data, unknown [4]byte
	m.table.order.PutUint32(data[:], bits)
	m.table.order.PutUint32(unknown[:], dark)
	if !m.write(reg, data[:], unknown[:]) {
		return either
	}
	return next
}

// setCt changes what connection tracking knows.
func (m *machine) setCt(e *netstate.NftCt) (outcome, verdict) {
	size := 4
	if e.Key == "zone" {
		size = 2
	}
	data, dark, ok := m.span(e.Sreg, size)
	if !ok {
		return either, verdict{}
	}
	switch e.Key {
	case "mark":
		if m.p.ct == nil {
			return next, verdict{}
		}
		if !allZero(dark) {
			return either, verdict{}
		}
		m.p.ct.mark = m.table.order.Uint32(data)
	case "zone":
		if m.p.ct == nil && m.p.state == 0 {
			if e.Dir != "" || !allZero(dark) {
				return either, verdict{}
			}
			m.p.zone = m.table.order.Uint16(data)
		}
	}
	return next, verdict{}
}

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
	if dev == nil || d.out == dev {
		return answer(d.out)
	}
	for _, hop := range d.others {
		if hop.Dev == dev.Name {
			return answer(dev)
		}
	}
	return answer(nil)
}

// exthdr loads from an extension header or option.
func (m *machine) exthdr(e *netstate.NftExthdr) outcome {
	if e.Dreg == netstate.NoReg {
		return next // it changes an option
	}
	if e.Op == "ipv6" || e.Op == "ipv4" || e.Op == "dccp" || e.Op == "tcp" && m.p.proto != protoTCP || e.Op == "sctp" && m.p.proto != protoSCTP {
		// A plain packet has no such header.
		if e.Present {
			return m.number(e.Dreg, 0, 1)
		}
		return broken
	}
	size := int(e.Len)
	if e.Present {
		size = 1
	}
	m.unknown(e.Dreg, size)
	if e.Present {
		return next
	}
	return either
}
