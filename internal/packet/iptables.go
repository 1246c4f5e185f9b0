package packet

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Where the built-in chains of iptables run. Source: xt_table.priority of each table; nat is the nat core's.
var iptablesHooks = map[string]string{
	"PREROUTING": hookPrerouting, "INPUT": hookInput, "FORWARD": hookForward, "OUTPUT": hookOutput, "POSTROUTING": hookPostrouting,
}

func iptablesPriority(table, hook string) int {
	switch table {
	case "raw":
		return -300
	case "mangle":
		return -150
	case "nat":
		return natPriority(hook)
	case "security":
		return 50
	}
	return 0
}

// compileIptables makes the iptables tables of both variants ready.
func (n *netns) compileIptables() []hooked {
	var all []hooked
	for i := range n.state.Iptables {
		set := &n.state.Iptables[i]
		for j := range set.Tables {
			all = append(all, n.compileTable(set, &set.Tables[j])...)
		}
	}
	return all
}

func (n *netns) compileTable(set *netstate.IptablesSet, table *netstate.IptablesTable) []hooked {
	chains := make(map[string]*chain, len(table.Chains))
	for i := range table.Chains {
		from := &table.Chains[i]
		chains[from.Name] = &chain{
			label: set.Command() + " " + table.Name, table: table.Name, name: from.Name, family: set.Family,
			owner: ownerOf("", from.Name),
		}
	}
	var bases []hooked
	kernel := n.kernelTable(set, table, chains)
	for i := range table.Chains {
		from := &table.Chains[i]
		c := chains[from.Name]
		n.fillText(c, set, kernel, from, chains)
		hook := iptablesHooks[from.Name]
		if hook == "" || from.Policy == "" {
			continue
		}
		b := &base{chain: c, hook: hook, kind: "filter", policy: from.Policy, packets: from.Packets, bytes: from.Bytes,
			priority: iptablesPriority(table.Name, hook), legacy: set.Variant == "legacy"}
		if set.Variant == "nft" {
			b.order = n.registered(ipFamily(set.Family), table.Name, from.Name)
		}
		switch {
		case table.Name == "nat":
			b.kind = "nat"
		case table.Name == "mangle" && hook == hookOutput:
			b.kind = "route"
		}
		bases = append(bases, hooked{hookKey{ipFamily(set.Family), hook}, b})
	}
	return bases
}

// fillText gives the chain the rules of one of iptables.
//
// iptables-save of an iptables-nft table can leave out what iptables has no words for, without saying so.
// Each rule is therefore held against the expressions that the kernel runs; where those say more, they are
// walked instead. They also tell which packets it can be for, whichever is walked.
func (n *netns) fillText(c *chain, set *netstate.IptablesSet, kernel *nftTable, from *netstate.IptablesChain, chains map[string]*chain) {
	var runs *netstate.NftChain
	if kernel != nil {
		runs = kernel.state.Chain(from.Name)
	}
	if runs != nil {
		kernel.fill(c, runs)
		if len(runs.Rules) != len(from.Rules) {
			return
		}
	} else {
		c.count, c.plain = len(from.Rules), func() bool { return false }
		c.tells = func(at int) selector { return textSelector(from.Rules[at].Text) }
	}
	c.ready = func(at int) *rule {
		text := &from.Rules[at]
		if runs != nil && !netstate.Covered(text.Text, &runs.Rules[at]) {
			return kernel.rule(c, &runs.Rules[at], at)
		}
		body, comment := n.compileRule(text.Text, set.Family, chains)
		return &rule{chain: c, number: at + 1, packets: text.Packets, bytes: text.Bytes,
			text: func() string { return text.Text }, comment: comment, run: body}
	}
}

