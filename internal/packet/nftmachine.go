package packet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Values of NFPROTO_*.
const (
	nfprotoIPv4   = 2
	nfprotoIPv6   = 10
	nfprotoBridge = 7
)

// An nftRule is a rule of nf_tables: a program for the machine.
type nftRule struct {
	table *nftTable
	exprs netstate.NftExprs
	last  int // the last expression with an effect; -1: none
}

// A machine runs one rule. Each bit of its registers is known or not.
type machine struct {
	w     *walker
	p     *skb
	table *nftTable
	rule  *rule
	data  [registers]byte
	dark  [registers]byte     // bits that are not known
	some  [registers / 4]bool // a port that is only known to be from anyPortLow up starts here
}

// registers is the size of the kernel's register file in bytes. Source: struct nft_regs.
const registers = 80

// An outcome is how an expression ends.
type outcome uint8

const (
	next   outcome = iota
	broken         // the rule does not match
	either         // it cannot be told whether it does
	ended          // there is a verdict
)

// run implements runner.
func (r *nftRule) run(w *walker, p *skb, of *rule) verdict {
	if r.last < 0 {
		return verdict{}
	}
	m := machine{w: w, p: p, table: r.table, rule: of}
	did := ""
	for i, e := range r.exprs {
		if i > r.last {
			break
		}
		out, v := m.step(e)
		switch out {
		case broken:
			return verdict{did: did}
		case either:
			if !w.mayRule(of, exprWords(e)) {
				return verdict{did: did}
			}
		case ended:
			if v.code == goOn {
				return verdict{did: cmpString(v.did, did)}
			}
			return v
		}
		if v.did != "" {
			did = v.did
		}
	}
	return verdict{did: did}
}

