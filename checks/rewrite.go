package checks

import (
	"maps"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// A rewrite turns edits of Docker's rules into steps: one for each chain, map or table that is made, one
// for each element of a map, and one for each chain whose rules change.
type rewrite struct {
	host   *netstate.Namespace
	steps  []remediate.Step
	places []string // the chains and maps that are edited, in the order of their first edit
	rules  map[string]*change[[]string]
	maps   map[string]*change[map[string]string] // elements by key
}

// A change is what something holds before and after the edits.
type change[T any] struct{ before, after T }

// rewritten returns the steps of the edits, none if an edit does not fit the snapshot; opens says that a
// rule of Docker's comes before one of somebody else that ends the chain.
func (h *Host) rewritten(edits []dockerd.Edit) (steps []remediate.Step, opens bool) {
	r := &rewrite{host: &h.whole.snapshot.Host, rules: map[string]*change[[]string]{}, maps: map[string]*change[map[string]string]{}}
	for _, e := range edits {
		if !r.edit(e) {
			return nil, false
		}
		opens = opens || e.Passes != ""
	}
	for _, place := range r.places {
		r.fill(place)
	}
	return r.steps, opens
}

// kindOf returns the kind of the steps of an edit, and how their names begin.
func kindOf(e dockerd.Edit) (kind, name string) {
	if e.Variant != "" {
		return "iptables", (&netstate.IptablesSet{Family: e.Family, Variant: e.Variant}).Command() + " " + e.Table
	}
	if e.Family == netstate.IPv6 {
		return "nft", "ip6 " + e.Table
	}
	return "nft", "ip " + e.Table
}

// edit makes one edit, or returns false if it does not fit.
func (r *rewrite) edit(e dockerd.Edit) bool {
	kind, table := kindOf(e)
	chain := table + " " + e.Chain
	value := e.Text
	if value == "" {
		value = "-"
	}
	switch e.Op {
	case dockerd.WakeTable:
		step := remediate.Add(kind, table, "-")
		if family, name, _ := strings.Cut(table, " "); r.host.Nft.Table(family, name) != nil {
			step = remediate.Set(kind, table, "dormant", "-")
		}
		r.steps = append(r.steps, step)
	case dockerd.NewMap:
		r.steps = append(r.steps, remediate.Add(kind, chain+" map", "type ifname : verdict"))
	case dockerd.NewChain:
		r.steps = append(r.steps, remediate.Add(kind, chain+" chain", value))
	case dockerd.Rehook:
		old := e.Old
		if old == "" {
			old = "-"
		}
		r.steps = append(r.steps, remediate.Set(kind, chain+" chain", old, value))
	default:
		if place := kind + " " + chain; !slices.Contains(r.places, place) {
			r.places = append(r.places, place)
			r.read(place, e)
		}
		return r.editRule(kind+" "+chain, e)
	}
	return true
}

// read reads what a chain or map holds.
func (r *rewrite) read(place string, e dockerd.Edit) {
	var rules []string
	if e.Variant != "" {
		rules = iptablesRules(r.host.IptablesSet(e.Variant, e.Family).Table(e.Table).Chain(e.Chain))
	} else {
		_, name := kindOf(e)
		family, _, _ := strings.Cut(name, " ")
		table, printer := r.host.Nft.Table(family, e.Table), r.host.NftPrinter()
		if e.Element {
			elements := map[string]string{}
			if set := table.Set(e.Chain); set != nil {
				for _, text := range printer.Elements(table, set) {
					key, verdict, _ := strings.Cut(text, " : ")
					elements[key] = verdict
				}
			}
			r.maps[place] = &change[map[string]string]{elements, maps.Clone(elements)}
			return
		}
		rules = nftRules(printer, table, table.Chain(e.Chain))
	}
	r.rules[place] = &change[[]string]{rules, slices.Clone(rules)}
}

// editRule inserts, replaces or deletes a rule or an element.
func (r *rewrite) editRule(place string, e dockerd.Edit) bool {
	if e.Element {
		text := e.Text
		if e.Op == dockerd.Delete {
			text = e.Old
		}
		key, verdict, _ := strings.Cut(text, " : ")
		if e.Op == dockerd.Delete {
			delete(r.maps[place].after, key)
		} else {
			r.maps[place].after[key] = verdict
		}
		return true
	}
	c, at := r.rules[place], e.Number-1
	fits := at >= 0 && at < len(c.after) && c.after[at] == e.Old
	switch {
	case e.Op == dockerd.Insert && at >= 0 && at <= len(c.after):
		c.after = slices.Insert(c.after, at, e.Text)
	case e.Op == dockerd.Replace && fits:
		c.after[at] = e.Text
	case e.Op == dockerd.Delete && fits:
		c.after = slices.Delete(c.after, at, at+1)
	default:
		return false
	}
	return true
}

// fill adds the steps that give a chain or map what it holds after the edits.
func (r *rewrite) fill(place string) {
	kind, name, _ := strings.Cut(place, " ")
	if m := r.maps[place]; m != nil {
		for _, key := range slices.Sorted(maps.Keys(m.after)) {
			now, there := m.before[key]
			switch {
			case !there:
				r.steps = append(r.steps, remediate.Add(kind, name+" element "+key, m.after[key]))
			case now != m.after[key]:
				r.steps = append(r.steps, remediate.Set(kind, name+" element "+key, now, m.after[key]))
			}
		}
		return
	}
	if old, new := window(r.rules[place].before, r.rules[place].after); old != new {
		r.steps = append(r.steps, remediate.Set(kind, name, old, new))
	}
}
