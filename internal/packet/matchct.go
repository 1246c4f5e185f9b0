package packet

import (
	"net/netip"
	"strings"
)

func (p *parser) conntrack(word string, negated bool) bool {
	switch word {
	case "--ctstate", "--state":
		return p.ctstate(p.next(), negated)
	case "--ctproto":
		proto, ok := protoNumber(p.next())
		p.tracked(negated, func(ct *conn, _ *skb) answer { return answerOf(ct.orig.proto == proto) })
		return ok
	case "--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst":
		prefix, ok := parsePrefix(p.next())
		p.tracked(negated, func(ct *conn, _ *skb) answer {
			addr := map[string]netip.Addr{"--ctorigsrc": ct.orig.src, "--ctorigdst": ct.orig.dst, "--ctreplsrc": ct.reply.src, "--ctrepldst": ct.reply.dst}[word]
			return answerOf(prefix.Contains(addr))
		})
		return ok
	case "--ctorigsrcport", "--ctorigdstport", "--ctreplsrcport", "--ctrepldstport":
		s, ok := parseSpan(p.next())
		p.tracked(negated, func(ct *conn, q *skb) answer {
			if !hasPorts(q.proto) {
				return maybe
			}
			at := map[string]port{"--ctorigsrcport": ct.orig.sport, "--ctorigdstport": ct.orig.dport, "--ctreplsrcport": ct.reply.sport, "--ctrepldstport": ct.reply.dport}[word]
			return at.within(s.lo, s.hi)
		})
		return ok
	case "--ctdir":
		reply := p.next() == "REPLY"
		p.tracked(negated, func(_ *conn, q *skb) answer { return answerOf(q.replyDir == reply) })
		return true
	case "--ctstatus":
		return p.ctstatus(strings.Split(p.next(), ","), negated)
	case "--ctexpire":
		p.next()
		p.unsure("match conntrack --ctexpire")
		return true
	}
	return false
}

// tracked adds a question about the packet's connection; without one the match fails, negated or not.
func (p *parser) tracked(negated bool, ask func(*conn, *skb) answer) {
	p.add("conntrack", func(_ *walker, q *skb) answer {
		if q.ct == nil {
			return no
		}
		return ask(q.ct, q).invert(negated)
	})
}

// ctstate reads a list of states. Source: conntrack_mt: SNAT and DNAT are states of the connection.
func (p *parser) ctstate(list string, negated bool) bool {
	var states ctState
	var snat, dnat bool
	for _, name := range strings.Split(list, ",") {
		switch name {
		case "INVALID":
			states |= ctInvalid
		case "NEW":
			states |= ctNew
		case "ESTABLISHED":
			states |= ctEstablished
		case "RELATED":
			states |= ctRelated
		case "UNTRACKED":
			states |= ctUntracked
		case "SNAT":
			snat = true
		case "DNAT":
			dnat = true
		default:
			return false
		}
	}
	p.add("conntrack", func(_ *walker, q *skb) answer {
		state := q.state
		if state == 0 {
			state = ctInvalid // before connection tracking saw it
		}
		is := state&states != 0 || q.ct != nil && (snat && q.ct.snat || dnat && q.ct.dnat)
		return answerOf(is != negated)
	})
	return true
}

func (p *parser) ctstatus(names []string, negated bool) bool {
	p.tracked(negated, func(ct *conn, q *skb) answer {
		is := no
		for _, name := range names {
			switch name {
			case "NONE":
				is = is.or(maybe)
			case "SEEN_REPLY":
				is = is.or(answerOf(ct.answered))
			case "ASSURED":
				if ct.answered {
					is = is.or(maybe)
				}
			case "CONFIRMED":
				is = is.or(answerOf(ct.answered || q.replyDir || ct.flow != nil))
			}
		}
		return is
	})
	return true
}
