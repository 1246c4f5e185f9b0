package dockerd

import (
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An Op is what an Edit does.
type Op string

// The operations. Nobody's rule is removed for good: Delete takes away one that Insert puts back at its
// place in the same list of edits.
const (
	NewChain Op = "new chain"
	Insert   Op = "insert"
	Replace  Op = "replace"
	Delete   Op = "delete"
)

// An Edit is one change of an iptables chain. A list of edits is made in its order, in one transaction
// for each variant and family.
type Edit struct {
	Op      Op
	Family  netstate.Family
	Variant string
	Table   string
	Chain   string
	Number  int    // place of the rule from 1, as the earlier edits left the chain; 0 for NewChain
	Text    string // Insert, Replace: the rule
	Old     string // Replace, Delete: the rule that is there
	After   string // Insert: the rule before the place, "" at the head
	Before  string // Insert: the rule behind the place, "" at the end
	Passes  string // Insert: the foreign rule, which ends the chain for every packet, that it is put before; "" for none
}

// Restore returns the edits that do away with the given differences, which Compare found in s: chains
// first, then the rules of Docker's own chains, then those of built-in ones, so that no jump leads into
// an empty chain. Each rule is put where dockerd would put it, as far as the rules around allow, and
// such that dockerd will find it there. Stale rules and left-overs have no edits, nor has the nftables
// backend.
func (p *Program) Restore(s *netstate.Snapshot, all []Difference) []Edit {
	var edits []Edit
	for _, family := range families {
		r := restoration{comparison: comparison{Program: p, s: s, family: family, variant: p.variant[family]}}
		r.set = s.Host.IptablesSet(r.variant, family)
		var mine []Difference
		for _, d := range all {
			if d.Family == family && d.Variant == r.variant && d.Variant != "" {
				mine = append(mine, d)
			}
		}
		r.newChains(mine)
		places := r.places()
		slices.SortStableFunc(places, func(a, b [2]string) int { return falseFirst(builtIn(a[1]), builtIn(b[1])) })
		for _, place := range places {
			r.restoreChain(place[0], place[1], mine)
		}
		edits = append(edits, r.edits...)
	}
	return edits
}

// builtIn says whether a chain is one that every table of its kind has.
func builtIn(chain string) bool {
	return slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, chain)
}

// A restoration is that of one family.
type restoration struct {
	comparison
	edits []Edit
}

// newChains makes the missing chains, those that the restored rules need included.
func (r *restoration) newChains(all []Difference) {
	for _, chain := range r.Chains {
		if chain.Family != r.family || r.set.Table(chain.Table).Chain(chain.Name) != nil {
			continue
		}
		if slices.ContainsFunc(all, func(d Difference) bool {
			return d.Table == chain.Table && (d.Chain == chain.Name || d.Rule != nil && parse(d.Rule.Text).target.name == chain.Name)
		}) {
			r.edits = append(r.edits, Edit{Op: NewChain, Family: r.family, Variant: r.variant, Table: chain.Table, Chain: chain.Name})
		}
	}
}

// restoreChain brings the rules of one chain to their places.
func (r *restoration) restoreChain(table, chain string, all []Difference) {
	lines := linesOf(rulesOf(r.set, table, chain))
	for i := range r.Rules {
		if rule := &r.Rules[i]; rule.Family == r.family && rule.Table == table && rule.Chain == chain {
			find(lines, rule)
		}
	}
	work := make([]*line, len(lines))
	for i := range lines {
		work[i] = &lines[i]
	}
	e := Edit{Family: r.family, Variant: r.variant, Table: table, Chain: chain}
	var insert []*Rule
	for _, d := range all {
		if d.Table != table || d.Chain != chain {
			continue
		}
		at := slices.IndexFunc(work, func(l *line) bool { return l.number == d.Number })
		switch {
		case d.Kind == MissingRule:
			insert = append(insert, d.Rule)
		case at < 0:
		case d.Kind == Altered && fits(work, at, d.Rule):
			e.Op, e.Number, e.Old, e.Text = Replace, at+1, work[at].text, d.Rule.Text
			r.edits = append(r.edits, e)
			work[at] = placed(d.Rule)
		case d.Kind == Altered, d.Kind == Misplaced, d.Kind == Shadowed:
			e.Op, e.Number, e.Old, e.Text = Delete, at+1, work[at].text, ""
			r.edits = append(r.edits, e)
			work = slices.Delete(work, at, at+1)
			insert = append(insert, d.Rule)
		}
	}
	e.Op, e.Old = Insert, ""
	for _, rule := range inOrder(insert) {
		at, passes := place(work, rule)
		e.Number, e.Text, e.After, e.Before, e.Passes = at+1, rule.Text, "", "", passes
		if at > 0 {
			e.After = work[at-1].text
		}
		if at < len(work) {
			e.Before = work[at].text
		}
		r.edits = append(r.edits, e)
		work = slices.Insert(work, at, placed(rule))
	}
}

