package dockerd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A Kind is a way in which a host differs from what its engine programmed.
type Kind string

// The kinds of difference.
const (
	MissingChain Kind = "missing chain"
	MissingMap   Kind = "missing map"
	Unhooked     Kind = "unhooked" // a base chain of the nftables backend is not where dockerd calls it: Found
	Dormant      Kind = "dormant"  // the whole table of the nftables backend is switched off
	MissingRule  Kind = "missing"
	Altered      Kind = "altered"   // a rule for the same packets does something else: Found instead of Rule
	Misplaced    Kind = "misplaced" // the rule is there, on the wrong side of another one: Against
	Shadowed     Kind = "shadowed"  // the rule is there, behind another one for the same packets: Against
	Stale        Kind = "stale"     // Found is for an address that no container has
	LeftOver     Kind = "left over" // Found leads into Docker chains of the variant that the engine does not use
)

// A Difference is one way in which a host differs from what its engine programmed.
type Difference struct {
	Kind          Kind
	Family        netstate.Family
	Variant       string // of iptables: "nft" or "legacy"; "" for the nftables backend
	Table         string
	Chain         string
	Rule          *Rule  // what dockerd makes; nil for Stale, LeftOver and what is about no rule
	Found         string // what is there in its place: Altered, Stale, LeftOver; of Misplaced and Shadowed the rule as it stands
	Number        int    // of Found, from 1; 0: nothing is there
	Against       string // Misplaced, Shadowed: the rule with which it stands in the wrong order
	AgainstNumber int
	Foreign       bool // Against is somebody else's rule
}

// Object names the thing in the way of all netcheck's reports: "iptables nat DOCKER: missing -d …".
func (d *Difference) Object() string {
	command := (&netstate.IptablesSet{Family: d.Family, Variant: d.Variant}).Command()
	if d.Variant == "" {
		command = "nft " + nftFamily(d.Family)
	}
	at := command + " " + d.Table
	if d.Chain != "" {
		at += " " + d.Chain
	}
	switch d.Kind {
	case MissingChain, MissingMap, Dormant:
		return at + ": " + string(d.Kind)
	case Unhooked:
		return at + ": " + d.Found
	case MissingRule:
		return at + ": missing " + d.Rule.Text
	}
	return fmt.Sprintf("%s %d: %s", at, d.Number, d.Found)
}

// String says what differs, in one line.
func (d *Difference) String() string {
	switch d.Kind {
	case Altered:
		return d.Object() + " instead of " + d.Rule.Text
	case Misplaced, Shadowed:
		side := "behind"
		if d.Number < d.AgainstNumber {
			side = "before"
		}
		return fmt.Sprintf("%s stands %s rule %d: %s", d.Object(), side, d.AgainstNumber, d.Against)
	case Stale:
		return d.Object() + " is for an address that no container has"
	case LeftOver:
		return d.Object() + " is left over: the engine uses the other variant"
	}
	return d.Object()
}

func nftFamily(family netstate.Family) string {
	if family == netstate.IPv6 {
		return "ip6"
	}
	return "ip"
}

// Compare returns how the host differs from the program, in the order of family, table and chain: first
// the chains that lack, then of each chain its rules as dockerd makes them, then what is left over. A
// family that is not judged, or whose tables could not be read, has no differences: see Unjudged.
func (p *Program) Compare(s *netstate.Snapshot) []Difference {
	var all []Difference
	for _, family := range families {
		if p.unjudged[family] != "" || !slices.ContainsFunc(p.Chains, func(c Chain) bool { return c.Family == family }) {
			continue
		}
		c := p.comparison(s, family)
		c.chains()
		for _, place := range c.places() {
			c.compareChain(place[0], place[1])
		}
		if !p.Nftables {
			c.leftOvers()
		}
		all = append(all, c.found...)
	}
	return all
}

