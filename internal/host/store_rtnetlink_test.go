//go:build linux

package host

import (
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
)

// streets is a namespace with about every sort of route and address that a host may have.
const streets = `link add eth0 type veth peer name peer
link add br0 type bridge
link set eth0 addrgenmode none
link set peer addrgenmode none
link set br0 addrgenmode none
link set lo up
link set eth0 up
link set peer up
link set br0 up
addr add 10.0.0.2/24 dev eth0
addr add 10.0.0.3/24 dev eth0 label eth0:1
addr add 10.9.0.1/32 peer 10.9.0.2/32 dev eth0
addr add 172.17.0.1/16 broadcast 172.17.255.255 dev br0 metric 50
addr add 10.5.0.1/24 dev br0 noprefixroute
addr add 10.6.0.1/24 dev br0 scope link
addr add fd00::2/64 dev eth0 nodad
addr add fd01::1/64 dev br0 nodad noprefixroute
route add default via 10.0.0.1 dev eth0 proto static metric 100
route add default via 10.0.0.9 dev eth0 metric 200
route add 192.0.2.0/24 via 10.0.0.1 src 10.0.0.3 mtu 1400
route add 192.0.3.0/24 via 10.0.0.1 mtu lock 1400 advmss 1300
route add 192.0.4.0/24 dev eth0 scope link
route add 192.0.5.7 via 10.77.0.1 dev eth0 onlink
route add 192.0.6.0/24 nexthop via 10.0.0.1 weight 3 nexthop via 172.17.0.9 dev br0 weight 1
route add 192.0.7.0/24 via inet6 fd00::1 dev eth0
route add 192.0.8.0/24 dev eth0 tos 0x10
route add blackhole 198.18.0.0/16
route add unreachable 198.19.0.0/24 metric 7
route add throw 198.19.1.0/24 table 77
route add 192.0.2.0/24 via 10.0.0.1 table 1000
nexthop add id 5 via 10.0.0.1 dev eth0
route add 192.0.10.0/24 nhid 5
route add ::/0 via fd00::1 dev eth0 proto static metric 10
route add fd05::/64 via fd00::1 pref high
route add fd06::/64 nexthop via fd00::1 dev eth0 weight 2 nexthop via fd00::9 dev eth0 weight 1
route add fd07::/64 via fe80::1 dev eth0 onlink
route add fd08::/64 from fd00::/16 via fd00::1
route add blackhole fd09::/64
route add fd0a::1 dev br0 table 200 expires 900
`

var times = regexp.MustCompile(`expires -?\d+sec|valid_lft \S+ preferred_lft \S+`)

// passing is what a link and the kernel's own routes say by themselves, at a time of their own: timers, a
// carrier, the queue of a link that has never been up.
var passing = regexp.MustCompile(`\w+_timer +[\d.]+|(designated_\w+|port_id|port_no|bridge_id|root_id|topology_change\S*|state|qdisc|tso_max_size) \S+|` +
	`NO-CARRIER,|,M-DOWN|,LOWER_UP| linkdown| dead|multicast ff00::/8 .*\n`)

// settled leaves out of a text what passes.
func settled(text string) string { return passing.ReplaceAllString(text, "") }

// roads returns the addresses and routes of the thread's namespace.
func roads(t *testing.T) string {
	t.Helper()
	return times.ReplaceAllString(run(t, "ip", "address")+run(t, "ip", "-d", "route", "show", "table", "all")+run(t, "ip", "-d", "-6", "route", "show", "table", "all"), "")
}

// sorted returns the lines in an order of their own: routes made again come behind their equals.
func sorted(text string) string {
	return strings.Join(sortedLines(text), "\n")
}

