//go:build linux

package packet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A generator makes settings. Rules are made from the packets that are to meet them: each match holds for
// about half of them, numbers lie on or beside the packet's.
type generator struct {
	*rand.Rand
	tries  []try
	family netstate.Family // of the rules that are being made

	switched int // so many of a hundred settings have a bridge that does not forward as it should
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

const triesPerSetting = 20

// setting makes a setting with its tries. id numbers packets, and makes their ports unlike.
func (g *generator) setting(id *uint32) *setting {
	s := &setting{}
	for range triesPerSetting {
		*id++
		s.tries = append(s.tries, g.try(*id))
	}
	g.furnish(s)
	return s
}

// furnish makes what the tries of a setting are to meet.
func (g *generator) furnish(s *setting) {
	g.tries = s.tries
	g.sysctls(s)
	g.routes(s)
	kind := g.IntN(6)
	for i, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		g.family = family
		if kind == 0 || kind == 3 || kind == 4 {
			s.nftables[i] = g.iptables()
		}
		if kind == 1 || kind == 4 || kind == 5 {
			s.legacy[i] = g.iptables()
		}
	}
	if kind == 2 || kind == 3 || kind == 5 {
		s.native = g.nft(1 + g.IntN(3))
	}
	if g.chance(30) {
		s.inner = g.nft(1)
	}
	if g.chance(25) {
		s.native += g.layer2()
	}
	for _, port := range []string{"v0", "v1"} {
		if g.chance(20) {
			s.ip = append(s.ip, "link set "+port+" type bridge_slave "+pick(g, "hairpin on", "hairpin on", "isolated on"))
		}
	}
	if g.chance(g.switched) {
		g.switches(s)
	}
	if kind != 2 {
		s.ipsets = g.ipsets()
	}
	g.special(s)
}

// switches makes the bridge br0 send frames elsewhere than it should: by its forwarding table and its ports.
func (g *generator) switches(s *setting) {
	var b strings.Builder
	for range 1 + g.IntN(3) {
		box := boxes[g.IntN(2)]
		switch g.IntN(5) {
		case 0, 1:
			elsewhere := boxes[1]
			if (box.port == "v1") != g.chance(25) {
				elsewhere = boxes[0]
			}
			fmt.Fprintf(&b, "fdb replace %s dev %s master %s\n", box.mac, elsewhere.port, pick(g, "static", "static sticky", "dynamic", "local", "local"))
			if g.chance(30) {
				fmt.Fprintf(&b, "link set dev %s learning off\n", box.port)
			}
		case 2:
			fmt.Fprintf(&b, "link set dev %s learning off\n", box.port)
		case 3:
			// Off for all: what is flooded elsewhere, too, meets rules there.
			fmt.Fprintf(&b, "link set dev v0 flood off\nlink set dev v1 flood off\nlink set dev %s learning %s\nfdb del %s dev %s master\n", box.port, pick(g, "on", "off"), box.mac, box.port)
		case 4:
			fmt.Fprintf(&b, "link set dev %s locked on\n", box.port)
			if g.chance(50) {
				fmt.Fprintf(&b, "fdb replace %s dev %s master static\n", box.mac, map[string]string{"v0": "v1", "v1": "v0"}[box.port])
			}
		}
	}
	s.bridge = b.String()
}

// plainBridges is how each setting finds the bridges: each container's address is behind its port.
func plainBridges() string {
	var b strings.Builder
	for _, box := range boxes {
		fmt.Fprintf(&b, "link set dev %s learning on flood on locked off\nfdb replace %s dev %s master static\n", box.port, box.mac, box.port)
	}
	return b.String()
}

