package netstate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// An NftPrinter writes rules in nft's own words, as `nft list ruleset` does. What nft has no words for, or what
// is not understood, is written as the expression itself, in brackets: [ NAME {…} ]. It never writes anything that
// means something else.
type NftPrinter struct {
	BigEndian bool              // Ruleset's
	Counters  bool              // with the numbers of counters, quotas and timeouts
	Links     map[uint32]string // names of interface indexes, which rules with iif and oif hold
}

// NftPrinter returns a printer for the namespace's rules, without counters.
func (n *Namespace) NftPrinter() NftPrinter {
	p := NftPrinter{Links: map[uint32]string{}}
	if n.Nft != nil {
		p.BigEndian = n.Nft.BigEndian
	}
	for i := range n.Links {
		p.Links[uint32(n.Links[i].Index)] = n.Links[i].Name
	}
	return p
}

// Object names a rule: "nft FAMILY TABLE CHAIN handle H: RULE".
func (p NftPrinter) Object(t *NftTable, chain string, r *NftRule) string {
	p.Counters = false
	return fmt.Sprintf("nft %s %s %s handle %d: %s", t.Family, t.Name, chain, r.Handle, p.Rule(t, r))
}

// Rule writes one rule of the table on one line.
func (p NftPrinter) Rule(t *NftTable, r *NftRule) string {
	return p.rule(t, r, 0)
}

func (p NftPrinter) rule(t *NftTable, r *NftRule, depth int) string {
	text := nftRuleText{NftPrinter: p, table: t, depth: depth, regs: map[NftReg]*nftValue{}, deps: map[string]nftDep{}}
	switch t.Family {
	case "ip", "ip6", "arp":
		text.network = t.Family
	case "bridge", "netdev":
		text.link = "ether"
	}
	for i := 0; i < len(r.Exprs); {
		i += text.step(r.Exprs[i:])
	}
	text.unused()
	words := slices.DeleteFunc(text.out, func(word string) bool { return word == "" })
	if r.Comment != "" {
		words = append(words, `comment "`+r.Comment+`"`)
	}
	return strings.Join(words, " ")
}

// An nftRuleText is a rule while it is written: the registers hold what was loaded into them, not yet said.
type nftRuleText struct {
	NftPrinter
	table                    *NftTable
	depth                    int // how many chains stand around it
	regs                     map[NftReg]*nftValue
	out                      []string          // statements; "" was made redundant by a later one
	link, network, transport string            // the header at each base as far as it is known
	deps                     map[string]nftDep // what told the header at that base
}

// An nftDep is a statement that nft leaves out when a later one implies it.
type nftDep struct {
	at      int    // in out
	field   string // header field that it compared; "" if it was meta
	network string // "ip" or "ip6", if it told the network header
}

// An nftValue is what a register holds.
type nftValue struct {
	text    string // nft's words for it; "" for a load and for data
	kind    *nftType
	network bool // the bytes are in network order, whatever the kind
	size    uint32
	load    *NftPayload
	proto   string   // "meta l4proto", …: the header at that base depends on it
	implies string   // naming it says which header is at that base, as naming a load's field does
	ops     []nftOp  // what was done to it since
	data    Hex      // a constant
	from    NftExprs // what it was made of
	said    bool     // it was used
	lost    bool     // it is not known
}

// An nftOp is one operation of bitwise.
type nftOp struct {
	op        string // "mask-xor", "<<", ">>"
	mask, xor Hex
	shift     uint32
}

