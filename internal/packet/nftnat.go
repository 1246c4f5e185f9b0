package packet

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// addr reads an address from a register.
func (m *machine) addr(reg netstate.NftReg) (netip.Addr, bool) {
	n := addrLen(m.p.family == netstate.IPv6)
	data, dark, ok := m.span(reg, n)
	if !ok || !allZero(dark) {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(data)
}

// port reads a port from a register.
func (m *machine) port(reg netstate.NftReg) (port, bool) {
	data, dark, ok := m.span(reg, 2)
	if !ok || !allZero(dark) {
		return 0, false
	}
	return port(binary.BigEndian.Uint16(data)), true
}

// nat runs the translating expressions.
func (m *machine) nat(e netstate.NftExpr) (outcome, verdict) {
	var minPort, maxPort netstate.NftReg
	var lo, hi netip.Addr
	ok := true
	switch e := e.(type) {
	case *netstate.NftNat:
		if e.Family != ipFamily(m.p.family) && e.Family != "inet" {
			return next, verdict{} // Source: nft_nat_inet_eval
		}
		minPort, maxPort = e.PortMin, e.PortMax
		if e.AddrMin != netstate.NoReg {
			lo, ok = m.addr(e.AddrMin)
			if hi = lo; ok && e.AddrMax != netstate.NoReg {
				hi, ok = m.addr(e.AddrMax)
			}
		}
	case *netstate.NftMasq:
		minPort, maxPort = e.PortMin, e.PortMax
	case *netstate.NftRedir:
		minPort, maxPort = e.PortMin, e.PortMax
	}
	var ports span
	ranged := minPort != netstate.NoReg
	if ranged && ok {
		if ports.lo, ok = m.port(minPort); ok {
			if ports.hi = ports.lo; maxPort != netstate.NoReg {
				ports.hi, ok = m.port(maxPort)
			}
		}
	}
	if !ok {
		return m.perhaps(verdict{code: dropIt, why: "where it is sent cannot be told"})
	}
	switch e := e.(type) {
	case *netstate.NftNat:
		if slices.Contains(e.Flags, "netmap") && lo.IsValid() {
			return ended, m.netmap(e, lo, hi)
		}
		v := m.w.nat(m.p, e.Type == "dnat", lo, hi, ports, ranged)
		return ended, v
	case *netstate.NftMasq:
		random := slices.Contains(e.Flags, "random") || slices.Contains(e.Flags, "fully-random")
		return ended, m.w.masquerade(m.p, ports, ranged, random)
	}
	return ended, m.w.redirect(m.p, ports, ranged)
}

// netmap maps the host's part of the address one to one. Source: nft_nat_setup_netmap.
func (m *machine) netmap(e *netstate.NftNat, lo, hi netip.Addr) verdict {
	from := m.p.src
	if e.Type == "dnat" {
		from = m.p.dst
	}
	a, b, c := lo.AsSlice(), hi.AsSlice(), from.AsSlice()
	if len(a) != len(c) || len(b) != len(c) {
		return verdict{code: accept}
	}
	out := make([]byte, len(c))
	for i := range c {
		mask := ^(a[i] ^ b[i])
		out[i] = c[i]&^mask | a[i]&mask
	}
	to, _ := netip.AddrFromSlice(out)
	if e.Type == "dnat" {
		return m.w.bindDst(m.p, to, m.p.dport)
	}
	return m.w.bindSrc(m.p, to, m.p.sport)
}
