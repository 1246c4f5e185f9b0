package packet

import (
	"net/netip"
	"strconv"
	"strings"
)

// module reads -m NAME. The module's options follow it: see option.
func (p *parser) module(name string) {
	p.current = name
	switch name {
	case "comment", "tcp", "udp", "udplite", "sctp", "icmp", "icmp6", "icmpv6", "multiport", "conntrack", "state", "addrtype", "iprange",
		"mark", "connmark", "set", "physdev", "mac", "owner", "pkttype", "recent", "length", "dscp", "tos", "ttl", "hl", "policy":
		// Their options say what they ask.
	case "rpfilter":
		p.rpfilter()
	case "nfacct":
		p.values() // it counts
		p.next()
		p.values()
	default:
		// limit, hashlimit, statistic, string, time, u32, bpf, socket, helper, cgroup, geoip and all that is
		// not known: chance, time, payload, or something outside the snapshot.
		for p.more() && !ends(p.words[p.at]) {
			p.at++
		}
		p.unsure("match " + name)
	}
}

// ends says whether the word ends a module's options.
func ends(word string) bool {
	switch word {
	case "-m", "--match", "-j", "--jump", "-g", "--goto":
		return true
	}
	return false
}

// option reads one option of the present module, or of the rule itself. It says whether it is known.
func (p *parser) option(word string, negated bool) bool {
	switch word {
	case "-s", "--source", "--src", "-d", "--destination", "--dst":
		return p.address(word[1] == 's' || strings.HasPrefix(word, "--s"), negated)
	case "-i", "--in-interface", "-o", "--out-interface":
		in, name := word == "-i" || word == "--in-interface", p.next()
		p.link(in, name, negated)
		return true
	case "-p", "--protocol", "--proto":
		return p.protocol(negated)
	case "-f", "--fragment":
		p.add("fragment", func(*walker, *skb) answer { return no.invert(negated) })
		return true
	}
	switch p.current {
	case "comment":
		if word == "--comment" {
			p.note = p.next()
			return true
		}
	case "tcp", "udp", "udplite", "sctp", "multiport":
		return p.ports(word, negated)
	case "icmp", "icmp6", "icmpv6":
		return p.icmp(word, negated)
	case "conntrack", "state":
		return p.conntrack(word, negated)
	case "addrtype":
		return p.addrtype(word, negated)
	case "iprange":
		return p.iprange(word, negated)
	case "mark", "connmark":
		return p.mark(word, negated)
	case "set":
		return p.set(word, negated)
	case "physdev":
		return p.physdev(word, negated)
	case "mac":
		if word == "--mac-source" {
			mac := p.next()
			p.add("mac", func(_ *walker, q *skb) answer {
				if q.srcMAC == "" {
					if q.local {
						return no
					}
					return maybe
				}
				return answerOf(strings.EqualFold(q.srcMAC, mac)).invert(negated)
			})
			return true
		}
	case "owner":
		return p.ownerMatch(word, negated)
	case "pkttype":
		if word == "--pkt-type" {
			kind := p.next()
			p.add("pkttype", func(_ *walker, q *skb) answer {
				// Source: xt_pkttype: the pseudo-header's type of a packet over lo is judged by its address.
				return answerOf(kind == "unicast" && !q.multicast).invert(negated)
			})
			return true
		}
	case "recent":
		switch word {
		case "--set":
			p.add("recent", func(*walker, *skb) answer { return yes.invert(negated) })
		case "--rcheck", "--update", "--remove":
			p.unsure("match recent")
		default: // --name, --mask, --rsource, --seconds, --hitcount, …
			p.values()
		}
		return true
	case "length", "ttl", "hl", "dscp", "tos":
		return p.header(word, negated)
	case "policy":
		switch word {
		case "--dir":
			p.next()
		case "--pol":
			// No IPsec is known of; a policy that is there all the same is not in a snapshot.
			none := p.next() == "none"
			p.add("policy", func(*walker, *skb) answer { return answerOf(none).invert(negated) })
		case "--strict", "--next":
		default:
			p.values()
		}
		return true
	}
	return false
}

// address reads -s or -d.
func (p *parser) address(source, negated bool) bool {
	text := p.next()
	if addr, mask, found := strings.Cut(text, "/"); found && strings.ContainsAny(mask, ".:") {
		return p.masked(addr, mask, source, negated)
	}
	prefix, ok := parsePrefix(text)
	if !ok {
		return false
	}
	p.add("address", func(_ *walker, q *skb) answer {
		addr := q.dst
		if source {
			addr = q.src
		}
		return answerOf(prefix.Contains(addr) != negated)
	})
	return true
}

// parsePrefix reads "10.0.0.1", "10.0.0.0/8" or the same of IPv6.
func parsePrefix(text string) (netip.Prefix, bool) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.Masked(), true
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, addr.BitLen()), true
}

// masked reads an address with a mask that is no prefix.
func (p *parser) masked(addr, mask string, source, negated bool) bool {
	want, err1 := netip.ParseAddr(addr)
	bits, err2 := netip.ParseAddr(mask)
	if err1 != nil || err2 != nil || want.BitLen() != bits.BitLen() {
		return false
	}
	w, m := want.AsSlice(), bits.AsSlice()
	p.add("address", func(_ *walker, q *skb) answer {
		have := q.dst.AsSlice()
		if source {
			have = q.src.AsSlice()
		}
		same := len(have) == len(w)
		for i := 0; same && i < len(have); i++ {
			same = have[i]&m[i] == w[i]&m[i]
		}
		return answerOf(same != negated)
	})
	return true
}

