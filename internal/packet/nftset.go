package packet

import (
	"bytes"
	"sort"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An nftSet is a set or map, ready to be asked.
type nftSet struct {
	state    *netstate.NftSet
	exact    map[string]*netstate.NftElement // by key
	starts   []*netstate.NftElement          // of an interval set: every boundary, ascending
	ranges   []*netstate.NftElement          // of a concatenation: elements with a last key
	catchAll *netstate.NftElement
}

// set returns the table's set of that name, or nil.
func (t *nftTable) set(name string) *nftSet {
	if s, ok := t.sets[name]; ok {
		return s
	}
	t.sets[name] = nil
	for i := range t.state.Sets {
		if s := &t.state.Sets[i]; s.Name == name {
			t.sets[name] = newNftSet(s)
			break
		}
	}
	return t.sets[name]
}

func newNftSet(s *netstate.NftSet) *nftSet {
	set := &nftSet{state: s, exact: make(map[string]*netstate.NftElement, len(s.Elements))}
	for i := range s.Elements {
		e := &s.Elements[i]
		switch {
		case e.CatchAll:
			set.catchAll = e
		case s.Interval && len(s.Fields) == 0:
			set.starts = append(set.starts, e)
		case len(e.KeyEnd) > 0:
			set.ranges = append(set.ranges, e)
		default:
			set.exact[string(e.Key)] = e
		}
	}
	// Where one range ends and the next begins at the same key, the beginning counts.
	sort.SliceStable(set.starts, func(i, j int) bool {
		if c := bytes.Compare(set.starts[i].Key, set.starts[j].Key); c != 0 {
			return c < 0
		}
		return set.starts[i].IntervalEnd && !set.starts[j].IntervalEnd
	})
	return set
}

// find returns the element for a key of known bytes, or nil.
func (s *nftSet) find(key []byte) *netstate.NftElement {
	if e := s.exact[string(key)]; e != nil {
		return e
	}
	if n := len(s.starts); n > 0 {
		i := sort.Search(n, func(i int) bool { return bytes.Compare(s.starts[i].Key, key) > 0 })
		if i > 0 && !s.starts[i-1].IntervalEnd {
			return s.starts[i-1]
		}
	}
	for _, e := range s.ranges {
		if s.inRange(e, key) {
			return e
		}
	}
	return s.catchAll
}

// inRange says whether each field of the key is between those of the element's first and last key.
func (s *nftSet) inRange(e *netstate.NftElement, key []byte) bool {
	if len(key) != len(e.Key) || len(e.KeyEnd) != len(e.Key) {
		return false
	}
	at := 0
	fields := s.state.Fields
	if len(fields) == 0 {
		fields = []uint32{uint32(len(key))}
	}
	for _, size := range fields {
		n := (int(size) + 3) &^ 3
		if len(s.state.Fields) == 0 {
			n = len(key)
		}
		if at+n > len(key) {
			return false
		}
		if bytes.Compare(key[at:at+n], e.Key[at:at+n]) < 0 || bytes.Compare(key[at:at+n], e.KeyEnd[at:at+n]) > 0 {
			return false
		}
		at += n
	}
	return true
}

// lookup asks a set or map.
func (m *machine) lookup(e *netstate.NftLookup) (outcome, verdict) {
	s := m.table.set(e.Set)
	if s == nil || len(s.state.Opaque) > 0 {
		return either, verdict{}
	}
	n := int(s.state.KeyLen)
	key, dark, ok := m.span(e.Sreg, n)
	if !ok {
		return either, verdict{}
	}
	var found *netstate.NftElement
	if allZero(dark) {
		found = s.find(key)
	} else {
		var sure bool
		if found, sure = m.findAny(s, e, key, dark); !sure && e.Dreg == netstate.NoReg {
			return either, verdict{}
		}
	}
	if e.Dreg == netstate.NoReg {
		out := outcomeOf(answerOf((found != nil) != e.Invert))
		if found != nil && !e.Invert {
			out = max(out, m.stateful(found))
		}
		return out, verdict{}
	}
	if found == nil {
		return broken, verdict{}
	}
	if m.stateful(found) == either && !m.w.mayRule(m.rule, "the state of an element") {
		return broken, verdict{}
	}
	if found.Verdict != nil {
		return ended, m.verdict(found.Verdict)
	}
	return m.known(e.Dreg, found.Data), verdict{}
}

// stateful says whether the element's own expressions let the rule go on.
func (m *machine) stateful(e *netstate.NftElement) outcome {
	for _, x := range e.Exprs {
		switch x.(type) {
		case *netstate.NftCounter, *netstate.NftLast:
		default:
			return either
		}
	}
	return next
}

// findAny finds the element for a key of which bits are not known: of a map, each that fits is one of the
// possible ways. sure says that every possible key has the same answer.
func (m *machine) findAny(s *nftSet, e *netstate.NftLookup, key, dark []byte) (*netstate.NftElement, bool) {
	var fitting []*netstate.NftElement
	sure := false
	consider := func(el *netstate.NftElement, a answer) {
		if a != no {
			fitting = append(fitting, el)
			sure = sure || a == yes
		}
	}
	for i := range s.state.Elements {
		el := &s.state.Elements[i]
		switch {
		case el.CatchAll || el.IntervalEnd:
		case s.state.Interval && len(s.state.Fields) == 0:
			consider(el, m.between(e.Sreg, el.Key, s.endOf(el)))
		case len(el.KeyEnd) > 0:
			consider(el, m.fieldsBetween(s, e.Sreg, el))
		default:
			consider(el, m.equal(e.Sreg, el.Key))
		}
	}
	if len(fitting) == 0 {
		return s.catchAll, true
	}
	if sure && len(fitting) == 1 {
		return fitting[0], true
	}
	if e.Dreg == netstate.NoReg {
		return nil, false
	}
	for i, el := range fitting {
		if i == maxWays || m.w.mayRule(m.rule, "what the sender puts into the packet") {
			return el, true
		}
	}
	return s.catchAll, true
}

// endOf returns the last key of the range that starts at an element.
func (s *nftSet) endOf(el *netstate.NftElement) []byte {
	last := bytes.Repeat([]byte{0xff}, len(el.Key))
	i := sort.Search(len(s.starts), func(i int) bool { return bytes.Compare(s.starts[i].Key, el.Key) > 0 })
	if i == len(s.starts) {
		return last
	}
	copy(last, s.starts[i].Key)
	for j := len(last) - 1; j >= 0; j-- { // one less
		last[j]--
		if last[j] != 0xff {
			break
		}
	}
	return last
}

func (m *machine) fieldsBetween(s *nftSet, reg netstate.NftReg, el *netstate.NftElement) answer {
	is := yes
	at := 0
	for _, size := range s.state.Fields {
		n := (int(size) + 3) &^ 3
		if at+n > len(el.Key) || at+n > len(el.KeyEnd) {
			return maybe
		}
		sized := int(size) // the padding is zero, and a port's range needs its own two bytes
		if sized > n {
			sized = n
		}
		is = is.and(m.between(reg+netstate.NftReg(at), el.Key[at:at+sized], el.KeyEnd[at:at+sized]))
		at += n
	}
	return is
}
