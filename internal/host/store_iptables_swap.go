package host

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"golang.org/x/sys/unix"
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
func (s iptablesStore) canonical(ctx context.Context, thing iptablesThing, table *ruleTable, step remediate.Step) (remediate.Step, error) {
	w, err := newWindow(*step.Old, *step.New)
	if err != nil {
		return step, err
	}
	next := slices.Clone(w.next)
	for i, rule := range next {
		text := bare(rule)
		next[i] = strings.TrimSuffix(rule, text) + s.printed(ctx, thing, text)
	}
	gone := slices.Clone(w.gone)
	if chain := table.chains[thing.chain]; chain != nil {
		if at, holds := w.find(chain.rules); holds == holdsOld {
			for i := range gone {
				gone[i] = chain.counters[at+i] + " " + chain.rules[at+i]
			}
		}
	}
	old := strings.Join(slices.Concat(w.before, gone, w.behind), "\n")
	text := strings.Join(slices.Concat(w.before, next, w.behind), "\n")
	step.Old, step.New = &old, &text
	return step, nil
}

// printed returns a rule as iptables-save prints it, which it finds out by making it in a network namespace
// of its own. A rule that cannot be made there (it names an ipset) is returned as it is.
func (s iptablesStore) printed(ctx context.Context, thing iptablesThing, rule string) string {
	key := fmt.Sprint(thing.family, thing.variant, thing.table, thing.chain, " ", rule)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if text, ok := s.texts[key]; ok {
		return text
	}
	text := rule
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends, and the namespace with it
		if strings.ContainsAny(rule, "\n\x00") || unix.Unshare(unix.CLONE_NEWNET) != nil {
			return
		}
		var script []string
		chains := []string{thing.chain}
		if word := strings.Fields(rule); len(word) > 0 {
			for i := range word[1:] {
				if (word[i] == "-j" || word[i] == "-g") && !targets[word[i+1]] {
					chains = append(chains, word[i+1])
				}
			}
		}
		slices.Sort(chains)
		for _, chain := range slices.Compact(chains) {
			if !slices.Contains(builtinChains[thing.table], chain) {
				script = append(script, "-N "+chain)
			}
		}
		script = append(script, "-A "+thing.chain+" "+rule)
		if thing.restore(thing.table, script) != nil {
			return
		}
		if table, err := thing.saved(ctx, thing.table); err == nil && len(table.chains[thing.chain].rules) == 1 {
			text = table.chains[thing.chain].rules[0]
		}
	}()
	<-done
	s.texts[key] = text
	return text
}

// targets are the targets that are no chains.
var targets = map[string]bool{}

func init() {
	for _, name := range strings.Fields("ACCEPT DROP RETURN QUEUE AUDIT CHECKSUM CLASSIFY CLUSTERIP CONNMARK CONNSECMARK CT DNAT DNPT DSCP ECN " +
		"HL HMARK IDLETIMER LED LOG MARK MASQUERADE NETMAP NFLOG NFQUEUE NOTRACK RATEEST REDIRECT REJECT SECMARK SET SNAT SNPT SYNPROXY " +
		"TCPMSS TCPOPTSTRIP TEE TOS TPROXY TRACE TTL ULOG") {
		targets[name] = true
	}
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
		t := transaction{saver: g.saver, table: g.table}
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
	table   string
	steps   []remediate.Step
	things  []iptablesThing
	changed []bool
}

// tries is how often a change is tried anew when somebody else changes the rules at the same time.
const tries = 5

// run makes all steps, or none.
//
// Legacy iptables has a lock, which is held from reading to writing. iptables-nft has none: each of its
// changes is one batch, and the generation of the ruleset tells whether somebody else's came between. A
// rule is named by its text, so that none but it is removed; one that came to stand at another place
// because others did, is brought to its own. No lock keeps dockerd from looking, not finding a rule,
// and making it just after we did: of two that are the same, ours is taken away.
func (t *transaction) run(ctx context.Context, m machine) (err error) {
	if t.variant == variantLegacy {
		release, err := m.xtablesLock(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", t.steps[0].Object(), err)
		}
		defer release()
	}
	for try := 1; ; try++ {
		err := t.once(ctx)
		if errors.Is(err, errRaced) && try < tries {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", t.command(), t.table, err)
		}
		break
	}
	// From here the change stands, and is not given up.
	ctx = context.WithoutCancel(ctx)
	for try := 1; ; try++ {
		script, err := t.amiss(ctx)
		if err == nil && len(script) > 0 {
			err = t.restore(t.table, script)
		}
		if err != nil && try >= tries {
			return fmt.Errorf("%s %s: after the change: %w", t.command(), t.table, err)
		}
		if err == nil && len(script) == 0 {
			break
		}
	}
	if t.variant == variantNft {
		return t.dropBase()
	}
	return nil
}

// errRaced means that somebody else changed the rules between reading and writing.
var errRaced = errors.New("somebody else keeps changing the rules")

// generation returns that of the thread's ruleset; legacy iptables has none.
func (s saver) generation() (uint32, error) {
	if s.variant == variantLegacy {
		return 0, nil
	}
	c, err := dialNetfilter(netns{})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return nftGeneration(c)
}

