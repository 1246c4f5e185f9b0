package probe

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// seen makes an observation of what one needs of it.
func seen(outcome Outcome, hops ...packet.Hop) *Observation {
	o := &Observation{Schema: Schema, Outcome: outcome, Uplink: "eth0", Flow: Flow{Proto: "tcp"},
		Watched: []packet.Hop{packet.Uplink, packet.Bridge, packet.Veth, packet.Container}}
	for i, h := range hops {
		o.Copies = append(o.Copies, Copy{Time: time.Unix(int64(i), 0).UTC(), Hop: h, Link: "l", Where: "host", Text: "IP"})
	}
	if outcome.Well() {
		o.Answer, o.ReplyBy = "SYN/ACK", []string{"eth0"}
	}
	return o
}

var whole = []packet.Hop{packet.Uplink, packet.Bridge, packet.Veth, packet.Container, packet.Container.Reply(), packet.Uplink.Reply()}

func stops(hop packet.Hop, object string, verdict packet.Verdict) *packet.Trace {
	return &packet.Trace{Via: "forward", Verdict: verdict, Stops: []packet.Stop{{Hop: hop, Object: object, Why: "so it is", Verdict: verdict}}}
}

func TestCompare(t *testing.T) {
	passes := &packet.Trace{Via: "forward"}
	const rule = "iptables filter DOCKER-USER 1: -j DROP"
	dropped := seen(Silent, packet.Uplink)
	dropped.Rules = []Rule{{Hop: packet.Accept, Object: rule, Verdict: "drop"}}
	dropped.Drops = []Drop{{Reason: "NETFILTER_DROP", Function: "nft_do_chain", Where: "host"}}
	otherWay := seen(Connected, whole...)
	otherWay.ReplyBy = []string{"wg0"}
	udp := seen(Silent, packet.Uplink, packet.Bridge, packet.Veth, packet.Container)
	udp.Flow.Proto = "udp"
	later := stops(packet.Accept, rule, packet.Drop)
	later.Stops[0].Later = true
	thenDropped := seen(Connected, whole...)
	thenDropped.Rules = dropped.Rules
	icmp := seen(Answered)
	icmp.Flow.Proto = "icmp"
	masqueraded := seen(Connected, packet.Uplink, packet.Uplink.Reply())
	masqueraded.Conntrack = &netstate.Flow{Original: netstate.Tuple{Src: netip.MustParseAddrPort("203.0.113.9:7")}, Reply: netstate.Tuple{Dst: netip.MustParseAddrPort("172.17.0.1:9")}}
	kind := func(hop packet.Hop, kind packet.Kind) *packet.Trace {
		trace := stops(hop, "object", packet.Drop)
		trace.Stops[0].Kind = kind
		return trace
	}
	diverted := seen(Silent, whole[:5]...)
	diverted.Rules = []Rule{{Hop: packet.Accept.Reply(), Object: rule, Verdict: "drop"}}
	again := seen(Silent, append(whole[:5:5], packet.Bridge.Reply())...)
	again.Drops = []Drop{{Reason: "NETFILTER_DROP", Function: "nft_do_chain", Where: "host"}, {Hop: packet.Socket, Reason: "NOT_SPECIFIED", Function: "tcp_v4_rcv", Where: "container web"}}
	refused := seen(Refused, packet.Uplink, packet.Uplink.Reply())
	refused.Drops = []Drop{{Hop: packet.Socket, Reason: "NO_SOCKET", Function: "tcp_v4_rcv", Where: "host"}}
	const legacy = "iptables-legacy filter DOCKER-USER 1: -j DROP"
	counted := func(o *Observation, reason string) *Observation {
		o.Rules = append(o.Rules, Rule{Hop: packet.Accept, Object: legacy, Verdict: "drop", Table: "filter", Chain: "DOCKER-USER", Counted: 1})
		if reason != "" {
			o.Drops = []Drop{{Hop: packet.Accept, Reason: reason, Function: "nf_hook_slow", Where: "host"}}
		}
		return o
	}
	comesTo := stops(packet.Accept, "iptables-legacy filter DOCKER-USER 2: -j REJECT", packet.Refuse)
	unsure := func(o *Observation, hop packet.Hop) *Observation {
		o.Drops = []Drop{{Hop: hop, Reason: "REASON", Function: "f", Unsure: true}}
		return o
	}
	reached := seen(Silent, whole[:4]...)
	reached.Flow.Proto = "udp"
	reset := seen(Refused, whole...)
	web := *passes
	web.Target.Port = netstate.Port{Number: 80, Proto: "tcp"}

	for _, c := range []struct {
		name   string
		trace  *packet.Trace
		o      *Observation
		result string
		why    string
	}{
		{"healthy", passes, seen(Connected, whole...), Proved, "SYN/ACK"},
		{"something on the host answers", passes, seen(Connected, packet.Uplink, packet.Uplink.Reply()), Contradicted, "no packet of the client was seen in the container"},
		{"a masqueraded client", passes, masqueraded, Proved, "SYN/ACK"},
		{"docker-proxy answers", &packet.Trace{Via: "docker-proxy"}, seen(Connected, packet.Uplink, packet.Uplink.Reply()), Proved, "docker-proxy answered"},
		{"the reply leaves elsewhere", passes, otherWay, Unproved, "wg0"},
		{"the walk stops, the packet does not", stops(packet.Accept, rule, packet.Drop), seen(Connected, whole...), Contradicted, rule},
		{"the rule drops", stops(packet.Accept, rule, packet.Drop), dropped, Proved, rule + " dropped the packet (NETFILTER_DROP in nft_do_chain)"},
		{"another rule drops", stops(packet.DNAT, "iptables raw PREROUTING 1: -j DROP", packet.Drop), dropped, Contradicted, rule},
		{"the walk passes, the rule drops", passes, dropped, Contradicted, rule},
		{"lost between uplink and bridge, as said", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), seen(Silent, packet.Uplink), Proved, "last seen at uplink"},
		{"lost before the bridge, said behind it", stops(packet.Socket, "socket", packet.Refuse), seen(Silent, packet.Uplink), Contradicted, "last seen at uplink"},
		{"seen further than said", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), seen(Silent, packet.Uplink, packet.Bridge), Contradicted, "last seen at bridge"},
		{"seen nowhere", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), seen(Silent), Unproved, "not seen"},
		{"cannot be told, answered", stops(packet.Accept, rule, packet.May), seen(Connected, whole...), Unproved, "depends"},
		{"cannot be told, silent", stops(packet.Accept, rule, packet.May), seen(Silent, packet.Uplink), Unproved, "could not tell"},
		{"a datagram without an answer", passes, udp, Proved, "reached the container"},
		{"a container without an answer", passes, seen(Silent, packet.Uplink, packet.Bridge, packet.Veth, packet.Container), Contradicted, "did not answer"},
		{"only later packets are stopped", later, thenDropped, Proved, "dropped what followed"},
		{"only later packets are stopped, which was not seen", later, seen(Connected, whole...), Unproved, "was not seen"},
		{"for a wrong neighbour, flooded to the container", kind(packet.Bridge, packet.Neighbour), seen(Silent, whole[:4]...), Proved, "last seen at container"},
		{"for a wrong neighbour, lost before", kind(packet.Container, packet.Neighbour), seen(Silent, packet.Uplink), Contradicted, "last seen at uplink"},
		{"nothing is published, the host refuses", kind(packet.DNAT, packet.NotPublished), refused, Proved, "did not get it"},
		{"the reply is diverted, and dropped on that way", kind(packet.Route.Reply(), packet.WrongRoute), diverted, Proved, "no reply left"},
		{"what is sent again is dropped elsewhere", stops(packet.Route.Reply(), "route", packet.Drop), again, Proved, "as the walk says"},
		{"something else answers, as said", kind(packet.DNAT, packet.NotPublished), seen(Connected, packet.Uplink, packet.Uplink.Reply()), Proved, "something else answered"},
		{"diverted, and dropped on that way", kind(packet.DNAT, packet.Diverted), dropped, Proved, "did not get it"},
		{"diverted, says the walk, but it arrived", kind(packet.DNAT, packet.Diverted), seen(Silent, whole[:4]...), Contradicted, "last seen at container"},
		{"dropped before it could be diverted", kind(packet.Masquerade, packet.Diverted), dropped, Contradicted, rule},
		{"the container cannot answer", stops(packet.Container.Reply(), "route", packet.Drop), seen(Silent, whole[:4]...), Proved, "last seen at container"},
		{"lost before the container could answer", stops(packet.Container.Reply(), "route", packet.Drop), seen(Silent, whole[:2]...), Contradicted, "last seen at bridge"},
		{"a counter rose, and netfilter dropped", stops(packet.Accept, legacy, packet.Drop), counted(seen(Silent, packet.Uplink), "NETFILTER_DROP"), Proved, legacy + " dropped the packet (NETFILTER_DROP in nf_hook_slow)"},
		{"a counter rose, by whom is not known", stops(packet.Accept, legacy, packet.Drop), counted(seen(Silent, packet.Uplink), ""), Unproved, legacy + ": its counter rose by 1"},
		{"a counter rose, something else dropped", stops(packet.Accept, legacy, packet.Drop), counted(seen(Silent, packet.Uplink), "NOT_SPECIFIED"), Unproved, legacy + ": its counter rose by 1"},
		{"others raised the counter, the packet arrived", stops(packet.Accept, legacy, packet.Drop), counted(seen(Silent, whole[:4]...), ""), Contradicted, "last seen at container"},
		{"others raised the counter, the packet was lost before", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), counted(seen(Silent, packet.Uplink), ""), Proved, "last seen at uplink"},
		{"a counter of a chain elsewhere rose", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), counted(seen(Silent, packet.Uplink), "NETFILTER_DROP"), Unproved, "does not come to"},
		{"another rule of the chain dropped", comesTo, counted(seen(Silent, packet.Uplink), "NETFILTER_DROP"), Contradicted, legacy + " dropped it"},
		{"others raised the counter afterwards", &packet.Trace{Stops: []packet.Stop{{Object: legacy, Verdict: packet.Drop, Later: true}}}, counted(seen(Connected, whole...), ""), Unproved, "was not seen"},
		{"a softirq dropped another packet", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), unsure(seen(Silent, packet.Uplink), packet.Socket), Proved, "last seen at uplink, as the walk says"},
		{"a drop goes with the walk", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), unsure(seen(Silent, packet.Uplink), packet.Route), Proved, "(REASON in f (this packet or another))"},
		{"the container refuses", stops(packet.Socket, "socket", packet.Refuse), reset, Proved, "as the walk says"},
		{"the container refuses, its reply was to be lost", stops(packet.Route.Reply(), "route", packet.Drop), reset, Contradicted, "it was refused"},
		{"a drop alone shows nothing", stops(packet.Route, "sysctl net.ipv4.ip_forward", packet.Drop), unsure(seen(Silent), packet.Route), Unproved, "not seen"},
		{"a datagram arrived, another was dropped", passes, unsure(reached, packet.Socket), Proved, "reached the container"},
		{"an echo says nothing of a port", &web, icmp, Unproved, "another way than 80/tcp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if v := Compare(c.trace, c.o); v.Result != c.result || !strings.Contains(v.Why, c.why) {
				t.Errorf("%s: %s; should be %s with %q", v.Result, v.Why, c.result, c.why)
			}
		})
	}
}

