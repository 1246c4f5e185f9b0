//go:build linux

package packet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// nft makes native tables, as nft -f reads them.
func (g *generator) nft(tables int) string {
	var b strings.Builder
	for i := range tables {
		family := pick(g, "ip", "ip6", "inet", "inet", "inet")
		fmt.Fprintf(&b, "table %s t%d {\n", family, i)
		g.family = netstate.IPv4
		if family == "ip6" || family == "inet" && g.chance(40) {
			g.family = netstate.IPv6
		}
		n := &nftGenerator{generator: g, table: family}
		n.sets(&b)
		users := []string{"u1", "u2", "u3"}[:g.IntN(4)]
		for j := len(users) - 1; j >= 0; j-- {
			n.chain(&b, users[j], "", users[j+1:])
		}
		for j := range 1 + g.IntN(4) {
			n.base(&b, fmt.Sprintf("b%d", j), users)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// An nftGenerator makes one table.
type nftGenerator struct {
	*generator
	table string
	hook  string
	kind  string
	proto string // that the present rule is about
}

// word is "ip" or "ip6".
func (n *nftGenerator) word() string { return ipFamily(n.family) }

func (n *nftGenerator) addrType() string {
	if n.v6() {
		return "ipv6_addr"
	}
	return "ipv4_addr"
}

// sets makes the sets and maps that rules use: a set of addresses, one of intervals, a concatenation, a map
// to verdicts is inline.
func (n *nftGenerator) sets(b *strings.Builder) {
	unlike := func(make func() string) string {
		var list []string
		for range 1 + n.IntN(3) {
			if e := make(); !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
		return strings.Join(list, ", ")
	}
	fmt.Fprintf(b, "\tset addrs { type %s; elements = { %s } }\n", n.addrType(), unlike(func() string { return n.single().String() }))
	fmt.Fprintf(b, "\tset nets { type %s; flags interval; auto-merge; elements = { %s } }\n", n.addrType(), unlike(n.addr))
	fmt.Fprintf(b, "\tset ports { type inet_service; flags interval; auto-merge; elements = { %s } }\n", unlike(func() string {
		p := n.port(n.chance(30))
		if n.chance(50) {
			if n.chance(40) {
				return fmt.Sprintf("%d-%d", max(0, p-9), max(0, p-1))
			}
			return fmt.Sprintf("%d-%d", max(0, p-1), p+port(n.IntN(3))+1)
		}
		return fmt.Sprint(p)
	}))
	fmt.Fprintf(b, "\tset pairs { type %s . inet_service; elements = { %s } }\n", n.addrType(), unlike(func() string {
		return fmt.Sprintf("%s . %d", n.single(), n.port(false))
	}))
	fmt.Fprintf(b, "\tset wide { type %s . inet_service; flags interval; elements = { %s . %d-%d } }\n", n.addrType(), n.addr(), 50, 8080+n.IntN(2))
	fmt.Fprintf(b, "\tmap marks { type %s : mark; elements = { %s : 0x%x } }\n", n.addrType(), n.single(), n.IntN(4))
	fmt.Fprintf(b, "\tmap dnats { type inet_service : %s; elements = { %d : %s } }\n", n.addrType(), n.port(false), addrs(n.family, "172.17.0.2", "fd00::2"))
}

func (n *nftGenerator) base(b *strings.Builder, name string, users []string) {
	hook := pick(n.generator, "prerouting", "input", "forward", "output", "postrouting")
	kind := pick(n.generator, "filter", "filter", "filter", "nat")
	if kind == "nat" && hook == "forward" {
		hook = "prerouting"
	}
	if kind == "filter" && hook == "output" && n.chance(40) {
		kind = "route"
	}
	priority := pick(n.generator, -350, -300, -250, -150, -99, -50, 0, 1, 10, 99, 101, 200)
	if kind == "nat" {
		priority = pick(n.generator, -150, -100, -90, 0, 50, 100, 110)
	}
	policy := "accept"
	if n.chance(10) && kind == "filter" {
		policy = "drop"
	}
	n.hook, n.kind = hook, kind
	n.chain(b, name, fmt.Sprintf("type %s hook %s priority %d; policy %s;", kind, hook, priority, policy), users)
}

func (n *nftGenerator) chain(b *strings.Builder, name, declaration string, jumps []string) {
	fmt.Fprintf(b, "\tchain %s {\n", name)
	if declaration != "" {
		fmt.Fprintf(b, "\t\t%s\n", declaration)
	} else {
		n.hook, n.kind = "", ""
	}
	count := 1 + n.IntN(4)
	if n.kind == "filter" && n.chance(15) {
		fmt.Fprintf(b, "\t\tmeta mark set meta mark or %d\n\t\tmeta mark & %d == %d meta l4proto %s drop\n", 1+n.IntN(3), 1+n.IntN(3), n.IntN(4), pick(n.generator, "tcp", "udp"))
	}
	if n.hook == "prerouting" && n.kind == "filter" && n.chance(20) {
		b.WriteString("\t\tfib saddr . iif oif missing drop\n")
	}
	if n.kind == "filter" && n.chance(15) {
		fmt.Fprintf(b, "\t\tudp dport %s %d drop\n", pick(n.generator, "<", "<=", ">", ">="), n.port(false))
	}
	if strings.Contains(declaration, "policy drop") {
		count += 3
	}
	for range count {
		fmt.Fprintf(b, "\t\t%s\n", n.rule(jumps))
	}
	b.WriteString("\t}\n")
}

func (n *nftGenerator) op() string { return pick(n.generator, "", "", "", "!= ") }

func (n *nftGenerator) rule(jumps []string) string {
	var parts []string
	n.proto = pick(n.generator, "tcp", "tcp", "udp", "udp", "icmp")
	for range n.IntN(3) {
		parts = append(parts, n.match())
	}
	if n.chance(40) {
		parts = append(parts, "counter")
	}
	parts = append(parts, n.statement(jumps))
	return strings.Join(parts, " ")
}

func (n *nftGenerator) match() string {
	w := n.word()
	proto := n.proto
	if proto == "icmp" {
		proto = "th"
	}
	ins, outs := n.hook != "output" && n.hook != "postrouting", n.hook == "output" || n.hook == "postrouting" || n.hook == "forward"
	switch n.IntN(32) {
	case 0, 1:
		return w + " saddr " + n.op() + n.addr()
	case 2, 3:
		return w + " daddr " + n.op() + n.addr()
	case 4:
		return w + " " + pick(n.generator, "saddr ", "daddr ") + n.op() + pick(n.generator, "@addrs", "@nets", "@nets")
	case 5, 6:
		return fmt.Sprintf("%s dport %s%d", proto, n.op(), n.port(false))
	case 7:
		return fmt.Sprintf("%s %s %s%d-%d", proto, pick(n.generator, "dport", "sport"), n.op(), 79, n.port(n.chance(50))+80)
	case 8:
		return fmt.Sprintf("%s %s %s@ports", proto, pick(n.generator, "dport", "sport"), n.op())
	case 9:
		return fmt.Sprintf("%s dport %s{ %d, 443, 50-60 }", proto, n.op(), n.port(false))
	case 10:
		return fmt.Sprintf("%s daddr . %s dport %s", w, proto, pick(n.generator, "@pairs", "!= @pairs", "@wide"))
	case 11:
		source := n.chance(40)
		return fmt.Sprintf("%s %s %s %d", proto, map[bool]string{true: "sport", false: "dport"}[source], pick(n.generator, "<", "<", "<=", ">", ">=", "!="), n.port(source))
	case 12, 13:
		if ins {
			return "iifname " + n.op() + pick(n.generator, `"eth0"`, `"br0"`, `"e*"`, `"lo"`, `{ "eth0", "br0" }`, `{ "eth*", "lo" }`)
		}
	case 14, 15:
		if outs {
			return "oifname " + n.op() + pick(n.generator, `"eth0"`, `"br0"`, `"b*"`, `"lo"`, `{ "eth1", "br0" }`)
		}
	case 16, 17, 18:
		return "ct state " + n.op() + pick(n.generator, "new", "established", "established,related", "invalid", "untracked", "{ new, invalid }")
	case 19:
		return fmt.Sprintf("meta mark %s%d", n.op(), n.IntN(4))
	case 20:
		return fmt.Sprintf("meta mark and 0x%x == 0x%x", pick(n.generator, 1, 2, 3), n.IntN(4))
	case 21:
		return fmt.Sprintf("ct mark %s%d", n.op(), n.IntN(4))
	case 22:
		if n.proto != "tcp" {
			return "meta l4proto " + n.l4proto()
		}
		return "tcp flags " + pick(n.generator, "syn", "& (syn|ack) == syn", "& (fin|syn|rst|ack) == syn", "ack", "!= syn", "syn / syn,ack")
	case 23:
		return "meta l4proto " + n.op() + pick(n.generator, n.l4proto(), "{ icmp, ipv6-icmp, tcp, udp }", "{ tcp, udp }")
	case 24:
		if n.table == "inet" {
			return "meta nfproto " + map[bool]string{false: "ipv4", true: "ipv6"}[n.v6()]
		}
		return "meta protocol " + w
	case 25:
		return "fib " + pick(n.generator, "daddr", "saddr") + " type " + n.op() + pick(n.generator, "local", "unicast")
	case 26:
		if n.hook == "prerouting" {
			return "fib saddr . iif oif " + pick(n.generator, "missing", "exists", "eth0")
		}
		return "ct status " + pick(n.generator, "dnat", "snat", "!= dnat")
	case 27:
		return fmt.Sprintf("ct %s %s %s%s", pick(n.generator, "original", "reply"), w+" "+pick(n.generator, "saddr", "daddr"), n.op(), n.addr())
	case 28:
		return fmt.Sprintf("meta length %s %d", pick(n.generator, "<", ">", "=="), n.one().length+n.IntN(3)-1)
	case 29:
		if n.v6() {
			return fmt.Sprintf("ip6 hoplimit %s %d", pick(n.generator, "<", ">", "=="), pick(n.generator, 2, 63, 64))
		}
		return fmt.Sprintf("ip ttl %s %d", pick(n.generator, "<", ">", "=="), pick(n.generator, 2, 63, 64))
	case 30:
		return w + " dscp " + n.op() + pick(n.generator, "0", "10", "cs1")
	case 31:
		if n.proto != "icmp" {
			break
		}
		if n.v6() {
			return "icmpv6 type " + pick(n.generator, "echo-request", "echo-reply", "!= echo-request")
		}
		return "icmp type " + pick(n.generator, "echo-request", "echo-reply", "!= echo-request")
	}
	return "ct direction " + pick(n.generator, "original", "reply")
}

// ports is the present rule's protocol with ports.
func (n *nftGenerator) ports() string {
	if n.proto == "icmp" {
		return "tcp"
	}
	return n.proto
}

// l4proto is the present rule's protocol.
func (n *nftGenerator) l4proto() string {
	if n.proto == "icmp" && n.v6() {
		return "ipv6-icmp"
	}
	return n.proto
}

func (n *nftGenerator) statement(jumps []string) string {
	w := n.word()
	if len(jumps) > 0 && n.chance(30) {
		to := pick(n.generator, jumps...)
		switch n.IntN(4) {
		case 0:
			return "goto " + to
		case 1:
			return fmt.Sprintf("meta l4proto vmap { tcp : jump %s, udp : %s }", to, pick(n.generator, "accept", "drop", "continue", "return"))
		case 2:
			return fmt.Sprintf("%s saddr vmap { %s : %s }", w, n.single(), pick(n.generator, "drop", "accept", "goto "+to, "jump "+to))
		}
		return "jump " + to
	}
	web := addrs(n.family, "172.17.0.2", "fd00::2").String()
	bracketed := web
	if n.v6() {
		bracketed = "[" + web + "]"
	}
	at := ""
	if n.table == "inet" {
		at = w + " "
	}
	if n.kind == "nat" {
		switch n.hook {
		case "prerouting", "output":
			return pick(n.generator, "accept", "return",
				n.ports()+" dport { 8080, 9000 } dnat "+at+"to "+bracketed+":80", n.ports()+" dport 8080 dnat "+at+"to "+bracketed+":80", "dnat "+at+"to "+web,
				"redirect", n.ports()+" dport 8080 redirect to :9000", "dnat "+at+"to "+n.ports()+" dport map @dnats", "dnat "+at+"to "+n.ports()+" dport map { 8080 : "+web+", 9000 : "+web+" }")
		case "postrouting":
			return pick(n.generator, "accept", "masquerade", "masquerade", "snat "+at+"to "+addrs(n.family, "198.51.100.15", "2001:db8::15").String(), "return")
		case "input":
			return pick(n.generator, "accept", "snat "+at+"to "+addrs(n.family, "203.0.113.77", "2001:db8:f::77").String())
		}
	}
	all := []string{"accept", "accept", "drop", "drop", "return", "continue", "meta mark set 1", "meta mark set meta mark or 2", "ct mark set meta mark", "meta mark set ct mark", "ct mark set 1",
		"meta mark set " + w + " saddr map @marks", "meta mark set meta mark and 0x2 xor 0x1"}
	if n.hook == "input" || n.hook == "forward" || n.hook == "output" {
		all = append(all, "reject")
	}
	if n.hook == "prerouting" || n.hook == "output" {
		all = append(all, "notrack")
	}
	if n.hook != "" {
		all = append(all, n.ports()+" dport vmap { 8080 : accept, 80 : "+pick(n.generator, "drop", "accept", "continue")+", 50-60 : drop }", "iifname . meta l4proto vmap { \"eth0\" . tcp : drop, \"br0\" . udp : accept }")
	}
	return pick(n.generator, all...)
}