// special adds what chance alone seldom brings together.
func (g *generator) special(s *setting) {
	chain := func(where, hook string, rules ...string) string {
		return fmt.Sprintf("table inet special {\n\tchain %s {\n\t\ttype filter hook %s priority -160;\n\t\t%s\n\t}\n}\n", where, hook, strings.Join(rules, "\n\t\t"))
	}
	switch g.IntN(18) {
	case 11, 12:
		g.questions(s)
	case 13:
		// What starts here comes in by lo, for rules.
		s.ip = []string{"rule add pref 1000 iif lo lookup 100", "route add default via 192.0.2.2 table 100"}
		for i := range s.tries {
			if t := &s.tries[i]; t.family == netstate.IPv4 && g.chance(40) {
				t.from, t.uid, t.src, t.dst = "host", 0, addrs(netstate.IPv4, "198.51.100.15", ""), addrs(netstate.IPv4, "203.0.113.9", "")
			}
		}
	case 14:
		s.legacy[0], s.nftables[0] = "*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n-A PREROUTING -m rpfilter --accept-local --invert -j DROP\nCOMMIT\n", ""
		for i := range s.tries {
			if t := &s.tries[i]; t.from == "c0" && t.family == netstate.IPv4 && g.chance(60) {
				t.src = pick(g, addrs(netstate.IPv4, "198.51.100.15", ""), addrs(netstate.IPv4, "192.0.2.15", ""), addrs(netstate.IPv4, "127.0.0.1", ""))
			}
		}
	case 16:
		// Of a mark, a rule looks at its mask alone.
		s.ip = []string{"rule add pref 1000 fwmark 0x1/0x1 lookup 100", "route add default via 192.0.2.2 table 100"}
		s.native += chain("marks", "prerouting", "meta mark set 3")
	case 15:
		// The IP hooks of a bridge have their place among the bridge's own.
		s.native += fmt.Sprintf("table bridge order {\n\tchain c {\n\t\ttype filter hook prerouting priority %d;\n\t\tmeta l4proto %s drop\n\t}\n}\n", pick(g, -100, 0, 100, 100), pick(g, "udp", "tcp"))
		s.sysctls = append(s.sysctls, "net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1")
	case 10:
		// A published port on localhost, as Docker makes it without a proxy.
		s.native += "table inet local {\n\tchain out { type nat hook output priority -100; tcp dport 8080 dnat ip6 to [fd00::2]:80; tcp dport 8080 dnat ip to 172.17.0.2:80; }\n\tchain post { type nat hook postrouting priority 100; oifname \"br0\" masquerade; }\n}\n"
		s.sysctls = append(s.sysctls, "net.ipv4.conf.br0.route_localnet="+pick(g, "0", "1"), "net.bridge.bridge-nf-call-iptables="+pick(g, "0", "1"), "net.bridge.bridge-nf-call-ip6tables="+pick(g, "0", "1"))
		for i := range s.tries {
			if t := &s.tries[i]; g.chance(30) && t.proto == protoTCP {
				t.from, t.uid, t.dport = "host", 0, 8080
				t.src = addrs(t.family, "127.0.0.1", "::1")
				t.dst = t.src
			}
		}
	case 0:
		// Whether the way back is looked for with the packet's mark decides.
		s.sysctls = append(s.sysctls, "net.ipv4.conf.eth0.rp_filter=1", "net.ipv4.conf.all.src_valid_mark="+pick(g, "0", "1"))
		s.ip = []string{"rule add pref 1000 fwmark 0x1 lookup 100", "route add default via 192.0.2.2 table 100"}
		s.native += chain("marks", "prerouting", "meta mark set 1")
	case 1:
		s.sysctls = append(s.sysctls, pick(g, "net.ipv4.conf.eth0.route_localnet=1", "net.ipv4.conf.eth0.route_localnet=1", "net.ipv4.conf.br0.route_localnet=1"))
		for i := range s.tries {
			if t := &s.tries[i]; t.from == "c0" && t.family == netstate.IPv4 && g.chance(50) {
				t.dst = addrs(netstate.IPv4, "127.0.0.1", "")
			}
		}
	case 2:
		// A mark is this side's own.
		s.native += chain("marks", "prerouting", "meta mark set 1")
		s.inner += chain("marks", "prerouting", "meta mark != 0 drop")
	case 3:
		f := pick(g, netstate.IPv4, netstate.IPv6)
		six := map[bool]string{true: "-6 "}[f == netstate.IPv6]
		s.ip = []string{six + "rule add pref 1000 " + pick(g, "from all", "iif eth0", "iif br0") + " lookup 100", six + "route add throw default table 100"}
	case 4:
		s.native += chain("tcpflags", pick(g, "prerouting", "forward"), pick(g, "tcp flags & (fin|syn|rst|ack) == syn drop", "tcp flags & syn == syn drop", "tcp flags & ack == ack drop"))
	case 5, 8:
		text := fmt.Sprintf("*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n-A PREROUTING %s -j DROP\nCOMMIT\n", pick(g,
			"-p tcp -m tcp --tcp-flags SYN SYN", "-p tcp -m tcp --tcp-flags ACK ACK", fmt.Sprintf("-p udp -m udp --dport 8000:%d", pick(g, 8079, 8080, 8080)), fmt.Sprintf("-p tcp -m tcp --dport 70:%d", pick(g, 80, 8080, 8080)),
			fmt.Sprintf("-p tcp -m multiport --ports 79,%d", s.tries[0].sport), "-p udp -m multiport --ports 20000:40000", "-p tcp -m multiport --ports 443,20000:40000", "-m rpfilter --invert",
			fmt.Sprintf("-p tcp -m multiport --sports 79,%d", s.tries[1].sport)))
		if g.chance(50) {
			s.nftables[0] = text
		} else {
			s.legacy[0] = text
		}
	case 9:
		s.nftables[0] = "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n-A PREROUTING -p udp -j CT --notrack\nCOMMIT\n*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n" +
			":POSTROUTING ACCEPT\n-A PREROUTING -m conntrack --ctstate " + pick(g, "NEW", "UNTRACKED", "INVALID") + " -j DROP\nCOMMIT\n"
	case 6, 7:
		n := pick(g, 8079, 8080, 8081, 79, 80)
		s.native += "table inet edges {\n\tset s { type inet_service; flags interval; elements = { " + fmt.Sprintf("10-%d", n) + pick(g, "", ", 8085-8090") + " } }\n\tchain c {\n\t\ttype filter hook " +
			pick(g, "prerouting", "forward") + " priority -10;\n\t\tmeta l4proto { tcp, udp } th dport " + pick(g, "@s", "!= @s", "< 8080", "<= 8080", "< 80", "> 8080") + " drop\n\t}\n}\n"
	}
}

