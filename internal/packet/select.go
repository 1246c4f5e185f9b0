package packet

import (
	"net/netip"
	"slices"
)

// What a selector looks at, the most telling last.
type selectWhat uint8

const (
	selectAny selectWhat = iota
	selectIn
	selectOut
	selectPort
	selectSrc
	selectDst
	selectFamily // while a rule is read
)

// A selector says which packets a rule can be for at all, so that most rules of a long chain are never
// looked at. The zero selector is every packet.
type selector struct {
	what   selectWhat
	prefix netip.Prefix
	name   string
	port   port
}

// selects narrows the rule's selector, unless it has a more telling one.
func (s *selector) narrow(to selector) {
	if to.what > s.what || to.what == s.what && to.prefix.Bits() > s.prefix.Bits() {
		*s = to
	}
}

// fewRules is the length up to which a chain is simply run through.
const fewRules = 16

// A picker finds the rules of a long chain that can be for a packet.
type picker struct {
	rules            map[selector][]int32 // numbers of rules from 0, ascending
	srcBits, dstBits []int                // prefix lengths that occur
	ins, outs, ports bool
}

func newPicker(rules []rule) *picker {
	p := &picker{rules: map[selector][]int32{}}
	for i := range rules {
		s := rules[i].selector
		p.rules[s] = append(p.rules[s], int32(i))
		switch s.what {
		case selectIn:
			p.ins = true
		case selectOut:
			p.outs = true
		case selectPort:
			p.ports = true
		case selectSrc:
			if n := s.prefix.Bits(); !slices.Contains(p.srcBits, n) {
				p.srcBits = append(p.srcBits, n)
			}
		case selectDst:
			if n := s.prefix.Bits(); !slices.Contains(p.dstBits, n) {
				p.dstBits = append(p.dstBits, n)
			}
		}
	}
	return p
}

// lists returns the rules that can be for q, as ascending lists.
func (p *picker) lists(q *skb) [][]int32 {
	var found [][]int32
	add := func(s selector) {
		if list := p.rules[s]; list != nil {
			found = append(found, list)
		}
	}
	add(selector{})
	if p.ins {
		add(selector{what: selectIn, name: nameOf(q.in)})
	}
	if p.outs {
		add(selector{what: selectOut, name: nameOf(q.out)})
	}
	if p.ports && q.dport != anyPort {
		add(selector{what: selectPort, port: q.dport})
	}
	for _, n := range p.srcBits {
		if prefix, err := q.src.Prefix(n); err == nil {
			add(selector{what: selectSrc, prefix: prefix})
		}
	}
	for _, n := range p.dstBits {
		if prefix, err := q.dst.Prefix(n); err == nil {
			add(selector{what: selectDst, prefix: prefix})
		}
	}
	if p.ports && q.dport == anyPort {
		for s, list := range p.rules {
			if s.what == selectPort {
				found = append(found, list)
			}
		}
	}
	return found
}

func nameOf(l *link) string {
	if l == nil {
		return ""
	}
	return l.Name
}

// A frame is a place in a chain: the rule that runs next.
type frame struct {
	chain *chain
	next  int
	lists [][]int32 // of a long chain, what is left of the rules that can be for the packet
}

// after returns the next rule that can be for the packet, or nil at the chain's end, and moves on.
func (at *frame) after(q *skb) *rule {
	c := at.chain
	if c.load != nil {
		c.load()
		c.load = nil
	}
	if len(c.rules) <= fewRules || c.plain {
		if at.next >= len(c.rules) {
			return nil
		}
		at.next++
		return &c.rules[at.next-1]
	}
	if at.lists == nil {
		if c.picker == nil {
			c.picker = newPicker(c.rules)
		}
		at.lists = c.picker.lists(q)
	}
	best := -1
	for i, list := range at.lists {
		if len(list) > 0 && (best < 0 || list[0] < at.lists[best][0]) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	n := at.lists[best][0]
	at.lists[best] = at.lists[best][1:]
	return &c.rules[n]
}
