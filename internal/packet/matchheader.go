package packet

import (
	"strconv"
	"strings"
)

func (p *parser) physdev(word string, negated bool) bool {
	switch word {
	case "--physdev-in", "--physdev-out":
		name := p.next()
		p.add("physdev", func(_ *walker, q *skb) answer {
			l := q.physOut
			if word == "--physdev-in" {
				l = q.physIn
			}
			if l == nil {
				return answerOf(negated)
			}
			return answerOf(glob(name, l.Name, '+') != negated)
		})
	case "--physdev-is-in", "--physdev-is-out", "--physdev-is-bridged":
		p.add("physdev", func(_ *walker, q *skb) answer {
			is := q.physIn != nil
			switch word {
			case "--physdev-is-out":
				is = q.physOut != nil
			case "--physdev-is-bridged":
				is = q.physIn != nil && q.physOut != nil
			}
			return answerOf(is != negated)
		})
	default:
		return false
	}
	return true
}

func (p *parser) ownerMatch(word string, negated bool) bool {
	switch word {
	case "--uid-owner":
		text := p.next()
		lo, hi, ranged := strings.Cut(text, "-")
		if !ranged {
			hi = lo
		}
		a, err1 := strconv.Atoi(lo)
		b, err2 := strconv.Atoi(hi)
		p.add("owner", func(_ *walker, q *skb) answer {
			switch {
			case !q.local:
				return no.invert(negated)
			case q.uid < 0 || err1 != nil || err2 != nil:
				return maybe
			}
			return answerOf((a <= q.uid && q.uid <= b) != negated)
		})
	case "--gid-owner":
		p.next()
		p.add("owner", func(_ *walker, q *skb) answer {
			if !q.local {
				return no.invert(negated)
			}
			return maybe
		})
	case "--socket-exists":
		p.add("owner", func(_ *walker, q *skb) answer { return answerOf(q.local != negated) })
	case "--suppl-groups":
	default:
		return false
	}
	return true
}

// header reads what asks the IP header for a number that a plain packet leaves to its sender.
func (p *parser) header(word string, negated bool) bool {
	text := p.next()
	switch word {
	case "--length":
		s, ok := parseSpan(text)
		p.add("length", func(_ *walker, q *skb) answer {
			if q.length == 0 {
				if s.lo <= 20 && s.hi == 65535 {
					return yes.invert(negated)
				}
				return maybe
			}
			return answerOf(s.lo <= port(q.length) && port(q.length) <= s.hi).invert(negated)
		})
		return ok
	case "--ttl-eq", "--ttl-lt", "--ttl-gt", "--hl-eq", "--hl-lt", "--hl-gt":
		n, err := strconv.Atoi(text)
		p.add(p.current, func(_ *walker, q *skb) answer {
			if q.ttl == 0 {
				return maybe
			}
			is := q.ttl == n
			switch word[len(word)-2:] {
			case "lt":
				is = q.ttl < n
			case "gt":
				is = q.ttl > n
			}
			return answerOf(is != negated)
		})
		return err == nil
	case "--dscp":
		n, err := strconv.ParseInt(text, 0, 16)
		p.add("dscp", func(_ *walker, q *skb) answer {
			if q.dscp < 0 {
				return maybe
			}
			return answerOf((int64(q.dscp) == n) != negated)
		})
		return err == nil
	case "--tos":
		value, mask, ok := parseMasked(text)
		p.add("tos", func(_ *walker, q *skb) answer {
			if q.dscp < 0 {
				return maybe
			}
			return answerOf((uint32(q.dscp)<<2&mask == value) != negated)
		})
		return ok
	}
	return false
}