// questions makes rules that ask all sorts of things at every hook, and decide nothing: the chain that they
// call is empty.
func (g *generator) questions(s *setting) {
	for i, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		g.family = family
		var b strings.Builder
		b.WriteString("*mangle\n:ASKED -\n")
		for _, chain := range []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"} {
			fmt.Fprintf(&b, ":%s ACCEPT\n", chain)
			for range 25 {
				proto := ""
				if m := g.match(&proto, chain, "mangle"); m != "" {
					fmt.Fprintf(&b, "-A %s %s -j ASKED\n", chain, m)
				}
			}
		}
		b.WriteString("COMMIT\n")
		s.nftables[i], s.legacy[i] = b.String(), ""
		if g.chance(50) {
			s.nftables[i], s.legacy[i] = "", b.String()
		}
	}
	var b strings.Builder
	g.family = pick(g, netstate.IPv4, netstate.IPv6)
	b.WriteString("table inet asking {\n")
	n := &nftGenerator{generator: g, table: "inet", kind: "filter"}
	n.sets(&b)
	b.WriteString("\tchain asked { }\n")
	for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
		n.hook = hook
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s priority %d;\n", hook, hook, pick(g, -290, -120, 20, 150))
		for range 20 {
			n.proto = pick(g, "tcp", "udp")
			fmt.Fprintf(&b, "\t\t%s jump asked\n", n.match())
		}
		b.WriteString("\t\ticmp type echo-request jump asked\n\t\ticmpv6 type echo-reply jump asked\n")
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	s.native = b.String()
	if s.ipsets == "" {
		s.ipsets = g.ipsets()
	}
}

func addrs(family netstate.Family, v4, v6 string) netip.Addr {
	if family == netstate.IPv6 {
		return netip.MustParseAddr(v6)
	}
	return netip.MustParseAddr(v4)
}

// try makes one packet of the sorts that a Docker host sees.
func (g *generator) try(id uint32) try {
	t := try{shot: shot{id: id}}
	t.family = netstate.IPv4
	if g.chance(35) {
		t.family = netstate.IPv6
	}
	f := t.family
	web, gateway := addrs(f, "172.17.0.2", "fd00::2"), addrs(f, "172.17.0.1", "fd00::1")
	hostAddr, far := addrs(f, "198.51.100.15", "2001:db8::15"), addrs(f, "203.0.113.9", "2001:db8:f::9")
	near, second := addrs(f, "198.51.100.2", "2001:db8::2"), addrs(f, "192.0.2.2", "2001:db8:1::2")
	t.proto = pick(g, uint8(protoTCP), protoTCP, protoUDP, protoUDP, protoICMP)
	t.sport, t.dport = port(20000+id%20000), pick(g, port(8080), 8080, 8080, 80, 53, 9000)
	t.from = "c0"
	t.src = pick(g, near, far, far)
	t.dst = hostAddr
	peer, other := addrs(f, "172.17.0.3", "fd00::3"), addrs(f, "172.18.0.2", "fd01::2")
	t.fails = g.chance(25)
	switch g.IntN(17) {
	case 13, 14:
		t.from, t.src = "sandbox", web
		t.dst = pick(g, peer, peer, other)
	case 15:
		t.from, t.src = "other", other
		t.dst = pick(g, web, hostAddr, far, gateway)
	case 16:
		if t.from, t.src = "peer", peer; g.chance(30) {
			t.from, t.src = "c0", far
		}
		t.dst = pick(g, web, hostAddr, other, other)
	case 0, 1:
		t.dst = pick(g, web, web, gateway)
	case 2:
		t.dst = pick(g, second, addrs(f, "10.9.9.9", "2001:db8:9::9"), addrs(f, "192.0.2.15", "2001:db8:1::15"))
	case 3, 4, 5:
		t.from, t.src = "sandbox", web
		t.dst = pick(g, far, far, near, second, hostAddr, gateway)
	case 6:
		t.from, t.src = "host", pick(g, hostAddr, hostAddr, gateway)
		t.dst = pick(g, far, web, web, hostAddr, second)
	case 7:
		t.from, t.src = "c1", pick(g, second, second, far, near)
		t.dst = pick(g, hostAddr, web, addrs(f, "192.0.2.15", "2001:db8:1::15"))
	case 8:
		if g.chance(70) {
			t.src = pick(g, second, web, addrs(f, "198.51.100.15", "2001:db8::15"), addrs(f, "127.0.0.1", "::1"), addrs(f, "10.1.2.3", "2001:db8:77::1"))
		}
		if g.chance(30) {
			t.dst = addrs(f, "127.0.0.1", "::1")
		}
	case 9:
		if f == netstate.IPv4 {
			t.from, t.src = "host", addrs(f, "127.0.0.1", "")
			t.dst = pick(g, t.src, t.src, hostAddr)
		}
	}
	if t.proto == protoICMP {
		t.dport = 0
		t.icmpType = 8
		if f == netstate.IPv6 {
			t.proto, t.icmpType = protoICMPv6, 128
		}
	}
	if t.proto == protoTCP {
		t.flags = tcpSYN
	}
	t.ttl = pick(g, 64, 64, 63, 2)
	t.dscp = pick(g, 0, 0, 0, 10)
	t.uid = -1
	if t.from[0] != 'c' {
		t.uid = 0
	}
	t.length = len(t.ip())
	return t
}

