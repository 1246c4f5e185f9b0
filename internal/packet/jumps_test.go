package packet

import (
	"fmt"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// chained returns a host whose FORWARD calls so many chains, one after another, of which the last drops.
func chained(chains int, circle bool) *netstate.Snapshot {
	forward := netstate.IptablesChain{Name: "FORWARD", Policy: "ACCEPT"}
	var called []netstate.IptablesChain
	for i := range chains {
		name := fmt.Sprintf("C%d", i)
		forward.Rules = append(forward.Rules, netstate.IptablesRule{Text: "-j " + name})
		c := netstate.IptablesChain{Name: name, Rules: []netstate.IptablesRule{{Text: "-j RETURN"}}}
		switch {
		case circle:
			c.Rules[0].Text = "-j " + fmt.Sprintf("C%d", (i+1)%chains)
		case i == chains-1:
			c.Rules[0].Text = "-j DROP"
		}
		called = append(called, c)
	}
	on := func(name string) netstate.Link {
		return netstate.Link{Index: int(name[0]), Name: name, Up: true, Carrier: true, State: "up", MTU: 1500}
	}
	s := &netstate.Snapshot{Parts: netstate.All, Host: netstate.Namespace{
		Links:    []netstate.Link{on("a"), on("b")},
		Iptables: []netstate.IptablesSet{{Family: netstate.IPv4, Variant: "legacy", Tables: []netstate.IptablesTable{{Name: "filter", Chains: append([]netstate.IptablesChain{forward}, called...)}}}},
	}}
	return s
}

// TestManyJumps says that no chain is left out without a word.
func TestManyJumps(t *testing.T) {
	for _, test := range []struct {
		chains int
		circle bool
		want   Verdict
	}{{70, false, Drop}, {900, false, Drop}, {1100, false, May}, {2, true, May}} {
		x := New(chained(test.chains, test.circle))
		x.prepare()
		trace := x.explore(netstate.Target{}, func(w *walker) {
			p := &skb{family: netstate.IPv4}
			p.in, p.out = x.host.link("a"), x.host.link("b")
			w.pass(x.host, Accept, hookForward, p)
		})
		if trace.Verdict != test.want {
			t.Errorf("%d chains, circle %v: %v, want %v", test.chains, test.circle, trace.Verdict, test.want)
		}
	}
}