// chooseVariants finds out for each family in which variant of iptables the engine's rules are: where
// more of them stand, or for a family with none where the other family's are, or nft.
func (p *Program) chooseVariants(s *netstate.Snapshot) {
	best := map[netstate.Family]int{}
	for _, family := range families {
		if !slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Family == family }) {
			continue
		}
		for _, variant := range []string{"nft", "legacy"} {
			if n := p.standing(s.Host.IptablesSet(variant, family), family); n > best[family] {
				best[family], p.variant[family] = n, variant
			}
		}
		if p.variant[family] == "" {
			p.variant[family] = "nft"
			if s.Host.IptablesSet("nft", family) == nil && s.Host.IptablesSet("legacy", family) != nil {
				p.variant[family] = "legacy"
			}
		}
	}
	for i, family := range families {
		other := families[1-i]
		if p.variant[family] != "" && best[family] == 0 && best[other] > 0 {
			p.variant[family] = p.variant[other]
		}
	}
	for _, family := range families {
		if p.variant[family] == "" {
			continue
		}
		if why := s.Why(netstate.Key{Part: netstate.Iptables, Family: family, Variant: p.variant[family]}); why != "" {
			p.unjudged[family] = why
		} else if best[family] == 0 {
			// With no rule in either, what could not be read may hold them all.
			p.unjudged[family] = s.Why(netstate.Key{Part: netstate.Iptables, Family: family})
		}
	}
}

// standing counts the expected chains and rules that a set holds.
func (p *Program) standing(set *netstate.IptablesSet, family netstate.Family) int {
	n := 0
	for _, c := range p.Chains {
		if c.Family == family && set.Table(c.Table).Chain(c.Name) != nil {
			n++
		}
	}
	for i := range p.Rules {
		if r := &p.Rules[i]; r.Family == family {
			for _, found := range rulesOf(set, r.Table, r.Chain) {
				if found.Text == r.Text {
					n++
				}
			}
		}
	}
	return n
}

func rulesOf(set *netstate.IptablesSet, table, chain string) []netstate.IptablesRule {
	if c := set.Table(table).Chain(chain); c != nil {
		return c.Rules
	}
	return nil
}

// A comparison is that of one family.
type comparison struct {
	*Program
	s       *netstate.Snapshot
	family  netstate.Family
	variant string                // of iptables; "" for the nftables backend
	set     *netstate.IptablesSet // of the iptables backend
	table   *netstate.NftTable    // of the nftables backend
	found   []Difference
	addrs   map[netip.Addr]bool // of running containers; nil until needed
}

func (p *Program) comparison(s *netstate.Snapshot, family netstate.Family) *comparison {
	c := &comparison{Program: p, s: s, family: family, variant: p.variant[family]}
	if p.Nftables {
		c.table = s.Host.Nft.Table(nftFamily(family), nftTable)
	} else {
		c.set = s.Host.IptablesSet(c.variant, family)
	}
	return c
}

// lines returns the rules of a chain, or the elements of a map, as they stand.
func (c *comparison) lines(table, chain string) []line {
	if c.Nftables {
		return c.nftLines(chain)
	}
	return linesOf(rulesOf(c.set, table, chain))
}

func (c *comparison) add(d Difference) {
	d.Family, d.Variant = c.family, c.variant
	c.found = append(c.found, d)
}

func (c *comparison) chains() {
	if c.table != nil && c.table.Dormant {
		c.add(Difference{Kind: Dormant, Table: nftTable})
	}
	for _, chain := range c.Chains {
		d := Difference{Kind: MissingChain, Table: chain.Table, Chain: chain.Name}
		switch {
		case chain.Family != c.family:
		case chain.Map:
			if c.table.Set(chain.Name) == nil {
				d.Kind = MissingMap
				c.add(d)
			}
		case c.Nftables:
			if there := c.table.Chain(chain.Name); there == nil {
				c.add(d)
			} else if found := hookText(there.Hook); found != hookText(chain.Hook) {
				d.Kind, d.Found = Unhooked, found
				c.add(d)
			}
		case c.set.Table(chain.Table).Chain(chain.Name) == nil:
			c.add(d)
		}
	}
}