// Every object of every sort survives its translation, its removal and its return.
func TestRoutesAndAddresses(t *testing.T) {
	for _, kind := range []string{"route", "addr"} {
		t.Run(kind, func(t *testing.T) {
			ownNetns(t)
			setup := streets
			if kind == "addr" { // a route that needs an address would go with it
				setup, _, _ = strings.Cut(setup, "route add")
			}
			ip(t, setup)
			store := Stores()[kind].(rtStore)
			objects := map[string]string{}
			err := store.m.with(remediate.Step{Kind: kind}, func(c *netlink.Conn, links linkTable) error {
				return store.each(c, links, func(name, value string) {
					objects[name] = value
					n, v, err := store.canonical(name, value, links)
					if strings.Contains(value, "expires") == (err == nil) || err == nil && (n != name || v != value) {
						t.Errorf("%s %s: read back as %s %s, %v", name, value, n, v, err)
					}
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			tried := 0
			for name, value := range objects {
				// What the kernel makes of an address goes and comes with it; a primary address takes its
				// secondary ones along, which this test is not about.
				if strings.Contains(value, "proto kernel") || strings.Contains(value, "expires") || strings.Contains(name, "fe80::") || strings.HasPrefix(name, "ff00::") ||
					strings.Contains(value, "dev lo") && kind == "addr" || strings.HasPrefix(name, "10.0.0.2/") || strings.Contains(name, "dev lo") {
					continue
				}
				tried++
				before := sorted(settled(roads(t)))
				journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
				plan := &remediate.Plan{Steps: []remediate.Step{remediate.Remove(kind, name, value)}}
				if _, err := journal.Apply(context.Background(), plan, Stores(), Facts(nil)); err != nil {
					t.Errorf("remove %s: %v", name, err)
					continue
				}
				if sorted(settled(roads(t))) == before {
					t.Errorf("remove %s: it is still there", name)
				}
				if _, err := journal.Undo(context.Background(), "", Stores(), Facts(nil)); err != nil {
					t.Errorf("put back %s %s: %v", name, value, err)
					continue
				}
				if diff := cmp.Diff(before, sorted(settled(roads(t)))); diff != "" {
					t.Errorf("put back %s %s: it is another one:\n%s", name, value, diff)
				}
			}
			if want := map[string]int{"route": 20, "addr": 7}[kind]; tried != want {
				t.Errorf("%d objects were tried, not %d", tried, want)
			}
		})
	}
}

// Rules and permanent neighbours survive their making, their removal and their return. What the kernel learns of a
// neighbour meanwhile is no step's thing and gives way.
func TestRulesAndNeighbours(t *testing.T) {
	ownNetns(t)
	ip(t, `link set lo up
link add br0 type bridge
link add eth0 type veth peer name p0
link set p0 master br0
link set br0 up
link set p0 up
link set eth0 up
addr add 10.0.0.1/24 dev br0
rule add from 10.0.0.0/8 fwmark 0x1/0xff iif br0 lookup 77 prio 100
rule add not to 10.9.0.0/16 prohibit prio 101
-6 rule add from fd00::/8 unreachable prio 200
rule add from 10.1.0.0/16 lookup 77 prio 300
rule add from 10.2.0.0/16 lookup 77 prio 300
neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 nud permanent dev br0
-6 neigh add fd00::7 lladdr 02:00:00:00:00:08 nud permanent dev br0
neigh add proxy 10.0.0.8 dev br0`)
	state := func() string {
		return run(t, "ip", "rule") + run(t, "ip", "-6", "rule") + sorted(run(t, "ip", "neigh", "show", "nud", "permanent")) + run(t, "ip", "neigh", "show", "proxy")
	}
	learns := func() { ip(t, "neigh replace 10.0.0.7 lladdr 02:00:00:00:00:99 nud stale dev br0") }
	for _, c := range []struct {
		step remediate.Step
		look func()
	}{
		{remediate.Remove("rule", "100: from 10.0.0.0/8 fwmark 0x1/0xff iif br0 lookup 77", "-"), nil},
		{remediate.Remove("rule", "101: not from all to 10.9.0.0/16 prohibit", "-"), nil},
		{remediate.Remove("rule", "-6 200: from fd00::/8 unreachable", "-"), nil},
		{remediate.Add("rule", "99: from 10.0.0.7 lookup 254", "-"), nil},
		{remediate.Add("rule", "-6 99: from all to fd00::7 lookup 254", "-"), nil},
		{remediate.Remove("neigh", "10.0.0.7 dev br0", "lladdr 02:00:00:00:00:07"), learns},
		{remediate.Set("neigh", "10.0.0.7 dev br0", "lladdr 02:00:00:00:00:07", "lladdr 02:00:00:00:00:17"), nil},
		{remediate.Remove("neigh", "fd00::7 dev br0", "lladdr 02:00:00:00:00:08"), nil},
		{remediate.Add("neigh", "10.0.0.9 dev br0", "lladdr 02:00:00:00:00:09"), nil},
		{remediate.Remove("neigh", "10.0.0.8 dev br0 proxy", "proxy"), nil},
		{remediate.Remove("rule", "300: from 10.2.0.0/16 lookup 77", "-"), nil},
	} {
		roundTrip(t, []remediate.Step{c.step}, state, c.look)
	}
	before := state()
	first := remediate.Remove("rule", "300: from 10.1.0.0/16 lookup 77", "-")
	for _, step := range []remediate.Step{
		first,
		remediate.Remove("neigh", "10.0.0.7 dev br0", "lladdr 02:00:00:00:00:77"),
		remediate.Set("neigh", "10.0.0.7 dev br0", "lladdr 02:00:00:00:00:77", "lladdr 02:00:00:00:00:78"),
		remediate.Add("neigh", "10.0.0.7 dev br0", "lladdr 02:00:00:00:00:78"),
	} {
		journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
		plan := &remediate.Plan{Steps: []remediate.Step{remediate.Add("rule", "98: from 10.0.0.7 lookup 254", "-"), step}}
		if _, err := journal.Apply(context.Background(), plan, Stores(), Facts(nil)); err == nil || errors.Is(err, remediate.ErrChanged) == (step.Name == first.Name) {
			t.Errorf("%s: %v", step.Object(), err)
		}
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("what was refused changed:\n%s", diff)
	}
}
