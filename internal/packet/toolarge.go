package packet

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// clamps is what a rule does that makes TCP's packets as small as the way takes.
const clamps = "clamps the segment size"

// clampsTo is what a rule does that makes them no larger than a number of its own.
func clampsTo(segment uint64) string { return fmt.Sprintf("%s to %d", clamps, segment) }

// ClampsReplies says whether a rule keeps what the target's container sends over TCP within the mtu: that is said to
// it by the other end's first packet, as the size without the headers.
func (t *Trace) ClampsReplies(mtu int) bool {
	steps, headers := t.Request, 40
	if t.Target.Direction != netstate.In {
		steps = t.Reply
	}
	if t.Target.Family == netstate.IPv6 {
		headers = 60
	}
	return slices.ContainsFunc(steps, func(s Step) bool {
		number, fixed := strings.CutPrefix(s.Did, clamps+" to ")
		segment, err := strconv.Atoi(number)
		return s.Did == clamps || fixed && err == nil && segment <= mtu-headers
	})
}

// TooLarge walks the ICMP error by which the host tells the target's container that a packet of the target's
// connection is larger than the link takes by which it leaves: "fragmentation needed", "packet too big". A Trace
// without steps says that none of its packets leaves the host.
func (x *Index) TooLarge(t netstate.Target) *Trace {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.prepare()
	return x.explore(t, func(w *walker) {
		w.watched = x.containerOf(t)
		w.walk(t)
		large := w.large
		w.watched, w.trace.Stops, w.trace.Request, w.trace.Reply, w.trace.Notes = nil, nil, nil, nil, nil
		if large == nil {
			return
		}
		w.reply, w.later, w.depth, w.goal = false, false, 0, nil
		w.trace.Packet = ""
		e := w.send(x.host, large.tooLarge())
		w.trace.Arrives = ""
		if e.packet != nil && e.ns != nil {
			w.trace.Arrives = e.packet.String()
		}
	})
}

func (x *Index) containerOf(t netstate.Target) *netns {
	if c := x.snap.Container(t.ID); c != nil {
		return x.namespace(c)
	}
	return nil
}

// watch keeps the first packet that the watched container sends through the host, as it is when the host sees
// that it is too large: before the rules of forward. Sources: ip_forward, ip6_forward.
func (w *walker) watch(n *netns, p *skb) {
	if w.watched != nil && w.large == nil && n == w.x.host && w.watched.has(p.src) {
		large := *p
		w.large = &large
	}
}

// tooLarge returns the error about the packet, which belongs to the packet's connection from the start.
// Sources: icmp_glue_bits, nf_conntrack_attach.
func (p *skb) tooLarge() *skb {
	about := p.tuple
	e := &skb{family: p.family, tuple: tuple{dst: p.src, proto: protoICMP}, icmpType: 3, icmpCode: 4, about: &about, dscp: -1, uid: -1}
	if p.family == netstate.IPv6 {
		e.proto, e.icmpType, e.icmpCode = protoICMPv6, 2, 0
	}
	if p.ct != nil {
		e.ct, e.state, e.replyDir = p.ct, ctRelated, !p.replyDir
	}
	return e
}
