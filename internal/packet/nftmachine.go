package packet

import (
	"bytes"
	"encoding/binary"
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
	mss   netstate.NftReg     // the register that got the segment size of the way; NoReg: none
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

// clamp says what a write of the register into the option maxseg does, which the kernel never makes larger.
// Source: nft_exthdr_tcp_set_eval.
func (m *machine) clamp(reg netstate.NftReg) string {
	if reg == m.mss && reg != netstate.NoReg {
		return clamps
	}
	if data, dark, ok := m.span(reg, 2); ok && dark[0]|dark[1] == 0 {
		return clampsTo(uint64(binary.BigEndian.Uint16(data)))
	}
	return "may clamp the segment size"
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
		binary.BigEndian.PutUint16(low, uint16(anyPortLow))
		binary.BigEndian.PutUint16(high, uint16(anyPortHigh))
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
		if m.p.ct == nil && m.p.state != ctUntracked { // not seen yet, or invalid
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
		if clamping(e) {
			return next, verdict{did: m.clamp(e.Sreg)}
		}
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
		if e.Target == "TCPMSS" && len(e.Info) >= 2 {
			segment := m.table.order.Uint16(e.Info)
			if segment == 0xffff { // XT_TCPMSS_CLAMP_PMTU
				return next, verdict{did: clamps}
			}
			return next, verdict{did: clampsTo(uint64(segment))}
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
