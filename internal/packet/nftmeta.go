package packet

import (
	"encoding/binary"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

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