// places returns the tables and chains in which rules are expected, in the order of the program.
func (c *comparison) places() [][2]string {
	var places [][2]string
	for _, r := range c.Rules {
		if place := [2]string{r.Table, r.Chain}; r.Family == c.family && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	return places
}

// A line is one rule of a chain as it stands, with what it was recognised as.
type line struct {
	text      string
	canonical string
	spec      spec     // of an iptables rule
	nft       *nftSpec // of a rule of the nftables backend
	number    int      // from 1
	rule      *Rule    // the expected rule that this is, or nil
}

func newLine(text string, nft bool) line {
	if nft {
		spec := parseNft(text)
		return line{text: text, canonical: spec.String(), nft: &spec}
	}
	spec := parse(text)
	return line{text: text, canonical: spec.String(), spec: spec}
}

// samePackets says whether the line does something else for the packets that want is for, whose purpose
// is why.
func (l *line) samePackets(why Purpose, want *line) bool {
	if l.nft != nil {
		return nftSamePackets(why, want.nft, l.nft)
	}
	return samePackets(why, want.spec, l.spec)
}

func (c *comparison) compareChain(table, chain string) {
	lines := c.lines(table, chain)
	known := byText(lines)
	var missing []*Rule
	var standing []*line
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Family != c.family || r.Table != table || r.Chain != chain {
			continue
		}
		if l := find(known, r); l != nil {
			standing = append(standing, l)
		} else {
			missing = append(missing, r)
		}
	}
	for _, r := range missing {
		d := Difference{Kind: MissingRule, Table: table, Chain: chain, Rule: r}
		if l := c.alteredFrom(lines, r); l != nil {
			l.rule = r
			d.Kind, d.Found, d.Number = Altered, l.text, l.number
		}
		c.add(d)
	}
	c.order(table, chain, lines, standing)
	for i := range lines {
		if l := &lines[i]; l.rule == nil && c.stale(table, chain, l) {
			c.add(Difference{Kind: Stale, Table: table, Chain: chain, Found: l.text, Number: l.number})
		}
	}
}

func linesOf(rules []netstate.IptablesRule) []line {
	lines := make([]line, len(rules))
	for i, r := range rules {
		lines[i] = newLine(r.Text, false)
		lines[i].number = i + 1
	}
	return lines
}

// byText returns the lines by their canonical texts.
func byText(lines []line) map[string][]*line {
	all := make(map[string][]*line, len(lines))
	for i := range lines {
		all[lines[i].canonical] = append(all[lines[i].canonical], &lines[i])
	}
	return all
}

// find returns the first line that is the rule, and marks it and its repetitions as that.
func find(known map[string][]*line, r *Rule) *line {
	var first *line
	for _, text := range append([]string{r.Text}, r.Other...) {
		for _, l := range known[r.canonical(text)] {
			if l.rule != nil {
				continue
			}
			l.rule = r
			if first == nil || l.number < first.number {
				first = l
			}
		}
	}
	return first
}

// alteredFrom returns the line that stands where the rule should: one for the same packets that nobody
// else expects, or nil.
func (c *comparison) alteredFrom(lines []line, r *Rule) *line {
	want := newLine(r.Text, r.nft())
	for i := range lines {
		if l := &lines[i]; l.rule == nil && l.samePackets(r.Why, &want) && !c.anothers(r.Why, l) {
			return l
		}
	}
	return nil
}