// step writes the first expression of a list, or several that belong together, and returns how many.
func (p *nftRuleText) step(exprs NftExprs) int {
	switch e := exprs[0].(type) {
	case *NftPayload:
		if e.Sreg != NoReg {
			p.set(e)
		} else {
			p.put(e.Dreg, &nftValue{load: e, size: e.Len, from: NftExprs{e}})
		}
	case *NftBitwise:
		p.bitwise(e)
	case *NftByteorder:
		v := p.take(e.Sreg)
		if v == nil || v.data != nil {
			p.generic(e)
			p.lose(e.Dreg)
			break
		}
		turned := *v
		turned.said, turned.network, turned.from = false, e.Op == "hton", append(slices.Clip(v.from), e)
		p.put(e.Dreg, &turned)
	case *NftCmp:
		if len(exprs) > 1 {
			if end, ok := exprs[1].(*NftCmp); ok && e.Sreg == end.Sreg && e.Op == ">=" && end.Op == "<=" && len(e.Data) == len(end.Data) {
				p.compareRange(&NftRange{Op: "==", Sreg: e.Sreg, From: e.Data, To: end.Data}, e, end)
				return 2
			}
		}
		p.compare(e)
	case *NftRange:
		p.compareRange(e, e)
	case *NftLookup:
		p.lookup(e)
	case *NftImmediate:
		if e.Verdict != nil {
			p.say(p.verdict(e.Verdict))
		} else {
			p.put(e.Dreg, &nftValue{data: e.Data, size: uint32(len(e.Data)), from: NftExprs{e}})
		}
	case *NftOpaque, *NftInner:
		p.generic(e)
		p.lose(NoReg) // it may have written any register
	default:
		dreg, v := p.source(e)
		switch {
		case v != nil:
			v.from = NftExprs{e}
			p.put(dreg, v)
		case dreg != NoReg:
			p.generic(e)
			p.lose(dreg)
		default:
			p.statement(e)
		}
	}
	return 1
}

// lose forgets what is in the registers from reg on: an expression in brackets wrote there.
func (p *nftRuleText) lose(reg NftReg) { p.put(reg, &nftValue{size: 80, said: true, lost: true}) }

// put writes a value into a register. What it overwrites and nobody used is said, lest it be lost.
func (p *nftRuleText) put(reg NftReg, v *nftValue) {
	for at, old := range p.regs {
		if at < reg+NftReg(max(4, v.size)) && reg < at+NftReg(max(4, old.size)) {
			if !old.said {
				p.generic(old.from...)
			}
			delete(p.regs, at)
		}
	}
	p.regs[reg] = v
}

// take uses the value that starts in a register, or returns nil if that is not known.
func (p *nftRuleText) take(reg NftReg) *nftValue {
	v := p.regs[reg]
	if v == nil || v.lost {
		return nil
	}
	v.said = true
	return v
}

// unused writes what was loaded and never used: a load can break off a rule.
func (p *nftRuleText) unused() {
	regs := make([]NftReg, 0, len(p.regs))
	for reg := range p.regs {
		regs = append(regs, reg)
	}
	slices.Sort(regs)
	for _, reg := range regs {
		if v := p.regs[reg]; !v.said {
			p.generic(v.from...)
		}
	}
}

func (p *nftRuleText) say(format string, args ...any) {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	p.out = append(p.out, format)
}

// generic writes expressions as they are.
func (p *nftRuleText) generic(exprs ...NftExpr) {
	for _, e := range exprs {
		body, _ := json.Marshal(e)
		p.say("[ " + e.Name() + " " + string(body) + " ]")
	}
}

// kindOf returns the type of a value.
func (v *nftValue) kindOf(p *nftRuleText) *nftType {
	switch {
	case v.load != nil:
		return p.loadKind(v.load)
	case v.kind != nil:
		return v.kind
	}
	return nftHexInteger
}

// loadText names what a load reads.
func (p *nftRuleText) loadText(e *NftPayload) string {
	if f := p.field(e.Base, e.Offset*8, e.Len*8); f != nil && f.length == e.Len*8 {
		return f.name
	}
	return rawLoad(e.Base, e.Offset*8, e.Len*8)
}

func (p *nftRuleText) loadKind(e *NftPayload) *nftType {
	if f := p.field(e.Base, e.Offset*8, e.Len*8); f != nil && f.length == e.Len*8 {
		return f.kind
	}
	return nftHexInteger
}