func placed(r *Rule) *line {
	l := newLine(r.Text, r.nft())
	l.rule = r
	return &l
}

// inOrder returns the rules in the order in which they are to be put into their chain: by rank, and
// those that go to the head of their rank last one first.
func inOrder(rules []*Rule) []*Rule {
	ordered := slices.Clone(rules)
	slices.Reverse(ordered)
	slices.SortStableFunc(ordered, func(a, b *Rule) int {
		if a.Rank != b.Rank {
			return a.Rank - b.Rank
		}
		return falseFirst(!a.First, !b.First)
	})
	// What is appended keeps its order.
	for i := 0; i < len(ordered); {
		j := i
		for j < len(ordered) && ordered[j].Rank == ordered[i].Rank && ordered[j].First == ordered[i].First {
			j++
		}
		if !ordered[i].First {
			slices.Reverse(ordered[i:j])
		}
		i = j
	}
	return ordered
}

// bounds returns the places between which a rule may be put in a chain.
func bounds(work []*line, r *Rule) (low, high int) {
	high = len(work)
	for i := len(work) - 1; i >= 0; i-- {
		if other := work[i].rule; other != nil {
			if r.precedes(other) {
				high = i
			}
			if low == 0 && other.precedes(r) {
				low = i + 1
			}
		}
	}
	return low, high
}

// fits says whether a rule may stand at that place.
func fits(work []*line, at int, r *Rule) bool {
	rest := slices.Delete(slices.Clone(work), at, at+1)
	low, high := bounds(rest, r)
	return low <= at && at <= high
}

// place returns where a rule is to be inserted, and the foreign rule that it must be put before because
// that ends the chain for every packet.
func place(work []*line, r *Rule) (at int, passes string) {
	low, high := bounds(work, r)
	want := placed(r)
	for i := low; i < high; i++ {
		l := work[i]
		if l.rule == nil && l.spec.unconditional() {
			high, passes = i, l.text
			break
		}
		if l.rule == nil && r.Why == DNAT && l.samePackets(DNAT, want) {
			high = i
			break
		}
	}
	if r.First || high < low {
		return low, passes
	}
	return high, passes
}

// Edited returns a snapshot that is as s will be when the edits are made. It shares what is not edited.
func Edited(s *netstate.Snapshot, edits []Edit) *netstate.Snapshot {
	after := *s
	after.Host.Iptables = slices.Clone(s.Host.Iptables)
	for i := range after.Host.Iptables {
		set := &after.Host.Iptables[i]
		set.Tables = slices.Clone(set.Tables)
		for j := range set.Tables {
			set.Tables[j].Chains = slices.Clone(set.Tables[j].Chains)
			for k := range set.Tables[j].Chains {
				set.Tables[j].Chains[k].Rules = slices.Clone(set.Tables[j].Chains[k].Rules)
			}
		}
	}
	for _, e := range edits {
		chain := chainOf(&after.Host, e)
		at := e.Number - 1
		if e.Op != NewChain && (at < 0 || at > len(chain.Rules)) || e.Op != NewChain && e.Op != Insert && at == len(chain.Rules) {
			continue // no edit of this snapshot
		}
		switch e.Op {
		case Insert:
			chain.Rules = slices.Insert(chain.Rules, at, netstate.IptablesRule{Text: e.Text})
		case Replace:
			chain.Rules[at] = netstate.IptablesRule{Text: e.Text}
		case Delete:
			chain.Rules = slices.Delete(chain.Rules, at, at+1)
		}
	}
	return &after
}

// chainOf returns the chain that an edit changes, made if need be.
func chainOf(n *netstate.Namespace, e Edit) *netstate.IptablesChain {
	set := n.IptablesSet(e.Variant, e.Family)
	if set == nil {
		n.Iptables = append(n.Iptables, netstate.IptablesSet{Family: e.Family, Variant: e.Variant})
		set = &n.Iptables[len(n.Iptables)-1]
	}
	table := set.Table(e.Table)
	if table == nil {
		set.Tables = append(set.Tables, netstate.IptablesTable{Name: e.Table})
		table = &set.Tables[len(set.Tables)-1]
	}
	chain := table.Chain(e.Chain)
	if chain == nil {
		table.Chains = append(table.Chains, netstate.IptablesChain{Name: e.Chain})
		chain = &table.Chains[len(table.Chains)-1]
		if builtIn(e.Chain) {
			chain.Policy = "ACCEPT"
		}
	}
	return chain
}
