//go:build linux

package host

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// whole returns all that a link may lose: of the links, their ports, addresses, routes and permanent
// neighbours.
func whole(t *testing.T) string {
	t.Helper()
	steady(t)
	text := run(t, "ip", "rule") + run(t, "ip", "-6", "rule") + run(t, "ip", "-d", "link") + sorted(roads(t)) + sorted(run(t, "ip", "neigh", "show", "nud", "permanent")) + confs(t)
	return settled(text)
}

const yard = `link add eth0 type veth peer name peer
link add br0 type bridge
link add br1 address 02:00:00:00:00:01 type bridge
link add veth1 type veth peer name veth2
link set eth0 addrgenmode none
link set peer addrgenmode none
link set br0 addrgenmode none
link set br1 addrgenmode none
link set veth1 addrgenmode none
link set veth2 addrgenmode none
link set lo up
link set peer up
link set veth2 up
link set veth1 up
link set br1 up
link set veth1 master br0
link set veth1 type bridge_slave hairpin on isolated on flood off learning off cost 7 priority 9
addr add 10.0.0.2/24 dev eth0
addr add 172.17.0.1/16 dev br0
addr add fd00::1/64 dev br0 nodad
addr add fd00::2/64 dev br0 nodad noprefixroute
`

const busy = `link set br0 up
link set eth0 up
route add default via 10.0.0.1
route add 192.0.2.0/24 via 10.0.0.1 table 77
route add 192.0.3.0/24 dev br0 proto static
route add fd01::/64 via fd00::9
route add fd02::/64 via fd01::1 dev br0 onlink
neigh add 172.17.0.9 lladdr 02:00:00:00:00:09 dev br0
neigh add proxy 172.17.0.10 dev br0
`

func TestLinkStore(t *testing.T) {
	for _, test := range []struct {
		name, setup string
		steps       []remediate.Step
	}{
		{"up", yard, []remediate.Step{remediate.Set("link", "br0", "down", "up"), remediate.Set("link", "eth0", "down", "up")}},
		{"down", yard + busy, []remediate.Step{remediate.Set("link", "br0", "up", "down"), remediate.Set("link", "eth0", "up", "down")}},
		{"off a bridge", yard + busy, []remediate.Step{remediate.Remove("link", "veth1 master", "br0")}},
		{"to another bridge", yard + busy, []remediate.Step{remediate.Set("link", "veth1 master", "br0", "br1")}},
		{"onto a bridge", yard + busy, []remediate.Step{
			remediate.Add("link", "eth0 master", "br0"), remediate.Set("bridgeport", "eth0 hairpin", "off", "on")}},
		{"port", yard + busy, []remediate.Step{
			remediate.Set("bridgeport", "veth1 isolated", "on", "off"), remediate.Set("bridgeport", "veth1 cost", "7", "8")}},
		{"MTU", yard + busy, []remediate.Step{remediate.Set("link", "br0 mtu", "1500", "1400")}},
		{"neighbour", yard + busy, []remediate.Step{
			remediate.Remove("neigh", "172.17.0.9 dev br0", "lladdr 02:00:00:00:00:09"),
			remediate.Add("neigh", "fd00::7 dev br0", "lladdr 02:00:00:00:00:07")}},
		{"rules", yard + busy + "rule add from 10.9.0.0/16 lookup 77 priority 100\n-6 rule add from fd99::/64 unreachable priority 200\n", []remediate.Step{
			remediate.Add("rule", "90: not from 172.17.0.0/16 iif eth0 fwmark 0x10/0xf0 ipproto tcp dport 80-90 lookup 77", "-"),
			remediate.Remove("rule", "100: from 10.9.0.0/16 lookup 77", "-"),
			remediate.Remove("rule", "-6 200: from fd99::/64 unreachable", "-")}},
		{"address and route", yard + busy, []remediate.Step{
			remediate.Add("addr", "10.3.0.1/24 dev eth0", "broadcast 10.3.0.255"),
			remediate.Add("route", "192.0.9.0/24", "via 10.3.0.2 dev eth0"),
			remediate.Set("route", "default", "via 10.0.0.1 dev eth0", "via 10.0.0.9 dev eth0 proto static")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ownNetns(t)
			ip(t, test.setup)
			roundTrip(t, test.steps, func() string { return whole(t) }, nil)
		})
	}
}

func TestLinkRefuses(t *testing.T) {
	ownNetns(t)
	ip(t, yard+busy)
	run(t, "bridge", "fdb", "add", "02:00:00:00:00:55", "dev", "veth1", "master", "static")
	before := whole(t)
	for _, test := range []struct {
		step remediate.Step
		want string
	}{
		{remediate.Set("link", "br0", "down", "up"), ""}, // it is up already
		{remediate.Set("link", "none", "down", "up"), "link none: there is no link none"},
		{remediate.Set("link", "br0", "up", "sideways"), `link br0: "sideways" is neither up nor down`},
		{remediate.Add("link", "eth0 master", "veth2"), "link eth0 master: veth2 is no bridge"},
		{remediate.Remove("link", "veth1 master", "br0"), "link veth1 master: it has a static forwarding entry for 02:00:00:00:00:55, which cannot be put back"},
		{remediate.Set("link", "br0 mtu", "1500", "0x5"), `link br0 mtu: "0x5" is no MTU`},
		{remediate.Set("bridgeport", "eth0 hairpin", "off", "on"), `bridgeport eth0 hairpin: changed since it was read: expected "off", found nothing`},
		{remediate.Set("route", "default", "via 10.0.0.2 dev eth0", "blackhole"), `route default: changed since it was read: expected "via 10.0.0.2 dev eth0", found "via 10.0.0.1 dev eth0"`},
		{remediate.Add("route", "198.51.100.0/24", "via 203.0.113.1"), "route 198.51.100.0/24: network is unreachable"},
		{remediate.Add("route", "198.51.100.0/24", "by 203.0.113.1"), `route 198.51.100.0/24: "by" is no word of a route`},
	} {
		journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
		_, err := journal.Apply(context.Background(), &remediate.Plan{Steps: []remediate.Step{test.step}}, Stores(), Facts(nil))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %s", test.step.Object(), err, test.want)
		}
	}
	if diff := cmp.Diff(before, whole(t)); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}
}
