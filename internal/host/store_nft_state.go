//go:build linux

package host

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
)

// An nftState is the tables that steps are about at one generation, as they were read (was) and as the
// steps make them (now). A value of "" is a thing that is not there.
type nftState struct {
	generation uint32
	tables     map[[2]string]*nftTableState // by family and name
}

type nftTableState struct {
	family, name string
	was, now     string
	chains       map[string]*nftChainState
	maps         map[string]*nftMapState
	others       bool // it holds objects that are neither chain nor map
}

type nftChainState struct {
	was, now string

	// Of the chains that steps name: what else there is to know.
	rules   []string
	handles []uint64          // 0 of a rule that is put in
	fresh   []nftNewRule      // of a rule that is put in
	before  []uint64          // handles as they were read
	raw     map[uint64][]byte // by handle
}

type nftMapState struct {
	was, now         string
	before, elements map[string]string // by key
}

// nftVerdictMap is the one kind of map that is made here. It is that of Docker's tables.
const nftVerdictMap = "type ifname : verdict"

// readNftState reads the tables that the things name, in the thread's namespace.
func readNftState(ctx context.Context, c *netlink.Conn, things []nftThing) (nftState, error) {
	state := nftState{tables: map[[2]string]*nftTableState{}}
	ruleset, err := ReadNft(ctx, c)
	if err != nil {
		return state, err
	}
	table, err := links()
	if err != nil {
		return state, err
	}
	printer := netstate.NftPrinter{BigEndian: ruleset.BigEndian, Links: map[uint32]string{}}
	for index, name := range table.names {
		printer.Links[uint32(index)] = name
	}
	state.generation = ruleset.Generation
	for _, thing := range things {
		key := [2]string{thing.family, thing.table}
		t := ruleset.Table(thing.family, thing.table)
		if state.tables[key] == nil {
			state.tables[key] = newNftTableState(thing, t, printer)
		}
		chain, one := t.Chain(thing.name), state.chain(thing)
		if chain == nil || one == nil || one.raw != nil || thing.what != nftRuleSet && thing.what != nftChain {
			continue
		}
		for i := range chain.Rules {
			one.rules = append(one.rules, oneLine(printer.Rule(t, &chain.Rules[i])))
			one.handles = append(one.handles, chain.Rules[i].Handle)
		}
		one.before, one.fresh, one.raw = slices.Clone(one.handles), make([]nftNewRule, len(one.rules)), map[uint64][]byte{}
		raw, err := nftRules(c, nftFamilies[thing.family], thing.table, thing.name)
		if err != nil {
			return state, err
		}
		for _, rule := range raw {
			one.raw[rule.handle] = rule.raw
		}
	}
	return state, nil
}

// newNftTableState returns the state of a table, nil of one that is not there, but for its rules.
func newNftTableState(thing nftThing, t *netstate.NftTable, printer netstate.NftPrinter) *nftTableState {
	state := &nftTableState{family: thing.family, name: thing.table, chains: map[string]*nftChainState{}, maps: map[string]*nftMapState{}}
	if t == nil {
		return state
	}
	state.was = "-"
	switch {
	case t.Owner != 0:
		state.was = "owned by a program"
	case t.Dormant:
		state.was = "dormant"
	}
	state.now = state.was
	state.others = len(t.Objects)+len(t.Flowtables) > 0
	for i := range t.Chains {
		value := "-"
		if h := t.Chains[i].Hook; h != nil {
			devices := ""
			if len(h.Devices) > 0 {
				devices = " devices " + strings.Join(h.Devices, ",")
			}
			value = fmt.Sprintf("type %s hook %s%s priority %d; policy %s;", h.Type, h.Name, devices, h.Priority, h.Policy)
		}
		state.chains[t.Chains[i].Name] = &nftChainState{was: value, now: value}
	}
	for i := range t.Sets {
		s := &t.Sets[i]
		if s.Anonymous {
			continue // it ends with its rule
		}
		const ifname = 41
		one := &nftMapState{was: "of another type", before: map[string]string{}, elements: map[string]string{}}
		if s.Map && s.Verdicts && s.KeyType == ifname && !s.Interval && !s.Dynamic && !s.Timed {
			one.was = nftVerdictMap
		}
		one.now = one.was
		for _, text := range printer.Elements(t, s) {
			key, value, _ := strings.Cut(text, " : ")
			one.before[key], one.elements[key] = value, value
		}
		state.maps[s.Name] = one
	}
	return state
}

