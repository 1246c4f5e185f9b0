//go:build linux

package packet

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// probe is a packet as it meets a rule.
func probe(x *Index) *skb {
	p := first(netstate.IPv4, "tcp", 8080)
	p.src, p.dst = netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.15")
	p.in, p.hook = x.host.link("eth0"), hookPrerouting
	p.ct, p.state = &conn{orig: p.tuple, reply: p.tuple.reverse()}, ctNew
	return p
}

// FuzzIptablesRule reads a rule as iptables-save might print it, and runs it. The text is hostile.
func FuzzIptablesRule(f *testing.F) {
	seen := map[string]bool{}
	for _, name := range fixture.Cases() {
		s, err := fixture.Case(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, set := range s.Host.Iptables {
			for _, table := range set.Tables {
				for _, chain := range table.Chains {
					for _, rule := range chain.Rules {
						if !seen[rule.Text] {
							seen[rule.Text] = true
							f.Add(rule.Text)
						}
					}
				}
			}
		}
	}
	for _, text := range []string{"", "-j", "! ", "-m set --match-set a src,dst -j DROP", "-m u32 --u32 \"0>>22&0x3C@12>>26&0x3C@0=0x5\" -j DROP", "-i \"x -j DROP", "--dport 0 -j", "-p  -m tcp --dport 0 -j", "! -i  -o -j",
		"-m multiport --dports 1,2:3,:,4: -j ACCEPT", "-m iprange --src-range 1-2 -j X", "-j DNAT --to-destination [::1]:1-2/3", "-j SNAT --to-source 1.2.3.4-1.2.3.9:5-6",
		"-m conntrack --ctstate A,,B -m addrtype ! --src-type LOCAL --limit-iface-in -j NETMAP --to 10.0.0.0/0"} {
		f.Add(text)
	}
	x := New(crowded(1, 0))
	x.prepare()
	f.Fuzz(func(t *testing.T, text string) {
		body, _ := x.host.compileRule(text, netstate.IPv4, map[string]*chain{})
		w := &walker{x: x, trace: &Trace{}, conns: map[*netns][]*conn{}}
		r := &rule{chain: &chain{name: "FORWARD", label: "iptables filter", table: "filter"}, text: func() string { return text }, run: body}
		_ = r.owner(x)
		for range 2 {
			body.run(w, probe(x), r)
			w.choices = []bool{true}
			w.asked = 0
		}
		p := probe(x)
		if s := textSelector(text); !selected(s, p) {
			if v := body.run(w, p, r); v.code != goOn || w.asked > 0 {
				t.Errorf("%v is for %+v, and says %+v of %v", text, s, v, p)
			}
		}
	})
}

// selected says whether a rule with the selector is looked at for p.
func selected(s selector, p *skb) bool {
	if s.ported && p.dport != anyPort && s.port != p.dport {
		return false
	}
	switch s.what {
	case selectIn:
		return s.name == nameOf(p.in)
	case selectOut:
		return s.name == nameOf(p.out)
	case selectSrc:
		return s.prefix.Contains(p.src)
	case selectDst:
		return s.prefix.Contains(p.dst)
	}
	return true
}

// FuzzWalk walks through snapshots in which anything was changed: what kernels had, with values taken away,
// exchanged with others from elsewhere, or replaced by odd ones.
func FuzzWalk(f *testing.F) {
	var documents []map[string]any
	for i, r := range readRecordings(f) {
		if i%10 != 0 {
			continue
		}
		data, err := json.Marshal(r.Snapshot)
		if err != nil {
			f.Fatal(err)
		}
		var document map[string]any
		if err := json.Unmarshal(data, &document); err != nil {
			f.Fatal(err)
		}
		documents = append(documents, document)
	}
	for seed := range uint64(20) {
		f.Add(seed, uint8(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, edits uint8) {
		e := &editor{Rand: rand.New(rand.NewPCG(seed, 0))}
		document := e.edit(documents[seed%uint64(len(documents))], int(edits%16)).(map[string]any)
		data, err := json.Marshal(document)
		var s netstate.Snapshot
		if err != nil || json.Unmarshal(data, &s) != nil {
			return
		}
		x := New(&s)
		for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
			target := netstate.Target{ID: webID, Container: "web", Direction: netstate.In, From: netstate.FromOutside, Family: family, Port: netstate.Port{Number: 80, Proto: "tcp"}}
			x.Walk(target)
			target.From = netstate.FromLocalhost
			x.Walk(target)
			target.Direction, target.From = netstate.Out, netstate.FromContainer
			x.Walk(target)
		}
	})
}

// An editor changes some values of a JSON document.
type editor struct {
	*rand.Rand
	spare any // a value met before
}

// edit returns a copy of v with about so many changes.
func (e *editor) edit(v any, changes int) any {
	hit := func(n int) bool { return changes > 0 && e.IntN(n+1) == 0 }
	odd := func() any {
		switch e.IntN(6) {
		case 0:
			return ""
		case 1:
			return float64(e.IntN(300) - 20)
		case 2:
			return []any{}
		case 3:
			return nil
		case 4:
			return map[string]any{}
		}
		return e.spare
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if hit(60) {
				changes--
				if e.IntN(3) > 0 {
					out[key] = odd()
				}
				continue
			}
			out[key] = e.edit(v[key], changes)
		}
		e.spare = out
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, one := range v {
			if hit(60) {
				changes--
				switch e.IntN(3) {
				case 0:
					continue
				case 1:
					out = append(out, one)
				default:
					one = odd()
				}
			}
			out = append(out, e.edit(one, changes))
		}
		return out
	default:
		if hit(200) {
			return odd()
		}
		if e.IntN(50) == 0 {
			e.spare = v
		}
		return v
	}
}
