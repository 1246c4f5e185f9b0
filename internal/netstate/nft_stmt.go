package netstate

import (
	"fmt"
	"math/big"
	"strings"
)

// statement writes an expression that does something, or in brackets one that nobody knows.
func (p *nftRuleText) statement(e NftExpr) {
	if text, ok := p.words(e); ok {
		p.say("%s", text)
	} else {
		p.generic(e)
	}
}

// words returns nft's words for a statement, or false.
func (p *nftRuleText) words(e NftExpr) (string, bool) {
	switch e := e.(type) {
	case *NftMeta:
		key := nftMetaKeys[e.Key]
		name := key.text
		if name == "" {
			name = "meta " + e.Key
		}
		return p.assign(name, key.kind, false, e.Sreg)
	case *NftCt:
		name := "ct " + e.Key
		if e.Dir != "" {
			name = "ct " + e.Dir + " " + e.Key
		}
		return p.assign(name, nftCtKeys[e.Key].kind, false, e.Sreg)
	case *NftExthdr:
		v := p.exthdr(e)
		switch {
		case v == nil:
			return "", false
		case e.Strip:
			return "reset " + strings.TrimSuffix(v.text, " @"), true
		}
		return p.assign(v.text, v.kind, true, e.Sreg)
	case *NftNotrack:
		return "notrack", true
	case *NftReject:
		return p.reject(e)
	case *NftLog:
		return logWords(e), true
	case *NftQueue:
		return p.queue(e)
	case *NftNat:
		return p.nat(e)
	case *NftMasq:
		return p.ports("masquerade", e.PortMin, e.PortMax, e.Flags)
	case *NftRedir:
		return p.ports("redirect", e.PortMin, e.PortMax, e.Flags)
	case *NftTproxy:
		return p.tproxy(e)
	case *NftDynset:
		return p.dynset(e)
	case *NftObjref:
		return p.objref(e)
	case *NftFlowOffload:
		return "flow add @" + e.Table, true
	case *NftDup:
		return p.dup(e)
	case *NftFwd:
		dev, ok := p.operandAt(e.Dev, nftIfindex)
		if !ok || e.Addr == NoReg {
			return "fwd to " + dev, ok
		}
		kind := nftIPv4
		if e.Family == "ip6" {
			kind = nftIPv6
		}
		addr, ok := p.operandAt(e.Addr, kind)
		return "fwd " + e.Family + " to " + addr + " device " + dev, ok
	case *NftMatch:
		return fmt.Sprintf("xt match %q", e.Match), true
	case *NftTarget:
		return fmt.Sprintf("xt target %q", e.Target), true
	}
	return p.state(e)
}

// state returns nft's words for what stands in elements and objects as well.
func (p *nftRuleText) state(e NftExpr) (string, bool) {
	switch e := e.(type) {
	case *NftCounter:
		if !p.Counters {
			return "counter", true
		}
		return fmt.Sprintf("counter packets %d bytes %d", e.Packets, e.Bytes), true
	case *NftLimit:
		return limitWords(e)
	case *NftQuota:
		number, unit := inUnits(e.Bytes)
		text := fmt.Sprintf("quota %s%d %s", over(e.Over), number, unit)
		if p.Counters && e.Used > 0 {
			number, unit = inUnits(e.Used)
			text += fmt.Sprintf(" used %d %s", number, unit)
		}
		return text, true
	case *NftConnlimit:
		return fmt.Sprintf("ct count %s%d", over(e.Over), e.Count), true
	case *NftLast:
		switch {
		case !p.Counters:
			return "last", true
		case !e.Used:
			return "last used never", true
		}
		return "last used " + nftDuration(e.Msecs), true
	case *NftSynproxy:
		text := "synproxy"
		if e.Flags&1 != 0 {
			text += fmt.Sprintf(" mss %d", e.MSS)
		}
		if e.Flags&2 != 0 {
			text += fmt.Sprintf(" wscale %d", e.Wscale)
		}
		if e.Flags&8 != 0 {
			text += " timestamp"
		}
		if e.Flags&4 != 0 {
			text += " sack-perm"
		}
		return text, e.Flags&^15 == 0
	}
	return "", false
}

func over(is bool) string {
	if is {
		return "over "
	}
	return ""
}

// inUnits returns the largest unit in which the number is whole.
func inUnits(bytes uint64) (uint64, string) {
	units := []string{"bytes", "kbytes", "mbytes"}
	for i, unit := range units {
		if bytes == 0 || bytes%1024 != 0 || i == len(units)-1 {
			return bytes, unit
		}
		bytes /= 1024
	}
	return bytes, units[0]
}

