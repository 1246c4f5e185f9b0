// Package packet walks one packet through a netstate.Snapshot as the Linux kernel would: netfilter of
// every family and variant, the routing decision, the bridge, the veth pair, the container's own
// namespace and its socket, and the reply on its way back.
//
// It is pure: the same snapshot and target give the same Trace. Its answers have three values. What
// depends on chance, time, payload, or on something that could not be read or is not understood is
// May, and stays May to the end.
package packet

import (
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Needs is what Walk reads of a snapshot. Conntrack and Traffic are used where they are there, and
// their absence is no reason for May.
const Needs = netstate.Engine | netstate.Links | netstate.Routes | netstate.Sysctls |
	netstate.Sockets | netstate.Iptables | netstate.Nftables

// A Hop is a place on the packet's way.
type Hop string

// The hops, in the order in which a packet from outside meets them.
const (
	Uplink     Hop = "uplink"     // the link that the packet comes in or leaves by
	DNAT       Hop = "dnat"       // prerouting, and output of a packet that starts on the host: raw, mangle, nat
	Route      Hop = "route"      // the routing decision, forwarding, reverse path filter
	Accept     Hop = "accept"     // forward, input, and filtering of output
	Masquerade Hop = "masquerade" // postrouting
	Bridge     Hop = "bridge"     // the Docker network's bridge and its ports
	Veth       Hop = "veth"       // the pair of links between bridge and container
	Container  Hop = "container"  // the container's own namespace: interface, routes, rules
	Socket     Hop = "socket"     // the socket that it is for, or that takes it on the host
)

// Hops is the way in, in order.
var Hops = []Hop{Uplink, DNAT, Route, Accept, Masquerade, Bridge, Veth, Container, Socket}

const replyPrefix = "reply "

// Reply returns the same place on the way of the reply: "reply accept".
func (h Hop) Reply() Hop {
	if h.IsReply() {
		return h
	}
	return replyPrefix + h
}

// IsReply says whether the hop is on the way of the reply.
func (h Hop) IsReply() bool { return strings.HasPrefix(string(h), replyPrefix) }

// Place returns the hop without "reply ".
func (h Hop) Place() Hop { return Hop(strings.TrimPrefix(string(h), replyPrefix)) }

// A Verdict is what becomes of the packet at one place, or on its whole way.
type Verdict uint8

// The verdicts, from best to worst.
const (
	Pass   Verdict = iota // it goes on
	May                   // it cannot be told: chance, payload, or something not read or not understood
	Drop                  // it is gone without a word
	Refuse                // it is answered: a TCP reset, an ICMP error
)

var verdictNames = [...]string{"pass", "may", "drop", "refuse"}

// String returns "pass", "may", "drop" or "refuse".
func (v Verdict) String() string { return verdictNames[v] }

// MarshalText makes a verdict its name in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Stops says whether the packet certainly does not get further.
func (v Verdict) Stops() bool { return v >= Drop }

// A Kind says what sort of thing stops a packet, so that a check can tell its own.
type Kind string

// The kinds of a Stop.
const (
	Forwarding   Kind = "forwarding"    // a forwarding sysctl is off
	RPFilter     Kind = "rp_filter"     // the reverse path filter
	Martian      Kind = "martian"       // an address that may not come in there: route_localnet, accept_local
	NoRoute      Kind = "no-route"      // the routing tables have no way
	Unreachable  Kind = "unreachable"   // a blackhole, unreachable or prohibit route or rule
	WrongRoute   Kind = "wrong-route"   // the way leads by another link
	Filter       Kind = "filter"        // a rule drops or rejects
	Policy       Kind = "policy"        // the policy of a base chain drops
	Diverted     Kind = "diverted"      // a rule or a socket sends it elsewhere
	NotPublished Kind = "not-published" // nothing on the host sends it to the container: no DNAT, no docker-proxy
	NotLocal     Kind = "not-local"     // the address it is for is not one of the host's
	NoListener   Kind = "no-listener"   // no socket takes it
	LinkDown     Kind = "link-down"     // a link was set down
	NoCarrier    Kind = "no-carrier"    // a link is up and has no carrier: what it hangs on is down or gone
	NoLink       Kind = "no-link"       // a link is not there
	NoMaster     Kind = "no-master"     // the veth is not in its bridge
	BridgePort   Kind = "bridge-port"   // a port that does not forward: state, isolation, no hairpin
	Switching    Kind = "switching"     // the bridge sends it by another port, or nowhere: its forwarding table, its VLANs
	NoAddress    Kind = "no-address"    // the container's interface has not the address
	Neighbour    Kind = "neighbour"     // a wrong or failed neighbour entry
	Connection   Kind = "connection"    // an older connection is in its way
	IPv6Off      Kind = "ipv6-off"      // disable_ipv6
	NoNamespace  Kind = "no-namespace"  // the container has no namespace to arrive in
	Unread       Kind = "unread"        // something that decides could not be read: always May
	Opaque       Kind = "opaque"        // something that decides is not understood: always May
)

// A Trace is the way of one target's packets: a first packet, its reply, and the packets that follow.
type Trace struct {
	Target  netstate.Target `json:"target"`
	Packet  string          `json:"packet"`            // as it set out: "tcp 203.0.113.9:* → 198.51.100.15:8080"
	Arrives string          `json:"arrives,omitempty"` // as the socket sees it: "tcp 172.17.0.1:* → 172.17.0.2:80"
	Via     string          `json:"via"`               // "forward", "docker-proxy", "local", "bridge"; "" when it never got so far
	Uplink  string          `json:"uplink,omitempty"`  // the host's link that it comes in or leaves by
	Request []Step          `json:"request"`           // what decided on the way there, in order
	Reply   []Step          `json:"reply,omitempty"`   // and back
	Stops   []Stop          `json:"stops,omitempty"`   // every place that stops it, in order: beyond each the walk goes on as though it had passed
	Notes   []string        `json:"notes,omitempty"`   // what is worth knowing and stops nothing: a reply by another uplink, a lost source address
	Verdict Verdict         `json:"verdict"`           // Drop or Refuse only if every possible way is stopped
}

// A Step is one thing that had a say in the packet's way.
type Step struct {
	Hop     Hop     `json:"hop"`
	Object  string  `json:"object"`            // named as docs/design.md says: "iptables filter FORWARD 1: -j DOCKER-USER"
	Did     string  `json:"did"`               // in a few words: "accepts", "dnat to 172.17.0.2:80", "by docker0"
	Verdict Verdict `json:"verdict"`           // Pass unless it stops, or may stop, the packet
	Owner   string  `json:"owner,omitempty"`   // who made a rule, where it can be told
	Packets uint64  `json:"packets,omitempty"` // counters of a rule or policy
	Bytes   uint64  `json:"bytes,omitempty"`
	Packet  string  `json:"packet,omitempty"` // the packet after a rewrite
}

// A Stop is a place that stops the packet.
type Stop struct {
	Hop      Hop      `json:"hop"`
	Kind     Kind     `json:"kind"`
	Object   string   `json:"object"` // named as docs/design.md says
	Why      string   `json:"why"`    // one plain clause: "IPv4 forwarding is off"
	Verdict  Verdict  `json:"verdict"`
	Owner    string   `json:"owner,omitempty"` // "Docker", "firewalld", …, "yours"; "" where nobody owns such a thing
	Evidence []string `json:"evidence,omitempty"`
	Behind   string   `json:"behind,omitempty"` // the Object of an earlier stop of the same base chain: what lets the packet pass there may spare it this one
	Later    bool     `json:"later,omitempty"`  // it stops only the packets after the first of a connection
	Packets  uint64   `json:"packets,omitempty"`
	Bytes    uint64   `json:"bytes,omitempty"`

	// Of a rule: where it stands.
	Family netstate.Family `json:"family,omitempty"`
	Table  string          `json:"table,omitempty"`
	Chain  string          `json:"chain,omitempty"`
}

// Stop returns the first stop of any of the kinds, or nil.
func (t *Trace) Stop(kinds ...Kind) *Stop {
	for i := range t.Stops {
		for _, kind := range kinds {
			if s := &t.Stops[i]; s.Kind == kind {
				return s
			}
		}
	}
	return nil
}
