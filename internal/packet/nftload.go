package packet

import (
	"encoding/binary"
	"net"

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
		data, dark = m.p.linkLayer(m.table.state.Family)
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

// linkLayer returns the packet's Ethernet header as far as it is known, or nil: it has none. A packet that
// starts here has one by the time that it meets hooks of a bridge or of a device.
func (p *skb) linkLayer(family string) (data, dark []byte) {
	if p.local && family != "bridge" && family != "netdev" || p.in != nil && p.in.Loopback {
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