func TestObservationIsADocument(t *testing.T) {
	o := seen(Connected, whole...)
	o.Rules = []Rule{{Hop: packet.Accept, Object: "nft", Verdict: "drop", Handle: 3}}
	o.Drops = []Drop{{Reason: "NO_SOCKET", Function: "f", Where: "host", Hop: packet.Socket}}
	o.Conntrack = &netstate.Flow{Family: netstate.IPv4, Proto: "tcp"}
	o.lacks(Drops, "why")
	o.Flow.Client = netip.MustParseAddrPort("192.0.2.1:7")
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var back Observation
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(back)
	if string(again) != string(text) || !reflect.DeepEqual(back.Copies, o.Copies) {
		t.Errorf("%s\nis not\n%s", again, text)
	}
}

// aHost is a host with an uplink, a bridge with a port of the wire below it, and a container.
func aHost() *netstate.Snapshot {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	return &netstate.Snapshot{
		Engine: &netstate.EngineState{Local: true},
		Host: netstate.Namespace{
			Links: []netstate.Link{
				{Index: 1, Name: "lo", Loopback: true, Up: true, Carrier: true},
				{Index: 2, Name: "eth0", Up: true, Carrier: true},
				{Index: 3, Name: "docker0", Kind: "bridge", Up: true, Carrier: true},
				{Index: 4, Name: "port0", Up: true, Carrier: true, Master: 5},
				{Index: 5, Name: "br0", Kind: "bridge", Up: true, Carrier: true},
				{Index: 6, Name: "eth1"},
			},
			Addrs:  []netstate.Addr{{Link: "eth0", Prefix: p("198.51.100.15/24")}, {Link: "br0", Prefix: p("10.0.0.1/8")}, {Link: "docker0", Prefix: p("172.17.0.1/16")}},
			Routes: []netstate.Route{{Family: netstate.IPv4, Table: 254, Type: "unicast", Dst: p("0.0.0.0/0"), Hops: []netstate.RouteHop{{Dev: "eth0", Gateway: a("198.51.100.2")}}}, {Family: netstate.IPv4, Table: 254, Type: "unicast", Dst: p("198.51.100.0/24"), Hops: []netstate.RouteHop{{Dev: "eth0"}}}},
			Neighs: []netstate.Neigh{
				{Link: "eth0", Addr: a("198.51.100.2"), MAC: "02:00:00:00:00:02", State: "stale"},
				{Link: "eth0", Addr: a("198.51.100.3"), MAC: "02:00:00:00:00:03", State: "reachable"},
				{Link: "eth0", Addr: a("198.51.100.4"), MAC: "02:00:00:00:00:04", State: "stale"},
			},
			Flows: []netstate.Flow{{Original: netstate.Tuple{Src: netip.MustParseAddrPort("203.0.113.50:999"), Dst: netip.MustParseAddrPort("198.51.100.15:8080")}}},
		},
		Networks: []netstate.Network{{Name: "bridge", Driver: "bridge", Options: map[string]string{"com.docker.network.bridge.name": "docker0"}}},
	}
}

