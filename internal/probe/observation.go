package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Schema names the document format of an Observation.
const Schema = "netcheck.observation/v1"

// An Observation is what became of one live connection. It is a document, as a snapshot is: Compare sets
// it beside the walk wherever it is read.
type Observation struct {
	Schema  string          `json:"schema"`
	Target  netstate.Target `json:"target"`
	Started time.Time       `json:"started"`
	Flow    Flow            `json:"flow"`
	Uplink  string          `json:"uplink,omitempty"` // of a probe from outside: the link by which it came in

	Outcome Outcome `json:"outcome"`
	Answer  string  `json:"answer,omitempty"` // what came back: "SYN/ACK", "RST", "ICMP host prohibited from 198.51.100.15", the status line of HTTP

	Copies    []Copy          `json:"copies,omitempty"` // in order of time
	Rules     []Rule          `json:"rules,omitempty"`  // that looked at the flow, in order
	Drops     []Drop          `json:"drops,omitempty"`
	Conntrack *netstate.Flow  `json:"conntrack,omitempty"` // the flow's entry; nil: none
	Left      []string        `json:"left,omitempty"`      // links by which packets of the client, which should have reached the container, would have left the machine: they were dropped there
	ReplyBy   []string        `json:"reply_by,omitempty"`  // links by which a reply would have left; they were taken off there
	Watched   []packet.Hop    `json:"watched,omitempty"`   // where copies were taken
	Missing   map[What]string `json:"missing,omitempty"`   // what could not be seen, and why
}

// A What is one of the things that an Observation shows.
type What string

// The keys of Observation.Missing.
const (
	Rules     What = "rules"
	Copies    What = "copies"
	Drops     What = "drops"
	Conntrack What = "conntrack"
)

// A Flow is one connection as its client made it. The ports of an ICMP echo are its identifier and 0.
type Flow struct {
	Proto  string         `json:"proto"` // "tcp", "udp" or "icmp"
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
}

// String returns "tcp 203.0.113.9:41000 → 198.51.100.15:8080".
func (f Flow) String() string { return f.Proto + " " + f.Client.String() + " → " + f.Server.String() }

// An Outcome is what the client met.
type Outcome string

// The outcomes.
const (
	Connected   Outcome = "connected"   // TCP: the handshake was completed
	Answered    Outcome = "answered"    // UDP, ICMP: an answer came
	Refused     Outcome = "refused"     // a reset, or ICMP port unreachable
	Unreachable Outcome = "unreachable" // another ICMP error
	Silent      Outcome = "no answer"   // nothing came in time
)

// Well says whether the other side has answered.
func (o Outcome) Well() bool { return o == Connected || o == Answered }

// A Copy is one packet of the flow as it was seen at one place.
type Copy struct {
	Time  time.Time  `json:"time"`
	Hop   packet.Hop `json:"hop"`   // "reply veth" of a packet to the client
	Link  string     `json:"link"`  //
	Where string     `json:"where"` // "host", "container web"
	Text  string     `json:"text"`  // one line, as tcpdump writes it
}

// A Rule is one rule, or the policy of a chain, that the flow met.
type Rule struct {
	Hop     packet.Hop `json:"hop"`    // "reply accept" of a packet to the client
	Object  string     `json:"object"` // "iptables filter DOCKER-USER 1: -j DROP"
	Verdict string     `json:"verdict"`
	Family  string     `json:"family"` // of the table: "ip", "inet", …
	Table   string     `json:"table"`
	Chain   string     `json:"chain"`
	Handle  uint64     `json:"handle,omitempty"` // 0: the chain's policy
	Packet  uint32     `json:"packet,omitempty"` // the kernel's number of the packet: the same for all that one packet met

	// Counted is not 0 of a rule of iptables-legacy, which the kernel's trace does not show: by so many
	// packets its own counter rose meanwhile. Other traffic counts as well.
	Counted uint64 `json:"counted,omitempty"`
}

// Did words what the rule did and, of iptables-legacy, how that is known.
func (r Rule) Did() string {
	if r.Counted == 0 {
		return r.Verdict
	}
	return fmt.Sprintf("%s (its counter rose by %d)", r.Verdict, r.Counted)
}