func (s nftState) table(thing nftThing) *nftTableState {
	return s.tables[[2]string{thing.family, thing.table}]
}

// chain returns the thing's chain, or nil if it is not there now.
func (s nftState) chain(thing nftThing) *nftChainState {
	if chain := s.table(thing).chains[thing.name]; chain != nil && chain.now != "" {
		return chain
	}
	return nil
}

// value returns what a thing holds that is no piece of a chain.
func (s nftState) value(thing nftThing) *string {
	t, text := s.table(thing), ""
	switch thing.what {
	case nftTable:
		text = t.now
	case nftChain:
		if chain := s.chain(thing); chain != nil {
			text = chain.now
		}
	case nftPolicy:
		if chain := s.chain(thing); chain != nil {
			text = policyOf(chain.now)
		}
	case nftMap:
		if one := t.maps[thing.name]; one != nil {
			text = one.now
		}
	case nftElement:
		if one := t.maps[thing.name]; one != nil {
			text = one.elements[thing.key]
		}
	}
	if text == "" {
		return nil
	}
	return &text
}

// policyOf returns the policy in the value of a base chain, or "".
func policyOf(chain string) string {
	_, policy, _ := strings.Cut(chain, "; policy ")
	return strings.TrimSuffix(policy, ";")
}

// holds says what the state says of a step about rules.
func (s nftState) holds(thing nftThing, step remediate.Step) (edit, window, state, error) {
	if step.Old == nil || step.New == nil {
		return edit{}, window{}, holdsNeither, errors.New("a step needs an old and a new value")
	}
	w, err := newWindow(*step.Old, *step.New)
	chain := s.chain(thing)
	if err != nil || chain == nil {
		return edit{}, w, holdsNeither, err
	}
	e, holds := w.find(chain.rules)
	return e, w, holds, nil
}

// mayMove says why a base chain cannot be made at another hook: its rules move with it.
func (s nftState) mayMove(thing nftThing, now *string, step remediate.Step) error {
	if thing.what != nftChain || now == nil || step.New == nil || *now == *step.New {
		return nil
	}
	chain := s.chain(thing)
	for i, handle := range chain.handles {
		if err := movable(chain.rules[i], chain.raw[handle]); err != nil {
			return err
		}
	}
	return nil
}

// change makes a step in the state, and says whether it did: a thing that holds New is left alone.
func (s nftState) change(thing nftThing, step remediate.Step) (did bool, err error) {
	if thing.what == nftRuleSet {
		return s.changeRules(thing, step)
	}
	now := s.value(thing)
	switch {
	case remediate.Equal(now, step.New):
		return false, nil
	case !remediate.Equal(now, step.Old):
		return false, fmt.Errorf("%w: expected %s, found %s", remediate.ErrChanged, quoted(step.Old), quoted(now))
	}
	text := ""
	if step.New != nil {
		text = *step.New
	}
	t := s.table(thing)
	switch thing.what {
	case nftTable:
		if text != "" && text != "-" && text != "dormant" {
			return false, fmt.Errorf("a table is - or dormant, not %q", text)
		}
		t.now = text
	case nftPolicy:
		if text != "accept" && text != "drop" {
			return false, errors.New("a policy is accept or drop")
		}
		chain := s.chain(thing)
		head, _, _ := strings.Cut(chain.now, "; policy ")
		chain.now = head + "; policy " + text + ";"
	case nftChain:
		return true, s.changeChain(t, thing, now, text)
	case nftMap:
		one := t.maps[thing.name]
		switch {
		case text != "" && text != nftVerdictMap:
			return false, fmt.Errorf("maps of %q are not made here", text)
		case now != nil && text != "":
			return false, errors.New("its type stays")
		case one == nil:
			one = &nftMapState{elements: map[string]string{}}
			t.maps[thing.name] = one
		case text == "" && len(one.elements) > 0:
			return false, fmt.Errorf("%w: it has elements", remediate.ErrChanged)
		}
		one.now = text
	case nftElement:
		one := t.maps[thing.name]
		switch {
		case one == nil || one.now != nftVerdictMap:
			return false, fmt.Errorf("%w: the map is gone, or another one", remediate.ErrChanged)
		case now != nil && !writable(*now):
			return false, fmt.Errorf("what says %q could not be put back", *now)
		case text == "":
			delete(one.elements, thing.key)
		default:
			one.elements[thing.key] = text
		}
	}
	return true, nil
}