func cmpString(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// span returns the bytes of a register and whether it may hold that many.
func (m *machine) span(reg netstate.NftReg, n int) (data, dark []byte, ok bool) {
	from := int(reg)
	if from < 16 || n < 0 || from+n > registers {
		return nil, nil, false
	}
	return m.data[from : from+n], m.dark[from : from+n], true
}

// write fills a register; what is short of its last 4 bytes becomes zero.
func (m *machine) write(reg netstate.NftReg, data, dark []byte) bool {
	n := (len(data) + 3) &^ 3
	to, toDark, ok := m.span(reg, n)
	if !ok {
		return false
	}
	clear(to)
	clear(toDark)
	copy(to, data)
	copy(toDark, dark)
	for i := int(reg) / 4; i < (int(reg)+n)/4; i++ {
		m.some[i] = false
	}
	return true
}

func (m *machine) known(reg netstate.NftReg, data []byte) outcome {
	if !m.write(reg, data, nil) {
		return either
	}
	return next
}

// unknown fills n bytes of a register with what cannot be told.
func (m *machine) unknown(reg netstate.NftReg, n int) outcome {
	if n <= 0 || n > 64 {
		n = 4
	}
	if !m.write(reg, make([]byte, n), bytes.Repeat([]byte{0xff}, n)) {
		return either
	}
	return next
}

// number fills a register with a number of the kernel's.
func (m *machine) number(reg netstate.NftReg, n uint64, size int) outcome {
	var b [8]byte
	switch size {
	case 1:
		b[0] = byte(n)
	case 2:
		m.table.order.PutUint16(b[:], uint16(n))
	case 4:
		m.table.order.PutUint32(b[:], uint32(n))
	case 8:
		m.table.order.PutUint64(b[:], n)
	}
	return m.known(reg, b[:size])
}

// name fills a register with an interface's name.
func (m *machine) name(reg netstate.NftReg, name string) outcome {
	var b [16]byte
	copy(b[:15], name)
	return m.known(reg, b[:])
}

// bounds returns the least and the greatest value that the bytes may have.
func (m *machine) bounds(reg netstate.NftReg, data, dark []byte) (low, high []byte) {
	low, high = make([]byte, len(data)), make([]byte, len(data))
	if len(data) == 2 && m.some[int(reg)/4] {
		binary.BigEndian.PutUint16(low, anyPortLow)
		binary.BigEndian.PutUint16(high, anyPortHigh)
		return low, high
	}
	for i := range data {
		low[i], high[i] = data[i]&^dark[i], data[i]|dark[i]
	}
	return low, high
}

// equal says whether the register holds want.
func (m *machine) equal(reg netstate.NftReg, want []byte) answer {
	data, dark, ok := m.span(reg, len(want))
	if !ok {
		return maybe
	}
	if len(want) == 2 && m.some[int(reg)/4] {
		return anyPort.within(port(binary.BigEndian.Uint16(want)), port(binary.BigEndian.Uint16(want)))
	}
	is := yes
	for i := range want {
		if (data[i]^want[i])&^dark[i] != 0 {
			return no
		}
		if dark[i] != 0 {
			is = maybe
		}
	}
	return is
}

// between says whether the register is from low to high, both included.
func (m *machine) between(reg netstate.NftReg, low, high []byte) answer {
	data, dark, ok := m.span(reg, len(low))
	if !ok || len(high) != len(low) {
		return maybe
	}
	least, most := m.bounds(reg, data, dark)
	switch {
	case bytes.Compare(most, low) < 0 || bytes.Compare(least, high) > 0:
		return no
	case bytes.Compare(least, low) >= 0 && bytes.Compare(most, high) <= 0:
		return yes
	}
	return maybe
}

func outcomeOf(a answer) outcome {
	switch a {
	case yes:
		return next
	case no:
		return broken
	}
	return either
}

// step runs one expression.
func (m *machine) step(e netstate.NftExpr) (outcome, verdict) {
	switch e := e.(type) {
	case *netstate.NftPayload:
		if e.Sreg != netstate.NoReg {
			return m.rewrite(e), verdict{}
		}
		return m.payload(e), verdict{}
	case *netstate.NftMeta:
		if e.Sreg != netstate.NoReg {
			return m.setMeta(e)
		}
		return m.meta(e), verdict{}
	case *netstate.NftCt:
		if e.Sreg != netstate.NoReg {
			return m.setCt(e)
		}
		return m.ct(e), verdict{}
	case *netstate.NftCmp:
		return m.compare(e), verdict{}
	case *netstate.NftRange:
		return outcomeOf(m.between(e.Sreg, e.From, e.To).invert(e.Op == "!=")), verdict{}
	case *netstate.NftBitwise:
		return m.bitwise(e), verdict{}
	case *netstate.NftByteorder:
		return m.byteorder(e), verdict{}
	case *netstate.NftImmediate:
		if e.Verdict != nil {
			return ended, m.verdict(e.Verdict)
		}
		return m.known(e.Dreg, e.Data), verdict{}
	case *netstate.NftLookup:
		return m.lookup(e)
	case *netstate.NftFib:
		return m.fib(e), verdict{}
	case *netstate.NftRt:
		return m.rt(e), verdict{}
	case *netstate.NftNat, *netstate.NftMasq, *netstate.NftRedir:
		return m.nat(e)
	case *netstate.NftReject:
		return ended, verdict{code: rejectIt, why: rejectWords(e)}
	case *netstate.NftNotrack:
		if m.p.ct == nil && m.p.state == 0 {
			m.p.state = ctUntracked
			return next, verdict{did: "keeps it from connection tracking"}
		}
		return next, verdict{}
	case *netstate.NftCounter, *netstate.NftLog, *netstate.NftLast, *netstate.NftDup:
		return next, verdict{}
	case *netstate.NftFlowOffload:
		return next, verdict{}
	case *netstate.NftDynset:
		if len(e.Exprs) > 0 && !slices.ContainsFunc(e.Exprs, func(e netstate.NftExpr) bool { _, plain := e.(*netstate.NftCounter); return !plain }) || len(e.Exprs) == 0 {
			return outcomeOf(yes.invert(e.Invert)), verdict{}
		}
		return either, verdict{}
	case *netstate.NftObjref:
		switch e.Type {
		case "counter", "ct helper", "ct timeout", "secmark", "ct expectation", "tunnel":
			return next, verdict{}
		case "synproxy":
			return m.perhaps(verdict{code: dropIt, why: "a synproxy answers in the server's place"})
		}
		return either, verdict{}
	case *netstate.NftExthdr:
		return m.exthdr(e), verdict{}
	case *netstate.NftNumgen:
		if e.Mod == 1 {
			return m.number(e.Dreg, uint64(e.Offset), 4), verdict{}
		}
		return m.unknown(e.Dreg, 4), verdict{}
	case *netstate.NftHash:
		return m.unknown(e.Dreg, 4), verdict{}
	case *netstate.NftSocket:
		size := map[string]int{"mark": 4, "cgroupv2": 8}[e.Key]
		if size == 0 {
			size = 1
		}
		m.unknown(e.Dreg, size)
		return either, verdict{}
	case *netstate.NftTunnel:
		if e.Key == "path" {
			return m.number(e.Dreg, 0, 1), verdict{}
		}
		return broken, verdict{}
	case *netstate.NftXfrm:
		return broken, verdict{} // no IPsec is known of
	case *netstate.NftOsf:
		m.unknown(e.Dreg, 16)
		return next, verdict{}
	case *netstate.NftTproxy:
		return m.perhaps(verdict{code: dropIt, why: "tproxy hands it to a socket of this host"})
	case *netstate.NftSynproxy:
		return m.perhaps(verdict{code: dropIt, why: "a synproxy answers in the server's place"})
	case *netstate.NftQueue:
		return m.perhaps(verdict{code: dropIt, why: "a program on a queue decides"})
	case *netstate.NftFwd:
		return ended, verdict{code: dropIt, why: "it is sent out of another link"}
	case *netstate.NftMatch:
		if e.Match == "comment" {
			return next, verdict{}
		}
		return either, verdict{}
	case *netstate.NftTarget:
		if idleTargets[e.Target] {
			return next, verdict{}
		}
		return m.perhaps(verdict{code: dropIt, why: "xt target " + e.Target})
	}
	return either, verdict{} // limit, quota, connlimit, inner, and what is not understood
}

// exprWords names an expression for people.
func exprWords(e netstate.NftExpr) string {
	switch e := e.(type) {
	case *netstate.NftOpaque:
		return "an expression that is not understood: " + e.Expr
	case *netstate.NftMatch:
		return "xt match " + e.Match
	case *netstate.NftObjref:
		return "a named " + e.Type
	case *netstate.NftCmp, *netstate.NftRange, *netstate.NftLookup, *netstate.NftPayload:
		return "what the sender puts into the packet"
	}
	return e.Name()
}

// perhaps gives a verdict on one of the possible ways, and goes on on the other.
func (m *machine) perhaps(v verdict) (outcome, verdict) {
	if m.w.mayRule(m.rule, v.why) {
		return ended, v
	}
	return next, verdict{}
}

func (m *machine) verdict(v *netstate.NftVerdict) verdict {
	switch v.Code {
	case "accept":
		return verdict{code: accept}
	case "drop":
		return verdict{code: dropIt}
	case "return":
		return verdict{code: returnIt}
	case "jump":
		return verdict{code: jump, chain: m.table.chains[v.Chain]}
	case "goto":
		return verdict{code: gotoIt, chain: m.table.chains[v.Chain]}
	case "queue":
		if m.w.mayRule(m.rule, "a program on a queue") {
			return verdict{code: dropIt, why: "a program on a queue decides"}
		}
		return verdict{code: accept}
	}
	return verdict{}
}

func rejectWords(e *netstate.NftReject) string {
	if e.Type == "tcp reset" {
		return "tcp-reset"
	}
	return "icmp"
}

func (m *machine) compare(e *netstate.NftCmp) outcome {
	switch e.Op {
	case "==":
		return outcomeOf(m.equal(e.Sreg, e.Data))
	case "!=":
		return outcomeOf(m.equal(e.Sreg, e.Data).not())
	}
	data, dark, ok := m.span(e.Sreg, len(e.Data))
	if !ok {
		return either
	}
	low, high := m.bounds(e.Sreg, data, dark)
	a, b := bytes.Compare(low, e.Data), bytes.Compare(high, e.Data)
	holds := func(c int) bool {
		switch e.Op {
		case "<":
			return c < 0
		case "<=":
			return c <= 0
		case ">":
			return c > 0
		}
		return c >= 0
	}
	if holds(a) != holds(b) {
		return either
	}
	return outcomeOf(answerOf(holds(a)))
}

func (m *machine) bitwise(e *netstate.NftBitwise) outcome {
	n := int(e.Len)
	from, dark, ok := m.span(e.Sreg, n)
	if !ok {
		return either
	}
	data, unknown := bytes.Clone(from), bytes.Clone(dark)
	switch e.Op {
	case "mask-xor":
		for i := range data {
			mask, xor := byteAt(e.Mask, i), byteAt(e.Xor, i)
			data[i], unknown[i] = data[i]&mask^xor, unknown[i]&mask
		}
	case "<<", ">>":
		shift(data, e, m.table.order)
		shift(unknown, e, m.table.order)
	case "and", "or", "xor":
		other, otherDark, ok := m.span(e.Sreg2, n)
		if !ok {
			return either
		}
		for i := range data {
			switch e.Op {
			case "and":
				zero := ^(data[i] | unknown[i]) | ^(other[i] | otherDark[i])
				data[i] &= other[i]
				unknown[i] = (unknown[i] | otherDark[i]) &^ zero
			case "or":
				one := data[i]&^unknown[i] | other[i]&^otherDark[i]
				data[i] |= other[i]
				unknown[i] = (unknown[i] | otherDark[i]) &^ one
			default:
				data[i] ^= other[i]
				unknown[i] |= otherDark[i]
			}
		}
	default:
		return either
	}
	if !m.write(e.Dreg, data, unknown) {
		return either
	}
	return next
}

func byteAt(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// shift moves the bits of 32-bit words, the first of which is the highest.
func shift(data []byte, e *netstate.NftBitwise, order binary.ByteOrder) {
	n := (len(data) + 3) / 4
	words := make([]uint32, n)
	padded := make([]byte, 4*n)
	copy(padded, data)
	for i := range words {
		words[i] = order.Uint32(padded[4*i:])
	}
	s := e.Shift % 32
	var carry uint32
	if e.Op == "<<" {
		for i := n - 1; i >= 0; i-- {
			w := words[i]
			words[i] = w<<s | carry
			carry = uint32(uint64(w) >> (32 - s))
		}
	} else {
		for i := range words {
			w := words[i]
			words[i] = w>>s | carry
			carry = uint32(uint64(w) << (32 - s))
		}
	}
	for i, w := range words {
		order.PutUint32(padded[4*i:], w)
	}
	copy(data, padded)
}

func (m *machine) byteorder(e *netstate.NftByteorder) outcome {
	n, size := int(e.Len), int(e.Size)
	from, dark, ok := m.span(e.Sreg, n)
	if !ok || size != 2 && size != 4 && size != 8 {
		return either
	}
	data, unknown := bytes.Clone(from), bytes.Clone(dark)
	if m.table.order == binary.ByteOrder(binary.LittleEndian) {
		for i := 0; i+size <= n; i += size {
			slices.Reverse(data[i : i+size])
			slices.Reverse(unknown[i : i+size])
		}
	}
	if !m.write(e.Dreg, data, unknown) {
		return either
	}
	return next
}

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
