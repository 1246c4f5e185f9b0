package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// rulesFix is the fix that brings all of Docker's own rules of a family back, those that the target does
// not need included: who flushed a table took the isolation of networks with it. The engine finds what is
// put back and does not make it twice. It is nil for the nftables backend, where the engine's memory of
// its table decides and only its restart makes the table whole.
func (h *Host) rulesFix(family netstate.Family) *remediate.Fix {
	program := h.Program()
	if program.Nftables {
		return nil
	}
	var mine []dockerd.Difference
	for _, d := range h.compared() {
		if d.Family == family {
			mine = append(mine, d)
		}
	}
	edits := program.Restore(h.whole.snapshot, mine)
	if len(edits) == 0 {
		return nil
	}
	fix := &remediate.Fix{Title: fmt.Sprintf("bring Docker's own %s rules back", strings.Replace(family.String(), "ip", "IP", 1))}
	var chains []string // in the order in which they are first edited
	rules := map[string][2][]string{}
	for _, e := range edits {
		set := h.whole.snapshot.Host.IptablesSet(e.Variant, e.Family)
		name := fmt.Sprintf("%s %s %s", (&netstate.IptablesSet{Family: e.Family, Variant: e.Variant}).Command(), e.Table, e.Chain)
		if e.Op == dockerd.NewChain {
			fix.Steps = append(fix.Steps, h.guarded(remediate.Add("iptables", name+" chain", "-")))
			continue
		}
		if _, seen := rules[name]; !seen {
			chains = append(chains, name)
			var now []string
			if chain := set.Table(e.Table).Chain(e.Chain); chain != nil {
				for _, rule := range chain.Rules {
					now = append(now, rule.Text)
				}
			}
			rules[name] = [2][]string{now, slices.Clone(now)}
		}
		fix.Opens = fix.Opens || e.Passes != ""
		after, ok := edited(rules[name][1], e)
		if !ok {
			return nil
		}
		rules[name] = [2][]string{rules[name][0], after}
	}
	for _, name := range chains {
		if old, new := window(rules[name][0], rules[name][1]); old != new {
			fix.Steps = append(fix.Steps, h.guarded(remediate.Set("iptables", name, old, new)))
		}
	}
	return fix
}

// unshielded warns of rules that are missing with which the engine keeps others away from the target's
// container: traffic gets through without them, and so does what nobody published.
func (h *Host) unshielded(t netstate.Target) []Finding {
	c := h.Container(t.ID)
	if t.Direction != netstate.In || c == nil {
		return nil
	}
	finding := Finding{At: packet.Accept, Warning: true, Problem: "rules of Docker's that keep others away from the container are missing"}
	for _, d := range h.compared() {
		if d.Family != t.Family || d.Kind != dockerd.MissingRule || !slices.Contains(shields, d.Rule.Why) ||
			d.Rule.Container != c.ID && !slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return e.NetworkID == d.Rule.Network }) {
			continue
		}
		if finding.Object == "" {
			finding.Object = d.Object()
		}
		if len(finding.Evidence) < maxEvidence {
			finding.Evidence = append(finding.Evidence, d.String())
		}
	}
	if finding.Object == "" {
		return nil
	}
	finding.remedy(h.rulesFix(t.Family))
	return []Finding{finding}
}

// shields are the rules that stop packets.
var shields = []dockerd.Purpose{dockerd.Isolation, dockerd.DefaultDrop, dockerd.RawDrop}

// remedy sets the fix that brings rules back, or says what to do where there is none.
func (f *Finding) remedy(fix *remediate.Fix) {
	if f.Fix = fix; fix == nil {
		f.Advice = "restart the engine, which makes its rules anew (with live-restore no container stops)"
	}
}

// guarded binds a step to this start of the engine: after another one its rules are others.
func (h *Host) guarded(step remediate.Step) remediate.Step {
	if e := h.whole.snapshot.Engine; e != nil && e.PID != 0 {
		return step.Guarded(remediate.GuardEngine, fmt.Sprintf("%d@%s", e.PID, e.Started))
	}
	return step
}

// edited returns the rules of a chain after one edit, or false if it does not fit them.
func edited(rules []string, e dockerd.Edit) ([]string, bool) {
	at := e.Number - 1
	switch e.Op {
	case dockerd.Insert:
		if at < 0 || at > len(rules) {
			return nil, false
		}
		return slices.Insert(slices.Clone(rules), at, e.Text), true
	case dockerd.Replace, dockerd.Delete:
		if at < 0 || at >= len(rules) || rules[at] != e.Old {
			return nil, false
		}
		rules = slices.Clone(rules)
		if e.Op == dockerd.Delete {
			return slices.Delete(rules, at, at+1), true
		}
		rules[at] = e.Text
		return rules, true
	}
	return nil, false
}

// window returns the piece of a chain that changes, before and after, each with the neighbours that stay:
// "^" is the chain's start and "$" its end.
func window(before, after []string) (old, new string) {
	before = append(append([]string{"^"}, before...), "$")
	after = append(append([]string{"^"}, after...), "$")
	head := 0
	for head < min(len(before), len(after)) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < min(len(before), len(after))-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	// One neighbour on either side.
	first, last := max(head-1, 0), max(tail-1, 0)
	return strings.Join(before[first:len(before)-last], "\n"), strings.Join(after[first:len(after)-last], "\n")
}
