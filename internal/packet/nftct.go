package packet

import (
	"encoding/binary"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Bits of enum ip_conntrack_status.
const (
	ipsExpected   = 1 << 0
	ipsSeenReply  = 1 << 1
	ipsAssured    = 1 << 2
	ipsConfirmed  = 1 << 3
	ipsSrcNAT     = 1 << 4
	ipsDstNAT     = 1 << 5
	ipsSrcNATDone = 1 << 7
	ipsDstNATDone = 1 << 8
	ipsOffload    = 1 << 14
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
	set(ipsExpected, ct.expected)
	set(ipsConfirmed, ct.answered || ct.flow != nil)
	switch {
	case ct.answered:
		dark |= ipsAssured
	case ct.flow == nil && (m.p.hook == hookInput || m.p.hook == hookPrerouting && m.p.in != nil && m.p.in.Loopback):
		dark |= ipsConfirmed
	}
	dark |= 1<<9 | ipsOffload | 1<<15 // dying, offloaded
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