// link reads -i or -o.
func (p *parser) link(in bool, name string, negated bool) {
	p.add("interface", func(_ *walker, q *skb) answer {
		l := q.out
		if in {
			l = q.in
		}
		have := ""
		if l != nil {
			have = l.Name
		}
		return answerOf(glob(name, have, '+') != negated)
	})
}

func (p *parser) protocol(negated bool) bool {
	proto, ok := protoNumber(p.next())
	if !ok {
		return false
	}
	if proto == 0 {
		return true
	}
	if !negated {
		p.proto = proto
	}
	p.add("protocol", func(_ *walker, q *skb) answer { return answerOf((q.proto == proto) != negated) })
	return true
}

// A span is a range of ports.
type span struct{ lo, hi port }

// parseSpan reads "80", "80:90", ":90", "80:".
func parseSpan(text string) (span, bool) {
	lo, hi, ranged := strings.Cut(text, ":")
	if !ranged {
		lo, hi = text, text
	}
	if lo == "" {
		lo = "0"
	}
	if hi == "" {
		hi = "65535"
	}
	a, err1 := strconv.ParseUint(lo, 10, 16)
	b, err2 := strconv.ParseUint(hi, 10, 16)
	return span{port(a), port(b)}, err1 == nil && err2 == nil
}

func (p *parser) ports(word string, negated bool) bool {
	var source, dest bool
	switch word {
	case "--sport", "--source-port", "--sports", "--source-ports":
		source = true
	case "--dport", "--destination-port", "--dports", "--destination-ports":
		dest = true
	case "--port", "--ports":
		source, dest = true, true
	case "--tcp-flags":
		mask, comp := tcpFlags(p.next()), tcpFlags(p.next())
		p.add("tcp", func(_ *walker, q *skb) answer {
			return answerOf((q.proto == protoTCP && q.flags&mask == comp) != negated)
		})
		return true
	case "--syn":
		p.add("tcp", func(_ *walker, q *skb) answer {
			return answerOf((q.proto == protoTCP && q.flags&(tcpSYN|tcpRST|tcpACK|tcpFIN) == tcpSYN) != negated)
		})
		return true
	default:
		return false
	}
	var spans []span
	for _, text := range strings.Split(p.next(), ",") {
		s, ok := parseSpan(text)
		if !ok {
			return false
		}
		spans = append(spans, s)
	}
	p.add("port", func(_ *walker, q *skb) answer {
		is := no
		for _, s := range spans {
			if source {
				is = is.or(q.sport.within(s.lo, s.hi))
			}
			if dest {
				is = is.or(q.dport.within(s.lo, s.hi))
			}
		}
		return is.invert(negated)
	})
	return true
}

func tcpFlags(text string) (flags uint8) {
	for _, name := range strings.Split(text, ",") {
		switch name {
		case "FIN":
			flags |= tcpFIN
		case "SYN":
			flags |= tcpSYN
		case "RST":
			flags |= tcpRST
		case "PSH":
			flags |= tcpPSH
		case "ACK":
			flags |= tcpACK
		case "URG":
			flags |= tcpURG
		case "ALL":
			flags |= 0x3f
		}
	}
	return flags
}

func (p *parser) icmp(word string, negated bool) bool {
	if word != "--icmp-type" && word != "--icmpv6-type" {
		return false
	}
	text := p.next()
	if text == "any" {
		return true
	}
	kind, code, coded := strings.Cut(text, "/")
	t, err := strconv.ParseUint(kind, 10, 8)
	var c uint64
	if coded && err == nil {
		c, err = strconv.ParseUint(code, 10, 8)
	}
	if err != nil {
		return false
	}
	p.add("icmp", func(_ *walker, q *skb) answer {
		is := (q.proto == protoICMP || q.proto == protoICMPv6) && q.icmpType == uint8(t) && (!coded || q.icmpCode == uint8(c))
		return answerOf(is != negated)
	})
	return true
}

func (p *parser) iprange(word string, negated bool) bool {
	if word != "--src-range" && word != "--dst-range" {
		return false
	}
	from, to, _ := strings.Cut(p.next(), "-")
	lo, err1 := netip.ParseAddr(from)
	hi, err2 := netip.ParseAddr(to)
	if err1 != nil || err2 != nil {
		return false
	}
	p.add("iprange", func(_ *walker, q *skb) answer {
		addr := q.dst
		if word == "--src-range" {
			addr = q.src
		}
		return answerOf((lo.Compare(addr) <= 0 && addr.Compare(hi) <= 0) != negated)
	})
	return true
}

// parseMasked reads "0x1/0xff" or "0x1".
func parseMasked(text string) (value, mask uint32, ok bool) {
	v, m, masked := strings.Cut(text, "/")
	a, err := strconv.ParseUint(v, 0, 32)
	b := uint64(0xffffffff)
	if masked && err == nil {
		b, err = strconv.ParseUint(m, 0, 32)
	}
	return uint32(a), uint32(b), err == nil
}

func (p *parser) mark(word string, negated bool) bool {
	if word != "--mark" {
		return false
	}
	value, mask, ok := parseMasked(p.next())
	of := p.current
	p.add(of, func(_ *walker, q *skb) answer {
		have := q.mark
		if of == "connmark" {
			if q.ct == nil {
				return no
			}
			have = q.ct.mark
		}
		return answerOf((have&mask == value) != negated)
	})
	return ok
}
