package netstate

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// Special addresses are nobody's in the world. Source: the IANA registries of special-purpose addresses;
// of IPv6 what is not global unicast is special as a whole.
var (
	specialIPv4 = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3")
	specialIPv6 = prefixes("2001:db8::/32", "2002::/16", "3fff::/20")
	globalIPv6  = netip.MustParsePrefix("2000::/3")
)

// The ranges that replacements are taken from, in that order: those for benchmarks and documentation, and
// for IPv4 prefixes that do not fit in there what is reserved for ever.
var (
	poolsIPv4 = prefixes("198.18.0.0/15", "240.0.0.0/5", "248.0.0.0/6", "252.0.0.0/7", "192.0.2.0/24", "198.51.100.0/24")
	poolsIPv6 = prefixes("2001:db8::/34", "3fff::/21", "3fff:800::/22", "3fff:c00::/23")

	// Only for what has to stay on its side of something that is too wide to be replaced.
	poolsOfWide = prefixes("100.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12")

	// Where all is taken, replacements are all in here: apart from others, though not from each other.
	overflowIPv4 = netip.MustParsePrefix("254.0.0.0/8")
	overflowIPv6 = netip.MustParsePrefix("3fff:f00::/24")

	// Reports take a client or destination that nobody named from these.
	reserved = prefixes("192.0.2.9/32", "198.51.100.9/32")
)

