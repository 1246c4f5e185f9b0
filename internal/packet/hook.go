package packet

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Where netfilter calls base chains.
const (
	hookPrerouting  = "prerouting"
	hookInput       = "input"
	hookForward     = "forward"
	hookOutput      = "output"
	hookPostrouting = "postrouting"
	hookIngress     = "ingress"
	hookEgress      = "egress"
)

// Priorities with a meaning of their own. Source: enum nf_ip_hook_priorities.
const (
	priorityConntrack = -200
	priorityNATDst    = -100
	priorityNATSrc    = 100
)

type hookKey struct {
	family string // "ip", "ip6", "bridge" or "netdev"
	hook   string
}

// ipFamily names the family in netfilter's way.
func ipFamily(family netstate.Family) string {
	if family == netstate.IPv6 {
		return "ip6"
	}
	return "ip"
}

// A base is a chain that netfilter calls.
type base struct {
	*chain
	hook     string
	kind     string // "filter", "nat" or "route"
	priority int
	order    int  // among equal priorities: the later registered runs first
	legacy   bool // of iptables-legacy: its order is not known
	policy   string
	packets  uint64 // of the policy
	bytes    uint64
	devices  []string // of netdev chains
}

// A chain is rules in their order. Its names are what an Object shows.
type chain struct {
	label  string // "iptables filter", "nft inet firewalld"
	table  string
	name   string
	family netstate.Family // 0: both
	nft    bool
	count  int                   // of rules
	ready  func(at int) *rule    // makes a rule ready; they are counted from 0
	tells  func(at int) selector // which packets a rule can be for
	plain  func() bool           // whether rules change what selectors look at: no picker then
	owner  string                // of every rule in it, where the chain tells; "" where each rule tells
	rules  []*rule               // those that are ready
	picker *picker
}

// rule returns a rule of the chain, made ready when it is first met: of most no packet comes to the first word.
func (c *chain) rule(at int) *rule {
	if c.rules == nil {
		c.rules = make([]*rule, c.count)
	}
	if c.rules[at] == nil {
		c.rules[at] = c.ready(at)
	}
	return c.rules[at]
}

// A rule is one rule, ready to run.
type rule struct {
	chain   *chain
	nft     string // family and table, where it is named by its handle; "": by its number
	number  int    // from 1
	handle  uint64 // of nft
	packets uint64
	bytes   uint64
	text    func() string
	comment string
	maker   string // what owner found
	run     runner
}

// A runner is a rule's body.
type runner interface {
	run(w *walker, p *skb, r *rule) verdict
}

// A verdict is what a rule says.
type verdict struct {
	code  code
	chain *chain // of jump and goto
	did   string // for the step; "" where the rule had no say
	why   string // of drop and reject: more than "dropped by a rule of …"
}

type code uint8

const (
	goOn   code = iota // with the next rule
	accept             // ends this base chain
	dropIt
	rejectIt
	jump
	gotoIt
	returnIt
	bound // nat: the connection has its translation; ends every nat base chain
	stolen
)

// bases returns the base chains at a hook, in the order in which they run. The nat ones among them stand
// at the place where the kernel runs them, whatever they declared.
//
// Of equal priorities the one that was registered last runs first. For tables of nf_tables their order
// tells; between them and the legacy tables nothing does. Where it matters, both orders are possible ways.
func (w *walker) bases(n *netns, family, hook string) []*base {
	if n.hooks == nil {
		n.compile()
	}
	h := n.hooks[hookKey{family, hook}]
	if h == nil {
		return nil
	}
	if h.other != nil {
		if w.legacyFirst == no {
			w.legacyFirst = maybe
			if w.may() {
				w.legacyFirst = yes
			}
		}
		if w.legacyFirst == yes {
			return h.other
		}
	}
	return h.bases
}

// A hooks is the base chains at one hook.
type hooks struct {
	bases []*base // legacy tables behind the others of their priority
	other []*base // before them; nil where that makes no difference
}

// compile reads the rules of the namespace, once.
func (n *netns) compile() {
	n.hooks, n.nats = map[hookKey]*hooks{}, map[string]bool{}
	for _, h := range append(n.compileIptables(), n.compileNft()...) {
		at := n.hooks[h.key]
		if at == nil {
			at = &hooks{}
			n.hooks[h.key] = at
		}
		at.bases = append(at.bases, h.base)
		if h.base.kind == "nat" {
			n.nats[h.key.family] = true
		}
	}
	for _, at := range n.hooks {
		sortBases(at.bases, -1)
		if contested(at.bases) {
			at.other = slices.Clone(at.bases)
			sortBases(at.other, 1<<62)
		}
	}
}