func limitWords(e *NftLimit) (string, bool) {
	unit, ok := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}[e.Unit]
	if !ok {
		return "", false
	}
	if e.Type == "packets" {
		return fmt.Sprintf("limit rate %s%d/%s burst %d packets", over(e.Over), e.Rate, unit, e.Burst), true
	}
	number, size := inUnits(e.Rate)
	text := fmt.Sprintf("limit rate %s%d %s/%s", over(e.Over), number, size, unit)
	if e.Burst != 0 {
		number, size = inUnits(uint64(e.Burst))
		text += fmt.Sprintf(" burst %d %s", number, size)
	}
	return text, true
}

func logWords(e *NftLog) string {
	text := "log"
	if e.Prefix != "" {
		text += ` prefix "` + e.Prefix + `"`
	}
	if e.Group != nil {
		text += fmt.Sprintf(" group %d", *e.Group)
	}
	if e.Snaplen != 0 {
		text += fmt.Sprintf(" snaplen %d", e.Snaplen)
	}
	if e.Threshold != 0 {
		text += fmt.Sprintf(" queue-threshold %d", e.Threshold)
	}
	const warning = 4
	if e.Level != nil && *e.Level != warning {
		levels := []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}
		if int(*e.Level) < len(levels) {
			text += " level " + levels[*e.Level]
		} else {
			text += fmt.Sprintf(" level %d", *e.Level)
		}
	}
	const all = 0x2f
	if e.Flags&all == all {
		return text + " flags all"
	}
	switch e.Flags & 3 {
	case 1:
		text += " flags tcp sequence"
	case 2:
		text += " flags tcp options"
	case 3:
		text += " flags tcp sequence,options"
	}
	for _, flag := range []struct {
		bit  uint32
		name string
	}{{4, "ip options"}, {8, "skuid"}, {32, "ether"}} {
		if e.Flags&flag.bit != 0 {
			text += " flags " + flag.name
		}
	}
	return text
}

func (p *nftRuleText) reject(e *NftReject) (string, bool) {
	mixed := p.table.Family != "ip" && p.table.Family != "ip6"
	code := []byte{e.Code}
	if e.Type == "icmpx" {
		const port = 1
		if e.Code == port {
			return "reject", true
		}
		return "reject with icmpx " + p.constant(nftIcmpxCode, code, true), true
	}
	// Each of the others says of what header it is the answer to.
	if mixed {
		p.drop("network")
	} else if e.Type == "tcp reset" {
		p.drop("transport")
	}
	if e.Type == "tcp reset" {
		return "reject with tcp reset", true
	}
	kind, name, port := nftIcmpCode, "icmp", uint8(3)
	switch p.network {
	case "ip":
	case "ip6":
		kind, name, port = nftIcmp6Code, "icmpv6", 4
	default:
		return "", false
	}
	if e.Code == port && !mixed {
		return "reject", true
	}
	return "reject with " + name + " " + p.constant(kind, code, true), true
}

// drop takes back the statement that told of the header at base.
func (p *nftRuleText) drop(base string) {
	if dep, ok := p.deps[base]; ok {
		p.out[dep.at] = ""
		delete(p.deps, base)
	}
}

func (p *nftRuleText) queue(e *NftQueue) (string, bool) {
	text := "queue"
	var flags []string
	if e.Bypass {
		flags = append(flags, "bypass")
	}
	if e.Fanout {
		flags = append(flags, "fanout")
	}
	if flags != nil {
		text += " flags " + strings.Join(flags, ",")
	}
	switch {
	case e.Sreg != NoReg:
		to, ok := p.operandAt(e.Sreg, nftHostInteger)
		return text + " to " + to, ok
	case e.Total > 1:
		return fmt.Sprintf("%s to %d-%d", text, e.Num, e.Num+e.Total-1), true
	}
	return fmt.Sprintf("%s to %d", text, e.Num), true
}

// verdict writes a verdict; a chain without a name of its own stands in it.
func (p *nftRuleText) verdict(v *NftVerdict) string {
	switch v.Code {
	case "jump", "goto":
		if c := p.table.Chain(v.Chain); c != nil && c.Bound {
			const deepest = 2 // the kernel has no loops, but a document may
			if p.depth >= deepest {
				return v.Code + " { … }"
			}
			rules := make([]string, len(c.Rules))
			for i := range c.Rules {
				rules[i] = p.rule(p.table, &c.Rules[i], p.depth+1)
			}
			return v.Code + " { " + strings.Join(rules, "; ") + " }"
		}
		return v.Code + " " + v.Chain
	case "queue":
		return fmt.Sprintf("queue to %d", v.Queue)
	}
	return v.Code
}

