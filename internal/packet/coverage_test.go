//go:build linux

package packet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A census counts how often each kind of question was asked at each hook, by the answer.
type census map[string]map[string]*[3]int

func (c census) count(question, hook string, a answer) {
	if c[question] == nil {
		c[question] = map[string]*[3]int{}
	}
	if c[question][hook] == nil {
		c[question][hook] = &[3]int{}
	}
	c[question][hook][a]++
}

// watch makes the rules of a namespace count their questions.
func (c census) watch(n *netns) {
	w := &walker{x: n.x}
	w.bases(n, "ip", hookInput) // compiles
	seen := map[*chain]bool{}
	var chains func(*chain)
	chains = func(ch *chain) {
		if ch == nil || seen[ch] {
			return
		}
		seen[ch] = true
		for i := range ch.count {
			r := ch.rule(i)
			switch body := r.run.(type) {
			case *textRule:
				for j := range body.matches {
					m := &body.matches[j]
					ask := m.ask
					m.ask = func(w *walker, p *skb) answer {
						a := ask(w, p)
						module, _, _ := strings.Cut(m.module, " ") // "set NAME"
						c.count(module, p.hook, a)
						return a
					}
				}
				for _, to := range jumpsOf(body, n) {
					chains(to)
				}
			case *nftRule:
				for _, to := range body.table.chains {
					chains(to)
				}
				r.run = counted{body, c}
			}
		}
	}
	for _, h := range n.hooks {
		for _, b := range h.bases {
			chains(b.chain)
		}
	}
}

// jumpsOf returns where a rule of iptables leads.
func jumpsOf(body *textRule, n *netns) []*chain {
	if v := body.target(&walker{x: n.x, conns: map[*netns][]*conn{}}, &skb{family: netstate.IPv4}); v.chain != nil {
		return []*chain{v.chain}
	}
	return nil
}

// A counted rule of nf_tables runs twice: once on a copy, step by step, for the census.
type counted struct {
	*nftRule
	census census
}

func (c counted) run(w *walker, p *skb, r *rule) verdict {
	copied := *p
	if p.ct != nil {
		ct := *p.ct
		copied.ct = &ct
	}
	m := machine{w: &walker{x: w.x, trace: &Trace{}, conns: map[*netns][]*conn{}}, p: &copied, table: c.table, rule: r}
	for _, e := range c.exprs {
		out, _ := m.step(e)
		name := "nft " + e.Name()
		switch e := e.(type) {
		case *netstate.NftCmp, *netstate.NftRange, *netstate.NftLookup:
			c.census.count(name, p.hook, map[outcome]answer{next: yes, ended: yes, broken: no, either: maybe}[out])
		case *netstate.NftMeta:
			c.census.count(name+" "+e.Key, p.hook, map[outcome]answer{next: yes, broken: no, either: maybe}[out])
		case *netstate.NftCt:
			c.census.count(name+" "+e.Key, p.hook, map[outcome]answer{next: yes, broken: no, either: maybe}[out])
		default:
			c.census.count(name, p.hook, map[outcome]answer{next: yes, ended: yes, broken: no, either: maybe}[out])
		}
		if out == broken || out == ended {
			break
		}
	}
	return c.nftRule.run(w, p, r)
}

// The recordings reach every match at every hook where it can stand, with both answers.
func TestWhatTheRecordingsReach(t *testing.T) {
	c, said := census{}, map[string]map[string]int{}
	for _, r := range readRecordings(t) {
		x := New(r.Snapshot)
		x.prepare()
		c.watch(x.host)
		for _, one := range r.Tries {
			x.told(one.try(), func(_ *netns, b *base, r *rule, v code, p *skb) {
				front, what := "text ", cmpOwner(map[code]string{bound: "bind"}[v], codeWords[v])
				if b.nft {
					front = "nft "
				}
				if r == nil {
					what = "policy"
				}
				if said[front+what] == nil {
					said[front+what] = map[string]int{}
				}
				said[front+what][b.hook]++
			})
		}
	}
	hooks := []string{hookPrerouting, hookInput, hookForward, hookOutput, hookPostrouting}
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s", "yes/no at")
	for _, hook := range hooks {
		fmt.Fprintf(&b, "%16s", hook)
	}
	for _, question := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "\n%-22s", question)
		for _, hook := range hooks {
			cell := c[question][hook]
			if cell == nil {
				cell = &[3]int{}
			}
			text := fmt.Sprintf("%d/%d", cell[yes], cell[no])
			if cell[maybe] > 0 {
				text += fmt.Sprintf("/%d?", cell[maybe])
			}
			fmt.Fprintf(&b, "%16s", text)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(said)) {
		fmt.Fprintf(&b, "\n%-22s", what)
		for _, hook := range hooks {
			fmt.Fprintf(&b, "%16d", said[what][hook])
		}
	}
	t.Log("\n" + b.String())
	asserted := 0
	for _, question := range slices.Sorted(maps.Keys(c)) {
		if strings.HasPrefix(question, "nft ") && !slices.Contains([]string{"nft cmp", "nft lookup", "nft range"}, question) {
			continue // it loads what others compare
		}
		if question == "recent" {
			continue // no snapshot says what it remembers
		}
		for _, hook := range hooks {
			if at := onlyAt[question]; at != "" && at != hook {
				continue
			}
			asserted++
			if cell := c[question][hook]; cell == nil || cell[yes] == 0 || cell[no] == 0 {
				t.Errorf("%s at %s: not both answers", question, hook)
			}
		}
	}
	for _, hook := range hooks {
		for _, what := range []string{"accept", "drop", "jump", "goto", "return", "policy"} {
			asserted++
			if said["nft "+what][hook] == 0 {
				t.Errorf("nft %s at %s: never", what, hook)
			}
			asserted++
			if said["text "+what][hook] == 0 {
				t.Errorf("iptables %s at %s: never", what, hook)
			}
		}
	}
	t.Logf("%d pairs of a question or verdict and a hook, all reached", asserted)
}

// onlyAt is where a question can be asked at all, if not everywhere.
var onlyAt = map[string]string{"rpfilter": hookPrerouting, "owner": hookOutput}

// The recordings with older connections reach each state of them, in both directions, at every hook.
func TestWhatOlderConnectionsReach(t *testing.T) {
	states := map[ctState]string{ctNew: "new", ctEstablished: "established", ctRelated: "related"}
	seen := map[string]map[string]int{}
	for _, r := range readRecordings(t) {
		for _, one := range r.Tries {
			if len(one.Flows) == 0 {
				continue
			}
			x := New(withFlows(r.Snapshot, one.Flows))
			x.prepare()
			x.told(one.try(), func(_ *netns, b *base, _ *rule, _ code, p *skb) {
				if p.ct == nil || p.ct.flow == nil {
					return
				}
				what := fmt.Sprintf("%s, reply %t, translated %t", states[p.state], p.replyDir, p.ct.dnat || p.ct.snat)
				if seen[what] == nil {
					seen[what] = map[string]int{}
				}
				seen[what][b.hook]++
			})
		}
	}
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Log(what, seen[what])
	}
	for _, what := range []string{"new, reply false, translated false", "new, reply false, translated true", "established, reply false, translated false",
		"established, reply false, translated true", "established, reply true, translated false", "established, reply true, translated true", "related, reply true, translated true"} {
		for _, hook := range []string{hookPrerouting, hookForward, hookPostrouting} {
			if seen[what][hook] == 0 {
				t.Errorf("%s at %s: never", what, hook)
			}
		}
	}
}
