package netstate

import (
	"bytes"
	"math/big"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// An nftLeft is the left side of a comparison: what is compared, and how constants beside it are written.
type nftLeft struct {
	text    string
	kind    *nftType
	network bool   // constants are in network order
	size    uint32 // bytes in registers
	shift   uint   // bits by which constants stand left of the field
	v       *nftValue
}

// left writes a value as the left side.
func (p *nftRuleText) left(v *nftValue) nftLeft {
	l := nftLeft{text: v.text, kind: v.kindOf(p), network: v.network, size: v.size, v: v}
	ops := v.ops
	switch {
	case v.load != nil:
		l.network = true
		l.text = p.loadText(v.load)
		if f, rest := p.trimmed(v); f != nil {
			l.text, l.kind = f.name, f.kind
			l.shift = uint(v.load.Len*8 - (f.offset - v.load.Offset*8) - f.length)
			if len(rest) > 0 && rest[0].op == ">>" && uint(rest[0].shift) == l.shift {
				l.shift, rest = 0, rest[1:]
			}
			ops = rest
		}
	case v.data != nil:
		l.text, l.network = p.constant(l.kind, v.data, v.network), false
	}
	for _, op := range ops {
		l.text += p.operation(l.kind, op, l.network)
	}
	return l
}

// trimmed returns the field of less than whole bytes that a load and its mask read, and the operations behind the mask.
func (p *nftRuleText) trimmed(v *nftValue) (*nftField, []nftOp) {
	if len(v.ops) == 0 || v.ops[0].op != "mask-xor" || !zero(v.ops[0].xor) {
		return nil, v.ops
	}
	start, length, ok := run(v.ops[0].mask)
	if !ok || length == v.load.Len*8 {
		return nil, v.ops
	}
	if f := p.field(v.load.Base, v.load.Offset*8+start, length); f != nil && f.length == length {
		return f, v.ops[1:]
	}
	return nil, v.ops
}

// run returns where the only run of ones in a mask starts, in bits from its left, and how long it is.
func run(mask []byte) (start, length uint32, ok bool) {
	n := new(big.Int).SetBytes(mask)
	if n.Sign() == 0 {
		return 0, 0, false
	}
	right := n.TrailingZeroBits()
	ones := n.Rsh(n, right)
	length = uint32(ones.BitLen())
	if ones.Add(ones, big.NewInt(1)).BitLen() != int(length)+1 || ones.TrailingZeroBits() != uint(length) {
		return 0, 0, false
	}
	return uint32(len(mask))*8 - length - uint32(right), length, true
}

// prefixLength returns the number of leading ones of a mask that has no others.
func prefixLength(mask []byte) (int, bool) {
	length := 0
	for i, b := range mask {
		ones := bits.LeadingZeros8(^b)
		length += ones
		if ones < 8 {
			return length, b<<ones == 0 && zero(mask[i+1:])
		}
	}
	return length, true
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// operation writes what bitwise does, behind its operand.
func (p *nftRuleText) operation(kind *nftType, op nftOp, network bool) string {
	if op.op != "mask-xor" {
		return " " + op.op + " " + strconv.FormatUint(uint64(op.shift), 10)
	}
	// (v & mask) ^ xor is v & and ^ flip | or.
	n := len(op.mask)
	and, flip, or := make([]byte, n), make([]byte, n), make([]byte, n)
	full := true
	for i := range n {
		or[i] = op.xor[i] &^ op.mask[i]
		flip[i] = op.xor[i] & op.mask[i]
		and[i] = op.mask[i] | or[i]
		full = full && and[i] == 0xff
	}
	var text string
	if !full {
		text += " & " + p.operand(kind, and, network)
	}
	if !zero(flip) {
		text += " ^ " + p.operand(kind, flip, network)
	}
	if !zero(or) {
		text += " | " + p.operand(kind, or, network)
	}
	return text
}

// operand writes a mask; several flags stand in parentheses.
func (p *nftRuleText) operand(kind *nftType, b []byte, network bool) string {
	text := p.constant(kind, b, network)
	if strings.Contains(text, " | ") {
		return "(" + text + ")"
	}
	return text
}

// right writes a constant beside l.
func (p *nftRuleText) right(l nftLeft, b []byte) string {
	if l.shift > 0 {
		n := new(big.Int).SetBytes(b)
		b = n.Rsh(n, l.shift).FillBytes(make([]byte, len(b)))
	}
	return p.constant(l.kind, b, l.network)
}

// bitwise notes an operation on a value, or on a constant and another register.
func (p *nftRuleText) bitwise(e *NftBitwise) {
	v := p.take(e.Sreg)
	var second *nftValue
	if v != nil && e.Sreg2 != NoReg {
		second = p.take(e.Sreg2)
	}
	short := e.Op == "mask-xor" && (v == nil || e.Len != v.size || len(e.Mask) != int(e.Len) || len(e.Xor) != int(e.Len))
	if v == nil || short || e.Sreg2 != NoReg && second == nil {
		p.generic(e)
		p.lose(e.Dreg)
		return
	}
	changed := *v
	changed.said, changed.from = false, append(slices.Clip(v.from), e)
	sign, direct := map[string]string{"and": " & ", "or": " | ", "xor": " ^ "}[e.Op]
	if !direct {
		changed.ops = append(slices.Clip(v.ops), nftOp{e.Op, e.Mask, e.Xor, e.Shift})
		p.put(e.Dreg, &changed)
		return
	}
	left := p.left(v)
	operand := p.constant(left.kind, e.Mask, left.network)
	if second != nil {
		operand = p.left(second).text
		changed.from = append(changed.from, second.from...)
	}
	changed.text, changed.kind, changed.load, changed.ops, changed.network = left.text+sign+operand, left.kind, nil, nil, left.network
	p.put(e.Dreg, &changed)
}

// compare writes the comparison of a value with a constant.
func (p *nftRuleText) compare(e *NftCmp) {
	v := p.take(e.Sreg)
	if v == nil || uint32(len(e.Data)) > max(v.size, 4) || v.data != nil {
		p.generic(e)
		return
	}
	equal := e.Op == "==" || e.Op == "!="
	if v.load != nil && len(v.ops) == 0 && equal && p.fields(v, e) {
		return
	}
	if short := len(e.Data) < int(v.size); short && len(v.ops) == 0 && equal && (v.kind == nftIPv4 || v.kind == nftIPv6) {
		l := p.left(v)
		whole := append(slices.Clip(e.Data), make([]byte, int(v.size)-len(e.Data))...)
		p.matched(v, l, l.text+sign(e.Op)+p.right(l, whole)+"/"+strconv.Itoa(len(e.Data)*8))
		return
	} else if len(e.Data) > int(v.size) || short && v.kind != nftIfname && v.kind != nftString && v.kind != nftHostBoolean {
		p.generic(append(slices.Clip(v.from), e)...)
		return
	}
	var masked *nftOp
	if n := len(v.ops); n > 0 && v.ops[n-1].op == "mask-xor" && zero(v.ops[n-1].xor) {
		masked = &v.ops[n-1]
	}
	l := p.left(v)
	if masked != nil && equal {
		unmasked := *v
		unmasked.ops = v.ops[:len(v.ops)-1]
		bare := p.left(&unmasked)
		if words := p.flagWords(bare, masked.mask); words != nil && zero(e.Data) {
			if e.Op == "==" {
				bare.text += " !"
			}
			p.matched(v, bare, bare.text+" "+strings.Join(words, ","))
			return
		}
		length, ok := prefixLength(masked.mask)
		if ok && (bare.kind == nftIPv4 || bare.kind == nftIPv6) {
			p.matched(v, bare, bare.text+sign(e.Op)+p.right(bare, e.Data)+"/"+strconv.Itoa(length))
			return
		}
		if l.text != bare.text && strings.Contains(l.text, " & ") && e.Op == "==" {
			p.matched(v, l, l.text+" == "+p.right(l, e.Data))
			return
		}
	}
	right := p.right(l, e.Data)
	op := sign(e.Op)
	if e.Op == "==" && (l.kind.bits || strings.ContainsAny(l.text, "&|^")) {
		op = " == "
	}
	at := p.matched(v, l, l.text+op+right)
	if e.Op == "==" && len(v.ops) == 0 && v.proto != "" {
		p.told(v.proto, l, e.Data, at, "")
	}
}

// flagWords returns the words for a mask of flags.
func (p *nftRuleText) flagWords(l nftLeft, mask []byte) []string {
	if l.kind == nftCtLabel {
		return []string{p.constant(l.kind, mask, l.network)}
	}
	if !l.kind.bits || l.shift != 0 {
		return nil
	}
	return l.kind.flags(p.number(mask, l.kind.host && !l.network))
}

// sign is how a comparison stands between its sides: equality is not written.
func sign(op string) string {
	if op == "==" {
		return " "
	}
	return " " + op + " "
}

// fields writes the comparison of one load, which may be of several header fields side by side or, by its length, of
// an address's prefix.
func (p *nftRuleText) fields(v *nftValue, e *NftCmp) bool {
	load := v.load
	if uint32(len(e.Data)) != load.Len {
		return false
	}
	type part struct {
		f          *nftField
		offset, to uint32
	}
	var parts []part
	for offset, end := load.Offset*8, (load.Offset+load.Len)*8; offset < end; {
		f := p.fieldAt(load.Base, offset)
		if f == nil || offset+f.length > end && f.kind != nftIPv4 && f.kind != nftIPv6 || p.header(load.Base) == "th" && load.Len > 2 {
			return false
		}
		parts = append(parts, part{f, offset, min(end, offset+f.length)})
		offset += f.length
	}
	if len(parts) > 1 && e.Op != "==" {
		return false
	}
	data := new(big.Int).SetBytes(e.Data)
	for _, part := range parts {
		length := part.to - part.offset
		value := new(big.Int).Rsh(data, uint((load.Offset+load.Len)*8-part.to))
		value.And(value, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(length)), big.NewInt(1)))
		l := nftLeft{text: part.f.name, kind: part.f.kind, network: true, v: v}
		var text string
		if length < part.f.length {
			value.Lsh(value, uint(part.f.length-length))
			text = p.right(l, value.FillBytes(make([]byte, part.f.length/8))) + "/" + strconv.Itoa(int(length))
		} else {
			text = p.right(l, value.FillBytes(make([]byte, (length+7)/8)))
		}
		op := sign(e.Op)
		if e.Op == "==" && l.kind.bits {
			op = " == "
		}
		at := p.matched(v, l, l.text+op+text)
		if part.f.base != "" && e.Op == "==" {
			p.told(part.f.base, l, value.FillBytes(make([]byte, (length+7)/8)), at, part.f.name)
		}
	}
	return true
}

