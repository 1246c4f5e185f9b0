//go:build linux

package probe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// nobody is the probe's client: an address that no machine of the lab has, and the host reaches by its
// default route as it does the far client's.
var nobody, nobody6 = netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8:77::9")

// outcomes are the lab's words for what a real client meets.
var outcomes = map[Outcome]string{Connected: "ok", Answered: "ok", Refused: "refused", Unreachable: "unreachable", Silent: "timeout"}

// A fault is a way to break a host, and what a probe from outside sees of it.
type fault struct {
	name    string
	options lab.Options
	web     []string // options of docker run; "-p 8080:80" if none
	script  string   // run on the host
	inside  string   // run in the container's namespace
	v6      bool
	outcome Outcome
	last    packet.Hop // the last hop on the way in that is seen; "" is not looked at
	rule    string     // a part of the rule that drops
	reason  string     // one of the kernel's reasons
	slow    bool       // the host gives up later than is waited for otherwise
	other   bool       // the reply leaves by another uplink, which leads nowhere: the real client gets none
	legacy  bool       // the host has iptables-legacy
	lacks   []string   // see Request.lacks
	missing What       // what cannot be seen therefore
}

var faults = []fault{
	{name: "healthy", outcome: Connected, last: packet.Container},
	{name: "ip_forward", script: "sysctl -qw net.ipv4.ip_forward=0", outcome: Silent, reason: "IP"},
	{name: "drop", script: "iptables -I DOCKER-USER -p tcp --dport 80 -j DROP", outcome: Silent, last: packet.Accept,
		rule: "DOCKER-USER 1: -p tcp -m tcp --dport 80 -j DROP", reason: "NETFILTER_DROP"},
	{name: "drop in raw", script: "iptables -t raw -A PREROUTING -p tcp --dport 8080 -j DROP", outcome: Silent, last: packet.DNAT, rule: "-p tcp -m tcp --dport 8080 -j DROP"},
	{name: "drop of the reply", script: "iptables -I DOCKER-USER -p tcp --sport 80 -j DROP", outcome: Silent, last: packet.Socket,
		rule: "DOCKER-USER 1: -p tcp -m tcp --sport 80 -j DROP"},
	{name: "reject", script: "iptables -I DOCKER-USER -j REJECT", outcome: Refused, last: packet.Accept},
	{name: "reject with reset", script: "iptables -I DOCKER-USER -p tcp -j REJECT --reject-with tcp-reset", outcome: Refused, last: packet.Accept},
	{name: "reject prohibited", script: "iptables -I DOCKER-USER -j REJECT --reject-with icmp-admin-prohibited", outcome: Unreachable, last: packet.Accept},
	{name: "nft drop", script: "nft 'add table inet mine; add chain inet mine f { type filter hook forward priority 10; }; add rule inet mine f tcp dport 80 drop'",
		outcome: Silent, rule: "nft inet mine f handle 2: tcp dport 80 drop"},
	{name: "no default route", script: "ip route del default", outcome: Silent},
	{name: "strict rp_filter", script: "ip link add other0 type veth peer name other1; ip addr add 10.9.9.1/24 dev other0; ip link set other0 up; ip link set other1 up;" +
		"ip route replace default via 10.9.9.2; sysctl -qw net.ipv4.conf.all.rp_filter=1", outcome: Silent, reason: "RPFILTER"},
	{name: "another way back", script: "ip link add other0 type veth peer name other1; ip addr add 10.9.9.1/24 dev other0; ip link set other0 up; ip link set other1 up;" +
		"ip neigh add 10.9.9.2 dev other0 lladdr 02:00:00:00:00:99; ip route replace default via 10.9.9.2", outcome: Connected, other: true},
	{name: "nothing listens", web: []string{"-p", "8080:81"}, outcome: Refused, last: packet.Socket, reason: "NO_SOCKET"},
	{name: "paused", script: "docker pause web", outcome: Connected},
	{name: "docker-proxy", options: lab.Options{Daemon: map[string]any{"iptables": false}}, outcome: Connected},
	{name: "drop in the container", inside: "iptables -A INPUT -p tcp --dport 80 -j DROP", outcome: Silent, last: packet.Container, reason: "NETFILTER_DROP"},
	{name: "not in its bridge", script: "ip link set $(ls /sys/class/net/docker0/brif) nomaster", outcome: Unreachable, slow: true, reason: "NEIGH_FAILED"},
	{name: "IPv6", options: lab.Options{IPv6: true, Daemon: v6Daemon}, v6: true, outcome: Connected, last: packet.Container},
	{name: "IPv6 drop", options: lab.Options{IPv6: true, Daemon: v6Daemon}, v6: true, script: "ip6tables -I FORWARD -j DROP", outcome: Silent,
		last: packet.Accept, rule: "ip6tables filter FORWARD 1: -j DROP"},
	{name: "IPv6 reject", options: lab.Options{IPv6: true, Daemon: v6Daemon}, v6: true, script: "ip6tables -I FORWARD -j REJECT", outcome: Refused},
	{name: "IPv6 forwarding", options: lab.Options{IPv6: true, Daemon: v6Daemon}, v6: true, script: "sysctl -qw net.ipv6.conf.all.forwarding=0", outcome: Silent},
	{name: "masqueraded by somebody", script: "iptables -t nat -I POSTROUTING -o docker0 -j MASQUERADE", outcome: Connected, last: packet.Container},
	{name: "masqueraded by somebody, dropped in the container", script: "iptables -t nat -I POSTROUTING -o docker0 -j MASQUERADE",
		inside: "iptables -A INPUT -p tcp --dport 80 -j DROP", outcome: Silent, last: packet.Container, reason: "NETFILTER_DROP"},
	{name: "legacy", legacy: true, outcome: Connected, last: packet.Container},
	{name: "legacy drop", legacy: true, script: "iptables -I DOCKER-USER -p tcp --dport 80 -j DROP", outcome: Silent, last: packet.Accept,
		rule: "iptables-legacy filter DOCKER-USER 1: -p tcp -m tcp --dport 80 -j DROP", reason: "NETFILTER_DROP"},
	{name: "legacy policy", legacy: true, script: "iptables -F; iptables -P FORWARD DROP", outcome: Silent, last: packet.Accept, rule: "iptables-legacy filter FORWARD policy DROP"},
	{name: "legacy IPv6 reject", legacy: true, options: lab.Options{IPv6: true, Daemon: v6Daemon}, v6: true, script: "ip6tables -I FORWARD -j REJECT", outcome: Refused,
		rule: "ip6tables-legacy filter FORWARD 1: -j REJECT"},
	{name: "legacy and nft", legacy: true, script: "nft 'add table inet mine; add chain inet mine f { type filter hook forward priority 10; }; add rule inet mine f tcp dport 80 drop'",
		outcome: Silent, rule: "nft inet mine f handle 2: tcp dport 80 drop"},
	{name: "no BTF, drop", lacks: []string{"btf"}, script: "iptables -I DOCKER-USER -p tcp --dport 80 -j DROP", outcome: Silent, last: packet.Accept,
		rule: "DOCKER-USER 1: -p tcp -m tcp --dport 80 -j DROP", reason: "NETFILTER_DROP"},
	{name: "no BTF, rp_filter", lacks: []string{"btf"}, script: "ip link add other0 type veth peer name other1; ip addr add 10.9.9.1/24 dev other0; ip link set other0 up; ip link set other1 up;" +
		"ip route replace default via 10.9.9.2; sysctl -qw net.ipv4.conf.all.rp_filter=1", outcome: Silent, reason: "RPFILTER"},
	{name: "no BTF, nothing listens", lacks: []string{"btf"}, web: []string{"-p", "8080:81"}, outcome: Refused, last: packet.Container, reason: "NO_SOCKET"},
	{name: "no BTF, no tracefs", lacks: []string{"btf", "tracefs"}, missing: Drops, script: "iptables -I DOCKER-USER -p tcp --dport 80 -j DROP", outcome: Silent, last: packet.Accept,
		rule: "DOCKER-USER 1: -p tcp -m tcp --dport 80 -j DROP"},
	{name: "firewalld", options: lab.Options{Firewalld: true}, outcome: Connected},
}