func (g *generator) sysctls(s *setting) {
	add := func(percent int, lines ...string) {
		if g.chance(percent) {
			s.sysctls = append(s.sysctls, lines[g.IntN(len(lines))])
		}
	}
	add(5, "net.ipv4.ip_forward=0")
	add(10, "net.ipv4.conf.eth0.forwarding=0", "net.ipv4.conf.br0.forwarding=0", "net.ipv4.conf.eth1.forwarding=0")
	add(8, "net.ipv6.conf.all.forwarding=0")
	add(25, "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.eth0.rp_filter=1", "net.ipv4.conf.eth0.rp_filter=2", "net.ipv4.conf.br0.rp_filter=1", "net.ipv4.conf.eth1.rp_filter=2")
	add(10, "net.ipv4.conf.eth0.rp_filter=2", "net.ipv4.conf.eth1.rp_filter=1", "net.ipv4.conf.br0.rp_filter=2")
	add(20, "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.eth0.route_localnet=1", "net.ipv4.conf.br0.route_localnet=1")
	add(10, "net.ipv4.conf.eth0.accept_local=1", "net.ipv4.conf.all.accept_local=1", "net.ipv4.conf.br0.accept_local=1")
	add(10, "net.ipv4.conf.all.src_valid_mark=1")
	add(15, "net.ipv4.conf.all.send_redirects=1", "net.ipv4.conf.eth0.send_redirects=1")
	add(15, "net.bridge.bridge-nf-call-iptables=1")
	add(15, "net.bridge.bridge-nf-call-ip6tables=1")
	add(8, "net.ipv6.conf.eth0.forwarding=0", "net.ipv6.conf.br0.forwarding=0")
	if g.chance(4) {
		s.sysctls = append(s.sysctls, "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.eth0.forwarding=1", "net.ipv6.conf.br0.forwarding=1")
	}
}

func (g *generator) routes(s *setting) {
	if !g.chance(40) {
		return
	}
	for _, f := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		six := ""
		if f == netstate.IPv6 {
			six = "-6 "
		}
		gateway := addrs(f, "192.0.2.2", "2001:db8:1::2").String()
		if g.chance(15) {
			// What VPNs do: all but what has a route of its own goes by another table.
			s.ip = append(s.ip, six+"rule add pref 1000 lookup main suppress_prefixlength 0", six+"rule add pref 1000 "+pick(g, "not fwmark 0x1", "from all")+" lookup 100",
				six+"route add default via "+gateway+" table 100")
			continue
		}
		if g.chance(20) {
			// Nexthop objects, and several ways at once.
			id := map[string]string{"": "1", "-6 ": "2"}[six]
			dev := pick(g, "eth0", "eth1")
			s.ip = append(s.ip, six+"nexthop add id "+id+"0 via "+gateway+" dev eth1", six+"nexthop add id "+id+"1 via "+addrs(f, "198.51.100.2", "2001:db8::2").String()+" dev eth0",
				"nexthop add id "+id+"2 group "+id+"0/"+id+"1", six+"nexthop add id "+id+"3 blackhole", six+"rule add pref 1000 "+pick(g, "from all", "iif br0", "iif eth0", "fwmark 0x1")+" lookup 100",
				six+"route add default table 100 "+pick(g, "nhid "+id+"0", "nhid "+id+"2", "nhid "+id+"3", "nhid "+id+"1",
					"nexthop via "+gateway+" dev eth1 nexthop via "+addrs(f, "198.51.100.2", "2001:db8::2").String()+" dev eth0", "dev "+dev))
			continue
		}
		n := g.IntN(3)
		for range n {
			selector := pick(g, "fwmark 0x1", "fwmark 0x1/0x1", "fwmark 0x2/0x3", "fwmark 0x2/0x2", "iif eth0", "iif br0", "from "+addrs(f, "172.17.0.0", "fd00::").String()+pick(g, "/16", "/48"),
				"to "+addrs(f, "203.0.113.9", "2001:db8:f::9").String(), "iif lo", "from all", "not fwmark 0x1", "iif br0 ipproto udp", "iif eth0 dport 8080", "iif eth0 tos 0x10")
			if f == netstate.IPv6 {
				selector = strings.Replace(selector, " tos 0x10", "", 1)
			}
			s.ip = append(s.ip, six+"rule add pref 1000 "+selector+" "+pick(g, "lookup 100", "lookup 100", "lookup 100", "lookup 100", "blackhole", "prohibit", "unreachable", "goto 32766", "lookup main suppress_prefixlength 0"))
		}
		if n > 0 || g.chance(30) {
			s.ip = append(s.ip, six+"route add "+pick(g, "default via "+gateway+" table 100", "default via "+gateway+" table 100", "blackhole default table 100", "unreachable default table 100 metric 5",
				"prohibit "+addrs(f, "203.0.113.9", "2001:db8:f::9").String()+" table 100", "throw default table 100", "default via "+gateway+" dev eth1 table 100 metric 10"))
		}
		if g.chance(30) && f == netstate.IPv4 {
			s.ip = append(s.ip, pick(g, "route add 203.0.113.9 via 192.0.2.2", "route add blackhole 203.0.113.9", "route add 172.17.0.2 dev eth1", "route add unreachable 10.9.9.9",
				"route add prohibit 172.17.0.2", "route add 203.0.113.9 dev br0 metric 7", "route add local 10.9.9.9 dev lo"))
		}
	}
}

