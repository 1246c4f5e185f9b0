package packet

import (
	"math/big"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// changing reads the targets that change the packet or its connection.
func (p *parser) changing(name string, options map[string]string) {
	do := func(t target) { p.rule.target = t }
	switch name {
	case "MARK":
		p.setMark(options)
	case "CONNMARK":
		p.setConnmark(options)
	case "TOS", "DSCP":
		do(func(_ *walker, q *skb) verdict {
			if text, ok := options["--set-dscp"]; ok {
				if n, err := strconv.ParseInt(text, 0, 16); err == nil {
					q.dscp = int(n)
					return verdict{}
				}
			}
			if value, mask, ok := parseMasked(options["--set-tos"]); ok && mask == 0xff {
				q.dscp = int(value >> 2)
				return verdict{}
			}
			q.dscp = -1
			return verdict{}
		})
	case "TTL", "HL":
		do(func(_ *walker, q *skb) verdict {
			if n, err := strconv.Atoi(options["--"+strings.ToLower(name)+"-set"]); err == nil {
				q.ttl = n
			} else {
				q.ttl = 0
			}
			return verdict{}
		})
	case "NOTRACK", "CT":
		_, notrack := options["--notrack"]
		zone, err := strconv.ParseUint(options["--zone"], 0, 16)
		if _, ok := options["--zone-orig"]; ok {
			p.unsure("target CT --zone-orig")
		}
		if _, ok := options["--zone-reply"]; ok {
			p.unsure("target CT --zone-reply")
		}
		do(func(_ *walker, q *skb) verdict {
			switch {
			case q.ct != nil || q.state == ctUntracked:
				return verdict{} // only the first says
			case notrack || name == "NOTRACK":
				q.state = ctUntracked
				return verdict{did: "keeps it from connection tracking"}
			case err == nil:
				q.zone = uint16(zone)
				return verdict{did: "puts it into conntrack zone " + options["--zone"]}
			}
			return verdict{}
		})
	case "DNAT", "SNAT":
		p.translation(name, options)
	case "MASQUERADE":
		ports, ranged := natPorts(options["--to-ports"])
		_, random := options["--random"]
		_, fully := options["--random-fully"]
		do(func(w *walker, q *skb) verdict { return w.masquerade(q, ports, ranged, random || fully) })
	case "REDIRECT":
		ports, ranged := natPorts(options["--to-ports"])
		do(func(w *walker, q *skb) verdict { return w.redirect(q, ports, ranged) })
	case "NETMAP":
		to, ok := parsePrefix(options["--to"])
		if !ok {
			p.unsure("target NETMAP --to " + options["--to"])
		}
		do(func(w *walker, q *skb) verdict {
			if w.atDst(q) {
				return w.bindDst(q, addrBetween(q.dst, to), q.dport)
			}
			return w.bindSrc(q, addrBetween(q.src, to), q.sport)
		})
	}
}

func (p *parser) setMark(options map[string]string) {
	for _, name := range []string{"--set-xmark", "--set-mark", "--and-mark", "--or-mark", "--xor-mark"} {
		text, ok := options[name]
		if !ok {
			continue
		}
		value, mask, ok := parseMasked(text)
		if !ok {
			break
		}
		p.rule.target = func(_ *walker, q *skb) verdict {
			switch name {
			case "--set-xmark":
				q.mark = q.mark&^mask ^ value
			case "--set-mark":
				q.mark = q.mark&^(mask|value) | value
			case "--and-mark":
				q.mark &= value
			case "--or-mark":
				q.mark |= value
			case "--xor-mark":
				q.mark ^= value
			}
			return verdict{did: "sets mark 0x" + strconv.FormatUint(uint64(q.mark), 16)}
		}
		return
	}
	p.unsure("target MARK")
}

func (p *parser) setConnmark(options map[string]string) {
	number := func(name string) uint32 {
		if text, ok := options[name]; ok {
			if n, err := strconv.ParseUint(text, 0, 32); err == nil {
				return uint32(n)
			}
			p.unsure("target CONNMARK " + name)
		}
		return 0xffffffff
	}
	nfmask, ctmask := number("--nfmask"), number("--ctmask")
	if mask, ok := options["--mask"]; ok {
		options["--nfmask"], options["--ctmask"] = mask, mask
		nfmask, ctmask = number("--nfmask"), number("--ctmask")
	}
	set, saves := options["--set-xmark"], false
	value, mask, ok := parseMasked(set)
	_, saves = options["--save-mark"]
	_, restores := options["--restore-mark"]
	if !ok && !saves && !restores {
		p.unsure("target CONNMARK")
	}
	p.rule.target = func(_ *walker, q *skb) verdict {
		if q.ct == nil {
			return verdict{}
		}
		switch {
		case saves:
			q.ct.mark = q.ct.mark&^ctmask ^ q.mark&nfmask
		case restores:
			q.mark = q.mark&^nfmask ^ q.ct.mark&ctmask
			return verdict{did: "sets mark 0x" + strconv.FormatUint(uint64(q.mark), 16) + " from the connection"}
		default:
			q.ct.mark = q.ct.mark&^mask ^ value
		}
		return verdict{}
	}
}

// natPorts reads "80" or "80-90".
func natPorts(text string) (span, bool) {
	if text == "" {
		return span{}, false
	}
	lo, hi, ranged := strings.Cut(text, "-")
	hi, _, _ = strings.Cut(hi, "/") // a base port for shifting
	if !ranged {
		hi = lo
	}
	s, ok := parseSpan(lo + ":" + hi)
	return s, ok
}

// translation reads DNAT and SNAT.
func (p *parser) translation(name string, options map[string]string) {
	text := options["--to-destination"]
	if name == "SNAT" {
		text = options["--to-source"]
	}
	lo, hi, ports, ranged, ok := natRange(text)
	if !ok {
		p.unsure("target " + name + " " + text)
	}
	p.rule.target = func(w *walker, q *skb) verdict { return w.nat(q, name == "DNAT", lo, hi, ports, ranged) }
}

// natRange reads "192.0.2.1-192.0.2.9:80-90", "[fd00::1]:80", ":80", "192.0.2.1".
func natRange(text string) (lo, hi netip.Addr, ports span, ranged, ok bool) {
	addrs, tail := text, ""
	switch {
	case strings.HasPrefix(text, "["):
		inner, rest, found := strings.Cut(text[1:], "]")
		if !found {
			return
		}
		addrs, tail = inner, strings.TrimPrefix(rest, ":")
	case strings.Count(text, ":") == 1:
		addrs, tail, _ = strings.Cut(text, ":")
	}
	if tail != "" {
		if ports, ranged = natPorts(tail); !ranged {
			return
		}
	}
	if addrs == "" {
		return lo, hi, ports, ranged, ranged
	}
	first, last, two := strings.Cut(addrs, "-")
	if !two {
		last = first
	}
	var err1, err2 error
	lo, err1 = netip.ParseAddr(strings.Trim(first, "[]"))
	hi, err2 = netip.ParseAddr(strings.Trim(last, "[]"))
	return lo, hi, ports, ranged, err1 == nil && err2 == nil
}

// atDst says whether the nat core is at a hook where destinations are translated.
func (w *walker) atDst(q *skb) bool { return q.out == nil || q.local && q.hook == hookOutput }

// nat binds the connection to one of the addresses and ports. Addresses zero: unchanged.
func (w *walker) nat(q *skb, dst bool, lo, hi netip.Addr, ports span, ranged bool) verdict {
	addr, at := q.src, q.sport
	if dst {
		addr, at = q.dst, q.dport
	}
	if lo.IsValid() {
		addr = lo
		if hi != lo && w.may() {
			addr = hi
		}
	}
	if ranged && hasPorts(q.proto) && at.within(ports.lo, ports.hi) != yes {
		at = ports.lo
		if ports.lo != ports.hi {
			if !dst {
				at = anyPort
			} else if w.may() {
				at = ports.hi
			}
		}
	}
	if dst {
		return w.bindDst(q, addr, at)
	}
	if q.ct != nil {
		q.ct.fixed = ranged && ports.lo == ports.hi
	}
	return w.bindSrc(q, addr, at)
}

func hasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP || proto == 136 || proto == 33
}

