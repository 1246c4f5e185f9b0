package netstate

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// An nftPlace is an address in bytes that nf_tables compares, looks up or writes.
type nftPlace struct {
	at   int // first byte
	n    int // bytes that are there: fewer than the address has are those of a prefix
	size int // bytes that the address has: 4, 6 (a hardware address) or 16
}

// ruleset replaces the addresses in the bytes of expressions and sets. What nobody understands is zeroed.
func (r *redactor) ruleset(rules *Ruleset) {
	if rules == nil {
		return
	}
	for i := range rules.Tables {
		t := &rules.Tables[i]
		t.Userdata = nil // comments, which stand in Comment
		clear(t.Opaque)
		for j := range t.Chains {
			c := &t.Chains[j]
			c.Userdata = nil
			clear(c.Opaque)
			for k := range c.Rules {
				c.Rules[k].Userdata = nil
				r.exprs(t, c.Rules[k].Exprs)
			}
		}
		for j := range t.Sets {
			r.set(&t.Sets[j])
		}
		for j := range t.Objects {
			t.Objects[j].Userdata = nil
			clear(t.Objects[j].Opaque)
		}
		for j := range t.Flowtables {
			clear(t.Flowtables[j].Opaque)
		}
	}
}

// nftHolds is what a register holds while the expressions of a rule are gone through.
type nftHolds struct {
	places []nftPlace
	mask   Hex           // of the bits that are left of them
	value  *NftImmediate // a constant
}

// exprs follows what the registers hold, as far as it is needed to know constants that are addresses.
func (r *redactor) exprs(t *NftTable, exprs NftExprs) {
	family := ""
	if t.Family == "ip" || t.Family == "ip6" {
		family = t.Family
	}
	regs := map[NftReg]nftHolds{}
	var protocol *NftMeta // the register's load says which family follows
	for _, e := range exprs {
		switch e := e.(type) {
		case *NftPayload:
			if e.Dreg != NoReg {
				regs[e.Dreg] = nftHolds{places: payloadPlaces(e, family)}
			}
		case *NftMeta:
			if e.Dreg != NoReg {
				regs[e.Dreg], protocol = nftHolds{}, e
			}
		case *NftCt:
			if e.Dreg != NoReg {
				regs[e.Dreg] = nftHolds{places: ctPlaces(e, family)}
			}
		case *NftBitwise:
			holds := regs[e.Sreg]
			if e.Op != "mask-xor" || len(bytes.Trim(e.Xor, "\x00")) > 0 {
				holds = nftHolds{}
			}
			holds.mask = e.Mask
			regs[e.Dreg] = holds
		case *NftCmp:
			if protocol != nil && protocol.Dreg == e.Sreg && e.Op == "==" {
				family = familyTold(protocol.Key, e.Data, family)
			}
			if holds := regs[e.Sreg]; e.Op == "==" || e.Op == "!=" {
				for _, place := range holds.places {
					r.bytes(place, e.Data, holds.mask)
				}
			}
		case *NftRange:
			for _, place := range regs[e.Sreg].places {
				r.between(place, e.From, e.To)
			}
		case *NftImmediate:
			if e.Dreg != VerdictReg {
				regs[e.Dreg] = nftHolds{value: e}
			}
		case *NftNat:
			r.constants(regs[e.AddrMin].value, regs[e.AddrMax].value)
		case *NftTproxy:
			r.constants(regs[e.Addr].value, nil)
		case *NftDup:
			r.constants(regs[e.Addr].value, nil)
		case *NftFwd:
			r.constants(regs[e.Addr].value, nil)
		case *NftMatch:
			r.info(e.Match, e.Rev, t.Family, e.Info)
		case *NftTarget:
			r.info(e.Target, e.Rev, t.Family, e.Info)
		case *NftOpaque:
			clear(e.Raw)
		case *NftDynset:
			r.exprs(t, e.Exprs)
		case *NftInner:
			r.exprs(t, e.Exprs)
		}
	}
}