// one returns one of the tries of the generator's family.
func (g *generator) one() *try {
	for range 100 {
		if t := &g.tries[g.IntN(len(g.tries))]; t.family == g.family {
			return t
		}
	}
	return &g.tries[0]
}

func (g *generator) v6() bool { return g.family == netstate.IPv6 }

// addr returns an address that packets have, before or after translation, often as a prefix around it.
func (g *generator) addr() string {
	t := g.one()
	for t.family != g.family {
		return pick(g, addrs(g.family, "172.17.0.2", "fd00::2"), addrs(g.family, "203.0.113.9", "2001:db8:f::9")).String()
	}
	a := pick(g, t.src, t.dst, t.dst, addrs(g.family, "172.17.0.2", "fd00::2"), addrs(g.family, "198.51.100.15", "2001:db8::15"))
	if g.chance(20) {
		a = pick(g, a.Next(), a.Prev())
	}
	if g.chance(40) {
		return a.String()
	}
	bits := g.IntN(a.BitLen() + 1)
	if g.chance(60) {
		bits = a.BitLen() - g.IntN(9)
	}
	p, _ := a.Prefix(bits)
	return p.String()
}

func (g *generator) single() netip.Addr {
	a, _, _ := strings.Cut(g.addr(), "/")
	return netip.MustParseAddr(a)
}

func (g *generator) port(source bool) port {
	t := g.one()
	p := pick(g, t.dport, 80, 8080)
	if source {
		p = pick(g, t.sport, t.sport, 80, 8080)
	}
	if p > 0 && g.chance(20) {
		p += pick(g, port(1), -1)
	}
	return p
}

func (g *generator) not() string {
	if g.chance(30) {
		return "! "
	}
	return ""
}

