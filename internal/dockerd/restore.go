package dockerd

import (
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An Op is what an Edit does.
type Op string

// The operations. Nobody's rule is removed for good: Delete takes away one that Insert puts back at its
// place in the same list of edits.
const (
	NewChain Op = "new chain"
	Insert   Op = "insert"
	Replace  Op = "replace" // iptables only
	Delete   Op = "delete"

	// Of the nftables backend.
	WakeTable Op = "wake table" // make the table, or end its being dormant
	NewMap    Op = "new map"
	Rehook    Op = "rehook" // have a base chain called where it belongs, with the rules that it has
)

// An Edit is one change of a chain. A list of edits is made in its order, in one transaction for each
// variant and family.
type Edit struct {
	Op      Op
	Family  netstate.Family
	Variant string // of iptables; "" for the nftables backend
	Table   string
	Chain   string // or map
	Number  int    // place of the rule from 1, as the earlier edits left the chain; 0 where there is none
	Text    string // Insert, Replace: the rule; NewChain, Rehook: where a base chain of the nftables backend is called
	Old     string // Replace, Delete: the rule that is there; Rehook: where the chain is called now, "" nowhere
	After   string // the rule before the place, "" at the head
	Before  string // the rule behind the place, or behind Old; "" at the end
	Passes  string // Insert: the foreign rule, which ends the chain for every packet, that it is put before; "" for none
	Element bool   // Insert, Delete: of the map that Chain names
}

// Restore returns the edits that do away with the given differences, which Compare found in s: chains
// first, then the rules of Docker's own chains, then those of built-in ones, so that no jump leads into
// an empty chain. Each rule is put where dockerd would put it, as far as the rules around allow, and
// such that dockerd will find it there. Stale rules and left-overs have no edits.
func (p *Program) Restore(s *netstate.Snapshot, all []Difference) []Edit {
	var edits []Edit
	for _, family := range families {
		r := restoration{comparison: p.comparison(s, family)}
		var mine []Difference
		for _, d := range all {
			if d.Family == family && d.Variant == r.variant && d.Table != "" {
				mine = append(mine, d)
			}
		}
		if len(mine) == 0 {
			continue
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

// builtIn says whether a chain is one that the kernel calls: one of iptables' own, or a base chain of the
// nftables backend.
func builtIn(chain string) bool {
	if i := strings.LastIndexByte(chain, '-'); i >= 0 && strings.ToLower(chain[:i]) == chain[:i] {
		chain = chain[i+1:]
	}
	return slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, chain)
}

// A restoration is that of one family.
type restoration struct {
	*comparison
	edits []Edit
}

func (r *restoration) edit(op Op, table, chain, text string) {
	r.edits = append(r.edits, Edit{Op: op, Family: r.family, Variant: r.variant, Table: table, Chain: chain, Text: text})
}

// newChains makes the missing chains, those that the restored rules need included; maps before all.
func (r *restoration) newChains(all []Difference) {
	if r.Nftables && (r.table == nil || r.table.Dormant) {
		r.edit(WakeTable, nftTable, "", "")
	}
	for _, maps := range []bool{true, false} {
		for _, chain := range r.Chains {
			if chain.Family != r.family || chain.Map != maps {
				continue
			}
			hook := ""
			if chain.Hook != nil {
				hook = hookText(chain.Hook)
			}
			switch {
			case slices.ContainsFunc(all, func(d Difference) bool { return d.Kind == Unhooked && d.Chain == chain.Name }):
				r.edit(Rehook, chain.Table, chain.Name, hook)
				if now := r.table.Chain(chain.Name).Hook; now != nil {
					r.edits[len(r.edits)-1].Old = hookText(now)
				}
			case r.there(chain) || !slices.ContainsFunc(all, func(d Difference) bool { return d.needs(chain) }):
			case maps:
				r.edit(NewMap, chain.Table, chain.Name, "")
			default:
				r.edit(NewChain, chain.Table, chain.Name, hook)
			}
		}
	}
}

// there says whether a chain or map is there.
func (r *restoration) there(chain Chain) bool {
	switch {
	case chain.Map:
		return r.table.Set(chain.Name) != nil
	case r.Nftables:
		return r.table.Chain(chain.Name) != nil
	}
	return r.set.Table(chain.Table).Chain(chain.Name) != nil
}

// needs says whether doing away with the difference needs that chain or map.
func (d *Difference) needs(chain Chain) bool {
	if d.Table != chain.Table {
		return false
	}
	return d.Chain == chain.Name || d.Rule != nil && slices.ContainsFunc(Words(d.Rule.Text), func(word string) bool {
		return word == chain.Name || word == "@"+chain.Name
	})
}

// restoreChain brings the rules of one chain to their places.
func (r *restoration) restoreChain(table, chain string, all []Difference) {
	lines := r.lines(table, chain)
	known := byText(lines)
	for i := range r.Rules {
		if rule := &r.Rules[i]; rule.Family == r.family && rule.Table == table && rule.Chain == chain {
			find(known, rule)
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
		case d.Kind == Altered && !r.Nftables && fits(work, at, d.Rule):
			e.Op, e.Number, e.Old, e.Text = Replace, at+1, work[at].text, d.Rule.Text
			e.After, e.Before = textAt(work, at-1), textAt(work, at+1)
			r.edits = append(r.edits, e)
			work[at] = placed(d.Rule)
		case d.Kind == Altered, d.Kind == Misplaced, d.Kind == Shadowed:
			e.Op, e.Number, e.Old, e.Text, e.Element = Delete, at+1, work[at].text, "", d.Rule.Element
			e.After, e.Before = textAt(work, at-1), textAt(work, at+1)
			r.edits = append(r.edits, e)
			work = slices.Delete(work, at, at+1)
			insert = append(insert, d.Rule)
		}
	}
	e.Op, e.Old = Insert, ""
	for _, rule := range inOrder(insert) {
		at, passes := place(work, rule)
		e.Number, e.Text, e.After, e.Before, e.Passes, e.Element = at+1, rule.Text, textAt(work, at-1), textAt(work, at), passes, rule.Element
		r.edits = append(r.edits, e)
		work = slices.Insert(work, at, placed(rule))
	}
}

// textAt returns the rule at a place, or "" beyond the ends.
func textAt(work []*line, at int) string {
	if at < 0 || at >= len(work) {
		return ""
	}
	return work[at].text
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