var v6Daemon = map[string]any{"ipv6": true, "fixed-cidr-v6": "fd00:d0c::/64", "ip6tables": true, "experimental": true}

// TestAsARealClient holds the probe against a client on the segment: it meets the same, and the segment
// never sees a frame of the probe. Each fault is on one of the engines, and with NETCHECK_TEST_ALL on all.
func TestAsARealClient(t *testing.T) {
	for i, f := range faults {
		suites := lab.Suites()
		if os.Getenv("NETCHECK_TEST_ALL") == "" {
			suites = suites[i%len(suites):][:1]
		}
		for _, suite := range suites {
			t.Run(suite+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				f.test(t, suite)
			})
		}
	}
}

func (f fault) test(t *testing.T, suite string) {
	o := f.options
	o.Suite, o.NoDockerd = suite, f.legacy
	h := lab.New(t, o)
	if f.legacy {
		if _, err := h.Sh(t.Context(), "update-alternatives --set iptables /usr/sbin/iptables-legacy; update-alternatives --set ip6tables /usr/sbin/ip6tables-legacy"); err != nil {
			t.Fatal(err)
		}
		if err := h.StartDockerd(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	web := f.web
	if web == nil {
		web = []string{"-p", "8080:80"}
	}
	if err := h.Web(t.Context(), "web", web...); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sh(t.Context(), f.script); err != nil {
		t.Fatal(err)
	}
	if f.inside != "" {
		c, err := h.Container(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Sh(t.Context(), f.inside); err != nil {
			t.Fatal(err)
		}
	}
	addr, far, client := lab.HostAddr+":8080", lab.FarAddr, nobody
	if f.v6 {
		awaitAddresses(t, h)
		addr, far, client = "["+lab.HostAddr6+"]:8080", lab.FarAddr6, nobody6
	}
	met := lab.Outcome(connect(t, h.Clients[0].Netns, far, addr, f.patience()))

	segment := listenOnSegment(t, h)
	before := leftovers(t, h)
	a := observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Timeout: f.patience(), Client: client, Iface: "eth0", V6: f.v6, Lacks: f.lacks})
	if a.Errors[0] != "" {
		t.Fatal(a.Errors[0])
	}
	if after := leftovers(t, h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	segment(client)

	seen := a.Observations[0]
	if seen.Outcome != f.outcome {
		t.Errorf("the probe met %s (%s), should %s", seen.Outcome, seen.Answer, f.outcome)
	}
	if got := outcomes[seen.Outcome]; got != met && !f.other {
		t.Errorf("the probe met %s (%s), a real client %s", got, seen.Answer, met)
	}
	if f.other && (slices.Contains(seen.ReplyBy, "eth0") || len(seen.ReplyBy) != 1 || met != "timeout") {
		t.Errorf("the reply left by %v; a real client met %s", seen.ReplyBy, met)
	}
	if f.last != "" && seen.Last() != f.last {
		t.Errorf("last seen at %s, should be %s", seen.Last(), f.last)
	}
	if f.rule != "" && !slices.ContainsFunc(seen.Rules, func(r Rule) bool { return r.Verdict == "drop" && strings.Contains(r.Object, f.rule) }) {
		t.Errorf("no rule %q that drops in %+v", f.rule, seen.Rules)
	}
	if f.reason != "" && !slices.ContainsFunc(seen.Drops, func(d Drop) bool { return strings.Contains(d.Reason, f.reason) }) {
		t.Errorf("no drop %q in %+v", f.reason, seen.Drops)
	}
	for what, why := range seen.Missing {
		if what != f.missing || !strings.HasPrefix(why, "not available") {
			t.Errorf("%s: %s", what, why)
		}
	}
	if f.missing != "" && seen.Missing[f.missing] == "" {
		t.Errorf("%s should be missing", f.missing)
	}
	trace := packet.New(a.Snapshot).Walk(seen.Target)
	v := Compare(trace, seen)
	t.Logf("%s: %s (last %s)", v.Result, v.Why, v.Last)
	if want := map[bool]string{false: Proved, true: Unproved}[f.other]; v.Result != want {
		t.Errorf("%s, should be %s; the walk: %+v", v.Result, want, trace.Stops)
	}
	t.Logf("%s", seen)
}

// awaitAddresses waits until no IPv6 address of the real client is tentative: while it rules out duplicates of
// its link-local address it asks nobody for the host's hardware address on behalf of its far one, which is no
// address of that link.
func awaitAddresses(t *testing.T, h *lab.Host) {
	t.Helper()
	if _, err := h.Clients[0].Sh(t.Context(), `until [ -z "$(ip -6 -o addr show tentative)" ]; do sleep .05; done`); err != nil {
		t.Fatal(err)
	}
}

// patience is how long the clients wait.
func (f fault) patience() time.Duration {
	if f.slow {
		return 10 * time.Second
	}
	return Timeout
}

// connect makes a connection as a real client, from one of its addresses.
func connect(t *testing.T, client *lab.Netns, from, to string, patience time.Duration) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience, FallbackDelay: -1}
	dialer.SetMultipathTCP(false)
	return client.Do(func() error {
		conn, err := dialer.DialContext(t.Context(), "tcp", to)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// listenOnSegment listens on the link of the last of the real clients. The function that it returns fails the test if a
// frame from or to the address, or about it, was there.
func listenOnSegment(t *testing.T, h *lab.Host) func(netip.Addr) {
	t.Helper()
	var all *tap
	last := h.Clients[len(h.Clients)-1]
	err := last.Do(func() (err error) {
		all, err = openTap(place{link: "eth0"}, func(int32) asm.Instructions {
			return asm.Instructions{asm.Mov.Imm(asm.R0, 0xffff), asm.Return()}
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { all.Close() })
	return func(addr netip.Addr) {
		t.Helper()
		raw := string(addr.AsSlice())
		for _, s := range all.drain() {
			if strings.Contains(string(s.data), raw) {
				t.Errorf("on the segment: %s", decode(s.data, true))
			}
		}
	}
}

// leftovers lists whatever a probe might leave on a host.
func leftovers(t *testing.T, h *lab.Host) string {
	t.Helper()
	out, err := h.Sh(context.WithoutCancel(t.Context()), `
		ls /sys/class/net; tc qdisc show; for l in $(ls /sys/class/net); do tc filter show dev $l ingress || true; tc filter show dev $l egress || true; done # one may vanish meanwhile
		nft list tables; ip route show table all | grep -v expires; ip -6 rule; ip rule; ip neigh show nud permanent; ip -o addr | sed 's/ *valid_lft.*//'`)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