// match makes one match of iptables for a chain called from the hooks in, with the options that they have.
func (g *generator) match(proto *string, chain, table string) string {
	family := map[bool]string{false: "icmp", true: "ipv6-icmp"}[g.v6()]
	ins := chain != "OUTPUT" && chain != "POSTROUTING"
	outs := chain != "PREROUTING" && chain != "INPUT"
	switch g.IntN(33) {
	case 30, 31:
		sets := ipsetsOf(g.family)
		n := g.IntN(len(sets))
		return "-m set " + g.not() + "--match-set " + sets[n].name + " " + pick(g, "src", "dst") + map[bool]string{true: "," + pick(g, "dst", "dst", "src")}[strings.Contains(sets[n].kind, ",")]
	case 32:
		return "-m pkttype " + g.not() + "--pkt-type " + pick(g, "unicast", "multicast")
	case 0, 1, 2:
		return g.not() + "-s " + g.addr()
	case 3, 4, 5:
		return g.not() + "-d " + g.addr()
	case 6, 7:
		if ins {
			return g.not() + "-i " + pick(g, "eth0", "br0", "lo", "eth+", "eth1", "b+")
		}
		return g.not() + "-o " + pick(g, "eth0", "br0", "lo", "eth+", "eth1")
	case 8:
		if outs {
			return g.not() + "-o " + pick(g, "eth0", "br0", "lo", "eth+", "eth1", "v0")
		}
	case 9, 10, 11, 12, 13:
		if *proto != "" {
			return ""
		}
		*proto = pick(g, "tcp", "udp", family)
		p := "-p " + *proto
		if g.chance(15) {
			*proto = "done"
			return g.not() + p
		}
		if *proto == family {
			if g.v6() {
				return p + " -m icmp6 " + g.not() + "--icmpv6-type " + pick(g, "128", "129", "1")
			}
			return p + " -m icmp " + g.not() + "--icmp-type " + pick(g, "8", "0", "8/0", "3")
		}
		switch g.IntN(7) {
		case 0:
			return fmt.Sprintf("%s -m %s %s--sport %d", p, *proto, g.not(), g.port(true))
		case 1, 2:
			return fmt.Sprintf("%s -m %s %s--dport %d", p, *proto, g.not(), g.port(false))
		case 3:
			n := g.port(false)
			return fmt.Sprintf("%s -m %s %s--dport %d:%d", p, *proto, g.not(), max(0, n-port(g.IntN(3))), min(n+port(g.IntN(3)), 65535))
		case 4, 5:
			lo := g.port(false)
			return fmt.Sprintf("%s -m multiport %s--%s %d,%d:%d", p, g.not(), pick(g, "dports", "sports", "ports"), g.port(g.chance(50)), lo, lo+30)
		}
		if *proto == "tcp" {
			return p + " -m tcp " + g.not() + "--tcp-flags " + pick(g, "FIN,SYN,RST,ACK SYN", "SYN SYN", "SYN SYN", "ACK ACK", "SYN,ACK SYN,ACK", "ALL NONE")
		}
		return p
	case 14, 15, 16:
		if table == "raw" {
			return ""
		}
		return "-m conntrack " + g.not() + "--ctstate " + pick(g, "NEW", "ESTABLISHED", "RELATED,ESTABLISHED", "INVALID", "NEW,RELATED", "DNAT", "SNAT", "UNTRACKED")
	case 17:
		return fmt.Sprintf("-m mark %s--mark 0x%x/0x%x", g.not(), g.IntN(4), pick(g, 1, 2, 3, 0xff))
	case 18:
		if table == "raw" {
			return ""
		}
		return fmt.Sprintf("-m connmark %s--mark 0x%x/0x%x", g.not(), g.IntN(4), pick(g, 1, 2, 3, 0xff))
	case 19, 20:
		return "-m addrtype " + g.not() + "--" + pick(g, "dst", "dst", "src") + "-type " + pick(g, "LOCAL", "LOCAL", "UNICAST")
	case 21:
		a := g.single()
		if !a.Prev().IsValid() || !a.Next().IsValid() {
			return ""
		}
		return "-m iprange " + g.not() + "--" + pick(g, "src", "dst") + "-range " + pick(g, a.Prev(), a).String() + "-" + pick(g, a.Next(), a).String()
	case 22:
		word, name := "ttl", "ttl"
		if g.v6() {
			word, name = "hl", "hl"
		}
		return fmt.Sprintf("-m %s --%s-%s %d", name, word, pick(g, "lt", "gt", "eq"), pick(g, 2, 3, 63, 64))
	case 23:
		n := g.one().length
		return fmt.Sprintf("-m length %s--length %d:%d", g.not(), max(0, n-g.IntN(3)), n+g.IntN(3))
	case 24:
		return fmt.Sprintf("-m dscp %s--dscp 0x%02x", g.not(), pick(g, 0, 10, 11))
	case 25:
		if chain == "OUTPUT" {
			return "-m owner " + g.not() + pick(g, "--uid-owner 0", "--uid-owner 1-5", "--socket-exists")
		}
	case 26:
		if table == "raw" {
			return ""
		}
		return "-m conntrack " + g.not() + pick(g, "--ctorigdst "+g.addr(), "--ctorigsrc "+g.addr(), "--ctreplsrc "+g.addr(), fmt.Sprintf("--ctorigdstport %d", g.port(false)))
	case 27:
		if table == "raw" {
			return ""
		}
		return "-m conntrack --ctdir " + pick(g, "ORIGINAL", "REPLY")
	case 28:
		if chain == "PREROUTING" && (table == "raw" || table == "mangle") {
			return "-m rpfilter" + pick(g, "", " --loose", " --validmark", " --invert", " --accept-local")
		}
		return "-m physdev " + g.not() + pick(g, "--physdev-in v0", "--physdev-is-bridged", "--physdev-is-in")
	case 29:
		return "-m comment --comment " + pick(g, "x", `"a b"`, `"-j DROP"`)
	}
	return ""
}

// An ipsetKind is a set that rules may name.
type ipsetKind struct{ name, kind string }

func ipsetsOf(family netstate.Family) []ipsetKind {
	n := map[netstate.Family]string{netstate.IPv4: "4", netstate.IPv6: "6"}[family]
	return []ipsetKind{{"ip" + n, "hash:ip"}, {"net" + n, "hash:net"}, {"netport" + n, "hash:net,port"}, {"ipport" + n, "hash:ip,port"}, {"netiface" + n, "hash:net,iface"}}
}

