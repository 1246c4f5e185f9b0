package packet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A flowKey is how connection tracking finds an entry.
type flowKey struct {
	tuple
	zone uint16
}

// flowsOf returns the entries of the kernel's table that have the tuple, in either direction. Of ICMP there may
// be two: a tuple here has no type.
func (n *netns) flowsOf(t tuple, zone uint16) []*netstate.Flow {
	if t.sport == anyPort || t.dport == anyPort {
		return nil // nobody said which connection it is: it is a new one
	}
	if n.flows == nil {
		n.flows = make(map[flowKey][]*netstate.Flow, 2*len(n.state.Flows))
		for i := range n.state.Flows {
			f := &n.state.Flows[i]
			for _, side := range []netstate.Tuple{f.Original, f.Reply} {
				key := flowKey{flowTuple(f, side), f.Zone}
				n.flows[key] = append(n.flows[key], f)
			}
		}
	}
	return n.flows[flowKey{t, zone}]
}

func flowTuple(f *netstate.Flow, side netstate.Tuple) tuple {
	proto, _ := protoNumber(f.Proto)
	t := tuple{src: side.Src.Addr(), dst: side.Dst.Addr(), sport: port(side.Src.Port()), dport: port(side.Dst.Port()), proto: proto}
	if !hasPorts(proto) {
		t.dport = 0
	}
	return t
}

// adopt brings the table's entries for the tuple among the walk's own connections.
func (w *walker) adopt(n *netns, t tuple, zone uint16) {
	for _, f := range n.flowsOf(t, zone) {
		if !slices.ContainsFunc(w.conns[n], func(ct *conn) bool { return ct.flow == f }) {
			w.conns[n] = append(w.conns[n], &conn{orig: flowTuple(f, f.Original), reply: flowTuple(f, f.Reply), zone: f.Zone, mark: f.Mark, flow: f,
				answered: f.Status&ipsSeenReply != 0, expected: f.Status&ipsExpected != 0, snat: f.Status&ipsSrcNAT != 0, dnat: f.Status&ipsDstNAT != 0,
				srcDone: f.Status&ipsSrcNATDone != 0, dstDone: f.Status&ipsDstNATDone != 0})
		}
	}
}

// resume says what connection tracking makes of a packet of an older connection: it takes it, finds it invalid, or
// ends the connection and takes the packet for a new one's first. Source: tcp_conntracks. Of sequence numbers
// nothing is known: they are taken to be right, unless the other end began anew.
func (w *walker) resume(ct *conn, p *skb) (taken, invalid bool) {
	if ct.flow == nil || p.proto != protoTCP {
		return true, false
	}
	state := ct.flow.State
	switch p.flags & (tcpSYN | tcpACK) {
	case tcpSYN:
	case tcpSYN | tcpACK:
		if !p.replyDir { // an answer by who asked: both may have asked at once
			return true, !ct.crossed && state != "SYN_RECV" && state != "SYN_SENT2" || w.may()
		}
		fallthrough
	default:
		return true, ct.crossed && w.may()
	}
	closing := state == "TIME_WAIT" || state == "CLOSE" && !p.replyDir
	if closing && !ct.resumed && w.may() { // it depends on who closed it
		ct.gone = true
		return false, false
	}
	ct.resumed, ct.crossed = true, p.replyDir
	return true, p.replyDir && !closing && state != "SYN_SENT" && state != "SYN_SENT2"
}

// begun says whether a TCP connection began with a packet that asks for it: one may have been picked up later.
func (ct *conn) begun() bool { return ct.flow == nil || strings.HasPrefix(ct.flow.State, "SYN_SENT") }

// object names the entry as the check conntrack does.
func (ct *conn) object() string {
	return fmt.Sprintf("flow %s %s → %s", ct.flow.Proto, ct.flow.Original.Src, ct.flow.Original.Dst)
}