// compareRange writes a comparison with two bounds; exprs are what it was made of.
func (p *nftRuleText) compareRange(e *NftRange, exprs ...NftExpr) {
	v := p.take(e.Sreg)
	if v == nil || v.data != nil || len(e.From) != int(v.size) {
		p.generic(exprs...)
		return
	}
	l := p.left(v)
	p.matched(v, l, l.text+sign(e.Op)+p.span(l, e.From, e.To))
}

// span writes a range of constants; words for single values have no place in it.
func (p *nftRuleText) span(l nftLeft, from, to []byte) string {
	if l.kind.words != nil {
		l.kind = &nftType{host: l.kind.host, hex: l.kind.hex}
	}
	return p.right(l, from) + "-" + p.right(l, to)
}

// matched writes a statement about l, and drops the earlier one that it implies. It returns its place.
func (p *nftRuleText) matched(v *nftValue, l nftLeft, text string) int {
	p.implied(v, l)
	p.say("%s", text)
	return len(p.out) - 1
}

// implied drops the statement that told of the header that v stands in: naming the field says it as well.
func (p *nftRuleText) implied(v *nftValue, l nftLeft) {
	base := v.implies
	if v.load != nil && !strings.HasPrefix(l.text, "@") && !strings.HasPrefix(l.text, "th ") {
		base = v.load.Base
	}
	dep, ok := p.deps[base]
	if !ok {
		return
	}
	mixed := p.table.Family == "inet" || p.table.Family == "bridge" || p.table.Family == "netdev"
	switch {
	case mixed && dep.field != "" && base == "transport":
		return // ip protocol says which family, too
	case mixed && dep.field == "ether type" && base == "link" && !strings.HasPrefix(l.text, "vlan "):
		return
	}
	p.drop(base)
}