// payloadPlaces returns the addresses in a load from a header.
func payloadPlaces(e *NftPayload, family string) []nftPlace {
	type field struct{ at, size int }
	var fields []field
	switch {
	case e.Base == "link":
		fields = []field{{0, 6}, {6, 6}}
	case e.Base == "network" && family == "ip":
		fields = []field{{12, 4}, {16, 4}}
	case e.Base == "network" && family == "ip6":
		fields = []field{{8, 16}, {24, 16}}
	}
	from, to := int(e.Offset), int(e.Offset+e.Len)
	var places []nftPlace
	for _, f := range fields {
		if from <= f.at && f.at < to {
			places = append(places, nftPlace{f.at - from, min(to, f.at+f.size) - f.at, f.size})
		}
	}
	return places
}

// ctPlaces returns the address in a load from connection tracking.
func ctPlaces(e *NftCt, family string) []nftPlace {
	told, key, found := strings.Cut(e.Key, " ")
	if found {
		family = told
	} else {
		key = e.Key
	}
	switch {
	case key != "saddr" && key != "daddr":
		return nil
	case family == "ip6":
		return []nftPlace{{0, 16, 16}}
	case family == "ip":
		return []nftPlace{{0, 4, 4}}
	}
	return nil
}

// familyTold returns the family that a comparison of that meta key leaves.
func familyTold(key string, data Hex, family string) string {
	switch {
	case key == "nfproto" && bytes.Equal(data, []byte{2}), key == "protocol" && bytes.Equal(data, []byte{8, 0}):
		return "ip"
	case key == "nfproto" && bytes.Equal(data, []byte{10}), key == "protocol" && bytes.Equal(data, []byte{0x86, 0xdd}):
		return "ip6"
	}
	return family
}

// bytes replaces one address in data, or the prefix of it that is there or that mask leaves.
func (r *redactor) bytes(place nftPlace, data, mask Hex) {
	end := place.at + place.n
	if place.n <= 0 || end > len(data) {
		return
	}
	part := data[place.at:end]
	if place.size == 6 {
		if place.n == 6 {
			copy(part, r.macBytes(slices.Clone(part)))
		}
		return
	}
	length := place.n * 8
	if mask != nil {
		if end > len(mask) {
			return
		}
		ones, whole := leadingOnes(mask[place.at:end])
		if !whole { // bits here and there are no prefix
			return
		}
		length = min(length, ones)
	}
	full := make([]byte, place.size)
	copy(full, part)
	addr, _ := netip.AddrFromSlice(full)
	copy(part, r.prefix(netip.PrefixFrom(addr, length)).Addr().AsSlice())
}

// leadingOnes returns how many bits are set at the start, and whether no other is.
func leadingOnes(mask []byte) (n int, only bool) {
	for n < len(mask)*8 && mask[n/8]&(0x80>>(n%8)) != 0 {
		n++
	}
	for i := n; i < len(mask)*8; i++ {
		if mask[i/8]&(0x80>>(i%8)) != 0 {
			return n, false
		}
	}
	return n, true
}

// between replaces the ends of a range.
func (r *redactor) between(place nftPlace, from, to Hex) {
	end := place.at + place.n
	if place.n != place.size || place.size == 6 || end > len(from) || end > len(to) {
		return
	}
	first, _ := netip.AddrFromSlice(from[place.at:end])
	last, _ := netip.AddrFromSlice(to[place.at:end])
	first, last = r.span(first, last)
	copy(from[place.at:], first.AsSlice())
	copy(to[place.at:], last.AsSlice())
}

// constants replaces the address, or the ends of the range, that a translation is to.
func (r *redactor) constants(from, to *NftImmediate) {
	switch {
	case from == nil || len(from.Data) != 4 && len(from.Data) != 16:
	case to == nil || to == from || len(to.Data) != len(from.Data):
		r.bytes(nftPlace{0, len(from.Data), len(from.Data)}, from.Data, nil)
	default:
		r.between(nftPlace{0, len(from.Data), len(from.Data)}, from.Data, to.Data)
	}
}

