package packet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A walker walks one of the possible ways. Where the answer to a question cannot be told, it takes the
// answer that choices has for it; explore then walks again with the other one.
type walker struct {
	x       *Index
	trace   *Trace
	choices []bool
	asked   int
	depends map[string]string // object of a rule → what its answer depends on; of all ways

	conns       map[*netns][]*conn
	reply       bool // the way back
	later       bool // a packet after the first
	goal        *goal
	outside     bool            // the goal is the world
	legacyFirst answer          // maybe: asked and denied
	olderTables map[string]bool // of the bridge family, than br_netfilter
	depth       int
	watched     *netns // of it, the first packet that the host forwards is kept:
	large       *skb
	bound       *rule // that translated the packet last
	blinded     map[blindKey]bool

	// decided, where it is set, is told every verdict that a rule gives; of a policy r is nil.
	decided func(n *netns, b *base, r *rule, v code, p *skb)
}

type blindKey struct {
	ns     *netns
	family netstate.Family
}

// fewSteps is how many steps most packets take.
const fewSteps = 8

// maxWays bounds how many ways are walked when answers cannot be told. Past it nothing is certain.
const maxWays = 128

// explore walks every possible way and merges what was met.
func (x *Index) explore(t netstate.Target, walk func(*walker)) *Trace {
	var merged *Trace
	var choices []bool
	ways := 0
	depends := map[string]string{}
	all := true // every way so far is stopped for certain
	for {
		w := &walker{x: x, trace: &Trace{Target: t, Request: make([]Step, 0, fewSteps), Reply: make([]Step, 0, fewSteps)}, choices: slices.Clone(choices), depends: depends, conns: map[*netns][]*conn{}}
		walk(w)
		ways++
		stopped := slices.ContainsFunc(w.trace.Stops, func(s Stop) bool { return s.Verdict.Stops() })
		all = all && stopped
		w.choices = w.choices[:w.asked]
		if merged == nil {
			merged = w.trace
		} else {
			merged.merge(w.trace)
		}
		// The next way: the last no becomes yes.
		choices = w.choices
		for len(choices) > 0 && choices[len(choices)-1] {
			choices = choices[:len(choices)-1]
		}
		if len(choices) == 0 {
			break
		}
		if ways == maxWays {
			all = false
			for i := range merged.Stops {
				merged.Stops[i].Verdict = May
			}
			merged.Notes = append(merged.Notes, fmt.Sprintf("more than %d ways are possible: the rest was not walked", maxWays))
			merged.Stops = append(merged.Stops, Stop{Hop: Accept, Kind: Opaque, Object: "walk", Verdict: May,
				Why: fmt.Sprintf("too much depends on what cannot be told: more than %d ways are possible", maxWays)})
			break
		}
		choices[len(choices)-1] = true
	}
	switch first := firstStop(merged.Stops); {
	case all && first != nil:
		merged.Verdict = first.Verdict
	case all:
		merged.Verdict = Drop // each way is stopped, every one elsewhere
	case len(merged.Stops) > 0:
		merged.Verdict = May
	}
	for i := range merged.Stops {
		s := &merged.Stops[i]
		object, _, _ := strings.Cut(s.Object, " in container ")
		if on := depends[object]; on != "" && s.Verdict == May {
			s.Why = "may be " + s.Why + ": it depends on " + on
		}
	}
	return merged
}

// firstStop returns the first certain stop.
func firstStop(stops []Stop) *Stop {
	for i := range stops {
		if stops[i].Verdict.Stops() {
			return &stops[i]
		}
	}
	return nil
}

// merge adds another way's stops. What stops only some of the ways is May.
func (t *Trace) merge(other *Trace) {
	same := func(a Stop) func(Stop) bool {
		return func(b Stop) bool {
			return a.Hop == b.Hop && a.Object == b.Object && a.Kind == b.Kind && a.Later == b.Later
		}
	}
	for i := range t.Stops {
		if s := &t.Stops[i]; !slices.ContainsFunc(other.Stops, same(*s)) {
			s.Verdict = May
		}
	}
	for _, s := range other.Stops {
		if slices.ContainsFunc(t.Stops, same(s)) {
			continue
		}
		s.Verdict = May
		at := len(t.Stops)
		for i := range t.Stops {
			if place(t.Stops[i].Hop) > place(s.Hop) {
				at = i
				break
			}
		}
		t.Stops = slices.Insert(t.Stops, at, s)
	}
	for _, note := range other.Notes {
		if !slices.Contains(t.Notes, note) {
			t.Notes = append(t.Notes, note)
		}
	}
}

// place orders hops along the way there and back.
func place(h Hop) int {
	i := slices.Index(Hops, h.Place())
	if h.IsReply() {
		return 2*len(Hops) - i
	}
	return i
}