// told notes that the statement at that place says which header is at base.
func (p *nftRuleText) told(base string, l nftLeft, value []byte, at int, field string) {
	number := p.number(value, l.kind.host && !l.network)
	dep := nftDep{at: at, field: field}
	switch base {
	case "link":
		if number == 1 {
			p.link = "ether"
		}
	case "network":
		switch name := l.kind.words[number]; name {
		case "ipv4", "ip":
			dep.network = "ip"
		case "ipv6", "ip6":
			dep.network = "ip6"
		case "arp":
			dep.network = "arp"
		case "8021q":
			p.deps["link"] = dep
		}
		if dep.network == "" {
			return
		}
		p.network = dep.network
	case "transport":
		p.transport = nftTransports[number]
		if p.transport == "" {
			p.transport = "unknown"
		}
		// meta l4proto icmp says which family, as nothing else is ICMP there.
		if earlier, ok := p.deps["network"]; ok && field == "" && (number == 1 && earlier.network == "ip" || number == 58 && earlier.network == "ip6") {
			p.drop("network")
		}
	}
	p.deps[base] = dep
}

// lefts returns what stands in size bytes of registers from reg on: one value, or a concatenation of several.
func (p *nftRuleText) lefts(reg NftReg, size uint32) []nftLeft {
	var parts []nftLeft
	for got := uint32(0); got < size; {
		v := p.take(reg + NftReg(got))
		if v == nil || v.size == 0 {
			return nil
		}
		l := p.left(v)
		p.implied(v, l)
		parts = append(parts, l)
		got += (v.size + 3) &^ 3
		if len(parts) == 1 && v.size == size {
			break
		}
		if got > (size+3)&^3 {
			return nil
		}
	}
	return parts
}

