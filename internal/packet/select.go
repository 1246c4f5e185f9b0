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
	ported bool // port counts, whatever else does
}

// narrow adds what a rule asks for, unless it asks for something more telling; a port goes with all else.
func (s *selector) narrow(to selector) {
	switch {
	case to.what == selectPort && s.what > selectPort:
		s.port, s.ported = to.port, true
	case to.what > s.what || to.what == s.what && to.prefix.Bits() > s.prefix.Bits():
		if to.what > selectPort {
			to.port, to.ported = s.port, s.ported
		}
		*s = to
	}
}

// key returns the selector as a picker keeps it: without the port that goes with something more telling.
func (s selector) key() selector {
	if s.what != selectPort {
		s.port, s.ported = 0, false
	}
	return s
}

// fewRules is the length up to which a chain is simply run through.
const fewRules = 16

// A picker finds the rules of a long chain that can be for a packet. Rules are counted from 0; those of one
// key are a list in their order.
type picker struct {
	tells            func(at int) selector
	lists            map[selector]list
	next             []int32 // by rule, -1 at a list's end
	srcBits, dstBits []int   // prefix lengths that occur
	ins, outs        bool
	ports            []int32 // rules whose key is a port

	// Of long lists, when they are first met.
	byPort   map[selector]map[port]int32 // the first rule of a port; noPort: of those for any
	nextPort []int32                     // by rule: the next of its port
}

type list struct{ first, count int32 }

// noPort stands for the rules of a list that ask for no port.
const noPort port = -2

func newPicker(c *chain) *picker {
	p := &picker{tells: c.tells, lists: make(map[selector]list, c.count), next: make([]int32, c.count)}
	for i := c.count - 1; i >= 0; i-- {
		s := c.tells(i).key()
		l := p.lists[s]
		if p.next[i] = l.first; l.count == 0 {
			p.next[i] = -1
		}
		p.lists[s] = list{int32(i), l.count + 1}
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

// A head is the next rule of a list, and how the list goes on.
type head struct {
	at   int32
	next []int32
}

// heads returns the lists of rules that can be for q, and of those whose key is a port all, where q's may be any.
func (p *picker) heads(q *skb) (found []head, ports []int32) {
	found = make([]head, 0, 8)
	add := func(s selector) {
		l := p.lists[s]
		switch {
		case l.count == 0:
		case l.count <= fewRules || s.what <= selectPort || q.dport == anyPort:
			found = append(found, head{l.first, p.next})
		default:
			byPort := p.split(s, l)
			for _, at := range []port{noPort, q.dport} {
				if first, ok := byPort[at]; ok {
					found = append(found, head{first, p.nextPort})
				}
			}
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
		add(selector{what: selectPort, port: q.dport, ported: true})
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

// split tells the rules of a list apart by the port that they ask for besides.
func (p *picker) split(s selector, l list) map[port]int32 {
	if made, ok := p.byPort[s]; ok {
		return made
	}
	if p.byPort == nil {
		p.byPort, p.nextPort = map[selector]map[port]int32{}, make([]int32, len(p.next))
	}
	byPort, last := map[port]int32{}, map[port]int32{}
	for i := l.first; i >= 0; i = p.next[i] {
		at := noPort
		if told := p.tells(int(i)); told.ported {
			at = told.port
		}
		if before, ok := last[at]; ok {
			p.nextPort[before] = i
		} else {
			byPort[at] = i
		}
		last[at], p.nextPort[i] = i, -1
	}
	p.byPort[s] = byPort
	return byPort
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
	lists []head  // of a long chain, what is left of the lists of rules that can be for the packet
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
		at.lists, at.ports = c.picker.heads(q)
	}
	best := -1
	for i, h := range at.lists {
		if h.at >= 0 && (best < 0 || h.at < at.lists[best].at) {
			best = i
		}
	}
	switch {
	case len(at.ports) > 0 && (best < 0 || at.ports[0] < at.lists[best].at):
		n := at.ports[0]
		at.ports = at.ports[1:]
		return c.rule(int(n))
	case best < 0:
		return nil
	}
	h := &at.lists[best]
	n := h.at
	h.at = h.next[n]
	return c.rule(int(n))
}