// ipsets fills the sets, as ipset restore reads them.
func (g *generator) ipsets() string {
	var b strings.Builder
	for _, f := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		g.family = f
		inet := map[netstate.Family]string{netstate.IPv4: "inet", netstate.IPv6: "inet6"}[f]
		for _, s := range ipsetsOf(f) {
			fmt.Fprintf(&b, "create %s %s family %s -exist\nflush %s\n", s.name, s.kind, inet, s.name)
			for range 1 + g.IntN(4) {
				a := g.single()
				if a.Prev() == (netip.Addr{}) {
					a = addrs(f, "172.17.0.2", "fd00::2") // no set takes 0.0.0.0
				}
				entry := a.String()
				if strings.HasPrefix(s.kind, "hash:net") {
					if p, _ := a.Prefix(1 + g.IntN(a.BitLen())); !p.Addr().IsUnspecified() {
						entry = p.String()
					}
				}
				switch {
				case strings.HasSuffix(s.kind, ",port"):
					entry += fmt.Sprintf(",%s:%d", pick(g, "tcp", "udp"), g.port(g.chance(20)))
				case strings.HasSuffix(s.kind, ",iface"):
					entry += "," + pick(g, "eth0", "br0", "eth1")
				case s.kind == "hash:net" && g.chance(25):
					entry += " nomatch"
				}
				fmt.Fprintf(&b, "add %s %s -exist\n", s.name, entry)
			}
		}
	}
	return b.String()
}

// target makes a target that the chain may have.
func (g *generator) target(table, chain string, jumps []string) string {
	if len(jumps) > 0 && g.chance(30) {
		return pick(g, "-j ", "-j ", "-g ") + pick(g, jumps...)
	}
	user := strings.HasPrefix(chain, "U")
	switch table {
	case "filter":
		return "-j " + pick(g, "ACCEPT", "ACCEPT", "DROP", "DROP", "RETURN", "REJECT", "ACCEPT")
	case "raw":
		if g.v6() {
			return "-j " + pick(g, "ACCEPT", "DROP", "RETURN", "MARK --set-xmark 0x1/0x3", "CT --notrack")
		}
		return "-j " + pick(g, "ACCEPT", "DROP", "RETURN", "MARK --set-xmark 0x1/0x3", "CT --notrack", "NOTRACK")
	case "mangle":
		return "-j " + pick(g, "ACCEPT", "DROP", "RETURN", "MARK --set-xmark 0x1/0xffffffff", "MARK --set-xmark 0x2/0x3", "MARK --set-xmark 0x0/0x1", "CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
			"CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", "CONNMARK --set-xmark 0x2/0xff", "TOS --set-tos 0x28/0xff", "DSCP --set-dscp 0x0b")
	}
	to := addrs(g.family, "172.17.0.2", "fd00::2").String()
	bracketed := to
	if g.v6() {
		bracketed = "[" + to + "]"
	}
	if user {
		return "-j " + pick(g, "ACCEPT", "RETURN", "RETURN")
	}
	switch chain {
	case "PREROUTING", "OUTPUT":
		return "-j " + pick(g, "ACCEPT", "RETURN", "PORTDNAT --to-destination "+bracketed+":80", "PORTDNAT --to-destination "+bracketed+":80", "DNAT --to-destination "+to,
			"DNAT --to-destination "+addrs(g.family, "192.0.2.2", "2001:db8:1::2").String(), "REDIRECT", "PORTREDIRECT --to-ports 9000", "DNAT --to-destination "+addrs(g.family, "172.17.0.9", "fd00::9").String())
	case "POSTROUTING":
		return "-j " + pick(g, "ACCEPT", "RETURN", "MASQUERADE", "MASQUERADE", "SNAT --to-source "+addrs(g.family, "198.51.100.15", "2001:db8::15").String(),
			"SNAT --to-source "+addrs(g.family, "203.0.113.77", "2001:db8:f::77").String())
	}
	return "-j " + pick(g, "ACCEPT", "RETURN", "SNAT --to-source "+addrs(g.family, "203.0.113.77", "2001:db8:f::77").String())
}

