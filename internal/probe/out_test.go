//go:build linux

package probe

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// TestOut has the container ask a machine outside whose part the probe takes: what it meets is what the walk
// says, and the segment never sees a frame of it.
func TestOut(t *testing.T) {
	h := healthy(t, lab.Options{IPv6: true, Daemon: v6Daemon})
	for _, c := range []struct {
		name, script, undo string
		v6                 bool
		outcome            Outcome
		result, why        string
	}{
		{"healthy", "", "", false, Connected, Proved, "left by eth0"},
		{"IPv6", "", "", true, Connected, Proved, "left by eth0"},
		{"dropped", "iptables -I DOCKER-USER -i docker0 -j DROP", "iptables -D DOCKER-USER -i docker0 -j DROP", false, Silent, Proved, "DOCKER-USER 1: -i docker0 -j DROP"},
		{"refused", "iptables -I DOCKER-USER -i docker0 -j REJECT", "iptables -D DOCKER-USER -i docker0 -j REJECT", false, Refused, Proved, "DOCKER-USER 1: -i docker0 -j REJECT"},
		{"the answer dropped", "iptables -I DOCKER-USER -p tcp --sport 443 -j DROP", "iptables -D DOCKER-USER -p tcp --sport 443 -j DROP", false, Silent, Proved, "--sport 443 -j DROP"},
		{"no route", "ip route del default", "ip route add default via " + lab.ClientAddr, false, Unreachable, Proved, ""},
		{"not masqueraded", "iptables -t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
			"iptables -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", false, Silent, Unproved, "172.17.0.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := h.Sh(t.Context(), c.script); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if _, err := h.Sh(t.Context(), c.undo); err != nil {
					t.Error(err)
				}
			}()
			to := nobody
			if c.v6 {
				to = nobody6
			}
			segment, before := listenOnSegment(t, h), leftovers(t, h)
			a := observeIn(t, h, "web", insideTarget{Out: true, Client: to, V6: c.v6, Iface: "eth0", Timeout: 700 * time.Millisecond})
			if a.Errors[0] != "" {
				t.Fatal(a.Errors[0])
			}
			segment(to)
			if after := leftovers(t, h); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			o := a.Observations[0]
			trace := packet.New(a.Snapshot).Walk(o.Target)
			v := Compare(trace, o)
			t.Logf("%s: %s\n%s", v.Result, v.Why, o)
			if o.Outcome != c.outcome || v.Result != c.result || !strings.Contains(v.Why, c.why) {
				t.Errorf("%s, %s: %s; should be %s, %s; the walk: %+v", o.Outcome, v.Result, v.Why, c.outcome, c.result, trace.Stops)
			}
			if c.outcome == Connected && !slices.ContainsFunc(o.Copies, func(c Copy) bool { return c.Hop == packet.Uplink.Reply() }) {
				t.Errorf("the answer was not seen to come in: %+v", o.Copies)
			}
		})
	}
}
