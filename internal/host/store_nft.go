//go:build linux

package host

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An nftStore holds rules and policies of native nf_tables, kind "nft". A name is family, table and chain,
// "inet filter forward": a value is then a piece of the chain as with kind iptables, one rule a line as
// netstate.NftPrinter prints it without counters, between its neighbours, "^" or "$". With the word policy
// behind it, it is that of a base chain: accept or drop.
//
// Any rule can be taken out and put back as it was, but one that ends its own sets or chains with it
// (anonymous ones: { 80, 443 }), and iptables' own. What can be put in anew is said at nftRuleOf. Steps that
// follow each other are one batch, for one generation of the ruleset.
type nftStore struct{ m machine }

// nftFamilies are the families and their numbers.
var nftFamilies = map[string]uint8{
	"inet": unix.NFPROTO_INET, "ip": unix.NFPROTO_IPV4, "arp": unix.NFPROTO_ARP, "netdev": unix.NFPROTO_NETDEV,
	"bridge": unix.NFPROTO_BRIDGE, "ip6": unix.NFPROTO_IPV6,
}

// nftRaw is the kind of what a step drags along that takes rules out: a rule's attributes as the kernel
// takes them, base64, under the rule's text.
const nftRaw = "nft-rule"

// An nftThing is what a step's name means.
type nftThing struct {
	family, table, chain string
	policy               bool
}

func parseNft(name string) (nftThing, error) {
	part := strings.Fields(local(name))
	if (len(part) != 3 && (len(part) != 4 || part[3] != "policy")) || nftFamilies[part[0]] == 0 {
		return nftThing{}, fmt.Errorf("nft: %q is not a family, a table and a chain", name)
	}
	return nftThing{part[0], part[1], part[2], len(part) == 4}, nil
}

// An nftState is what the steps are about, at one generation.
type nftState struct {
	generation uint32
	chains     map[nftThing]*nftChainState // by thing without policy
}

type nftChainState struct {
	table   *netstate.NftTable
	policy  string // "" of a chain that is no base chain
	rules   []string
	handles []uint64          // 0 of a rule that a step makes
	raw     map[uint64][]byte // by handle
	was     []uint64
}

// read returns the chains of the thread's namespace that the things name; those that are not there are
// left out.
func (s nftStore) read(ctx context.Context, c *netlink.Conn, things []nftThing) (nftState, error) {
	state := nftState{chains: map[nftThing]*nftChainState{}}
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
		thing.policy = false
		t := ruleset.Table(thing.family, thing.table)
		chain := t.Chain(thing.chain)
		if chain == nil || state.chains[thing] != nil {
			continue
		}
		one := &nftChainState{table: t, raw: map[uint64][]byte{}}
		if chain.Hook != nil {
			one.policy = chain.Hook.Policy
		}
		for i := range chain.Rules {
			one.rules = append(one.rules, oneLine(printer.Rule(t, &chain.Rules[i])))
			one.handles = append(one.handles, chain.Rules[i].Handle)
		}
		raw, err := nftRules(c, nftFamilies[thing.family], thing.table, thing.chain)
		if err != nil {
			return state, err
		}
		for _, rule := range raw {
			one.raw[rule.handle] = rule.raw
		}
		one.was = slices.Clone(one.handles)
		state.chains[thing] = one
	}
	return state, nil
}

// holds says what the state says of a step.
func (s nftState) holds(thing nftThing, step remediate.Step) (edit, window, state, error) {
	policy := thing.policy
	thing.policy = false
	chain := s.chains[thing]
	if step.Old == nil || step.New == nil {
		return edit{}, window{}, holdsNeither, errors.New("a step needs an old and a new value")
	}
	if policy {
		switch {
		case chain == nil:
		case chain.policy == *step.New:
			return edit{}, window{}, holdsNew, nil
		case chain.policy == *step.Old:
			return edit{}, window{}, holdsOld, nil
		}
		return edit{}, window{}, holdsNeither, nil
	}
	w, err := newWindow(*step.Old, *step.New)
	if err != nil || chain == nil {
		return edit{}, w, holdsNeither, err
	}
	e, holds := w.find(chain.rules)
	return e, w, holds, nil
}