// set replaces the addresses in the elements of a set or map.
func (r *redactor) set(s *NftSet) {
	s.Userdata = nil
	clear(s.Opaque)
	for i := range s.Elements {
		e := &s.Elements[i]
		e.Userdata = nil
		clear(e.Opaque)
		for _, place := range typePlaces(s.DataType, len(e.Data)) {
			r.bytes(place, e.Data, nil)
		}
	}
	places := typePlaces(s.KeyType, int(s.KeyLen))
	if s.Interval && len(places) == 1 && places[0].n == int(s.KeyLen) && places[0].size != 6 {
		r.intervals(s)
		return
	}
	for i := range s.Elements {
		e := &s.Elements[i]
		for _, place := range places {
			if len(e.KeyEnd) == len(e.Key) && place.size != 6 {
				r.between(place, e.Key, e.KeyEnd)
			} else {
				r.bytes(place, e.Key, nil)
			}
		}
	}
}

// typePlaces returns the addresses in values of a type, which has 6 bits a field.
func typePlaces(number uint32, length int) []nftPlace {
	sizes := map[uint32]int{7: 4, 8: 16, 9: 6}
	var fields []uint32
	for ; number != 0; number >>= 6 {
		fields = append([]uint32{number & 0x3f}, fields...)
	}
	var places []nftPlace
	at := 0
	for _, field := range fields {
		kind := nftHexInteger
		if int(field) < len(nftTypes) && nftTypes[field] != nil {
			kind = nftTypes[field]
		}
		size, known := sizes[field]
		if known && at+size <= length {
			places = append(places, nftPlace{at, size, size})
		}
		width := int(nftSizes[kind])
		if width == 0 && len(fields) > 1 {
			return places // of no known width: what stands behind it is not found
		}
		at += (width + 3) &^ 3
	}
	return places
}

// intervals replaces the ranges of a set of addresses. Where two touched, their replacements need not: each
// gets an end of its own.
func (r *redactor) intervals(s *NftSet) {
	inOrder := func(a, b NftElement) int { // the start of one behind the end of another
		return cmp.Or(bytes.Compare(a.Key, b.Key), -flagLast(a.IntervalEnd, b.IntervalEnd))
	}
	slices.SortStableFunc(s.Elements, inOrder)
	var elements []NftElement
	for i, e := range s.Elements {
		if len(e.Key) != int(s.KeyLen) || e.CatchAll {
			elements = append(elements, e)
			continue
		}
		if e.IntervalEnd {
			if zero(e.Key) {
				elements = append(elements, e)
			}
			continue
		}
		first, _ := netip.AddrFromSlice(e.Key)
		last := prefixLast(netip.PrefixFrom(first, 0))
		for _, next := range s.Elements[i+1:] {
			if behind, ok := netip.AddrFromSlice(next.Key); ok && first.Less(behind) {
				last = behind.Prev()
				break
			}
		}
		first, last = r.span(first, last)
		e.Key = first.AsSlice()
		elements = append(elements, e)
		if behind := last.Next(); behind.IsValid() {
			elements = append(elements, NftElement{Key: behind.AsSlice(), IntervalEnd: true})
		}
	}
	if !r.noting {
		slices.SortStableFunc(elements, inOrder)
		s.Elements = elements
	}
}

// info replaces addresses in the struct of an xt match or target. Source: include/uapi/linux/netfilter.
func (r *redactor) info(name string, rev uint32, family string, info Hex) {
	size := 4
	if family == "ip6" {
		size = 16
	}
	pair := func(from, to int) {
		if from+size <= len(info) && to+size <= len(info) {
			r.between(nftPlace{0, size, size}, info[from:from+size], info[to:to+size])
		}
	}
	switch name {
	case "DNAT", "SNAT", "NETMAP":
		if rev == 0 && family == "ip" { // struct nf_nat_ipv4_multi_range_compat
			pair(8, 12)
		} else { // struct nf_nat_range, nf_nat_range2
			pair(4, 20)
		}
	case "iprange": // struct xt_iprange_mtinfo
		pair(0, 16)
		pair(32, 48)
	case "mac": // struct xt_mac_info
		r.bytes(nftPlace{0, 6, 6}, info, nil)
	case "comment":
		text, rest, _ := bytes.Cut(info, []byte{0})
		to := []byte(r.text(string(text)))
		if n := len(text) + len(rest) + 1; !r.noting && n == len(info) {
			clear(info)
			copy(info[:len(info)-1], to)
		}
	}
}