func (w *walker) bindDst(q *skb, addr netip.Addr, at port) verdict {
	if q.ct == nil || q.ct.flow != nil {
		return verdict{code: accept}
	}
	if q.ct.reply.src = addr; hasPorts(q.proto) {
		q.ct.reply.sport = at
	}
	q.ct.dnat = q.ct.dnat || addr != q.dst || at != q.dport
	to := skb{tuple: tuple{dst: addr, dport: at, proto: q.proto}}
	return verdict{code: bound, did: "dnat to " + to.destination()}
}

func (w *walker) bindSrc(q *skb, addr netip.Addr, at port) verdict {
	if q.ct == nil || q.ct.flow != nil {
		return verdict{code: accept}
	}
	if q.ct.reply.dst = addr; hasPorts(q.proto) {
		q.ct.reply.dport = at
	}
	q.ct.snat = q.ct.snat || addr != q.src || at != q.sport
	return verdict{code: bound, did: "snat to " + addr.String()}
}

// destination returns "172.17.0.2:80", or the address alone where there are no ports.
func (p *skb) destination() string {
	var b strings.Builder
	p.end(&b, p.dst, p.dport)
	return b.String()
}

// masquerade is snat to the address that the outgoing link would send from. Source: nf_nat_masquerade_ipv4.
func (w *walker) masquerade(q *skb, ports span, ranged, random bool) verdict {
	if q.out == nil {
		return verdict{code: accept}
	}
	toward := q.gateway
	if !toward.IsValid() {
		toward = q.dst
	}
	addr := q.out.ns.source(q.out, toward, q.dst, true)
	if !addr.IsValid() {
		return verdict{code: dropIt, why: "masquerade finds no address on " + q.out.Name}
	}
	at := q.sport
	if random {
		at = anyPort
	}
	if ranged && hasPorts(q.proto) && at.within(ports.lo, ports.hi) != yes {
		if at = ports.lo; ports.lo != ports.hi {
			at = anyPort
		}
	}
	if q.ct != nil {
		q.ct.fixed = ranged && ports.lo == ports.hi
	}
	v := w.bindSrc(q, addr, at)
	v.did = "masquerade as " + addr.String()
	return v
}