// Look implements [remediate.Store].
func (s nftStore) Look(ctx context.Context, step remediate.Step) (remediate.Step, bool, error) {
	thing, err := parseNft(step.Name)
	if err != nil {
		return step, false, err
	}
	if step, err = s.m.bound(step); err != nil {
		return step, false, err
	}
	var there bool
	err = s.m.in(step, func() error {
		c, err := dialNetfilter(netns{})
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		defer c.Close()
		now, err := s.read(ctx, c, []nftThing{thing})
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		e, w, holds, err := now.holds(thing, step)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		there = holds == holdsNew
		if holds != holdsOld || thing.policy {
			return nil
		}
		if step, err = now.chains[thing].kept(thing, step, e, w); err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		return nil
	})
	return step, there, err
}

// ownParts finds sets and chains that a rule ends with itself.
var ownParts = regexp.MustCompile(`__(set|map|chain)\d+`)

// kept returns the step with what it takes to put back the rules that go, and those that come as they will
// be printed.
func (c *nftChainState) kept(thing nftThing, step remediate.Step, e edit, w window) (remediate.Step, error) {
	for i, at := range e.gone {
		raw := c.raw[c.handles[at]]
		switch {
		case raw == nil:
			return step, errors.New("a rule of it changed meanwhile")
		case ownParts.Match(raw):
			return step, fmt.Errorf("the rule %q has a set or chain of its own, which could not be put back", c.rules[at])
		case strings.Contains(string(raw), "\x00match\x00") || strings.Contains(string(raw), "\x00target\x00"):
			return step, fmt.Errorf("the rule %q is of iptables, which could not be put back", c.rules[at])
		}
		step.Also = append(step.Also, remediate.Remove(nftRaw, fmt.Sprintf("%s %d: %s", local(step.Name), i, c.rules[at]), base64.StdEncoding.EncodeToString(raw)))
	}
	next := slices.Clone(w.next)
	for i, rule := range next {
		raw, err := nftRuleOf(thing.family, rule)
		if err != nil {
			return step, err
		}
		if next[i], err = printed(thing.family, raw); err != nil {
			return step, err
		}
	}
	w = w.framed(c.rules, e)
	old, text := strings.Join(slices.Concat(w.before, w.gone, w.behind), "\n"), strings.Join(slices.Concat(w.before, next, w.behind), "\n")
	step.Old, step.New = &old, &text
	return step, nil
}

// Swap implements [remediate.Store].
func (s nftStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i := 0; i < len(steps); {
		n := i + 1
		for n < len(steps) && steps[n].Guards[remediate.GuardNetns] == steps[i].Guards[remediate.GuardNetns] &&
			steps[n].Guards[remediate.GuardPID] == steps[i].Guards[remediate.GuardPID] {
			n++
		}
		err := s.m.in(steps[i], func() error {
			did, err := s.swap(ctx, steps[i:n])
			copy(changed[i:], did)
			return err
		})
		if err != nil {
			return changed, err
		}
		i = n
	}
	return changed, nil
}

// swap makes the steps as one batch in the thread's namespace.
func (s nftStore) swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	things := make([]nftThing, len(steps))
	for i, step := range steps {
		var err error
		if things[i], err = parseNft(step.Name); err != nil {
			return nil, err
		}
	}
	c, err := dialNetfilter(netns{})
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	defer c.Close()
	for deadline := time.Now().Add(patience); ; {
		now, err := s.read(ctx, c, things)
		if err != nil {
			return nil, err
		}
		changed, batch, err := now.batch(things, steps)
		if err != nil || len(batch) == 0 {
			return changed, err
		}
		err = nftBatch(c, now.generation, batch...)
		switch {
		case err == nil:
			return changed, nil
		case !errors.Is(err, unix.ERESTART):
			return nil, fmt.Errorf("nft: %w", err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("nft: %w", errRaced)
		}
	}
}

