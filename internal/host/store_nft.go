//go:build linux

package host

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An nftStore holds tables, chains, verdict maps and rules of native nf_tables, kind "nft". A name begins
// with family and table:
//
//	name                                       value
//	ip docker-bridges                          "-", or "dormant"
//	ip docker-bridges raw-PREROUTING           some rules of the chain, as with kind iptables
//	ip docker-bridges raw-PREROUTING policy    accept or drop
//	ip docker-bridges raw-PREROUTING chain     "type filter hook prerouting priority -300; policy accept;",
//	                                           or "-" of a chain that is only jumped to
//	ip docker-bridges NAME map                 "type ifname : verdict"
//	ip docker-bridges NAME element "docker0"   "jump CHAIN", "goto CHAIN", "accept", "drop", "return" or "continue"
//
// Rules are written as netstate.NftPrinter prints them, without counters.
//
// Any rule can be taken out and put back as it was, but one that ends its own sets or chains with it
// (anonymous ones: { 80, 443 }), and iptables' own. What can be put in anew is said at nftRuleOf. Chains,
// maps and tables are removed when they are empty alone. Steps that follow each other are one batch, for
// one generation of the ruleset.
type nftStore struct{ m machine }

// nftFamilies are the families and their numbers.
var nftFamilies = map[string]uint8{
	"inet": unix.NFPROTO_INET, "ip": unix.NFPROTO_IPV4, "arp": unix.NFPROTO_ARP, "netdev": unix.NFPROTO_NETDEV,
	"bridge": unix.NFPROTO_BRIDGE, "ip6": unix.NFPROTO_IPV6,
}

// nftRaw is the kind of what a step drags along that takes rules out: a rule's attributes as the kernel
// takes them, base64, under the rule's text.
const nftRaw = "nft-rule"

// What an nftThing may be of the table, chain or map that it names.
const (
	nftTable   = "table"
	nftRuleSet = "rules"
	nftPolicy  = "policy"
	nftChain   = "chain"
	nftMap     = "map"
	nftElement = "element"
)

// An nftThing is what a step's name means.
type nftThing struct {
	family, table string
	what          string // one of the words above
	name          string // of the chain or map
	key           string // of the element
}

func parseNft(name string) (nftThing, error) {
	part := strings.Fields(local(name))
	if len(part) < 2 || len(part) > 5 || nftFamilies[part[0]] == 0 {
		return nftThing{}, fmt.Errorf("nft: %q is not a family, a table and what is in it", name)
	}
	thing := nftThing{family: part[0], table: part[1]}
	switch {
	case len(part) == 2:
		thing.what = nftTable
	case len(part) == 3:
		thing.what, thing.name = nftRuleSet, part[2]
	case len(part) == 4 && slices.Contains([]string{nftPolicy, nftChain, nftMap}, part[3]):
		thing.what, thing.name = part[3], part[2]
	case len(part) == 5 && part[3] == nftElement:
		thing.what, thing.name, thing.key = nftElement, part[2], part[4]
	default:
		return thing, fmt.Errorf("nft: %q is not a family, a table and what is in it", name)
	}
	return thing, nil
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
		now, err := readNftState(ctx, c, []nftThing{thing})
		if err == nil {
			step, there, err = now.look(thing, step)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		return nil
	})
	return step, there, err
}

// look is Look in a state.
func (s nftState) look(thing nftThing, step remediate.Step) (completed remediate.Step, there bool, err error) {
	if thing.what != nftRuleSet {
		now := s.value(thing)
		if err := s.mayMove(thing, now, step); err != nil {
			return step, false, err
		}
		return step, remediate.Equal(now, step.New), nil
	}
	if step, err = nftSpelt(thing, step); err != nil {
		return step, false, err
	}
	e, w, holds, err := s.holds(thing, step)
	if err != nil || holds != holdsOld {
		return step, holds == holdsNew, err
	}
	chain := s.chain(thing)
	for i, at := range e.gone {
		raw := chain.raw[chain.handles[at]]
		if err := movable(chain.rules[at], raw); err != nil {
			return step, false, err
		}
		step.Also = append(step.Also, remediate.Remove(nftRaw, fmt.Sprintf("%s %d: %s", local(step.Name), i, chain.rules[at]), base64.StdEncoding.EncodeToString(raw)))
	}
	return w.framed(chain.rules, e).in(step), false, nil
}

// nftSpelt returns the step with its new rules as they will be printed: an undo finds them by that.
func nftSpelt(thing nftThing, step remediate.Step) (remediate.Step, error) {
	if step.Old == nil || step.New == nil {
		return step, nil // holds says why
	}
	w, err := newWindow(*step.Old, *step.New)
	if err != nil {
		return step, err
	}
	for i, rule := range w.next {
		if !slices.Contains(w.gone, rule) {
			if w.next[i], err = nftPrinted(thing.family, rule); err != nil {
				return step, err
			}
		}
	}
	return w.in(step), nil
}

// in returns the step with the window as its values.
func (w window) in(step remediate.Step) remediate.Step {
	old, text := strings.Join(slices.Concat(w.before, w.gone, w.behind), "\n"), strings.Join(slices.Concat(w.before, w.next, w.behind), "\n")
	step.Old, step.New = &old, &text
	return step
}

// ownParts finds sets and chains that a rule ends with itself.
var ownParts = lazyregexp.New(`__(set|map|chain)\d+`)

// movable says why a rule cannot be put in again as it was.
func movable(rule string, raw []byte) error {
	switch {
	case raw == nil:
		return errors.New("a rule of it changed meanwhile")
	case ownParts().Match(raw):
		return fmt.Errorf("the rule %q has a set or chain of its own, which could not be put back", rule)
	case strings.Contains(string(raw), "\x00match\x00") || strings.Contains(string(raw), "\x00target\x00"):
		return fmt.Errorf("the rule %q is of iptables, which could not be put back", rule)
	}
	return nil
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
		now, err := readNftState(ctx, c, things)
		if err != nil {
			return nil, err
		}
		changed := make([]bool, len(steps))
		for i, step := range steps {
			if changed[i], err = now.change(things[i], step); err != nil {
				return nil, fmt.Errorf("%s: %w", step.Object(), err)
			}
		}
		var batch []netlink.Message
		if slices.Contains(changed, true) {
			if batch, err = now.batch(); err != nil {
				return nil, err
			}
		}
		if len(batch) == 0 {
			return changed, nil
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