// operandAt writes what a register holds, a constant as of that kind.
func (p *nftRuleText) operandAt(reg NftReg, kind *nftType) (string, bool) {
	v := p.take(reg)
	if v == nil {
		return "", false
	}
	if v.data == nil {
		return p.left(v).text, true
	}
	if len(v.ops) > 0 {
		return "", false
	}
	return p.constant(kind, v.data, v.network || !kind.host), true
}

// assign writes "NAME set VALUE".
func (p *nftRuleText) assign(name string, kind *nftType, network bool, reg NftReg) (string, bool) {
	v := p.take(reg)
	if v == nil || kind == nil {
		return "", false
	}
	if v.data != nil && len(v.ops) == 0 {
		text := p.constant(kind, v.data, network)
		if kind.bits {
			text = strings.ReplaceAll(text, " | ", ",")
		}
		return name + " set " + text, true
	}
	return name + " set " + p.left(v).text, true
}

// set writes a change of the packet itself. A field of less than whole words is changed in them, with the rest
// as it was.
func (p *nftRuleText) set(e *NftPayload) {
	v := p.take(e.Sreg)
	if v == nil || v.size != e.Len {
		p.generic(e)
		return
	}
	name, value := p.loadText(e), ""
	switch {
	case v.data != nil && len(v.ops) == 0:
		value = p.constant(p.loadKind(e), v.data, true)
	default:
		value = p.left(v).text
		if f, bits := p.within(e, v); f != nil {
			name, value = f.name, p.constant(f.kind, bits, true)
		}
	}
	p.matched(&nftValue{load: e}, nftLeft{text: name}, name+" set "+value)
}

// within returns the field that is changed if v is what stands at e already, with only that field's bits changed, and
// its new value.
func (p *nftRuleText) within(e *NftPayload, v *nftValue) (*nftField, []byte) {
	if v.load == nil || v.load.Base != e.Base || v.load.Offset != e.Offset || len(v.ops) != 1 || v.ops[0].op != "mask-xor" {
		return nil, nil
	}
	mask, xor := v.ops[0].mask, v.ops[0].xor
	changed := make([]byte, len(mask))
	for i := range mask {
		changed[i] = ^mask[i]
		if xor[i]&mask[i] != 0 {
			return nil, nil
		}
	}
	start, length, ok := run(changed)
	if !ok {
		return nil, nil
	}
	f := p.field(e.Base, e.Offset*8+start, length)
	if f == nil || f.length != length {
		return nil, nil
	}
	n := new(big.Int).SetBytes(xor)
	n.Rsh(n, uint(e.Len*8-start-length))
	return f, n.FillBytes(make([]byte, (length+7)/8))
}

// dynset writes "add @SET { KEY … }".
func (p *nftRuleText) dynset(e *NftDynset) (string, bool) {
	s := p.table.Set(e.Set)
	if s == nil || e.Invert {
		return "", false
	}
	key := p.lefts(e.Key, s.KeyLen)
	if key == nil {
		return "", false
	}
	for i, field := range p.fieldsOf(s.KeyType, s.KeyLen, s.Fields, s.HostKey) {
		if i < len(key) && key[i].v.data != nil && len(key[i].v.ops) == 0 {
			key[i].text = p.constant(field.kind, key[i].v.data, false)
		}
	}
	text := e.Op + " @" + e.Set + " { " + concatenated(key)
	if e.Timeout != 0 {
		text += " timeout " + nftDuration(e.Timeout)
	}
	quiet := *p
	quiet.Counters = false
	for _, expr := range e.Exprs {
		words, ok := quiet.state(expr)
		if !ok {
			return "", false
		}
		text += " " + words
	}
	if e.Data != NoReg {
		kind := nftHexInteger
		if int(s.DataType) < len(nftTypes) && nftTypes[s.DataType] != nil {
			kind = nftTypes[s.DataType]
		}
		data, ok := p.operandAt(e.Data, kind)
		if !ok {
			return "", false
		}
		text += " : " + data
	}
	return text + " }", true
}

// objref writes the call of an object.
func (p *nftRuleText) objref(e *NftObjref) (string, bool) {
	kind := e.Type
	name := `"` + e.Object + `"`
	if e.Set != "" {
		s := p.table.Set(e.Set)
		if s == nil {
			return "", false
		}
		parts := p.lefts(e.Sreg, s.KeyLen)
		if parts == nil {
			return "", false
		}
		kind, name = s.ObjectType, concatenated(parts)+" map @"+e.Set
		if s.Anonymous {
			name = concatenated(parts) + " map { " + strings.Join(p.elements(s, parts), ", ") + " }"
		}
	}
	switch kind {
	case "ct helper", "ct timeout", "ct expectation":
		return kind + " set " + name, true
	case "secmark":
		return "meta secmark set " + name, true
	case "":
		return "", false
	}
	return kind + " name " + name, true
}