// ends says whether the rule ended the packet.
func (r Rule) ends() bool { return r.Verdict == "drop" }

// met says whether it is known that the flow met the rule. Others' packets raise a counter too: it tells of a drop
// only where netfilter dropped the flow's own packet on the host, and no rule that the kernel's trace shows did.
func (o *Observation) met(r Rule) bool {
	return r.Counted == 0 || r.ends() &&
		!slices.ContainsFunc(o.Rules, func(r Rule) bool { return r.ends() && r.Counted == 0 }) &&
		slices.ContainsFunc(o.dropped(), func(d Drop) bool { return !d.inside() && d.netfilter() })
}

// Moves says whether the rule did no more than send the packet to another chain or back.
func (r Rule) Moves() bool {
	verb, _, _ := strings.Cut(r.Verdict, " ")
	return slices.Contains([]string{"jump", "goto", "return", "continue"}, verb)
}

// A Drop is a packet of the flow that the kernel threw away.
type Drop struct {
	Hop      packet.Hop `json:"hop,omitempty"` // where the function belongs; "" not known
	Reason   string     `json:"reason"`        // as the kernel names it: "NETFILTER_DROP"
	Function string     `json:"function"`      // that dropped it: "nf_hook_slow"; an address where the kernel's symbols cannot be read
	Link     string     `json:"link,omitempty"`
	Where    string     `json:"where,omitempty"` // "host", "container web"; "" not known
	Text     string     `json:"text,omitempty"`  // the packet, as tcpdump writes it; "" not known

	// Unsure says that it may have been a packet of others: it goes with what else was seen, and shows nothing alone.
	Unsure bool `json:"unsure,omitempty"`
}

// inside says whether a container's namespace dropped it.
func (d Drop) inside() bool { return d.Where != "host" && d.Where != "" }

// netfilter says whether a rule dropped it.
func (d Drop) netfilter() bool { return strings.Contains(d.Reason, "NETFILTER") }

// Did words why and where the kernel dropped it.
func (d Drop) Did() string {
	did := d.Reason + " in " + d.Function
	if d.Unsure {
		did += " (this packet or another)"
	}
	return did
}

// lacks records what could not be seen.
func (o *Observation) lacks(what What, why string) {
	if o.Missing == nil {
		o.Missing = map[What]string{}
	}
	if o.Missing[what] == "" {
		o.Missing[what] = why
	}
}

// Last returns the furthest hop on the way in at which the flow was seen, by a copy, a rule or a drop;
// "" if it was seen nowhere.
func (o *Observation) Last() packet.Hop { return o.last(false) }

// last returns the furthest hop of one direction.
func (o *Observation) last(reply bool) packet.Hop {
	best, at := -1, packet.Hop("")
	ways := o.ways()
	see := func(h packet.Hop) {
		if h == "" || h.IsReply() != reply {
			return
		}
		if i := slices.Index(ways, h); i > best {
			best, at = i, h
		}
	}
	for _, c := range o.Copies {
		see(c.Hop)
	}
	for _, r := range o.Rules {
		if o.met(r) {
			see(r.Hop)
		}
	}
	for _, d := range o.Drops {
		if !d.Unsure {
			see(d.Hop)
		}
	}
	return at
}

// outward is the way out of a container, in order: that of a reply to what came in, and of what a container
// asks. The host's hooks come in their own order, not in that of the way in turned round.
var outward = []packet.Hop{
	packet.Socket, packet.Container, packet.Veth, packet.Bridge, packet.DNAT, packet.Route, packet.Accept, packet.Masquerade, packet.Uplink,
}

// ways are the hops there and back, in order, the latter as replies'.
func (o *Observation) ways() []packet.Hop {
	there, back := packet.Hops, outward
	if o.Target.Direction == netstate.Out {
		there, back = back, there
	}
	all := slices.Clone(there)
	for _, h := range back {
		all = append(all, h.Reply())
	}
	return all
}

// Saw says whether a copy was taken at the hop.
func (o *Observation) Saw(h packet.Hop) bool {
	return slices.ContainsFunc(o.Copies, func(c Copy) bool { return c.Hop == h })
}