// redirect is dnat to this host itself. Source: nf_nat_redirect.
func (w *walker) redirect(q *skb, ports span, ranged bool) verdict {
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if q.family == netstate.IPv6 {
		addr = netip.IPv6Loopback()
	}
	if q.in != nil && q.hook != hookOutput {
		found := q.in.ns.addrs(q.in.Name, q.family)
		if len(found) == 0 {
			return verdict{code: dropIt, why: "redirect finds no address on " + q.in.Name}
		}
		addr = found[0].Prefix.Addr()
		if q.family == netstate.IPv6 {
			for _, a := range found {
				if a.Scope == "global" || a.Scope == "" {
					addr = a.Prefix.Addr()
					break
				}
			}
		}
	}
	at := q.dport
	if ranged && hasPorts(q.proto) {
		if at.within(ports.lo, ports.hi) != yes {
			at = ports.lo
		}
	}
	v := w.bindDst(q, addr, at)
	v.did = "redirect to " + (&skb{tuple: tuple{dst: addr, dport: at, proto: q.proto}}).destination()
	return v
}

func hexNumber(n uint32) string { return "0x" + strconv.FormatUint(uint64(n), 16) }

// addrBetween returns addr with the bits that mask leaves out, NETMAP's way.
func addrBetween(addr netip.Addr, to netip.Prefix) netip.Addr {
	a, b := new(big.Int).SetBytes(addr.AsSlice()), new(big.Int).SetBytes(to.Masked().Addr().AsSlice())
	host := new(big.Int).Lsh(big.NewInt(1), uint(addr.BitLen()-to.Bits()))
	host.Sub(host, big.NewInt(1))
	a.And(a, host).Or(a, b)
	bytes := a.FillBytes(make([]byte, addr.BitLen()/8))
	out, _ := netip.AddrFromSlice(bytes)
	return out
}