// textSelector reads a selector from the head of a rule of iptables-save: the rule's own options and the ports of
// its protocol, which stand before all else.
func textSelector(text string) (s selector) {
	ports := false
	for text != "" {
		option, rest, _ := strings.Cut(text, " ")
		negated := option == "!"
		if negated {
			option, rest, _ = strings.Cut(rest, " ")
		}
		value, rest, _ := strings.Cut(rest, " ")
		if value == "" || strings.ContainsAny(value, `"\`) {
			return s
		}
		text = rest
		switch option {
		case "-s", "-d":
			prefix, ok := parsePrefix(value)
			if !ok || negated || prefix.Bits() == 0 {
				continue
			}
			what := selectDst
			if option == "-s" {
				what = selectSrc
			}
			s.narrow(selector{what: what, prefix: prefix})
		case "-i", "-o":
			if negated || strings.HasSuffix(value, "+") {
				continue
			}
			what := selectOut
			if option == "-i" {
				what = selectIn
			}
			s.narrow(selector{what: what, name: value})
		case "-p", "--sport":
		case "-m":
			if ports = value == "tcp" || value == "udp"; !ports {
				return s
			}
		case "--dport":
			if at, ok := parseSpan(value); ok && ports && !negated && at.lo == at.hi {
				s.narrow(selector{what: selectPort, port: at.lo, ported: true})
			}
		default:
			return s
		}
	}
	return s
}

// kernelTable returns the table of nf_tables behind one of iptables-nft, with the text's chains as what its
// rules jump to, or nil.
func (n *netns) kernelTable(set *netstate.IptablesSet, table *netstate.IptablesTable, chains map[string]*chain) *nftTable {
	if set.Variant != "nft" {
		return nil
	}
	t := n.state.Nft.Table(ipFamily(set.Family), table.Name)
	if t == nil {
		return nil
	}
	made := n.newNftTable(t)
	made.chains = chains
	return made
}

// registered returns the place of a chain of nf_tables in the order in which base chains were made.
func (n *netns) registered(family, table, chain string) int {
	if n.state.Nft == nil {
		return 0
	}
	for i := range n.state.Nft.Tables {
		t := &n.state.Nft.Tables[i]
		if t.Family != family || t.Name != table {
			continue
		}
		for j := range t.Chains {
			if t.Chains[j].Name == chain {
				return i<<16 + j
			}
		}
	}
	return 0
}

// A textRule is a rule of iptables.
type textRule struct {
	matches []match
	target  target
	unknown string // an option or target that is not known
	idle    bool   // the target changes nothing that the walk sees
}

// A match asks one thing of a packet.
type match struct {
	module string
	ask    func(w *walker, p *skb) answer
}

// A target is what a rule does.
type target func(w *walker, p *skb) verdict

func (t *textRule) run(w *walker, p *skb, r *rule) verdict {
	unsure := ""
	for i := range t.matches {
		switch t.matches[i].ask(w, p) {
		case no:
			return verdict{}
		case maybe:
			unsure = "match " + t.matches[i].module
		}
	}
	if t.idle {
		return verdict{}
	}
	if t.unknown != "" {
		unsure = t.unknown
	}
	if unsure != "" && !w.mayRule(r, unsure) {
		return verdict{}
	}
	return t.target(w, p)
}

// words splits a rule of iptables-save, which quotes with " and escapes with \. Interfaces' names are
// printed as they are, whatever is in them.
func words(text string) []string {
	var all []string
	var b strings.Builder
	in, quoted, raw := false, false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && !raw && i+1 < len(text):
			i++
			b.WriteByte(text[i])
			in = true
		case c == '"' && !raw:
			quoted, in = !quoted, true
		case c == ' ' && !quoted:
			if in {
				word := b.String()
				all = append(all, word)
				b.Reset()
				in = false
				raw = !raw && (word == "-i" || word == "-o" || word == "--physdev-in" || word == "--physdev-out")
			}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		all = append(all, b.String())
	}
	return all
}

// A parser reads one rule.
type parser struct {
	ns      *netns
	family  netstate.Family
	words   []string
	at      int
	rule    *textRule
	note    string // comment
	proto   uint8
	current string // module whose options are read
}

func (p *parser) more() bool { return p.at < len(p.words) }

func (p *parser) next() string {
	if !p.more() {
		return ""
	}
	p.at++
	return p.words[p.at-1]
}

// values returns the words up to the next option.
func (p *parser) values() []string {
	from := p.at
	for p.more() && !strings.HasPrefix(p.words[p.at], "-") && p.words[p.at] != "!" {
		p.at++
	}
	return p.words[from:p.at]
}

func (p *parser) add(module string, ask func(*walker, *skb) answer) {
	p.rule.matches = append(p.rule.matches, match{module, ask})
}

func (p *parser) unsure(what string) { p.rule.unknown = what }

// compileRule reads a rule as iptables-save prints it, without "-A CHAIN". What is not known makes a rule
// that may match.
func (n *netns) compileRule(text string, family netstate.Family, chains map[string]*chain) (runner, string) {
	p := &parser{ns: n, family: family, words: words(text), rule: &textRule{}}
	for p.more() {
		negated := false
		word := p.next()
		if word == "!" {
			negated, word = true, p.next()
		}
		switch word {
		case "-m", "--match":
			p.module(p.next())
		case "-j", "--jump", "-g", "--goto":
			p.target(p.next(), word[1] == 'g' || word == "--goto", chains)
		default:
			if !p.option(word, negated) {
				p.values()
				p.unsure("option " + word)
			}
		}
	}
	if p.rule.target == nil {
		p.rule.target = func(*walker, *skb) verdict { return verdict{} }
		p.rule.idle = true
	}
	return p.rule, p.note
}

// chainOf returns the target that jumps.
func toChain(c *chain, code code) target {
	return func(*walker, *skb) verdict { return verdict{code: code, chain: c} }
}

// target reads -j NAME with its options.
func (p *parser) target(name string, goes bool, chains map[string]*chain) {
	if c := chains[name]; c != nil {
		code := jump
		if goes {
			code = gotoIt
		}
		p.rule.target = toChain(c, code)
		return
	}
	options := p.targetOptions()
	says := func(v verdict) { p.rule.target = func(*walker, *skb) verdict { return v } }
	switch name {
	case "ACCEPT":
		says(verdict{code: accept})
	case "DROP":
		says(verdict{code: dropIt})
	case "REJECT":
		says(verdict{code: rejectIt, why: options["--reject-with"]})
	case "RETURN":
		says(verdict{code: returnIt})
	case "LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "CHECKSUM", "CLASSIFY", "SECMARK", "CONNSECMARK", "LED", "RATEEST",
		"TCPOPTSTRIP", "ECN", "IDLETIMER", "HMARK", "TEE", "DNPT", "SNPT":
		// They say nothing about the packet's fate. What they change is neither address, port nor mark; HMARK's
		// mark and the prefix translation are handled below.
		switch name {
		case "HMARK":
			p.unsure("target HMARK")
			says(verdict{did: "sets a mark that depends on a hash"})
		case "DNPT", "SNPT":
			p.unsure("target " + name)
			says(verdict{did: "translates the prefix"})
		default:
			p.rule.idle = true
			says(verdict{})
		}
	case "TCPMSS":
		did := clamps
		if segment, err := strconv.ParseUint(options["--set-mss"], 10, 16); err == nil {
			did = clampsTo(segment)
		}
		says(verdict{did: did})
	case "SET":
		p.rule.idle = true // it changes a set after the snapshot was taken
		says(verdict{})
	case "MARK", "CONNMARK", "TOS", "DSCP", "TTL", "HL", "NOTRACK", "CT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP":
		p.changing(name, options)
	case "SAME", "BALANCE", "CLUSTERIP":
		p.unsure("target " + name)
		says(verdict{code: accept, did: name})
	case "TPROXY":
		p.unsure("target TPROXY: it needs a socket that takes the packet")
		says(verdict{code: dropIt, why: "TPROXY hands it to " + options["--on-ip"] + ":" + options["--on-port"]})
	case "NFQUEUE", "QUEUE":
		p.unsure("target " + name + ": a program decides")
		says(verdict{code: dropIt, why: "a program on queue " + options["--queue-num"] + options["--queue-balance"] + " decides"})
	case "SYNPROXY":
		p.unsure("target SYNPROXY")
		says(verdict{code: dropIt, why: "SYNPROXY answers in the server's place"})
	case "TARPIT", "STEAL", "DELUDE", "CHAOS":
		says(verdict{code: dropIt, why: "target " + name})
	default:
		p.unsure("target " + name)
		says(verdict{code: dropIt, why: fmt.Sprintf("what %s does is not known", name)})
	}
}

// targetOptions reads what stands behind the target's name: an option without a value has "".
func (p *parser) targetOptions() map[string]string {
	options := map[string]string{}
	for p.more() {
		word := p.next()
		if word == "!" {
			continue
		}
		options[word] = strings.Join(p.values(), " ")
	}
	return options
}
