package packet

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// IP protocol numbers that the walk looks into.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// A port is a port number, or anyPort: some port from 1024 up, as the sender's system chose.
type port int32

const (
	anyPort     port = -1
	anyPortLow  port = 1024
	anyPortHigh port = 65535
)

func (p port) String() string {
	if p == anyPort {
		return "*"
	}
	return strconv.Itoa(int(p))
}

// within says whether the port is from lo to hi.
func (p port) within(lo, hi port) answer {
	if p != anyPort {
		return answerOf(lo <= p && p <= hi)
	}
	switch {
	case hi < anyPortLow || lo > anyPortHigh:
		return no
	case lo <= anyPortLow && hi >= anyPortHigh:
		return yes
	}
	return maybe
}

// An answer is yes, no or maybe.
type answer int8

const (
	no answer = iota
	maybe
	yes
)

func answerOf(is bool) answer {
	if is {
		return yes
	}
	return no
}

// not returns the answer to the opposite question.
func (a answer) not() answer { return yes - a }

// invert returns the opposite where the question was negated.
func (a answer) invert(negated bool) answer {
	if negated {
		return a.not()
	}
	return a
}

// and, or combine answers of questions that have nothing to do with each other.
func (a answer) and(b answer) answer { return min(a, b) }
func (a answer) or(b answer) answer  { return max(a, b) }

// A ctState is how connection tracking sees a packet. The values are those of nft's ct state.
type ctState uint32

const (
	ctInvalid     ctState = 1
	ctEstablished ctState = 2
	ctRelated     ctState = 4
	ctNew         ctState = 8
	ctUntracked   ctState = 64
)

// TCP flags.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	tcpURG
)

// A tuple is one direction of a connection. Of ICMP, sport is the identifier and dport is 0.
type tuple struct {
	src, dst     netip.Addr
	sport, dport port
	proto        uint8
}

func (t tuple) reverse() tuple {
	t.src, t.dst = t.dst, t.src
	if t.proto != protoICMP && t.proto != protoICMPv6 {
		t.sport, t.dport = t.dport, t.sport
	}
	return t
}

// A conn is a connection as one namespace tracks it.
type conn struct {
	orig, reply tuple
	answered    bool // a packet of the other direction was seen
	dstDone     bool // the nat hooks had their say about the destination
	srcDone     bool
	dnat, snat  bool
	mark        uint32
	zone        uint16

	flow     *netstate.Flow // of an older connection: its entry
	expected bool           // an older connection's helper asked for it
	fixed    bool           // a rule says the source port
	resumed  bool           // a packet was taken
	crossed  bool           // the other end began one of its own with the same addresses and ports
	gone     bool           // a packet ended it
}

// A skb is a packet on its way.
type skb struct {
	family    netstate.Family
	tuple             // src, dst, sport, dport, proto
	icmpType  uint8   // of ICMP and ICMPv6
	icmpCode  uint8   //
	about     *tuple  // of an ICMP error: the packet that it quotes
	flags     uint8   // of TCP
	mark      uint32  //
	in, out   *link   // as netfilter sees them
	physIn    *link   // bridge port, where br_netfilter or the bridge family runs
	physOut   *link   //
	ct        *conn   // nil: not tracked (yet)
	replyDir  bool    // it goes against the connection's first packet
	state     ctState //
	local     bool    // made by a process of this namespace
	length    int     // of the IP packet; 0: not known
	ttl       int     // 0: not known
	dscp      int     // -1: not known
	srcMAC    string  // "" not known
	dstMAC    string
	multicast bool       // pkttype, of the link layer
	uid       int        // of the local process; -1: not known
	hook      string     // where it is
	gateway   netip.Addr // next hop, once routed
	rerouted  *decision  // output: the way after a rule changed what routing looks at; the hook's rules still see the old one
	firstSrc  netip.Addr // the source that routing chose for it
	zone      uint16     // of conntrack, as a rule said
}

// String returns "tcp 203.0.113.9:* → 198.51.100.15:8080".
func (p *skb) String() string {
	var b strings.Builder
	b.WriteString(protoName(p.proto))
	b.WriteByte(' ')
	p.end(&b, p.src, p.sport)
	b.WriteString(" → ")
	p.end(&b, p.dst, p.dport)
	return b.String()
}

func (p *skb) end(b *strings.Builder, addr netip.Addr, at port) {
	ports := p.proto == protoTCP || p.proto == protoUDP || p.proto == protoSCTP
	if ports && addr.Is6() {
		b.WriteByte('[')
	}
	b.WriteString(addr.String())
	if ports {
		if addr.Is6() {
			b.WriteByte(']')
		}
		b.WriteByte(':')
		b.WriteString(at.String())
	}
}

func protoName(proto uint8) string {
	switch proto {
	case protoICMP:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoICMPv6:
		return "icmpv6"
	case protoSCTP:
		return "sctp"
	}
	return "protocol " + strconv.Itoa(int(proto))
}

// protoNumber reads a protocol as iptables-save writes it; "all" is 0.
func protoNumber(name string) (uint8, bool) {
	switch name {
	case "all", "any":
		return 0, true
	case "icmp":
		return protoICMP, true
	case "igmp":
		return 2, true
	case "ipencap", "ipip":
		return 4, true
	case "tcp":
		return protoTCP, true
	case "udp":
		return protoUDP, true
	case "dccp":
		return 33, true
	case "ipv6":
		return 41, true
	case "gre":
		return 47, true
	case "esp", "ipv6-crypt":
		return 50, true
	case "ah", "ipv6-auth":
		return 51, true
	case "icmpv6", "ipv6-icmp":
		return protoICMPv6, true
	case "ospf":
		return 89, true
	case "vrrp":
		return 112, true
	case "sctp":
		return protoSCTP, true
	case "mh", "ipv6-mh", "mobility-header":
		return 135, true
	case "udplite":
		return 136, true
	}
	n, err := strconv.ParseUint(name, 0, 8)
	return uint8(n), err == nil
}

// loopback says whether addr never leaves the machine.
func loopback(addr netip.Addr) bool { return addr.Unmap().IsLoopback() }

// unspecified returns 0.0.0.0 or ::.
func unspecified(family netstate.Family) netip.Addr {
	if family == netstate.IPv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