// mayRule answers whether a rule has its say, which depends on something that cannot be told.
func (w *walker) mayRule(r *rule, on string) bool {
	if w.depends != nil {
		w.depends[r.object()] = on
	}
	return w.may()
}

// may answers a question that cannot be told.
func (w *walker) may() bool {
	if w.asked == len(w.choices) {
		w.choices = append(w.choices, false)
	}
	answer := w.choices[w.asked]
	w.asked++
	return answer
}

// hop returns the hop for a place of a namespace, in the present direction.
func (w *walker) hop(n *netns, h Hop) Hop {
	if n != nil && n.container != "" && h != Socket && h != Veth {
		h = Container
	}
	if w.reply {
		return h.Reply()
	}
	return h
}

// step writes down what had a say. n is where; the object gets the container's name behind it.
func (w *walker) step(s Step, n *netns) {
	if w.later {
		return
	}
	s.Hop = w.hop(n, s.Hop)
	if n != nil {
		s.Object = n.in(s.Object)
	}
	if s.Hop.IsReply() {
		w.trace.Reply = append(w.trace.Reply, s)
	} else {
		w.trace.Request = append(w.trace.Request, s)
	}
}

// stop writes down a stop, once.
func (w *walker) stop(s Stop, n *netns) {
	s.Hop = w.hop(n, s.Hop)
	if n != nil {
		s.Object = n.in(s.Object)
		if s.Behind != "" {
			s.Behind = n.in(s.Behind)
		}
	}
	s.Later = w.later
	for _, have := range w.trace.Stops {
		if have.Hop == s.Hop && have.Object == s.Object && have.Kind == s.Kind {
			return
		}
	}
	w.trace.Stops = append(w.trace.Stops, s)
	if w.later {
		return
	}
	step := Step{Hop: s.Hop, Object: s.Object, Did: s.Why, Verdict: s.Verdict, Owner: s.Owner, Packets: s.Packets, Bytes: s.Bytes}
	if s.Hop.IsReply() {
		w.trace.Reply = append(w.trace.Reply, step)
	} else {
		w.trace.Request = append(w.trace.Request, step)
	}
}

func (w *walker) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(w.trace.Notes, text) {
		w.trace.Notes = append(w.trace.Notes, text)
	}
}

// object names the rule as docs/design.md says.
func (r *rule) object() string {
	if r.nft != "" {
		return fmt.Sprintf("nft %s %s handle %d: %s", r.nft, r.chain.name, r.handle, r.text())
	}
	return fmt.Sprintf("%s %s %d: %s", r.chain.label, r.chain.name, r.number, r.text())
}

func (w *walker) ruleStep(n *netns, hop Hop, r *rule, did string, v Verdict, p *skb) {
	if w.later {
		return
	}
	s := Step{Hop: hop, Object: r.object(), Did: did, Verdict: v, Owner: r.owner(w.x), Packets: r.packets, Bytes: r.bytes}
	w.step(s, n)
}

// ruleStop writes down that the rule stops the packet, and returns the object for Behind.
func (w *walker) ruleStop(n *netns, hop Hop, r *rule, v verdict, behind string) string {
	owner, object := r.owner(w.x), r.object()
	s := Stop{Hop: hop, Kind: Filter, Object: object, Verdict: Drop, Owner: owner, Behind: behind,
		Packets: r.packets, Bytes: r.bytes, Family: r.chain.family, Table: r.chain.table, Chain: r.chain.name,
		Evidence: []string{object}}
	did := "dropped"
	if v.code == rejectIt {
		s.Verdict, did = Refuse, "rejected"
	}
	s.Why = did + " by a rule of " + ownerWords(owner)
	if v.why != "" {
		s.Why += ": " + v.why
	}
	w.stop(s, n)
	if behind == "" {
		return object
	}
	return behind
}

func (b *base) object() string {
	label := b.label
	if b.nft {
		label = "nft " + label
	}
	return label + " " + b.name + " policy " + b.policy
}

func (w *walker) policyStop(n *netns, hop Hop, b *base, behind string) {
	owner := cmpOwner(b.owner, "")
	w.stop(Stop{Hop: hop, Kind: Policy, Object: b.object(), Verdict: Drop, Owner: owner, Behind: behind,
		Why:     "no rule accepts it, and the chain's policy is to drop",
		Packets: b.packets, Bytes: b.bytes, Family: b.family, Table: b.table, Chain: b.name,
		Evidence: []string{b.object()}}, n)
}

func (w *walker) policyStep(n *netns, hop Hop, b *base) {
	if w.later {
		return
	}
	w.step(Step{Hop: hop, Object: b.object(), Did: "accepts", Owner: b.owner, Packets: b.packets, Bytes: b.bytes}, n)
}