const (
	widestIPv4 = 8  // bits of the widest prefix that is replaced
	widestIPv6 = 24 //
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// isPublic says whether an address is somebody's in the world.
func isPublic(a netip.Addr) bool {
	special, public := specialIPv4, a.Is4()
	if !public {
		special, public = specialIPv6, globalIPv6.Contains(a)
	}
	return public && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isWide says whether a prefix is too wide to be replaced: it names nobody, or has special addresses in it
// among others.
func isWide(p netip.Prefix) bool {
	special, widest := specialIPv4, widestIPv4
	if p.Addr().Is6() {
		special, widest = specialIPv6, widestIPv6
	}
	if p.Bits() < widest {
		return !p.Addr().Is6() || p.Bits() == 0 || globalIPv6.Overlaps(p)
	}
	return slices.ContainsFunc(special, func(s netip.Prefix) bool { return p.Bits() < s.Bits() && p.Contains(s.Addr()) })
}

// An addrPlan says what replaces each public prefix; an address is one of full length.
type addrPlan struct {
	to    map[netip.Prefix]netip.Prefix
	used  map[block]bool // special prefixes and addresses that occur: not to be given away
	wide  map[block]bool // what is too wide to be replaced: what is in it stays in it
	fixed []block        // used, in order, each but once
}

func newAddrPlan() *addrPlan {
	return &addrPlan{to: map[netip.Prefix]netip.Prefix{}, used: map[block]bool{}, wide: map[block]bool{}}
}

// prefix returns the replacement of a public prefix; noting, it only takes note of it.
func (plan *addrPlan) prefix(p netip.Prefix, noting bool) netip.Prefix {
	if noting {
		plan.to[p] = p
		return p
	}
	if to, ok := plan.to[p]; ok {
		return to
	}
	return p
}

// keep takes note of a range that stays as it is although there are public addresses in it.
func (plan *addrPlan) keep(first, last netip.Addr, noting bool) {
	if noting {
		plan.wide[block{numberOf(first), numberOf(last), first.Is6()}] = true
	}
}

// avoid takes note of a special prefix.
func (plan *addrPlan) avoid(p netip.Prefix, noting bool) {
	if noting {
		plan.used[blockOf(p)] = true
	}
}

// fix puts what must not be given away into order.
func (plan *addrPlan) fix() {
	for _, p := range reserved {
		plan.used[blockOf(p)] = true
	}
	all := make([]block, 0, len(plan.used))
	for b := range plan.used {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b block) int { return cmp.Or(a.first.compare(b.first), b.last.compare(a.last)) })
	for _, b := range all {
		if n := len(plan.fixed); n == 0 || plan.fixed[n-1].last.compare(b.first) < 0 {
			plan.fixed = append(plan.fixed, b)
		}
	}
}

// inTheWay returns what lies on a block and must not be given away.
func (plan *addrPlan) inTheWay(b block) (block, bool) {
	i, _ := slices.BinarySearchFunc(plan.fixed, b.first, func(f block, at number) int { return f.last.compare(at) })
	if i < len(plan.fixed) && plan.fixed[i].overlaps(b) {
		return plan.fixed[i], true
	}
	return block{}, false
}

// A node is a public prefix with those that are in it.
type node struct {
	prefix netip.Prefix
	in     []*node
}

// settle finds a place for every prefix. Prefixes that are in no other get a free block of their length in
// a pool. Those in another one get their places in its block in their order, as near to its start as they
// fit; so all fit, and the order of addresses stays. The first and the last address of a prefix, which
// may have a meaning of their own, stay the first and the last, and no other becomes the first.
func (plan *addrPlan) settle() {
	order := make([]netip.Prefix, 0, len(plan.to))
	for p := range plan.to {
		order = append(order, p)
	}
	slices.SortFunc(order, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var roots, open []*node
	for _, p := range order {
		n := &node{prefix: p}
		for len(open) > 0 && !open[len(open)-1].prefix.Contains(p.Addr()) {
			open = open[:len(open)-1]
		}
		if len(open) == 0 {
			roots = append(roots, n)
		} else {
			parent := open[len(open)-1]
			parent.in = append(parent.in, n)
		}
		open = append(open, n)
	}
	// Where there is not enough room, it goes to what something else is in, then to single addresses.
	rank := func(n *node) int {
		switch {
		case len(n.in) > 0:
			return 0
		case n.prefix.IsSingleIP():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(roots, func(a, b *node) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	plan.fix()
	pools := map[bool][]*pool{}
	ranges := slices.Concat(poolsIPv4, poolsIPv6)
	if len(plan.wide) > 0 {
		ranges = append(ranges, poolsOfWide...)
	}
	for _, p := range ranges {
		b := blockOf(p)
		pools[b.six] = append(pools[b.six], &pool{b, b.first})
	}
	for _, root := range roots {
		plan.place(root, plan.find(pools[root.prefix.Addr().Is6()], root.prefix))
	}
}

// find returns where a free block of the length of p starts.
func (plan *addrPlan) find(pools []*pool, p netip.Prefix) number {
	for _, pool := range pools {
		if at, ok := plan.findIn(pool, blockOf(p), plan.wide); ok {
			return at
		}
	}
	for _, pool := range pools { // there is no room on its side of what is wide
		if at, ok := plan.findIn(pool, blockOf(p), nil); ok {
			return at
		}
	}
	if p.Addr().Is6() {
		return numberOf(overflowIPv6.Addr())
	}
	return numberOf(overflowIPv4.Addr())
}

// findIn looks for a block of that size on which no fixed one lies, and that is inside and outside of
// what is wide as b is.
func (plan *addrPlan) findIn(pool *pool, b block, wide map[block]bool) (number, bool) {
	size := b.size()
	from := pool.next
	if one := (number{lo: 1}); size == one && from == pool.first { // it looks like a network's
		from = from.add(one)
	}
	for at := from.alignedTo(size); ; {
		candidate := block{at, at.add(size).sub(number{lo: 1}), b.six}
		if !pool.contains(candidate) {
			return number{}, false
		}
		if fixed, found := plan.inTheWay(candidate); found {
			at = fixed.last.add(number{lo: 1}).alignedTo(size)
			continue
		}
		var beyond *number
		fits := true
		for wide := range wide {
			if wide.six != b.six {
				continue
			}
			fits = fits && wide.contains(candidate) == wide.contains(b)
			for _, edge := range []number{wide.first, wide.last.add(number{lo: 1})} {
				if edge.compare(at) > 0 && (beyond == nil || edge.compare(*beyond) < 0) {
					beyond = &edge
				}
			}
		}
		if fits {
			pool.next = candidate.last.add(number{lo: 1})
			return at, true
		}
		if beyond == nil {
			return number{}, false
		}
		at = beyond.alignedTo(size)
	}
}

// place gives a node its block, and those in it theirs.
func (plan *addrPlan) place(n *node, at number) {
	plan.to[n.prefix] = netip.PrefixFrom(at.addr(n.prefix.Addr().Is6()), n.prefix.Bits())
	old := blockOf(n.prefix)
	next := at.add(number{lo: 1})
	for _, child := range n.in {
		b := blockOf(child.prefix)
		to := next.alignedTo(b.size())
		switch {
		case b.first == old.first:
			to = at
		case b.last == old.last:
			to = at.add(b.first.sub(old.first))
		}
		plan.place(child, to)
		if end := to.add(b.size()); end.compare(next) > 0 {
			next = end
		}
	}
}

// A pool is a block that is given away from its start.
type pool struct {
	block
	next number
}

// A block is a range of addresses of one family, both ends included.
type block struct {
	first, last number
	six         bool
}

func blockOf(p netip.Prefix) block {
	return block{numberOf(prefixFirst(p)), numberOf(prefixLast(p)), p.Addr().Is6()}
}

func (b block) size() number { return b.last.sub(b.first).add(number{lo: 1}) }

func (b block) contains(other block) bool {
	return b.six == other.six && b.first.compare(other.first) <= 0 && other.last.compare(b.last) <= 0
}

func (b block) overlaps(other block) bool {
	return b.six == other.six && b.first.compare(other.last) <= 0 && other.first.compare(b.last) <= 0
}

func prefixFirst(p netip.Prefix) netip.Addr { return p.Masked().Addr() }

func prefixLast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// commonPrefix returns the longest prefix that has both addresses, or none of different families.
func commonPrefix(a, b netip.Addr) netip.Prefix {
	if a.BitLen() != b.BitLen() {
		return netip.Prefix{}
	}
	for n := a.BitLen(); n >= 0; n-- {
		if p, err := a.Prefix(n); err == nil && p.Contains(b) {
			return p
		}
	}
	return netip.Prefix{}
}

// A number is an address as one of 128 bits, IPv4 in the lowest 32.
type number struct{ hi, lo uint64 }

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return number{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (n number) addr(six bool) netip.Addr {
	if !six {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], n.hi)
	binary.BigEndian.PutUint64(b[8:], n.lo)
	return netip.AddrFrom16(b)
}

func (n number) compare(other number) int {
	return cmp.Or(cmp.Compare(n.hi, other.hi), cmp.Compare(n.lo, other.lo))
}

func (n number) add(other number) number {
	lo, carry := bits.Add64(n.lo, other.lo, 0)
	hi, _ := bits.Add64(n.hi, other.hi, carry)
	return number{hi, lo}
}

func (n number) sub(other number) number {
	lo, borrow := bits.Sub64(n.lo, other.lo, 0)
	hi, _ := bits.Sub64(n.hi, other.hi, borrow)
	return number{hi, lo}
}

// alignedTo returns the first multiple of size, a power of two, from n on.
func (n number) alignedTo(size number) number {
	mask := size.sub(number{lo: 1})
	n = n.add(mask)
	return number{n.hi &^ mask.hi, n.lo &^ mask.lo}
}
