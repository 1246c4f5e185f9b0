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

// A picker finds the rules of a long chain that can be for a packet. Rules are counted from 0; those of one
// selector are a list in their order.
type picker struct {
	first            map[selector]int32
	next             []int32 // by rule, -1 at a list's end
	srcBits, dstBits []int   // prefix lengths that occur
	ins, outs        bool
	ports            []int32 // rules that are for one port
}

func newPicker(c *chain) *picker {
	p := &picker{first: make(map[selector]int32, c.count), next: make([]int32, c.count)}
	for i := c.count - 1; i >= 0; i-- {
		s := c.tells(i)
		if next, ok := p.first[s]; ok {
			p.next[i] = next
		} else {
			p.next[i] = -1
		}
		p.first[s] = int32(i)
		switch s.what {
		case selectIn:
			p.ins = true
		case selectOut:
			p.outs = true
		case selectPort:
			p.ports = append(p.ports, int32(i))
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
	slices.Reverse(p.ports)
	return p
}

// lists returns the first of each list of rules that can be for q, and of those for one port all, where q's may
// be any.
func (p *picker) lists(q *skb) (heads, ports []int32) {
	found := make([]int32, 0, 8)
	add := func(s selector) {
		if first, ok := p.first[s]; ok {
			found = append(found, first)
		}
	}
	add(selector{})
	if p.ins {
		add(selector{what: selectIn, name: nameOf(q.in)})
	}
	if p.outs {
		add(selector{what: selectOut, name: nameOf(q.out)})
	}
	if q.dport == anyPort {
		ports = p.ports
	} else if len(p.ports) > 0 {
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
	return found, ports
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
	lists []int32 // of a long chain, the next of each list of rules that can be for the packet
	ports []int32 // and what is left of those for one port, where the packet's may be any
}

// after returns the next rule that can be for the packet, or nil at the chain's end, and moves on.
func (at *frame) after(q *skb) *rule {
	c := at.chain
	if c.count <= fewRules || c.plain() {
		if at.next >= c.count {
			return nil
		}
		at.next++
		return c.rule(at.next - 1)
	}
	if at.lists == nil {
		if c.picker == nil {
			c.picker = newPicker(c)
		}
		at.lists, at.ports = c.picker.lists(q)
	}
	best := -1
	for i, n := range at.lists {
		if n >= 0 && (best < 0 || n < at.lists[best]) {
			best = i
		}
	}
	switch {
	case len(at.ports) > 0 && (best < 0 || at.ports[0] < at.lists[best]):
		n := at.ports[0]
		at.ports = at.ports[1:]
		return c.rule(int(n))
	case best < 0:
		return nil
	}
	n := at.lists[best]
	at.lists[best] = c.picker.next[n]
	return c.rule(int(n))
}