func concatenated(parts []nftLeft) string {
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = part.text
	}
	return strings.Join(texts, " . ")
}

// lookup writes the search in a set, or what a map gives.
func (p *nftRuleText) lookup(e *NftLookup) {
	s := p.table.Set(e.Set)
	var parts []nftLeft
	if s != nil {
		parts = p.lefts(e.Sreg, s.KeyLen)
	}
	if parts == nil {
		p.generic(e)
		if e.Dreg != NoReg && e.Dreg != VerdictReg {
			p.lose(e.Dreg)
		}
		return
	}
	text, set := concatenated(parts), "@"+e.Set
	if s.Anonymous {
		set = "{ " + strings.Join(p.elements(s, parts), ", ") + " }"
	}
	switch {
	case e.Dreg == VerdictReg:
		p.say("%s vmap %s", text, set)
	case e.Dreg != NoReg:
		kind := nftHexInteger
		if int(s.DataType) < len(nftTypes) && nftTypes[s.DataType] != nil {
			kind = nftTypes[s.DataType]
		}
		v := &nftValue{text: text + " map " + set, kind: kind, size: s.DataLen, from: NftExprs{e}}
		for _, part := range parts {
			v.from = append(slices.Clip(part.v.from), v.from...)
		}
		p.put(e.Dreg, v)
	case e.Invert:
		p.say("%s != %s", text, set)
	default:
		p.say("%s %s", text, set)
	}
}