func TestRequest(t *testing.T) {
	in := func(client, iface string) netstate.Target {
		return netstate.Target{Direction: netstate.In, From: netstate.FromOutside, Family: netstate.IPv4, Client: netip.MustParseAddr(client), Iface: iface,
			Port: netstate.Port{Number: 80, Proto: "tcp"}, Host: netip.MustParseAddrPort("0.0.0.0:8080")}
	}
	for _, c := range []struct {
		name    string
		target  netstate.Target
		refused string
	}{
		{"outside", in("203.0.113.9", ""), ""},
		{"a neighbour that is known", in("198.51.100.3", ""), ""},
		{"a neighbour that nobody knows", in("198.51.100.77", ""), "no entry"},
		{"a neighbour that would be asked again", in("198.51.100.4", ""), "stale"},
		{"a client with a connection", in("203.0.113.50", ""), ""},
		{"the host itself", in("198.51.100.15", ""), "--client host"},
		{"by a port of a bridge", in("203.0.113.9", "port0"), "a port of br0"},
		{"by Docker's bridge", in("203.0.113.9", "docker0"), "no uplink"},
		{"by loopback", in("203.0.113.9", "lo"), "no uplink"},
		{"by a link that is down", in("203.0.113.9", "eth1"), "is down"},
		{"by a link that is not there", in("203.0.113.9", "eth7"), "no link eth7"},
		{"by the bridge above", in("203.0.113.9", "br0"), ""},
		{"out to somebody", netstate.Target{Direction: netstate.Out, From: netstate.FromContainer, Family: netstate.IPv4, To: netip.MustParseAddrPort("9.9.9.9:53")}, "may be somebody's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := NewRequest(aHost(), c.target, "")
			switch {
			case c.refused == "" && err != nil:
				t.Fatal(err)
			case c.refused == "":
				if r.Client != c.target.Client || !r.Server.IsValid() || r.Server.Addr().IsUnspecified() || r.Server.Port() != 8080 {
					t.Errorf("%+v", r)
				}
			case err == nil || !strings.Contains(err.Error(), c.refused):
				t.Errorf("%v; should have %q", err, c.refused)
			}
		})
	}
	r, err := NewRequest(aHost(), in("203.0.113.9", ""), "")
	if err != nil || r.Uplink != "eth0" || r.NextHop != "02:00:00:00:00:02" {
		t.Errorf("%+v, %v", r, err)
	}

	// The port of a live connection is never the probe's, and where connections were not looked at there is no probe.
	host := aHost()
	host.Parts = Needs
	if r, err := NewRequest(host, in("203.0.113.50", ""), ""); err != nil || !slices.Equal(r.taken, []uint16{999}) {
		t.Errorf("%+v, %v", r, err)
	}
	host.Host.Routes = nil // the way back may stand in another table
	if r, err := NewRequest(host, in("203.0.113.50", "eth0"), ""); err != nil || !slices.Equal(r.taken, []uint16{999}) {
		t.Errorf("%+v, %v", r, err)
	}
	host.Host.Flows = nil
	for _, c := range []struct {
		client   string
		thorough bool
		missing  string
		refused  bool
	}{{"9.9.9.9", false, "", true}, {"203.0.113.50", false, "", false}, {"9.9.9.9", true, "", false}, {"9.9.9.9", true, "not read in time", true}} {
		host.Thorough, host.Missing = c.thorough, nil
		if c.missing != "" {
			host.Lacks(netstate.Key{Part: netstate.Conntrack}, c.missing)
		}
		if _, err := NewRequest(host, in(c.client, "eth0"), ""); errors.Is(err, ErrRefused) != c.refused {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