func cmpOwner(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// blind notes, once a namespace and family, that its rules could not be read.
func (w *walker) blind(n *netns, hop Hop, family netstate.Family) {
	key := blindKey{n, family}
	if w.blinded[key] {
		return
	}
	if w.blinded == nil {
		w.blinded = map[blindKey]bool{}
	}
	w.blinded[key] = true
	unread := func(part netstate.Part, variant, what string) {
		if why := n.why(part, family, variant); why != "" {
			w.unread(n, hop, what, why)
		}
	}
	unread(netstate.Iptables, "legacy", commandOf(family, "legacy"))
	if n.why(netstate.Nftables, 0, "") != "" {
		unread(netstate.Nftables, "", "nft")
		unread(netstate.Iptables, "nft", commandOf(family, "nft"))
	}
}

// unread writes down that something which decides could not be read.
func (w *walker) unread(n *netns, hop Hop, what, why string) {
	w.stop(Stop{Hop: hop, Kind: Unread, Object: what, Verdict: May, Why: what + " could not be read: " + why}, n)
}

func commandOf(family netstate.Family, variant string) string {
	return (&netstate.IptablesSet{Family: family, Variant: variant}).Command()
}

// track finds or makes the connection that the packet belongs to. Source: nf_conntrack_in.
func (w *walker) track(n *netns, hop Hop, p *skb) {
	if p.ct != nil || p.state == ctUntracked || !n.tracks(p.family) {
		return // it came over lo, or a rule said notrack, or nothing here asks for tracking
	}
	if p.about != nil {
		w.relate(n, p)
		return
	}
	w.adopt(n, p.tuple, p.zone)
	for _, ct := range w.conns[n] {
		if ct.zone != p.zone || ct.gone {
			continue
		}
		switch {
		case ct.orig == p.tuple && !p.answers():
			p.replyDir = false
		case ct.reply == p.tuple && (p.answers() || p.proto != protoICMP && p.proto != protoICMPv6):
			p.replyDir = true
		default:
			continue
		}
		taken, invalid := w.resume(ct, p)
		if !taken {
			continue
		}
		if invalid || !p.replyDir && p.proto == protoTCP && p.flags == tcpACK && !ct.answered && ct.begun() { // the answer did not come by here
			p.state, p.replyDir = ctInvalid, false
			return
		}
		ct.answered = ct.answered || p.replyDir
		switch p.ct = ct; {
		case ct.answered:
			p.state = ctEstablished
		case ct.expected:
			p.state = ctRelated
		default:
			p.state = ctNew
		}
		if ct.flow != nil {
			w.sayResumed(n, hop, p)
		}
		return
	}
	if !p.begins() {
		p.state = ctInvalid
		return
	}
	ct := &conn{orig: p.tuple, reply: p.tuple.reverse(), zone: p.zone}
	p.ct, p.state, p.replyDir = ct, ctNew, false
	w.conns[n] = append(w.conns[n], ct)
}

// relate finds the connection that an ICMP error is about. Source: nf_conntrack_inet_error.
func (w *walker) relate(n *netns, p *skb) {
	p.state = ctInvalid
	quoted := p.about.reverse()
	w.adopt(n, quoted, p.zone)
	for _, ct := range w.conns[n] {
		if ct.zone != p.zone || ct.gone || ct.orig != quoted && ct.reply != quoted {
			continue
		}
		way, reply := ct.reply, ct.reply == quoted
		if !reply {
			way = ct.orig
		}
		if way.dst == p.dst { // an error for somebody else than the quoted packet's sender is none
			p.ct, p.replyDir, p.state = ct, reply, ctRelated
		}
		return
	}
}

// answers says whether it is the ICMP answer to a request.
func (p *skb) answers() bool {
	return p.proto == protoICMP && p.icmpType == 0 || p.proto == protoICMPv6 && p.icmpType == 129
}

// begins says whether connection tracking takes the packet for a connection's first. Sources: tcp_conntracks,
// nf_conntrack_icmp_packet, nf_conntrack_icmpv6_packet; nf_conntrack_tcp_loose is taken to be on.
func (p *skb) begins() bool {
	switch p.proto {
	case protoTCP:
		switch p.flags & (tcpSYN | tcpACK | tcpRST | tcpFIN) {
		case tcpSYN, tcpACK:
			return true
		}
		return false
	case protoICMP:
		return p.icmpType == 8 || p.icmpType == 13 || p.icmpType == 15 || p.icmpType == 17
	case protoICMPv6:
		return p.icmpType == 128 || p.icmpType == 139
	}
	return true
}

func ownerWords(owner string) string {
	switch owner {
	case "yours", "":
		return "this host's administrator"
	}
	return owner
}
