//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Look implements [remediate.Store]. It writes new rules as iptables-save will print them, and gives those
// that are to be removed their counters.
func (s iptablesStore) Look(ctx context.Context, step remediate.Step) (remediate.Step, bool, error) {
	thing, err := parseThing(step.Name)
	if err != nil {
		return step, false, fmt.Errorf("iptables: %w", err)
	}
	if step, err = s.m.bound(step); err != nil {
		return step, false, err
	}
	var there bool
	err = s.m.in(step, func() error {
		table, err := thing.saved(ctx, thing.table)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		if thing.what == "" && step.Old != nil && step.New != nil {
			if step, err = s.canonical(ctx, thing, table, step); err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
		}
		holds, err := table.holds(thing, step)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		if there = holds == holdsNew; !there && thing.variant == variantNft {
			step.Also, err = missingBase(thing)
		}
		return err
	})
	return step, there, err
}

// canonical returns the step with its rules as they are printed, and with the counters of those that go.
// A rule that could not be made again is not taken away.
func (s iptablesStore) canonical(ctx context.Context, thing iptablesThing, table *ruleTable, step remediate.Step) (remediate.Step, error) {
	w, err := newWindow(*step.Old, *step.New)
	if err != nil {
		return step, err
	}
	made, err := s.compiler.compile(ctx, thing, w.next...)
	if err != nil {
		return step, err
	}
	next := slices.Clone(w.next)
	for i, rule := range next {
		next[i] = strings.TrimSuffix(rule, bare(rule)) + made[i].text
	}
	gone := slices.Clone(w.gone)
	if chain := table.chains[thing.chain]; chain != nil {
		if e, holds := w.find(chain.rules); holds == holdsOld {
			w = w.framed(chain.rules, e)
			for i, at := range e.gone {
				gone[i] = chain.counters[at] + " " + chain.rules[at]
				made, err := s.compiler.compile(ctx, thing, gone[i])
				if err == nil && made[0].text != chain.rules[at] {
					err = fmt.Errorf("it would be %q", made[0].text)
				}
				if err != nil {
					return step, fmt.Errorf("the rule %q could not be put back: %w", chain.rules[at], err)
				}
			}
		}
	}
	old := strings.Join(slices.Concat(w.before, gone, w.behind), "\n")
	text := strings.Join(slices.Concat(w.before, next, w.behind), "\n")
	step.Old, step.New = &old, &text
	return step, nil
}

