//go:build linux

package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// needs skips the test where a program is not installed, and fails it where CI is set.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := lookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// output runs a command in a namespace.
func output(t *testing.T, n netns, command string) string {
	t.Helper()
	var out []byte
	if err := n.do(func() (err error) {
		out, err = exec.Command("sh", "-ec", command).Output()
		return err
	}); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// Sets and entries are as `ipset save` prints them.
func TestReadIpsets(t *testing.T) {
	needs(t, "ipset")
	n, sh := newNetns(t)
	sh(`ipset restore <<'E'
create a hash:ip family inet timeout 300 comment counters
add a 192.0.2.1 comment "x y"
add a 192.0.2.2
create a6 hash:ip family inet6
add a6 2001:db8::1
create n hash:net
add n 198.51.100.0/24
add n 198.51.100.7 nomatch
create n6 hash:net family inet6
add n6 2001:db8::/32
create np hash:net,port
add np 203.0.113.0/24,tcp:80
add np 203.0.113.0/24,udp:53 nomatch
create ipp hash:ip,port
add ipp 192.0.2.1,tcp:8080
add ipp 192.0.2.1,icmp:8/0
create ippn hash:ip,port,net
add ippn 192.0.2.1,tcp:80,203.0.113.0/24
create ippi hash:ip,port,ip
add ippi 192.0.2.1,udp:53,192.0.2.9
create ni hash:net,iface
add ni 203.0.113.0/24,eth0
add ni 203.0.113.0/24,physdev:eth1
create bp bitmap:port range 0-1024
add bp 80
create bi bitmap:ip range 192.0.2.0/24
add bi 192.0.2.3
create bim bitmap:ip,mac range 192.0.2.0/24
add bim 192.0.2.3,02:00:00:00:00:0A
create l list:set
add l a
add l n
create big hash:ip maxelem 100000
E
seq 0 65535 | awk '{printf "add big 10.1.%d.%d\n", $1/256, $1%256}' | ipset restore`)
	var want, got []string
	for line := range strings.Lines(output(t, n, "ipset save")) {
		field := strings.Fields(line)
		text := strings.Join(field[:3], " ")
		if field[0] == "create" {
			continue
		}
		if slices.Contains(field, "nomatch") {
			text += " nomatch"
		}
		want = append(want, strings.Replace(text, "icmp:echo-request", "icmp:8/0", 1)) // ICMP's own names are not kept
	}
	sets, err := readIpsets(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range sets {
		if set.Opaque {
			t.Errorf("%s is not understood", set.Name)
		}
		for _, entry := range set.Entries {
			got = append(got, "add "+set.Name+" "+entry)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(sets) != 14 {
		t.Errorf("%d sets", len(sets))
	}
}

// An iptables rule that names a set brings the sets along, and a legacy table is seen beside nft's.
func TestReadNetfilter(t *testing.T) {
	needs(t, "ipset")
	needs(t, "iptables-legacy")
	n, sh := newNetns(t)
	read := func(parts netstate.Part) (*netstate.Namespace, map[netstate.Key]string) {
		c := newCollection(t.Context(), Options{Parts: parts})
		ns := &netstate.Namespace{}
		c.readNamespace(n, "", ns)
		c.work.Wait()
		return ns, c.s.Missing
	}
	ns, missing := read(netstate.Iptables | netstate.Nftables)
	if len(ns.Iptables) != 0 || len(missing) != 0 {
		t.Errorf("nothing there: %v, missing %v", ns.Iptables, missing)
	}
	if names := output(t, n, "cat /proc/thread-self/net/ip_tables_names"); names != "" {
		t.Errorf("reading made the tables %q", names)
	}
	sh(`ipset create blocked hash:ip; ipset add blocked 192.0.2.1
iptables-nft -A FORWARD -m set --match-set blocked src -j DROP
iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to 192.0.2.2
nft add table ip6 filter; nft 'add chain ip6 filter x { type filter hook input priority 0; }'; nft add rule ip6 filter x ct state vmap '{ new : drop }'`)
	ns, missing = read(netstate.Iptables | netstate.Nftables)
	var got []string
	for _, set := range ns.Iptables {
		for _, table := range set.Tables {
			for _, chain := range table.Chains {
				for _, rule := range chain.Rules {
					got = append(got, fmt.Sprint(set.Command(), " ", table.Name, " ", chain.Name, " ", rule.Text))
				}
			}
		}
	}
	want := []string{
		"iptables filter FORWARD -m set --match-set blocked src -j DROP",
		"iptables-legacy nat PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.2",
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]netstate.Ipset{{Name: "blocked", Type: "hash:ip", Family: netstate.IPv4, Entries: []string{"192.0.2.1"}}}, ns.Ipsets); diff != "" {
		t.Error(diff)
	}
	// A table that iptables cannot show whole says so, and is missing where nf_tables was not read.
	if table := ns.IptablesSet("nft", netstate.IPv6).Table("filter"); table == nil || !strings.Contains(table.Incomplete, "incompatible") || len(missing) != 0 {
		t.Errorf("ip6tables filter: %+v, missing: %v", table, missing)
	}
	_, missing = read(netstate.Iptables)
	if why := missing[netstate.Key{Part: netstate.Iptables, Family: netstate.IPv6, Variant: "nft"}]; !strings.Contains(why, "incompatible") {
		t.Errorf("missing: %v", missing)
	}
}

// Flows are those that conntrack lists.
func TestParseFlow(t *testing.T) {
	needs(t, "conntrack")
	n, sh := newNetns(t)
	sh(`conntrack -I -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1000 --dport 80 -r 10.0.0.2 -q 192.0.2.1 --reply-port-src 8080 --reply-port-dst 1000 --state ESTABLISHED -t 600 -m 7
conntrack -I -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1001 --dport 53 -t 60
conntrack -I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1002 --dport 53 -t 60 --zone 4
conntrack -I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1003 --dport 53 -t 60 --orig-zone 5
conntrack -I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1004 --dport 53 -t 60 --reply-zone 6`)
	conn, err := dialNetfilter(n)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var got []string
	err = eachAnswer(conn, nfnlSubsysConntrack<<8|ctMsgGet, make([]byte, sizeofNfGenMsg), func(data []byte) error {
		f, err := parseFlow(data)
		got = append(got, fmt.Sprint(f.Family, " ", f.Proto, " ", f.Original, " ", f.Reply, " ", f.State, " ", f.Mark, " ", f.Zone, " ", f.Timeout > 0))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{
		"ipv4 tcp {192.0.2.1:1000 192.0.2.2:80} {10.0.0.2:8080 192.0.2.1:1000} ESTABLISHED 7 0 true",
		"ipv4 udp {192.0.2.1:1002 192.0.2.2:53} {192.0.2.2:53 192.0.2.1:1002}  0 4 true",
		"ipv4 udp {192.0.2.1:1003 192.0.2.2:53} {192.0.2.2:53 192.0.2.1:1003}  0 5 true",
		"ipv4 udp {192.0.2.1:1004 192.0.2.2:53} {192.0.2.2:53 192.0.2.1:1004}  0 0 true",
		"ipv6 udp {[2001:db8::1]:1001 [2001:db8::2]:53} {[2001:db8::2]:53 [2001:db8::1]:1001}  0 0 true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// An error of the caller's ends the dump, and is handed on.
	enough, calls := errors.New("enough"), 0
	err = eachAnswer(conn, nfnlSubsysConntrack<<8|ctMsgGet, make([]byte, sizeofNfGenMsg), func([]byte) error {
		calls++
		return enough
	})
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// Flows concern a container by its addresses and by the ports that are published for it.
func TestFlowsConcern(t *testing.T) {
	web := netstate.Container{NetworkMode: "bridge", Published: []netstate.Binding{{Port: netstate.Port{Number: 80, Proto: "tcp"}, HostPort: 8080}},
		Endpoints: []netstate.Endpoint{{IPv4: netip.MustParsePrefix("172.17.0.2/16")}}}
	concerns := concern([]netstate.Container{web})
	for _, test := range []struct {
		orig, reply [2]string
		want        bool
	}{
		{[2]string{"203.0.113.9:1", "198.51.100.15:8080"}, [2]string{"172.17.0.9:80", "203.0.113.9:1"}, true},
		{[2]string{"172.17.0.2:1", "203.0.113.9:443"}, [2]string{"203.0.113.9:443", "198.51.100.15:1"}, true},
		{[2]string{"203.0.113.9:1", "172.17.0.2:22"}, [2]string{"172.17.0.2:22", "203.0.113.9:1"}, true},
		{[2]string{"203.0.113.9:8080", "198.51.100.15:443"}, [2]string{"198.51.100.15:443", "203.0.113.9:8080"}, true}, // back to that port
		{[2]string{"203.0.113.9:1", "198.51.100.15:443"}, [2]string{"198.51.100.15:443", "203.0.113.9:1"}, false},
		{[2]string{"203.0.113.9:0", "198.51.100.15:0"}, [2]string{"198.51.100.15:0", "203.0.113.9:0"}, false},
	} {
		tuple := func(ends [2]string) netstate.Tuple {
			return netstate.Tuple{Src: netip.MustParseAddrPort(ends[0]), Dst: netip.MustParseAddrPort(ends[1])}
		}
		if got := concerns(&netstate.Flow{Original: tuple(test.orig), Reply: tuple(test.reply)}); got != test.want {
			t.Errorf("%v: %t", test.orig, got)
		}
	}
}

// Of a table with more entries than are kept of anybody's, those of the asked containers are all there, and where those
// are too many, that is said, and as many as may be are there.
func TestFlowsOfALargeTable(t *testing.T) {
	web := netip.MustParseAddr("172.17.0.2")
	kept := keptFlows{concerns: func(f *netstate.Flow) bool { return f.Original.Dst.Addr() == web }}
	sent := 0
	dump := func(n int, to netip.Addr) (err error) {
		for range n {
			sent++
			client := netip.AddrFrom4([4]byte{10, byte(sent >> 16), byte(sent >> 8), byte(sent)})
			if _, err = eachMessage(flowMessage(t, client, to), kept.add); err != nil {
				break
			}
		}
		return err
	}
	holds := func(n int, err error, last netip.Addr) {
		t.Helper()
		if err != nil || len(kept.flows) != n || kept.flows[n-1].Original.Dst.Addr() != last {
			t.Fatalf("%v: %d flows, want %d; the last is %v, want one to %s", err, len(kept.flows), n, kept.flows[len(kept.flows)-1], last)
		}
	}
	other := netip.MustParseAddr("172.17.0.9")
	holds(anyFlows, dump(anyFlows+100, other), other)
	holds(anyFlows+10, dump(10, web), web)
	holds(anyFlows+10, dump(10, other), web)
	holds(maxFlows, dump(maxFlows-anyFlows-10, web), web)
	holds(maxFlows, dump(10, other), web) // nothing of the containers is lacking
	before := sent
	if err := dump(10, web); err == nil || !strings.Contains(err.Error(), "the rest was not read") || sent != before+1 || len(kept.flows) != maxFlows {
		t.Errorf("%v after %d more; %d flows", err, sent-before, len(kept.flows))
	}
}

// flowMessage is what the kernel says of a flow: a datagram of one message.
func flowMessage(t *testing.T, from, to netip.Addr) []byte {
	t.Helper()
	attrs := netlink.NewAttributeEncoder()
	for tuple, ends := range map[uint16][2]netip.Addr{ctaTupleOrig: {from, to}, ctaTupleReply: {to, from}} {
		attrs.Nested(tuple, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(ctaTupleIP, func(ae *netlink.AttributeEncoder) error {
				ae.Bytes(1, ends[0].AsSlice()) // CTA_IP_V4_SRC
				ae.Bytes(2, ends[1].AsSlice())
				return nil
			})
			return nil
		})
	}
	data, err := attrs.Encode()
	if err != nil {
		t.Fatal(err)
	}
	message := netlink.Message{Header: netlink.Header{Type: nfnlSubsysConntrack << 8}, Data: append([]byte{unix.AF_INET, 0, 0, 0}, data...)}
	message.Header.Length = uint32(unix.SizeofNlMsghdr + len(message.Data))
	datagram, err := message.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return datagram
}

// Queueing disciplines, and filters where packets may be lost, are read.
func TestReadQdiscs(t *testing.T) {
	needs(t, "tc")
	n, sh := newNetns(t)
	sh(`ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up
tc qdisc add dev v0 root handle 1: tbf rate 1mbit burst 10k latency 10ms
tc qdisc add dev v1 clsact
tc filter add dev v1 ingress protocol ip u32 match ip dst 192.0.2.1/32 flowid 1:1
tc filter add dev v1 egress protocol ip u32 match u32 0 0`)
	conn, err := dialRoute(n)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	links, _, err := readLinks(conn)
	if err != nil {
		t.Fatal(err)
	}
	qdiscs, err := readQdiscs(conn, namesOf(links))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range qdiscs {
		if q.Kind != "noqueue" {
			got = append(got, strings.TrimSpace(fmt.Sprint(q.Link, " ", q.Kind, " ", q.Parent, " ", q.Filter)))
		}
	}
	slices.Sort(got)
	want := []string{"v0 tbf root", "v1 clsact ingress", "v1 filter egress u32", "v1 filter ingress u32"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
