//go:build linux

package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A compiler finds out what iptables makes of a rule: it makes it in a network namespace of its own, which
// ends with that, and reads it back.
type compiler struct {
	mutex sync.Mutex
	rules map[string]compiled
}

// compiled is a rule as iptables-save prints it and, of iptables-nft, as the kernel takes it: attributes of
// NFT_MSG_NEWRULE, counters included.
type compiled struct {
	text string
	raw  []byte
	key  string // see nftRule
}

// compile compiles rules of the chain, each with or without counters before it. One that cannot be made is
// an error.
func (c *compiler) compile(ctx context.Context, thing iptablesThing, rules ...string) ([]compiled, error) {
	key := func(rule string) string {
		return fmt.Sprint(thing.family, thing.variant, thing.table, thing.chain, " ", rule)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var unknown []string
	for _, rule := range rules {
		if _, ok := c.rules[key(rule)]; !ok {
			unknown = append(unknown, rule)
		}
	}
	if len(unknown) > 0 {
		made, err := thing.tryApart(ctx, unknown)
		if err != nil {
			return nil, err
		}
		for i, rule := range unknown {
			c.rules[key(rule)] = made[i]
			c.rules[key(strings.TrimSuffix(rule, bare(rule))+made[i].text)] = made[i]
		}
	}
	var all []compiled
	for _, rule := range rules {
		all = append(all, c.rules[key(rule)])
	}
	return all, nil
}

// tryApart makes the rules in a namespace that is made for it.
func (t iptablesThing) tryApart(ctx context.Context, rules []string) (made []compiled, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends, and the namespace with it
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("a network namespace to try rules in: %w", err)
			return
		}
		made, err = t.try(ctx, rules)
	}()
	<-done
	return made, err
}

// try makes the rules in the thread's namespace, which is empty.
func (t iptablesThing) try(ctx context.Context, rules []string) ([]compiled, error) {
	chains := []string{t.chain}
	var script []string
	for _, rule := range rules {
		text := bare(rule)
		if text == "" || strings.ContainsAny(rule, "\n\x00") || strings.Contains(text, `\n`) {
			return nil, errors.New("a rule with a line end in it cannot be made by iptables-restore")
		}
		word := strings.Fields(text)
		for i := 1; i < len(word); i++ {
			if (word[i-1] == "-j" || word[i-1] == "-g") && !targets[word[i]] {
				chains = append(chains, word[i])
			}
		}
		script = append(script, strings.TrimSuffix(rule, text)+"-A "+t.chain+" "+text)
	}
	slices.Sort(chains)
	for _, chain := range slices.Compact(chains) {
		if !slices.Contains(builtinChains[t.table], chain) {
			script = slices.Insert(script, 0, "-N "+chain)
		}
	}
	if err := t.restore(t.table, script); err != nil {
		return nil, err
	}
	table, err := t.saved(ctx, t.table)
	if err != nil {
		return nil, err
	}
	chain := table.chains[t.chain]
	if chain == nil || len(chain.rules) != len(rules) {
		return nil, errors.New("iptables does not make one rule of it")
	}
	made := make([]compiled, len(rules))
	for i := range made {
		made[i].text = chain.rules[i]
	}
	if t.variant == variantLegacy {
		return made, nil
	}
	c, err := dialNetfilter(netns{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := nftRules(c, ipFamily(t.family), t.table, t.chain)
	if err != nil {
		return nil, err
	}
	if len(raw) != len(rules) {
		return nil, errors.New("iptables-nft does not make one rule of it")
	}
	for i := range made {
		compat, err := compatOf(made[i].text)
		if err != nil {
			return nil, err
		}
		made[i].raw, made[i].key = append(compat, raw[i].raw...), raw[i].key
	}
	return made, nil
}

// protocols are the names of protocols that iptables-save prints.
var protocols = map[string]uint32{
	"icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
	"ipv6-icmp": 58, "icmpv6": 58, "ospf": 89, "ipip": 94, "pim": 103, "vrrp": 112, "sctp": 132, "ipv6-mh": 135, "mobility-header": 135, "udplite": 136,
}

// compatOf returns what the kernel wants to be told beside a rule's expressions, and does not say of it
// (NFTA_RULE_COMPAT): the protocol that its extensions may rely on.
func compatOf(rule string) ([]byte, error) {
	word := strings.Fields(rule)
	i := slices.Index(word, "-p")
	if i < 0 || i+1 == len(word) {
		return nil, nil
	}
	number, ok := protocols[word[i+1]]
	if !ok {
		n, err := strconv.ParseUint(word[i+1], 10, 8)
		if err != nil {
			return nil, fmt.Errorf("the number of protocol %s is not known", word[i+1])
		}
		number = uint32(n)
	}
	const nftaRuleCompat, inverted = 5, 2
	flags := uint32(0)
	if i > 0 && word[i-1] == "!" {
		flags = inverted
	}
	data := append(attribute(1, binary.BigEndian.AppendUint32(nil, number)), attribute(2, binary.BigEndian.AppendUint32(nil, flags))...)
	return attribute(nftaRuleCompat|unix.NLA_F_NESTED, data), nil
}

// targets are the targets that are no chains.
var targets = func() map[string]bool {
	names := map[string]bool{}
	for _, name := range strings.Fields("ACCEPT DROP RETURN QUEUE AUDIT CHECKSUM CLASSIFY CLUSTERIP CONNMARK CONNSECMARK CT DNAT DNPT DSCP ECN " +
		"HL HMARK IDLETIMER LED LOG MARK MASQUERADE NETMAP NFLOG NFQUEUE NOTRACK RATEEST REDIRECT REJECT SECMARK SET SNAT SNPT SYNPROXY " +
		"TCPMSS TCPOPTSTRIP TEE TOS TPROXY TRACE TTL ULOG") {
		names[name] = true
	}
	return names
}()