// Swap implements [remediate.Store].
func (s iptablesStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	type group struct {
		saver
		table, netns string
	}
	var order []group
	members := map[group][]int{}
	things := make([]iptablesThing, len(steps))
	for i, step := range steps {
		thing, err := parseThing(step.Name)
		if err != nil {
			return changed, fmt.Errorf("iptables: %w", err)
		}
		things[i] = thing
		g := group{thing.saver, thing.table, step.Guards[remediate.GuardPID] + step.Guards[remediate.GuardNetns]}
		if members[g] == nil {
			order = append(order, g)
		}
		members[g] = append(members[g], i)
	}
	for _, g := range order {
		t := transaction{saver: g.saver, table: g.table, compiler: s.compiler}
		for _, i := range members[g] {
			t.steps, t.things = append(t.steps, steps[i]), append(t.things, things[i])
		}
		err := s.m.in(t.steps[0], func() error { return t.run(ctx, s.m) })
		for n, i := range members[g] {
			if n < len(t.changed) {
				changed[i] = t.changed[n]
			}
		}
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// A transaction is the steps on one table.
type transaction struct {
	saver
	table    string
	compiler *compiler
	steps    []remediate.Step
	things   []iptablesThing
	changed  []bool
	was      map[string][]string // the rules of each chain before the change
	refused  error               // by make: it names the step
	doubled  error
}

// patience is how long a change is tried anew while somebody else keeps changing the rules.
const patience = 5 * time.Second

// run makes all steps, or none.
//
// Legacy iptables has a lock, which is held from reading to writing. iptables-nft has none: what is written
// is one batch for one generation of the ruleset, which the kernel refuses if somebody else's came between.
// If that may matter, all is read and decided anew, mostly without iptables-save, which takes longest. No
// lock keeps dockerd from looking, not finding a rule, and making it just after we did: of two that are the
// same, ours is taken away.
func (t *transaction) run(ctx context.Context, m machine) (err error) {
	if t.variant == variantLegacy {
		release, err := m.xtablesLock(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", t.steps[0].Object(), err)
		}
		defer release()
	}
	if err := t.change(ctx, t.make); err != nil {
		t.changed = nil
		if t.refused != nil {
			return t.refused
		}
		return fmt.Errorf("%s %s: %w", t.command(), t.table, err)
	}
	if !slices.Contains(t.changed, true) {
		return nil
	}
	// From here the change stands, and is not given up.
	if err := t.change(context.WithoutCancel(ctx), t.dropDoubles); err != nil {
		return fmt.Errorf("%s %s: after the change: %w", t.command(), t.table, err)
	}
	return t.doubled
}

// change reads the table, lets edit change it, and writes it.
func (t *transaction) change(ctx context.Context, edit func(*ruleTable) error) error {
	if t.variant == variantLegacy {
		table, err := t.saved(ctx, t.table)
		if err != nil {
			return err
		}
		if err := edit(table); err != nil || len(table.script) == 0 {
			return err
		}
		return t.restore(t.table, slices.Concat(table.keep, table.script))
	}
	deadline := time.Now().Add(patience)
	for try := 0; ; try++ {
		hurried := try%8 != 0
		err := t.changeNft(ctx, edit, hurried)
		if err == nil || !errors.Is(err, errRaced) && !hurried {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// errRaced means that somebody else changed the rules between reading and writing.
var errRaced = errors.New("somebody else keeps changing the rules")

// make makes the steps in the table.
func (t *transaction) make(table *ruleTable) error {
	t.changed, t.was, t.refused = make([]bool, len(t.steps)), map[string][]string{}, nil
	for name, chain := range table.chains {
		t.was[name] = slices.Clone(chain.rules)
	}
	for i, step := range t.steps {
		changed, err := table.make(t.things[i], step)
		if err != nil {
			t.refused = err
			return err
		}
		t.changed[i] = changed
	}
	return nil
}

// dropDoubles takes out of the table those rules of ours that somebody else has made as well. A step of
// several rules is taken back for that, and t.doubled says so.
func (t *transaction) dropDoubles(table *ruleTable) error {
	for i, step := range t.steps {
		name := t.things[i].chain
		chain := table.chains[name]
		if i >= len(t.changed) || !t.changed[i] || t.things[i].what != "" || chain == nil {
			continue
		}
		w, err := newWindow(*step.Old, *step.New)
		if err != nil || !slices.ContainsFunc(w.next, func(rule string) bool {
			one := []string{rule}
			return len(occurrences(t.was[name], one)) == 0 && len(occurrences(w.next, one)) == 1 && len(occurrences(chain.rules, one)) == 2
		}) {
			continue
		}
		e, holds := w.find(chain.rules)
		switch {
		case holds != holdsNew || len(e.gone) == 0: // which is ours cannot be told
			t.doubled = fmt.Errorf("%s: %w: somebody else made one of its rules at the same time", step.Object(), remediate.ErrChanged)
		case len(w.next) == 1 && len(w.gone) == 0:
			table.remove(name, e.gone[0])
			t.changed[i] = false
		default:
			if _, err := table.make(t.things[i], step.Reverse()); err != nil {
				return err
			}
			t.changed[i] = false
			t.doubled = fmt.Errorf("%s: %w: somebody else made one of its rules at the same time", step.Object(), remediate.ErrChanged)
		}
	}
	return nil
}