// sortBases puts base chains into the order in which they run; legacy is the order of the legacy tables.
func sortBases(bases []*base, legacy int) {
	order := func(b *base) int {
		if b.legacy {
			return legacy
		}
		return b.order
	}
	slices.SortStableFunc(bases, func(a, b *base) int {
		return cmp.Or(
			cmp.Compare(a.runsAt(), b.runsAt()),
			cmp.Compare(btoi(a.kind != "nat"), btoi(b.kind != "nat")),
			cmp.Compare(a.priority, b.priority),
			cmp.Compare(order(b), order(a)))
	})
}

// contested says whether a legacy table and another one have rules at the same priority that change the
// packet or its connection.
func contested(bases []*base) bool {
	for _, a := range bases {
		for _, b := range bases {
			if a.legacy && !b.legacy && a.priority == b.priority && (a.kind == "nat") == (b.kind == "nat") && a.count > 0 && b.count > 0 &&
				(a.kind == "nat" || a.priority < priorityNATSrc && a.table != "filter") {
				return true
			}
		}
	}
	return false
}

type hooked struct {
	key  hookKey
	base *base
}

// runsAt is where in the hook the chain runs: the rule of the kernel's nat core, which is one hook at a
// fixed priority and calls all nat chains from there.
func (b *base) runsAt() int {
	if b.kind != "nat" {
		return b.priority
	}
	if b.hook == hookPrerouting || b.hook == hookOutput {
		return priorityNATDst
	}
	return priorityNATSrc
}

// pass sends the packet through a hook.
func (w *walker) pass(n *netns, hop Hop, hook string, p *skb) {
	w.blind(n, hop, p.family)
	bases := w.bases(n, ipFamily(p.family), hook)
	tracked, translated := hook != hookPrerouting && hook != hookOutput, hook == hookForward
	settle := func(before int) {
		if !tracked && before > priorityConntrack {
			w.track(n, hop, p)
			tracked = true
		}
		if !translated && before > natPriority(hook) {
			w.translate(n, hop, hook, p, bases)
			translated = true
		}
	}
	for _, b := range bases {
		if b.kind == "nat" {
			continue
		}
		settle(b.priority)
		mark, dscp := p.mark, p.dscp
		w.runBase(n, hop, b, p)
		if b.kind == "route" && (p.mark != mark || p.dscp != dscp) {
			w.reroute(n, p)
		}
	}
	settle(1 << 30)
	if hook == hookInput || hook == hookPostrouting {
		w.clash(n, hop, p)
	}
}

func natPriority(hook string) int {
	if hook == hookPrerouting || hook == hookOutput {
		return priorityNATDst
	}
	return priorityNATSrc
}

// translate is the nat core at a hook: on the first packet the nat chains are asked until one binds, then
// every packet is rewritten as the connection says. Source: nf_nat_inet_fn.
func (w *walker) translate(n *netns, hop Hop, hook string, p *skb, bases []*base) {
	ct := p.ct
	if ct == nil || p.state == ctUntracked || !n.nats[ipFamily(p.family)] {
		return
	}
	dst := hook == hookPrerouting || hook == hookOutput
	if p.state == ctRelated {
		if before := p.dst; p.translateError(dst) && hook == hookOutput && p.dst != before {
			w.reroute(n, p)
		}
		return
	}
	done := &ct.srcDone
	if dst {
		done = &ct.dstDone
	}
	if !*done && p.state == ctNew {
		for _, b := range bases {
			if b.kind == "nat" && w.runBase(n, hop, b, p) == bound {
				break
			}
		}
		*done = ct.flow == nil // an older connection stays as it is, and each of its packets asks again
		if !dst {
			w.unique(n, hop, ct)
		}
	}
	w.leavesElsewhere(n, hop, p)
	before := p.tuple
	way := ct.reply
	if p.replyDir {
		way = ct.orig
	}
	if dst {
		p.dst = way.src
		if p.proto != protoICMP && p.proto != protoICMPv6 {
			p.dport = way.sport
		}
	} else {
		p.src = way.dst
		if p.proto != protoICMP && p.proto != protoICMPv6 {
			p.sport = way.dport
		}
	}
	if hook == hookOutput && p.dst != before.dst {
		w.reroute(n, p)
	}
	if p.tuple != before && p.replyDir {
		w.step(Step{Hop: hop, Object: "conntrack", Did: "takes the translation back", Packet: p.String()}, n)
	}
}