// batch makes the steps in the state, and returns the messages that make them in the kernel.
func (s nftState) batch(things []nftThing, steps []remediate.Step) (changed []bool, batch []netlink.Message, err error) {
	changed = make([]bool, len(steps))
	add := func(thing nftThing, message, flags uint16, attributes ...[]byte) {
		batch = append(batch, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(nfnlSubsysNftables<<8 | message), Flags: netlink.HeaderFlags(flags)},
			Data:   slices.Concat(append([][]byte{nfGen(nftFamilies[thing.family], 0), cString(nftaTableName, thing.table)}, attributes...)...),
		})
	}
	var order []nftThing
	raws := map[nftThing][][]byte{} // by rule of the chain: what to make, nil of one that is there
	for i, step := range steps {
		thing := things[i]
		e, w, holds, err := s.holds(thing, step)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", step.Object(), err)
		}
		if holds == holdsNew {
			continue
		}
		if holds == holdsNeither {
			return nil, nil, fmt.Errorf("%s: %w", step.Object(), remediate.ErrChanged)
		}
		changed[i] = true
		policy := thing.policy
		thing.policy = false
		chain := s.chains[thing]
		if policy {
			if *step.New != "accept" && *step.New != "drop" {
				return nil, nil, fmt.Errorf("%s: a policy is accept or drop", step.Object())
			}
			chain.policy = *step.New
			add(thing, nftMsgNewChain, 0, cString(nftaChainName, thing.chain), chainPolicy(strings.ToUpper(*step.New)))
			continue
		}
		if raws[thing] == nil {
			raws[thing] = make([][]byte, len(chain.rules))
			order = append(order, thing)
		}
		for _, at := range slices.Backward(e.gone) {
			chain.rules, chain.handles = slices.Delete(chain.rules, at, at+1), slices.Delete(chain.handles, at, at+1)
			raws[thing] = slices.Delete(raws[thing], at, at+1)
			if at < e.place {
				e.place--
			}
		}
		for n, rule := range w.next {
			raw, err := rawOf(thing, step, n, rule)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", step.Object(), err)
			}
			chain.rules, chain.handles = slices.Insert(chain.rules, e.place+n, rule), slices.Insert(chain.handles, e.place+n, 0)
			raws[thing] = slices.Insert(raws[thing], e.place+n, raw)
		}
	}
	for _, thing := range order {
		chain, name := s.chains[thing], cString(nftaRuleChain, thing.chain)
		for i, raw := range raws[thing] {
			if raw == nil {
				continue
			}
			flags, attributes := uint16(unix.NLM_F_CREATE|unix.NLM_F_APPEND), [][]byte{name}
			if next := slices.IndexFunc(chain.handles[i:], func(handle uint64) bool { return handle != 0 }); next >= 0 {
				flags = unix.NLM_F_CREATE
				attributes = append(attributes, attribute(nftaRulePosition, binary.BigEndian.AppendUint64(nil, chain.handles[i+next])))
			}
			add(thing, nftMsgNewRule, flags, append(attributes, raw)...)
		}
		for _, handle := range chain.was {
			if !slices.Contains(chain.handles, handle) {
				add(thing, nftMsgDelRule, 0, name, attribute(nftaRuleHandle, binary.BigEndian.AppendUint64(nil, handle)))
			}
		}
	}
	return changed, batch, nil
}

// rawOf returns the n-th rule that a step puts in: one that was there before, or a new one.
func rawOf(thing nftThing, step remediate.Step, n int, rule string) ([]byte, error) {
	for _, also := range step.Also {
		number, _, _ := strings.Cut(strings.TrimPrefix(also.Name, local(step.Name)+" "), ":")
		if also.Kind == nftRaw && also.New != nil && number == strconv.Itoa(n) {
			return base64.StdEncoding.DecodeString(*also.New)
		}
	}
	return nftRuleOf(thing.family, rule)
}
