package packet

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An ipset is a set of the ip_set subsystem, ready to be asked. Source: ipset(8), the kernel's
// net/netfilter/ipset.
type ipset struct {
	kind   []string // of each part of an element: "ip", "net", "port", "mac", "iface", "mark", "set"
	list   bool     // list:set
	opaque bool
	exact  map[string][]element // by the first part's address
	rest   []element            // whose first part is a network, range or no address
	bits   map[netip.Prefix][]element
	lens   []int
}

// An element is one entry: its parts, and whether it is an exception.
type element struct {
	parts   []string
	nomatch bool
}

// ipset returns the set of that name, or nil.
func (n *netns) ipset(name string) *ipset {
	if s, ok := n.sets[name]; ok {
		return s
	}
	if n.sets == nil {
		n.sets = map[string]*ipset{}
	}
	n.sets[name] = nil
	for i := range n.state.Ipsets {
		if from := &n.state.Ipsets[i]; from.Name == name {
			n.sets[name] = newIpset(from)
			break
		}
	}
	return n.sets[name]
}

func newIpset(from *netstate.Ipset) *ipset {
	method, kinds, _ := strings.Cut(from.Type, ":")
	s := &ipset{kind: strings.Split(kinds, ","), list: method == "list", opaque: from.Opaque, exact: map[string][]element{}, bits: map[netip.Prefix][]element{}}
	for _, text := range from.Entries {
		var e element
		text, e.nomatch = strings.CutSuffix(text, " nomatch")
		text, _, _ = strings.Cut(text, " ") // timeout, comment, …
		e.parts = strings.Split(text, ",")
		first := e.parts[0]
		addr, err := netip.ParseAddr(first)
		prefix, netErr := netip.ParsePrefix(first)
		switch {
		case s.list:
			s.rest = append(s.rest, e)
		case err == nil:
			s.exact[addr.String()] = append(s.exact[addr.String()], e)
		case netErr == nil && s.kind[0] == "net":
			key := prefix.Masked()
			if len(s.bits[key]) == 0 && !slices.Contains(s.lens, key.Bits()) {
				s.lens = append(s.lens, key.Bits())
			}
			s.bits[key] = append(s.bits[key], e)
		default:
			s.rest = append(s.rest, e)
		}
	}
	slices.SortFunc(s.lens, func(a, b int) int { return b - a })
	return s
}

// set reads the options of -m set.
func (p *parser) set(word string, negated bool) bool {
	switch word {
	case "--match-set":
		name, flags := p.next(), strings.Split(p.next(), ",")
		ns := p.ns
		p.add("set "+name, func(_ *walker, q *skb) answer {
			s := ns.ipset(name)
			if s == nil {
				return maybe // a rule cannot name a set that is not there: it was not read
			}
			return s.has(ns, q, flags).invert(negated)
		})
	case "--return-nomatch", "--packets-eq", "--packets-lt", "--packets-gt", "--bytes-eq", "--bytes-lt", "--bytes-gt":
		p.values()
		p.unsure("match set " + word)
	case "--update-counters", "--update-subcounters":
	default:
		return false
	}
	return true
}

// has says whether the packet is in the set; flags are "src" and "dst", one a part of an element.
func (s *ipset) has(ns *netns, q *skb, flags []string) answer {
	if s.list {
		is := no
		for _, e := range s.rest {
			member := ns.ipset(e.parts[0])
			if member == nil || member.list {
				is = is.or(maybe) // the kernel has no lists of lists
				continue
			}
			is = is.or(member.has(ns, q, flags))
		}
		return is
	}
	if len(flags) < len(s.kind) {
		return no // the kernel refuses: the packet has not so many parts
	}
	is := no
	longest := -1
	try := func(list []element, bits int) {
		for _, e := range list {
			a := s.fits(e, q, flags)
			if a == no {
				continue
			}
			if bits > longest || longest < 0 {
				longest = bits
				is = a
				if e.nomatch {
					is = a.not()
					if a == yes {
						is = no
					}
				}
			} else if bits == longest {
				is = is.or(a)
			}
		}
	}
	addr := q.part(flags[0])
	try(s.exact[addr.String()], addr.BitLen())
	byLink := len(s.kind) == 2 && s.kind[1] == "iface"
	for _, n := range s.lens {
		if byLink && len(s.exact[addr.String()]) > 0 {
			break
		}
		prefix, err := addr.Prefix(n)
		if err != nil {
			continue
		}
		list := s.bits[prefix]
		try(list, n)
		if byLink && len(list) > 0 {
			break // the longest network that is there at all decides, for whichever link. Source: mtype_test_cidrs
		}
	}
	if is == no && longest < 0 {
		try(s.rest, 0)
	}
	if s.opaque && is != yes {
		return maybe
	}
	return is
}

func (q *skb) part(flag string) netip.Addr {
	if flag == "src" {
		return q.src
	}
	return q.dst
}

// fits says whether every part of the element is the packet's.
func (s *ipset) fits(e element, q *skb, flags []string) answer {
	is := yes
	for i, kind := range s.kind {
		if i >= len(e.parts) {
			if kind == "mac" {
				continue // bitmap:ip,mac: an element without one
			}
			return maybe
		}
		is = is.and(fitsPart(kind, e.parts[i], q, flags[i]))
	}
	return is
}

func fitsPart(kind, text string, q *skb, flag string) answer {
	switch kind {
	case "ip", "net":
		return inRange(text, q.part(flag))
	case "port":
		proto, ports, given := strings.Cut(text, ":")
		if !given {
			ports = text
			if q.proto != protoTCP && q.proto != protoUDP && q.proto != protoSCTP {
				return no
			}
		} else if number, ok := protoNumber(proto); !ok {
			return maybe
		} else if number != q.proto {
			return no
		}
		if q.proto == protoICMP || q.proto == protoICMPv6 {
			return maybe
		}
		s, ok := parseSpan(strings.Replace(ports, "-", ":", 1))
		if !ok {
			return maybe
		}
		if flag == "src" {
			return q.sport.within(s.lo, s.hi)
		}
		return q.dport.within(s.lo, s.hi)
	case "iface":
		l := q.out
		if flag == "src" {
			l = q.in
		}
		if name, phys := strings.CutPrefix(text, "physdev:"); phys {
			l = q.physOut
			if flag == "src" {
				l = q.physIn
			}
			text = name
		}
		return answerOf(nameOf(l) == text)
	case "mark":
		value, _, ok := parseMasked(text)
		if !ok {
			return maybe
		}
		return answerOf(q.mark == value)
	case "mac":
		if q.srcMAC == "" {
			return maybe
		}
		return answerOf(strings.EqualFold(text, q.srcMAC))
	}
	return maybe
}

// inRange says whether addr is in "10.0.0.1", "10.0.0.0/8" or "10.0.0.1-10.0.0.9".
func inRange(text string, addr netip.Addr) answer {
	if prefix, ok := parsePrefix(text); ok {
		return answerOf(prefix.Contains(addr))
	}
	from, to, ranged := strings.Cut(text, "-")
	lo, err1 := netip.ParseAddr(from)
	hi, err2 := netip.ParseAddr(to)
	if !ranged || err1 != nil || err2 != nil {
		return maybe
	}
	return answerOf(lo.Compare(addr) <= 0 && addr.Compare(hi) <= 0)
}