// once reads the table, makes the steps and writes it.
func (t *transaction) once(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	first, err := t.generation()
	if err != nil {
		return err
	}
	table, err := t.saved(ctx, t.table)
	if err != nil {
		return err
	}
	changed := make([]bool, len(t.steps))
	for i, step := range t.steps {
		if changed[i], err = table.make(t.things[i], step); err != nil {
			return err
		}
	}
	if len(table.script) == 0 {
		t.changed = changed
		return nil
	}
	if now, err := t.generation(); err != nil || now != first {
		return errors.Join(errRaced, err)
	}
	if err := t.restore(t.table, slices.Concat(t.kept(table), table.script)); err != nil {
		if now, e := t.generation(); e == nil && now != first {
			return fmt.Errorf("%w: %w", errRaced, err)
		}
		return err
	}
	t.changed = changed

	// Nothing is taken for done that cannot be found again, and so cannot be undone.
	last, err := t.generation()
	if err != nil {
		return err
	}
	after, err := t.saved(ctx, t.table)
	if err != nil {
		return err
	}
	for i, step := range t.steps {
		if holds, err := after.holds(t.things[i], step); err == nil && holds == holdsNew || last > first+1 || t.superseded(i) {
			continue
		}
		t.changed = make([]bool, len(t.steps))
		return errors.Join(fmt.Errorf("%s: iptables did not make of it what it says", step.Object()), t.restore(t.table, slices.Concat(t.kept(after), table.undo)))
	}
	return nil
}

// superseded says whether a later step of the transaction changes the same chain.
func (t *transaction) superseded(i int) bool {
	for j := i + 1; j < len(t.steps); j++ {
		if t.things[j].chain == t.things[i].chain && t.changed[j] {
			return true
		}
	}
	return false
}

// amiss returns what is still to be done after a change: rules that others brought to a wrong place, and
// those that somebody else has made as well.
func (t *transaction) amiss(ctx context.Context) ([]string, error) {
	table, err := t.saved(ctx, t.table)
	if err != nil {
		return nil, err
	}
	for i, step := range t.steps {
		chain := table.chains[t.things[i].chain]
		if !t.changed[i] || t.things[i].what != "" || chain == nil {
			continue
		}
		w, err := newWindow(*step.Old, *step.New)
		if err != nil || len(w.next) == 0 {
			continue
		}
		found := occurrences(chain.rules, w.next)
		at, holds := w.find(chain.rules)
		switch {
		case len(found) == 2 && len(w.next) == 1 && holds == holdsNew && !slices.Contains(w.before, w.next[0]) && !slices.Contains(w.behind, w.next[0]):
			table.remove(t.things[i].chain, at)
			t.changed[i] = false
		case len(found) == 1 && holds == holdsNeither && !t.superseded(i):
			for range w.next {
				table.remove(t.things[i].chain, found[0])
			}
			if place, ok := w.place(chain.rules); ok {
				for n, rule := range w.next {
					if err := table.insert(t.things[i].chain, place+n, rule); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	if len(table.script) == 0 {
		return nil, nil
	}
	return slices.Concat(t.kept(table), table.script), nil
}

// kept returns the lines that keep the counters of the policies: legacy iptables would set them to zero.
func (t *transaction) kept(table *ruleTable) []string {
	if t.variant == variantLegacy {
		return table.keep
	}
	return nil
}

// ipFamily returns the number of the family in nf_tables.
func ipFamily(family netstate.Family) uint8 {
	if family == netstate.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// The kinds of names by which a step of iptables-nft says what it makes along: the table, and the built-in
// chain, which iptables-nft makes when somebody first needs them.
const (
	madeTable = " table"
	madeChain = " base"
)

// missingBase returns what iptables-nft will make along with a rule.
func missingBase(thing iptablesThing) ([]remediate.Step, error) {
	c, err := dialNetfilter(netns{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	tables, err := nftNames(c, nftMsgGetTable, nftaTableName, ipFamily(thing.family), "")
	if err != nil {
		return nil, err
	}
	command := thing.command()
	var also []remediate.Step
	if thing.builtin() {
		chains, err := nftNames(c, nftMsgGetChain, nftaChainName, ipFamily(thing.family), thing.table)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(chains, thing.chain) {
			also = append(also, remediate.Add("iptables", command+" "+thing.table+" "+thing.chain+madeChain, "-"))
		}
	}
	if !slices.Contains(tables, thing.table) {
		also = append(also, remediate.Add("iptables", command+" "+thing.table+madeTable, "-"))
	}
	return also, nil
}

// dropBase removes what was made along, where the steps are an undo and nothing else has come into it.
func (t *transaction) dropBase() error {
	var chains []string
	whole := false
	for i, step := range t.steps {
		for _, also := range step.Also {
			if also.New != nil || !t.changed[i] && !step.Settle {
				continue
			}
			if strings.HasSuffix(also.Name, madeTable) {
				whole = true
			} else if !slices.Contains(chains, t.things[i].chain) {
				chains = append(chains, t.things[i].chain)
			}
		}
	}
	if !whole && chains == nil {
		return nil
	}
	c, err := dialNetfilter(netns{})
	if err != nil {
		return err
	}
	defer c.Close()
	family := ipFamily(t.family)
	for _, chain := range chains {
		if err := nftDelete(c, family, nftMsgDelChain, t.table, chain); err != nil {
			return fmt.Errorf("%s %s %s: %w", t.command(), t.table, chain, err)
		}
	}
	if whole {
		if err := nftDelete(c, family, nftMsgDelTable, t.table, ""); err != nil {
			return fmt.Errorf("%s %s: %w", t.command(), t.table, err)
		}
	}
	return nil
}