// nftBaseChain is the value of a base chain that can be made here.
var nftBaseChain = lazyregexp.New(`^type (filter|nat|route) hook (prerouting|input|forward|output|postrouting) priority (-?\d+); policy (accept|drop);$`)

func (s nftState) changeChain(t *nftTableState, thing nftThing, now *string, text string) error {
	made := func(value string) bool { return value == "-" || nftBaseChain().MatchString(value) }
	switch {
	case text != "" && !made(text):
		return fmt.Errorf("chains of %q are not made here", text)
	case now != nil && !made(*now):
		return fmt.Errorf("a chain of %q could not be put back", *now)
	}
	chain := t.chains[thing.name]
	switch {
	case chain == nil:
		chain = &nftChainState{raw: map[uint64][]byte{}}
		t.chains[thing.name] = chain
	case text == "" && len(chain.rules) > 0:
		return fmt.Errorf("%w: it has rules", remediate.ErrChanged)
	}
	if now != nil && text != "" {
		step := remediate.Step{New: &text}
		if err := s.mayMove(thing, now, step); err != nil {
			return err
		}
	}
	chain.now = text
	return nil
}

// writable says whether an element's value can be made here.
func writable(value string) bool {
	_, err := elementVerdict(value)
	return err == nil
}

// changeRules is change for a piece of a chain.
func (s nftState) changeRules(thing nftThing, step remediate.Step) (bool, error) {
	e, w, holds, err := s.holds(thing, step)
	switch {
	case err != nil:
		return false, err
	case holds == holdsNew:
		return false, nil
	case holds == holdsNeither:
		return false, remediate.ErrChanged
	}
	chain := s.chain(thing)
	fresh := make([]nftNewRule, len(w.next))
	for n, rule := range w.next {
		at := slices.IndexFunc(e.gone, func(at int) bool { return chain.rules[at] == rule })
		switch {
		case at < 0:
			fresh[n], err = newRuleOf(thing, step, n, rule)
		case chain.handles[e.gone[at]] == 0:
			fresh[n] = chain.fresh[e.gone[at]]
		default: // it moves within the chain
			fresh[n].raw = chain.raw[chain.handles[e.gone[at]]]
			err = movable(rule, fresh[n].raw)
		}
		if err != nil {
			return false, err
		}
	}
	for _, at := range slices.Backward(e.gone) {
		chain.rules, chain.handles = slices.Delete(chain.rules, at, at+1), slices.Delete(chain.handles, at, at+1)
		chain.fresh = slices.Delete(chain.fresh, at, at+1)
		if at < e.place {
			e.place--
		}
	}
	chain.rules = slices.Insert(chain.rules, e.place, w.next...)
	chain.handles = slices.Insert(chain.handles, e.place, make([]uint64, len(w.next))...)
	chain.fresh = slices.Insert(chain.fresh, e.place, fresh...)
	return true, nil
}

// newRuleOf returns the n-th rule that a step puts in: one that was there before, or a new one.
func newRuleOf(thing nftThing, step remediate.Step, n int, rule string) (nftNewRule, error) {
	for _, also := range step.Also {
		number, _, _ := strings.Cut(strings.TrimPrefix(also.Name, local(step.Name)+" "), ":")
		if also.Kind == nftRaw && also.New != nil && number == strconv.Itoa(n) {
			raw, err := base64.StdEncoding.DecodeString(*also.New)
			return nftNewRule{raw: raw}, err
		}
	}
	return nftRuleOf(thing.family, rule)
}

// quoted shows a value in a sentence.
func quoted(value *string) string {
	if value == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q", *value)
}