// translateError rewrites an ICMP error and what it quotes as its connection was translated, and says whether
// it was. Source: nf_nat_icmp_reply_translation.
func (p *skb) translateError(dst bool) bool {
	ct, way := p.ct, p.ct.reply
	if p.replyDir {
		way = ct.orig
	}
	if dst != p.replyDir && !ct.dnat || dst == p.replyDir && !ct.snat {
		return false
	}
	about := *p.about
	if dst {
		p.dst, about.src, about.sport = way.src, way.src, way.sport
	} else {
		p.src, about.dst = way.dst, way.dst
		if hasPorts(about.proto) {
			about.dport = way.dport
		}
	}
	p.about = &about
	return true
}

// maxJumps bounds how many chains one packet is sent through at one hook. The kernel refuses loops, but a document may
// have them; a host with many zones or tenants has some hundred jumps that one packet takes.
const maxJumps = 1000

// runBase sends the packet through one base chain. Where it would be stopped, the stop is written down
// and the packet goes on as if that rule were not there.
func (w *walker) runBase(n *netns, hop Hop, b *base, p *skb) code {
	if len(b.devices) > 0 && !onDevices(b.devices, p) {
		return accept
	}
	var stack []frame
	behind := ""
	at := frame{chain: b.chain}
	visited := 0
	for {
		r := at.after(p)
		if r == nil {
			if len(stack) == 0 {
				break
			}
			at = stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			continue
		}
		v := r.run.run(w, p, r)
		if v.code == goOn {
			if v.did != "" {
				w.ruleStep(n, hop, r, v.did, Pass, p)
			}
			continue
		}
		if w.decided != nil {
			w.decided(n, b, r, v.code, p)
		}
		switch v.code {
		case accept, stolen:
			w.ruleStep(n, hop, r, cmp.Or(v.did, "accepts"), Pass, p)
			return accept
		case bound:
			w.bound = r
			w.ruleStep(n, hop, r, v.did, Pass, p)
			return bound
		case dropIt, rejectIt:
			behind = w.ruleStop(n, hop, r, v, behind)
		case returnIt:
			if r.number != at.chain.count || len(stack) == 0 {
				w.ruleStep(n, hop, r, "returns", Pass, p)
			}
			if len(stack) == 0 {
				at = frame{chain: &chain{}} // to the policy
				continue
			}
			at = stack[len(stack)-1]
			stack = stack[:len(stack)-1]
		case jump, gotoIt:
			if visited++; visited > maxJumps || v.chain == nil {
				why := "the chain that it calls is not known"
				if v.chain != nil {
					why = fmt.Sprintf("it leads through more than %d chains: the rest was not walked", maxJumps)
				}
				w.stop(Stop{Hop: hop, Kind: Opaque, Object: r.object(), Why: why, Verdict: May}, n)
				if v.chain != nil {
					return accept
				}
				continue
			}
			if v.code == jump {
				stack = append(stack, at)
			}
			at = frame{chain: v.chain}
		}
	}
	if w.decided != nil {
		w.decided(n, b, nil, accept, p)
	}
	if b.policy == "DROP" || b.policy == "drop" {
		w.policyStop(n, hop, b, behind)
	} else if b.count > 0 {
		w.policyStep(n, hop, b)
	}
	return accept
}

func onDevices(devices []string, p *skb) bool {
	dev := p.in
	if dev == nil {
		dev = p.out
	}
	if dev == nil {
		return false
	}
	return slices.ContainsFunc(devices, func(d string) bool { return glob(d, dev.Name, '*') })
}

// glob says whether name is pattern, whose last sign may stand for any rest.
func glob(pattern, name string, any byte) bool {
	if n := len(pattern); n > 0 && pattern[n-1] == any {
		return len(name) >= n-1 && name[:n-1] == pattern[:n-1]
	}
	return pattern == name
}
