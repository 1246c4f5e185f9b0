//go:build linux

package packet

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Connections outlive the rules that they began under: packets are sent in one setting, the host is brought into
// another one, and the same packets are sent again, and others that get into the way of their connections.

// enter brings the host into the setting, by way of the one before it.
func (w *world) enter(t *testing.T, s *setting) error {
	w.forget(t, true)
	if s.before != nil {
		if err := w.apply(s.before); err != nil {
			return err
		}
		for _, one := range s.earlier {
			w.play(t, one)
		}
	}
	return w.apply(s)
}

// ready makes the host ready for a try: nothing may be left of those before, for an address and port that they
// took would be taken no more. Of connections that are to be met, it returns the host's table.
func (w *world) ready(t *testing.T, s *setting) []netstate.Flow {
	w.forget(t, s.before == nil)
	if s.before == nil {
		return nil
	}
	snapshot, err := host.Collect(context.Background(), host.Options{Docker: engine{w.pids}, Parts: netstate.Conntrack, Thorough: true})
	must(t, err)
	return snapshot.Host.Flows
}

// forget empties the tables of connections, of the host too or of the sandboxes alone.
func (w *world) forget(t *testing.T, host bool) {
	for _, pid := range w.pids {
		if pid == 0 && host || pid != 0 && w.furnished {
			w.in(pid, func() { must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable)) })
		}
	}
}

func withFlows(s *netstate.Snapshot, flows []netstate.Flow) *netstate.Snapshot {
	with := *s
	with.Host.Flows = flows
	return &with
}

// agrees says whether one of the ways is what was seen. A port that the kernel chooses is * in the walk.
func agrees(ways []string, seen string) bool {
	return slices.ContainsFunc(ways, func(way string) bool {
		if !strings.Contains(way, ":*") {
			return way == seen
		}
		return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(way), `:\*`, `:\d+`) + "$").MatchString(seen)
	})
}

// resumes says whether an older connection decides about a packet of the try, in any of its ways.
func (x *Index) resumes(one try) (is bool) {
	if len(x.snap.Host.Flows) > 0 {
		x.told(one, func(_ *netns, _ *base, _ *rule, _ code, p *skb) { is = is || p.ct != nil && p.ct.flow != nil })
	}
	return is
}

// outliving makes a setting that older connections meet.
func (g *generator) outliving(id *uint32) *setting {
	before := g.setting(id)
	after := &setting{before: before, tries: before.tries}
	for _, t := range before.tries {
		if g.chance(80) {
			t.turns = 1 + g.IntN(3)
			first := t
			if g.chance(50) && t.from[0] == 'c' && hasPorts(t.proto) {
				// Another connection, whose replies come from where those of a translated one do.
				*id++
				direct := t
				direct.id, direct.dst, direct.dport = *id, addrs(t.family, "172.17.0.2", "fd00::2"), 80
				if g.chance(50) {
					first = direct
				} else {
					direct.turns = 0
					after.tries = append(after.tries, direct)
				}
			}
			after.earlier = append(after.earlier, first)
		}
		if g.chance(20) && t.from[0] == 'c' && t.dport == 8080 {
			// The other end speaks first.
			*id++
			back := t
			back.id, back.from, back.uid, back.fails, back.turns = *id, "sandbox", 0, false, 0
			back.tuple = tuple{src: addrs(t.family, "172.17.0.2", "fd00::2"), dst: t.src, sport: 80, dport: t.sport, proto: t.proto}
			after.tries = append(after.tries, back)
		}
	}
	g.tries = before.tries
	switch g.IntN(5) {
	case 0:
		g.furnish(after)
	case 1, 2:
		// Docker's rules come where there were none, or go.
		after.copyRules(before)
		docker := "*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n-A PREROUTING -p udp -m udp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\n" +
			"-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\n-A POSTROUTING -s 172.17.0.0/16 ! -o br0 -j MASQUERADE\nCOMMIT\n"
		const tracks = "*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"
		for _, t := range before.tries {
			if t.dport == 8080 && t.from[0] == 'c' {
				*id++
				t.id, t.dst, t.dport = *id, addrs(t.family, "172.17.0.2", "fd00::2"), 80
				after.tries = append(after.tries, t)
			}
		}
		rules := [2]string{docker, tracks}
		first := g.IntN(2)
		for i, s := range []*setting{before, after} {
			if s.legacy[0], s.nftables[0], s.native = rules[(i+first)%2], "", ""; g.chance(50) {
				s.legacy[0], s.nftables[0] = "", s.legacy[0]
			}
		}
	case 3:
		// The container has another address.
		after.copyRules(before)
		for _, text := range after.texts() {
			now := pick(g, "172.17.0.3", "172.17.0.9", "172.18.0.2")
			*text = strings.NewReplacer("--to-destination 172.17.0.2", "--to-destination "+now, "dnat to 172.17.0.2", "dnat to "+now, "dnat ip to 172.17.0.2", "dnat ip to "+now,
				"[fd00::2]:80", pick(g, "[fd00::3]:80", "[fd01::2]:80")).Replace(*text)
		}
	case 4:
		// Some rules are deleted.
		after.copyRules(before)
		for range 1 + g.IntN(4) {
			parts := after.parts()
			part := parts[g.IntN(len(parts))]
			if len(*part) > 0 {
				if at := g.IntN(len(*part)); removable((*part)[at]) {
					*part = slices.Delete(slices.Clone(*part), at, at+1)
				}
			}
			after.join()
		}
	}
	return after
}

// unlegacy makes rules of iptables-legacy those of iptables-nft.
func (s *setting) unlegacy() {
	for _, s := range []*setting{s.before, s} {
		for i := range s.legacy {
			if s.nftables[i] == "" {
				s.nftables[i] = s.legacy[i]
			}
			s.legacy[i] = ""
		}
	}
}

// copyRules takes over what another setting is made of.
func (s *setting) copyRules(from *setting) {
	s.sysctls, s.ip = slices.Clone(from.sysctls), slices.Clone(from.ip)
	s.legacy, s.nftables, s.native, s.inner, s.ipsets, s.bridge = from.legacy, from.nftables, from.native, from.inner, from.ipsets, from.bridge
}