// iptables makes tables as iptables-restore reads them.
func (g *generator) iptables() string {
	chains := map[string][]string{"raw": {"PREROUTING", "OUTPUT"}, "mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
		"nat": {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"}, "filter": {"INPUT", "FORWARD", "OUTPUT"}}
	var b strings.Builder
	for _, table := range []string{"raw", "mangle", "nat", "filter"} {
		if g.chance(30) && table != "nat" {
			continue
		}
		fmt.Fprintf(&b, "*%s\n", table)
		for _, chain := range chains[table] {
			policy := "ACCEPT"
			if table == "filter" && g.chance(15) {
				policy = "DROP"
			}
			fmt.Fprintf(&b, ":%s %s\n", chain, policy)
		}
		users := []string{"U1", "U2", "U3"}[:g.IntN(4)]
		for _, user := range users {
			fmt.Fprintf(&b, ":%s -\n", user)
		}
		for _, chain := range chains[table] {
			n := g.IntN(3)
			if table == "mangle" && (chain == "PREROUTING" || chain == "OUTPUT") && g.chance(40) {
				fmt.Fprintf(&b, "-A %s %s-j MARK --set-xmark %s\n", chain, pick(g, "", "", "-p udp ", "-p tcp "), pick(g, "0x1/0x1", "0x2/0x2", "0x3/0xffffffff", "0x1/0xff", "0x0/0x2"))
			}
			if table == "mangle" && g.chance(15) {
				// Marks that meet: bit by bit, and over the connection.
				b.WriteString(pick(g,
					"-A PREROUTING -j MARK --set-xmark 0x1/0x1\n-A PREROUTING -j MARK --set-xmark 0x2/0x2\n-A PREROUTING -m mark --mark 0x3/0x3 -p udp -j DROP\n",
					"-A PREROUTING -m conntrack --ctdir ORIGINAL -j CONNMARK --set-xmark 0x1/0xff\n-A PREROUTING -m conntrack --ctdir REPLY -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff\n-A FORWARD -m mark --mark 0x1 -j DROP\n",
					"-A PREROUTING -m rpfilter --loose --invert -j DROP\n", "-A PREROUTING -m rpfilter --invert -j DROP\n", "-A PREROUTING -m rpfilter --loose -p udp -j DROP\n"))
			}
			if table == "nat" && chain == "PREROUTING" && g.chance(70) {
				// What Docker does.
				to := map[bool]string{false: "172.17.0.2:80", true: "[fd00::2]:80"}[g.v6()]
				proto := pick(g, "tcp", "udp")
				fmt.Fprintf(&b, "-A PREROUTING -p %s -m %s --dport 8080 -m addrtype --dst-type LOCAL -j DNAT --to-destination %s\n", proto, proto, to)
			}
			for range n {
				b.WriteString(g.rule(table, chain, users))
			}
		}
		for i, user := range users {
			for range g.IntN(3) {
				b.WriteString(g.rule(table, user, users[i+1:]))
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// layer2 makes tables of the bridge family and of links themselves.
func (g *generator) layer2() string {
	var b strings.Builder
	rules := func(n int, matches ...string) {
		for range n {
			match := pick(g, matches...)
			if g.chance(60) {
				t := g.one()
				g.family = t.family
				w, proto := ipFamily(t.family), map[uint8]string{protoTCP: "tcp", protoUDP: "udp"}[t.proto]
				match = w + " " + pick(g, "daddr ", "saddr ") + pick(g, "", "", "!= ") + g.addr()
				if proto != "" && g.chance(50) {
					match = fmt.Sprintf("%s %s %d", proto, pick(g, "dport", "sport"), g.port(g.chance(50)))
				}
			}
			fmt.Fprintf(&b, "\t\t%s %s\n", match, pick(g, "drop", "drop", "accept", "counter", "meta mark set 1", "counter accept"))
		}
	}
	if g.chance(60) {
		b.WriteString("table bridge l2 {\n")
		for i := range 1 + g.IntN(3) {
			fmt.Fprintf(&b, "\tchain b%d {\n\t\ttype filter hook %s priority %d; policy %s;\n", i, pick(g, "prerouting", "input", "forward", "forward", "output", "postrouting"), pick(g, -300, -200, 0, 100), pick(g, "accept", "accept", "accept", "drop"))
			rules(1+g.IntN(4), "ether type ip", "ether type ip6", `iifname "v0"`, `oifname "v1"`, `iifname != "v0"`, `meta ibrname "br0"`, `meta obrname "br0"`, `meta obrname "br1"`, "meta protocol ip", "meta mark 1", "icmp type echo-request", "ct state new")
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
	}
	if g.chance(60) {
		b.WriteString("table netdev d0 {\n")
		for i := range 1 + g.IntN(2) {
			fmt.Fprintf(&b, "\tchain b%d {\n\t\ttype filter hook %s device %s priority %d; policy accept;\n", i, pick(g, "ingress", "ingress", "egress"), pick(g, "eth0", "v0", "v1", "br0", "eth1", "v2"), pick(g, -100, 0, 10))
			rules(1+g.IntN(3), "meta protocol ip", "meta protocol ip6", `iifname "eth0"`, "meta l4proto udp", "meta l4proto tcp", "icmp type echo-request", "meta mark 1")
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func (g *generator) rule(table, chain string, jumps []string) string {
	proto := ""
	parts := []string{}
	seen := map[string]bool{}
	for range g.IntN(3) {
		m := g.match(&proto, chain, table)
		word := strings.TrimPrefix(m, "! ")
		key, _, _ := strings.Cut(word, " ")
		if key == "-m" {
			key = strings.Join(strings.Fields(word)[:2], " ")
		}
		if m != "" && !seen[key] {
			seen[key] = true
			parts = append(parts, m)
		}
	}
	target := g.target(table, chain, jumps)
	if name, found := strings.CutPrefix(target, "-j PORT"); found {
		// Ports are translated only where the rule says the protocol.
		target = "-j " + name
		if proto != "tcp" && proto != "udp" {
			parts = nil
			p := pick(g, "tcp", "udp")
			parts = append(parts, fmt.Sprintf("-p %s -m %s --dport %d", p, p, g.port(false)))
		}
	}
	return fmt.Sprintf("-A %s %s %s\n", chain, strings.Join(parts, " "), target)
}
