//go:build linux

package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ipFamily returns the number of the family in nf_tables.
func ipFamily(family netstate.Family) uint8 {
	if family == netstate.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// What a step of iptables-nft makes along is named by these words: the table, and the built-in chain, which
// are there once somebody needs them.
const (
	madeTable = "table"
	madeChain = "base"
)

// missingBase returns what the step makes along.
func missingBase(thing iptablesThing) ([]remediate.Step, error) {
	c, err := dialNetfilter(netns{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	tables, err := nftTables(c, ipFamily(thing.family))
	if err != nil {
		return nil, err
	}
	chains, _, err := nftChains(c, ipFamily(thing.family), thing.table)
	if err != nil {
		return nil, err
	}
	var also []remediate.Step
	if thing.builtin() && !slices.Contains(chains, thing.chain) {
		also = append(also, remediate.Add("iptables", strings.Join([]string{thing.command(), thing.table, thing.chain, madeChain}, " "), "-"))
	}
	if !slices.Contains(tables, thing.table) {
		also = append(also, remediate.Add("iptables", strings.Join([]string{thing.command(), thing.table, madeTable}, " "), "-"))
	}
	return also, nil
}

// An nftView is a table of iptables-nft at one generation of the ruleset.
type nftView struct {
	generation uint32
	made       bool     // the table is there
	chains     []string // those that are there
	policies   map[string]string
	handles    map[string][]uint64
	table      *ruleTable
}

// view reads the table by iptables-save. What changed meanwhile is errRaced.
func (t *transaction) view(ctx context.Context, c *netlink.Conn) (nftView, error) {
	var v nftView
	var err error
	if v.generation, err = nftGeneration(c); err != nil {
		return v, err
	}
	if v.table, err = t.saved(ctx, t.table); err != nil {
		return v, err
	}
	rules, err := t.number(c, &v)
	if err != nil {
		return v, err
	}
	if now, err := nftGeneration(c); err != nil || now != v.generation {
		return v, errors.Join(errRaced, err)
	}
	for name := range rules {
		chain := v.table.chains[name]
		if chain == nil || len(chain.rules) != len(rules[name]) {
			return v, fmt.Errorf("%s: iptables-save does not show every rule", name)
		}
		copy(chain.handles, v.handles[name])
	}
	return v, nil
}

// glance reads the table without iptables-save: of its rules it knows those by sight that the steps name,
// if iptables makes the same of them here. The others stand for themselves.
func (t *transaction) glance(ctx context.Context, c *netlink.Conn) (nftView, error) {
	v := nftView{table: newRuleTable(t.table, nil)}
	known := map[string]map[string]string{}
	for i, thing := range t.things {
		if known[thing.chain] == nil {
			known[thing.chain] = map[string]string{}
		}
		if thing.what != "" {
			continue
		}
		w, err := newWindow(*t.steps[i].Old, *t.steps[i].New)
		if err != nil {
			return v, err
		}
		rules := slices.DeleteFunc(slices.Concat(w.before, w.gone, w.next, w.behind), func(rule string) bool {
			return rule == chainStart || rule == chainEnd
		})
		made, err := t.compiler.compile(ctx, thing, rules...)
		if err != nil {
			return v, err
		}
		for n, one := range made {
			known[thing.chain][one.key] = bare(rules[n])
		}
	}
	var err error
	if v.generation, err = nftGeneration(c); err != nil {
		return v, err
	}
	rules, err := t.number(c, &v)
	if err != nil {
		return v, err
	}
	for _, name := range v.chains {
		if v.table.chains[name] == nil {
			v.table.chains[name] = &ruleChain{policy: "-"}
		}
	}
	for name := range rules {
		chain := v.table.chains[name]
		if v.policies[name] != "" {
			chain.policy = v.policies[name]
		}
		for _, rule := range rules[name] {
			line, ok := known[name][rule.key]
			if !ok {
				line = fmt.Sprintf("handle %d", rule.handle)
			}
			chain.rules = append(chain.rules, line)
			chain.counters = append(chain.counters, "[0:0]")
			chain.handles = append(chain.handles, rule.handle)
		}
	}
	return v, nil
}

// number reads which chains there are, and the rules of those that the steps are about.
func (t *transaction) number(c *netlink.Conn, v *nftView) (map[string][]nftRule, error) {
	family := ipFamily(t.family)
	tables, err := nftTables(c, family)
	if err != nil {
		return nil, err
	}
	v.made = slices.Contains(tables, t.table)
	if v.chains, v.policies, err = nftChains(c, family, t.table); err != nil {
		return nil, err
	}
	all := map[string][]nftRule{}
	v.handles = map[string][]uint64{}
	for _, thing := range t.things {
		if all[thing.chain] != nil || !slices.Contains(v.chains, thing.chain) {
			continue
		}
		rules, err := nftRules(c, family, t.table, thing.chain)
		if err != nil {
			return nil, err
		}
		all[thing.chain] = append([]nftRule{}, rules...)
		v.handles[thing.chain] = []uint64{}
		for _, rule := range rules {
			v.handles[thing.chain] = append(v.handles[thing.chain], rule.handle)
		}
	}
	return all, nil
}

// changeNft is change for iptables-nft, once.
func (t *transaction) changeNft(ctx context.Context, edit func(*ruleTable) error, hurried bool) error {
	c, err := dialNetfilter(netns{})
	if err != nil {
		return err
	}
	defer c.Close()
	look := t.view
	if hurried {
		look = t.glance
	}
	v, err := look(ctx, c)
	if err != nil {
		return err
	}
	if err := edit(v.table); err != nil {
		return err
	}
	batch, err := t.batch(ctx, v)
	if err != nil {
		return err
	}
	if len(batch) == 0 {
		return nil
	}
	err = nftBatch(c, v.generation, batch...)
	for errors.Is(err, unix.ERESTART) {
		// Somebody else's change need not be about these rules. What names them by their handles alone is
		// as good as before: a place is where its neighbour is, and one that is gone is ENOENT.
		if slices.ContainsFunc(batch, func(m netlink.Message) bool {
			message := uint16(m.Header.Type) & 0xff
			return message != nftMsgNewRule && message != nftMsgDelRule
		}) {
			return errRaced
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		generation, wrong := nftGeneration(c)
		if wrong != nil {
			return wrong
		}
		if err = nftBatch(c, generation, batch...); errors.Is(err, unix.ENOENT) {
			return errRaced
		}
	}
	return err
}

// batch returns what turns the table that is there into the one that was made of it.
func (t *transaction) batch(ctx context.Context, v nftView) ([]netlink.Message, error) {
	if len(v.table.script) == 0 && !slices.ContainsFunc(t.steps, func(s remediate.Step) bool { return s.Settle }) {
		return nil, nil
	}
	var batch []netlink.Message
	add := func(message, flags uint16, attributes ...[]byte) {
		batch = append(batch, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(nfnlSubsysNftables<<8 | message), Flags: netlink.HeaderFlags(flags)},
			Data:   slices.Concat(append([][]byte{nfGen(ipFamily(t.family), 0), cString(nftaTableName, t.table)}, attributes...)...),
		})
	}
	const fresh = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	var names []string // of the chains that the steps are about
	for _, thing := range t.things {
		if !slices.Contains(names, thing.chain) {
			names = append(names, thing.chain)
		}
	}
	made := func(name string) bool { return slices.Contains(v.chains, name) }
	builtin := func(name string) bool { return slices.Contains(builtinChains[t.table], name) }
	needed := func(name string) bool { // a built-in chain without rules need not be made
		chain := v.table.chains[name]
		return chain != nil && (!builtin(name) || len(chain.rules) > 0 || chain.policy != "ACCEPT")
	}
	if !v.made && slices.ContainsFunc(names, needed) {
		add(nftMsgNewTable, fresh)
	}
	for _, name := range names {
		switch {
		case !made(name) && needed(name) && builtin(name):
			add(nftMsgNewChain, fresh, cString(nftaChainName, name), baseChain(t.table, name), chainPolicy(v.table.chains[name].policy))
		case !made(name) && needed(name):
			add(nftMsgNewChain, fresh, cString(nftaChainName, name))
		case made(name) && builtin(name):
			if slices.ContainsFunc(t.things, func(thing iptablesThing) bool { return thing.chain == name && thing.what == "policy" }) {
				add(nftMsgNewChain, 0, cString(nftaChainName, name), chainPolicy(v.table.chains[name].policy))
			}
		}
	}
	for i, thing := range t.things {
		if slices.IndexFunc(t.things, func(other iptablesThing) bool { return other.chain == thing.chain }) < i {
			continue // its chain is done
		}
		if err := t.batchRules(ctx, v, thing, add); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if made(name) && v.table.chains[name] == nil {
			add(nftMsgDelChain, nonRecursive, cString(nftaChainName, name))
		}
	}
	t.dropBase(v, made, add)
	return batch, nil
}

// batchRules adds what a chain's rules need: new ones before the next one that stays, and only then those
// that go, which may mark a place.
func (t *transaction) batchRules(ctx context.Context, v nftView, thing iptablesThing, add func(message, flags uint16, attributes ...[]byte)) error {
	name := cString(nftaRuleChain, thing.chain)
	var stay []uint64
	if chain := v.table.chains[thing.chain]; chain != nil {
		stay = chain.handles
		for i, rule := range chain.rules {
			if chain.handles[i] != 0 {
				continue
			}
			made, err := t.compiler.compile(ctx, thing, chain.counters[i]+" "+rule)
			if err != nil {
				return err
			}
			attributes := [][]byte{name}
			flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_APPEND)
			if next := slices.IndexFunc(chain.handles[i:], func(handle uint64) bool { return handle != 0 }); next >= 0 {
				flags = unix.NLM_F_CREATE
				attributes = append(attributes, attribute(nftaRulePosition, binary.BigEndian.AppendUint64(nil, chain.handles[i+next])))
			}
			add(nftMsgNewRule, flags, append(attributes, made[0].raw)...)
		}
	}
	for _, handle := range v.handles[thing.chain] {
		if !slices.Contains(stay, handle) {
			add(nftMsgDelRule, 0, name, attribute(nftaRuleHandle, binary.BigEndian.AppendUint64(nil, handle)))
		}
	}
	return nil
}

// dropBase removes what was made along, where the steps are an undo and nothing else has come into it.
func (t *transaction) dropBase(v nftView, made func(string) bool, add func(message, flags uint16, attributes ...[]byte)) {
	left := slices.Clone(v.chains)
	whole := false
	for i, step := range t.steps {
		name := t.things[i].chain
		chain := v.table.chains[name]
		if chain == nil {
			left = slices.DeleteFunc(left, func(other string) bool { return other == name })
		}
		for _, also := range step.Also {
			if also.New != nil || i >= len(t.changed) || !t.changed[i] && !step.Settle {
				continue
			}
			if strings.HasSuffix(also.Name, " "+madeTable) {
				whole = true
			} else if made(name) && slices.Contains(left, name) && chain != nil && len(chain.rules) == 0 && chain.policy == "ACCEPT" {
				add(nftMsgDelChain, nonRecursive, cString(nftaChainName, name))
				left = slices.DeleteFunc(left, func(other string) bool { return other == name })
			}
		}
	}
	if whole && v.made && len(left) == 0 {
		add(nftMsgDelTable, nonRecursive)
	}
}

// baseChain returns what makes a chain a built-in one of iptables. Source: iptables/nft.c, whose tables
// these are.
func baseChain(table, chain string) []byte {
	hook := map[string]uint32{"PREROUTING": 0, "INPUT": 1, "FORWARD": 2, "OUTPUT": 3, "POSTROUTING": 4}[chain]
	priority := map[string]int32{"filter": 0, "mangle": -150, "raw": -300, "security": 50}[table]
	kind := "filter"
	switch {
	case table == "nat":
		kind, priority = "nat", -100
		if chain == "INPUT" || chain == "POSTROUTING" {
			priority = 100
		}
	case table == "mangle" && chain == "OUTPUT":
		kind = "route"
	}
	place := append(attribute(1, binary.BigEndian.AppendUint32(nil, hook)), attribute(2, binary.BigEndian.AppendUint32(nil, uint32(priority)))...)
	return append(attribute(nftaChainHook|unix.NLA_F_NESTED, place), cString(nftaChainType, kind)...)
}

// chainPolicy returns the attribute of a policy: NF_DROP is 0, NF_ACCEPT 1.
func chainPolicy(policy string) []byte {
	verdict := uint32(1)
	if policy == "DROP" {
		verdict = 0
	}
	return attribute(nftaChainPolicy, binary.BigEndian.AppendUint32(nil, verdict))
}
