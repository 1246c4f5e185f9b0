//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// The kernel's trace does not show the rules of iptables-legacy. Their counters, before and after, do: a rule
// whose counter rose was met, by the probe or by others' traffic at the same time.

// readLegacy reads the tables of iptables-legacy with their counters, in the namespace of the program. It is
// asked for only where there are some, as to read them would make them.
func readLegacy(ctx context.Context, family netstate.Family) (*netstate.IptablesSet, error) {
	set := &netstate.IptablesSet{Family: family, Variant: "legacy"}
	name := strings.TrimSuffix(set.Command(), "-legacy")
	path, err := exec.LookPath(name + "-legacy-save")
	if errors.Is(err, exec.ErrNotFound) { // before iptables 1.8 there was no other
		path, err = exec.LookPath(name + "-save")
	}
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, "-c")
	cmd.WaitDelay = time.Second // of what it has started
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if first, _, _ := strings.Cut(string(out), "\n"); strings.Contains(first, "(nf_tables)") {
		return nil, fmt.Errorf("%s shows the rules of iptables-nft", path)
	}
	if set.Tables, err = netstate.ParseIptablesSave(string(out)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return set, nil
}

// legacyHooks are the built-in chains in the order in which packets meet them, with their hops.
var legacyHooks = []struct {
	chain  string
	hop    packet.Hop
	tables []string
}{
	{"PREROUTING", packet.DNAT, []string{"raw", "mangle", "nat"}}, {"INPUT", packet.Accept, []string{"mangle", "filter", "security", "nat"}},
	{"FORWARD", packet.Accept, []string{"mangle", "filter", "security"}}, {"OUTPUT", packet.Accept, []string{"raw", "mangle", "nat", "filter", "security"}},
	{"POSTROUTING", packet.Masquerade, []string{"mangle", "nat"}},
}

// counted returns the rules and policies whose counters rose between two readings, in the order of hooks,
// those of a called chain behind the rule that calls it. A reading that is nil has none.
func counted(before, after *netstate.IptablesSet) []Rule {
	c := counts{before, after, nil}
	for _, hook := range legacyHooks {
		for _, table := range hook.tables {
			c.chain(table, hook.chain, hook.hop, nil)
		}
	}
	ends := func(r Rule) bool { return r.ends() }
	if first := slices.IndexFunc(c.rules, ends); first >= 0 && slices.ContainsFunc(c.rules[first+1:], ends) {
		for i := range c.rules {
			if c.rules[i].ends() {
				c.rules[i].Verdict = "drop of this or other traffic"
			}
		}
	}
	return c.rules
}

// counts are two readings and what rose between them.
type counts struct {
	before, after *netstate.IptablesSet
	rules         []Rule
}

// chain adds those of one chain, which was called by the chains over.
func (c *counts) chain(table, name string, hop packet.Hop, over []string) {
	was, is := c.before.Table(table).Chain(name), c.after.Table(table).Chain(name)
	if was == nil || is == nil || slices.Contains(over, name) {
		return
	}
	over = append(over[:len(over):len(over)], name)
	at := fmt.Sprintf("%s %s %s", c.after.Command(), table, name)
	add := func(object, verdict string, rose uint64) {
		family := map[netstate.Family]string{netstate.IPv4: "ip", netstate.IPv6: "ip6"}[c.after.Family]
		c.rules = append(c.rules, Rule{Hop: hop, Object: object, Verdict: verdict, Family: family, Table: table, Chain: name, Counted: rose})
	}
	for i, r := range is.Rules {
		if i >= len(was.Rules) || was.Rules[i].Text != r.Text {
			return // somebody has changed the chain meanwhile
		}
		if r.Packets > was.Rules[i].Packets {
			target := targetOf(r.Text)
			verdict := legacyVerdicts[target]
			switch {
			case verdict == "" && c.after.Table(table).Chain(target) != nil:
				verdict = "jump " + target
			case verdict == "":
				verdict = "continue"
			}
			add(fmt.Sprintf("%s %d: %s", at, i+1, r.Text), verdict, r.Packets-was.Rules[i].Packets)
			c.chain(table, target, hop, over)
		}
	}
	if is.Packets > was.Packets {
		add(at+" policy "+is.Policy, strings.ToLower(is.Policy), is.Packets-was.Packets)
	}
}

// legacyVerdicts are what targets that end a table's say do, in the words of nf_tables.
var legacyVerdicts = map[string]string{
	"DROP": "drop", "REJECT": "drop", "ACCEPT": "accept", "RETURN": "return",
	"DNAT": "accept", "SNAT": "accept", "MASQUERADE": "accept", "REDIRECT": "accept",
}

// targetOf returns the target of a rule as iptables-save prints it, or "".
func targetOf(text string) string {
	quoted, last := false, ' '
	words := strings.FieldsFunc(text, func(r rune) bool {
		quoted = quoted != (r == '"' && last != '\\')
		last = r
		return r == ' ' && !quoted
	})
	i := slices.IndexFunc(words, func(w string) bool { return w == "-j" || w == "-g" })
	if i < 0 || i+1 == len(words) {
		return ""
	}
	return words[i+1]
}