// sayResumed writes down that an older connection decides.
func (w *walker) sayResumed(n *netns, hop Hop, p *skb) {
	ct := p.ct
	did := "is its connection, which decides"
	if ct.dnat && !p.replyDir {
		did = "is its connection, which sends it to " + (&skb{tuple: ct.reply.reverse()}).destination()
	}
	w.step(Step{Hop: hop, Object: ct.object(), Did: did}, n)
	if ct.flow.Status&ipsOffload != 0 {
		w.stop(Stop{Hop: hop, Kind: Opaque, Object: ct.object(), Verdict: May, Why: "the connection is offloaded: a flow table may take the packet past rules and routes"}, n)
	}
}

// unique gives a new connection another source port where an entry of the table has what its replies would
// have. Source: get_unique_tuple.
func (w *walker) unique(n *netns, hop Hop, ct *conn) {
	if ct.flow != nil || ct.fixed || !hasPorts(ct.orig.proto) || ct.reply.dport == anyPort {
		return
	}
	if w.taken(n, ct) || ct.snat && n.mappedElsewhere(ct) {
		if ct.reply.dport < anyPortLow {
			w.stop(Stop{Hop: hop, Kind: Opaque, Object: "conntrack", Verdict: May, Why: "its source port is taken, which other below 1024 it gets cannot be told"}, n)
		}
		ct.reply.dport, ct.snat = anyPort, true
		w.step(Step{Hop: hop, Object: "conntrack", Did: "gives it another source port: an older connection has that one"}, n)
	}
}

// taken says whether an entry of the table has the tuple of the connection's replies. Source: nf_conntrack_tuple_taken.
func (w *walker) taken(n *netns, ct *conn) bool {
	return slices.ContainsFunc(n.flowsOf(ct.reply, ct.zone), func(f *netstate.Flow) bool {
		if !hasPorts(ct.reply.proto) && flowTuple(f, f.Reply) != ct.reply {
			return false // a question where this one's are answers
		}
		return !slices.ContainsFunc(w.conns[n], func(other *conn) bool { return other.flow == f && other.gone })
	})
}

// mappedElsewhere says whether an older connection from the same address and port was translated to the same
// address and another port, which this one then gets as well. Source: find_appropriate_src.
func (n *netns) mappedElsewhere(ct *conn) bool {
	return slices.ContainsFunc(n.state.Flows, func(f netstate.Flow) bool {
		if f.Zone != ct.zone || f.Status&ipsSrcNATDone == 0 || f.Original.Src.Addr() != ct.orig.src || port(f.Original.Src.Port()) != ct.orig.sport {
			return false
		}
		reply := flowTuple(&f, f.Reply)
		return reply.proto == ct.orig.proto && reply.dst == ct.reply.dst && reply.dport != ct.reply.dport
	})
}

// clash drops a new connection whose replies would be an older one's. Source: nf_ct_resolve_clash. Of ICMP, nat gives
// it another identifier, which nothing here asks for.
func (w *walker) clash(n *netns, hop Hop, p *skb) {
	if p.ct == nil || p.ct.flow != nil || p.state != ctNew || !hasPorts(p.proto) && n.nats[ipFamily(p.family)] || !w.taken(n, p.ct) {
		return
	}
	older := &conn{flow: n.flowsOf(p.ct.reply, p.ct.zone)[0]}
	w.stop(Stop{Hop: hop, Kind: Connection, Object: older.object(), Verdict: Drop, Why: "its replies would be those of an older connection"}, n)
}

// leavesElsewhere drops a packet of an older connection that was masqueraded as the address of another link
// than it now leaves by. A connection that a rule of SNAT gave that address is not distinguished in the table.
// Source: nf_nat_oif_changed.
func (w *walker) leavesElsewhere(n *netns, hop Hop, p *skb) {
	ct := p.ct
	if ct.flow == nil || !ct.snat || p.replyDir || p.hook != hookPostrouting || p.out == nil {
		return
	}
	held := n.state.LinkWith(ct.reply.dst)
	if held == nil || held.Name == p.out.Name || !w.may() {
		return
	}
	w.stop(Stop{Hop: hop, Kind: Connection, Object: ct.object(), Verdict: Drop,
		Why: fmt.Sprintf("its connection was masqueraded as %s of %s, and it leaves by %s now", ct.reply.dst, held.Name, p.out.Name)}, n)
}