// samePackets says whether a rule found does, for the packets that Docker's rule is for, something else,
// or the same for another address of the container.
func samePackets(why Purpose, want, found spec) bool {
	same := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return want.get(name) != found.get(name) })
	}
	switch why {
	case DNAT:
		return found.target.name == "DNAT" && same("-p", "--dport", "-d")
	case Accept:
		return found.target.name == "ACCEPT" && want.get("--dport") != "" && same("-p", "--dport", "-o", "-i") && found.get("-d") != ""
	case Masquerade:
		return (found.target.name == "MASQUERADE" || found.target.name == "SNAT") && same("-o") && found.get("-s") != ""
	case Hairpin:
		if want.has("addrtype") {
			return (found.target.name == "MASQUERADE" || found.target.name == "SNAT") && found.has("addrtype") && same("-o", "-s", "-d")
		}
		return found.target.name == "MASQUERADE" && same("-p", "--dport") && found.get("-s") != "" && found.get("-s") == found.get("-d")
	case Jump:
		return found.target.name == want.target.name && found.has("addrtype") && want.has("addrtype")
	case ICC:
		return same("-i", "-o") && len(found.matches) == 0 && found.get("-s") == "" && found.get("-d") == "" && found.get("-p") == ""
	}
	return false
}

// anothers says whether a rule of the shape of Docker's is for a container that runs but was not
// inspected: its ports are not known, so the rule may well be right.
func (c *comparison) anothers(why Purpose, found *line) bool {
	switch why {
	case Accept, Hairpin:
		addr := found.spec.addr("-d")
		if found.nft != nil {
			addr = found.nft.addr()
		}
		return addr.IsValid() && c.taken(addr)
	}
	return false
}

// taken says whether a running container has that address.
func (c *comparison) taken(addr netip.Addr) bool {
	if c.addrs == nil {
		c.addrs = map[netip.Addr]bool{}
		for _, family := range families {
			for _, a := range c.attachments(c.s, family) {
				c.addrs[a.addr] = true
			}
		}
	}
	return c.addrs[addr]
}

// stale says whether a rule that nobody expects is one that dockerd made for a container's address that
// no container has now, as far as is known.
func (c *comparison) stale(table, chain string, l *line) bool {
	var addr netip.Addr
	ours := chain == docker || c.Nftables
	found := l.spec
	switch {
	case l.nft != nil:
		addr = l.nft.addr()
	case table == "nat" && found.target.name == "DNAT":
		to, err := netip.ParseAddrPort(found.arg("--to-destination"))
		if err != nil {
			return false
		}
		addr = to.Addr()
	case table == "nat" && found.target.name == "MASQUERADE" && found.get("-s") == found.get("-d"):
		addr = found.addr("-s")
	case table == "filter" && found.target.name == "ACCEPT" && found.get("-o") != "" && found.get("-s") == "",
		table == "raw" && strings.HasPrefix(found.get("-i"), "! "):
		addr = found.addr("-d")
	}
	if !addr.IsValid() || c.taken(addr) {
		return false
	}
	for _, n := range c.s.Networks {
		if n.Bridge() != "" && slices.ContainsFunc(n.Subnets, func(subnet netstate.Subnet) bool { return subnet.Prefix.Contains(addr) }) {
			return c.inspected(n.ID)
		}
	}
	return ours
}

// inspected says whether all members of a network are known: those of a network that no inspected
// container is in are not.
func (c *comparison) inspected(id string) bool {
	return slices.ContainsFunc(c.s.Containers, func(container netstate.Container) bool {
		return slices.ContainsFunc(container.Endpoints, func(e netstate.Endpoint) bool { return e.NetworkID == id })
	})
}

// leftOvers finds the rules of built-in chains that lead into Docker's chains in the variant which the
// engine does not use.
func (c *comparison) leftOvers() {
	variant := "legacy"
	if c.variant == "legacy" {
		variant = "nft"
	}
	other := c.s.Host.IptablesSet(variant, c.family)
	if other == nil {
		return
	}
	for _, table := range other.Tables {
		for _, chain := range table.Chains {
			if chain.Policy == "" {
				continue
			}
			for i, rule := range chain.Rules {
				if target := parse(rule.Text).target.name; target == docker || strings.HasPrefix(target, docker+"-") {
					c.add(Difference{Kind: LeftOver, Table: table.Name, Chain: chain.Name, Found: rule.Text, Number: i + 1})
					c.found[len(c.found)-1].Variant = variant
				}
			}
		}
	}
}
