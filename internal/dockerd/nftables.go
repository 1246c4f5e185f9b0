package dockerd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// nftTable is the table of the nftables backend, one for each family.
const nftTable = "docker-bridges"

// nftDirections are the beginnings of the names of each network's chains: "in" is towards the bridge.
var nftDirections = []string{"filter-forward-in", "filter-forward-out", "nat-postrouting-in", "nat-postrouting-out"}

// nftables expects what engine 29 makes with its nftables backend: four base chains that look the bridge
// up in verdict maps, four chains for each network, and one chain for all DNATs. The base chains' policies
// accept, so that a rule is needed only where a later one of Docker's would drop or leave out.
func (b *builder) nftables() {
	b.nftBase("filter-FORWARD", "filter", "forward", 0,
		"oifname vmap @filter-forward-in-jumps", Rule{Why: Jump},
		"iifname vmap @filter-forward-out-jumps", Rule{Why: Jump, Rank: 1})
	b.nftBase("nat-POSTROUTING", "nat", "postrouting", 100,
		"iifname vmap @nat-postrouting-out-jumps", Rule{Why: Jump, Needed: Outbound},
		"oifname vmap @nat-postrouting-in-jumps", Rule{Why: Jump, Needed: b.withoutProxy(Local), Rank: 1})
	b.nftBase("nat-PREROUTING", "nat", "prerouting", -100,
		"fib daddr type local counter jump nat-prerouting-and-output", Rule{Why: Jump, Needed: Inbound})
	output := "fib daddr type local counter jump nat-prerouting-and-output"
	if b.Proxy.On {
		output = b.v6("ip daddr != 127.0.0.0/8 ", "ip6 daddr != ::1 ") + output
	}
	b.nftBase("nat-OUTPUT", "nat", "output", -100, output, Rule{Why: Jump, Needed: b.withoutProxy(Local)})
	b.nftBase("raw-PREROUTING", "filter", "prerouting", -300)
	b.chain(nftTable, "nat-prerouting-and-output")
	for _, name := range nftDirections {
		b.Chains = append(b.Chains, Chain{Family: b.family, Table: nftTable, Name: name + "-jumps", Map: true})
	}
	for _, n := range b.bridges() {
		if subnet := b.subnet(n); subnet.IsValid() {
			b.nftNetwork(n, subnet)
		}
	}
	for _, a := range b.attachments(b.s, b.family) {
		b.nftEndpoint(a)
	}
	for i := range b.s.Containers {
		for _, f := range b.forwards(&b.s.Containers[i], b.family) {
			b.nftPort(f)
		}
	}
	for _, n := range b.bridges() {
		if b.subnet(n).IsValid() {
			b.nftLast(n)
		}
	}
}

// nftBase expects a base chain with its rules, each a text and what it is.
func (b *builder) nftBase(name, kind, hook string, priority int32, rules ...any) {
	b.Chains = append(b.Chains, Chain{Family: b.family, Table: nftTable, Name: name,
		Hook: &netstate.NftHook{Type: kind, Name: hook, Priority: priority, Policy: "accept"}})
	for i := 0; i < len(rules); i += 2 {
		b.nft(name, rules[i].(string), rules[i+1].(Rule))
	}
}

// nft expects a rule of the nftables backend, once however often it is asked for.
func (b *builder) nft(chain, text string, r Rule) {
	r.Family, r.Table, r.Chain, r.Text = b.family, nftTable, chain, text
	if key := chain + " " + text; !b.seen[key] {
		b.seen[key] = true
		b.Rules = append(b.Rules, r)
	}
}

func (b *builder) withoutProxy(needed Traffic) Traffic {
	if b.Proxy.On {
		return 0
	}
	return needed
}

func (b *builder) nftNetwork(n *netstate.Network, subnet netip.Prefix) {
	var (
		br, mode = n.Bridge(), b.mode(n, b.family)
		ip       = b.v6("ip", "ip6")
		in, out  = "filter-forward-in__" + br, "filter-forward-out__" + br
		own      = func(chain, text string, why Purpose, needed Traffic, rank int) {
			b.nft(chain, text, Rule{Why: why, Needed: needed, Network: n.ID, Rank: rank})
		}
	)
	for _, name := range nftDirections {
		needed := map[string]Traffic{"nat-postrouting-in": b.withoutProxy(Local), "nat-postrouting-out": Outbound}[name]
		b.chain(nftTable, name+"__"+br)
		b.nft(name+"-jumps", fmt.Sprintf("%q : jump %s__%s", br, name, br), Rule{Why: Jump, Needed: needed, Network: n.ID, Element: true})
	}
	verdict := "accept"
	if !n.ICC() {
		verdict = "drop"
	}
	own(in, "ct state established,related counter accept", Established, Outbound, 0)
	own(out, "ct state established,related counter accept", Established, 0, 0)
	if n.Internal {
		own(in, fmt.Sprintf("iifname != %q counter drop comment %q", br, "INTERNAL NETWORK INGRESS"), Isolation, 0, 1)
		own(in, fmt.Sprintf("counter %s comment %q", verdict, "ICC"), ICC, 0, 2)
		own(out, fmt.Sprintf("oifname != %q counter drop comment %q", br, "INTERNAL NETWORK EGRESS"), Isolation, 0, 1)
		return
	}
	if mode == "routed" {
		own(in, b.v6("ip protocol icmp", "meta l4proto ipv6-icmp")+` counter accept comment "ICMP"`, ICMP, 0, 1)
	}
	if mark := b.s.Engine.Config.BridgeAcceptFwmark; mark != "" {
		own(in, nftMark(mark)+` counter accept comment "ALLOW FW MARK"`, Trusted, 0, 2)
	}
	own(in, fmt.Sprintf("iifname %q counter %s comment %q", br, verdict, "ICC"), ICC, b.ifAccept(strings.ToUpper(verdict), Between), 3)
	own(out, `counter accept comment "OUTGOING"`, Forward, 0, 1)

	masquerade, masqueradeHost := `masquerade comment "MASQUERADE"`, `masquerade comment "MASQUERADE FROM HOST"`
	if addr, err := netip.ParseAddr(n.Options["com.docker.network.host_"+b.family.String()]); err == nil && !addr.IsUnspecified() {
		masquerade, masqueradeHost = fmt.Sprintf("snat to %s comment %q", addr, "SNAT"), fmt.Sprintf("snat to %s comment %q", addr, "SNAT FROM HOST")
	}
	if n.Masquerade() && mode != "routed" {
		own("nat-postrouting-out__"+br, fmt.Sprintf("oifname != %q %s saddr %s counter %s", br, ip, subnet, masquerade), Masquerade, Outbound, 0)
	}
	if !b.Proxy.On {
		own("nat-postrouting-in__"+br, "fib saddr type local counter "+masqueradeHost, Hairpin, Local, 0)
	}
}

// nftLast expects the last rule of the chain towards a network.
func (b *builder) nftLast(n *netstate.Network) {
	if n.Internal {
		return
	}
	text := `counter drop comment "UNPUBLISHED PORT DROP"`
	if b.mode(n, b.family) == "nat-unprotected" {
		text = `counter accept comment "UNPROTECTED"`
	}
	b.nft("filter-forward-in__"+n.Bridge(), text, Rule{Why: DefaultDrop, Network: n.ID, Rank: 5})
}

func (b *builder) nftEndpoint(a attached) {
	c := b.s.Engine.Config
	if set(c.AllowDirectRouting) || set(c.NoIptablesRaw) || a.network.Internal || b.mode(a.network, b.family) != "nat" || !b.subnet(a.network).IsValid() {
		return
	}
	links := fmt.Sprintf("%q", a.network.Bridge())
	if trusted := strings.FieldsFunc(a.network.Options["com.docker.network.bridge.trusted_host_interfaces"], func(r rune) bool { return r == ':' }); len(trusted) > 0 {
		for i, name := range trusted {
			trusted[i] = fmt.Sprintf("%q", name)
		}
		links = "{ " + strings.Join(append(trusted, links), ", ") + " }"
	}
	b.nft("raw-PREROUTING", fmt.Sprintf("%s daddr %s iifname != %s counter drop comment %q", b.v6("ip", "ip6"), a.addr, links, "DROP DIRECT ACCESS"),
		Rule{Why: RawDrop, Network: a.network.ID, Container: a.container})
}

func (b *builder) nftPort(f forward) {
	var (
		ip      = b.v6("ip", "ip6")
		br      = f.network.Bridge()
		binding = f.binding
		own     = func(chain, text string, why Purpose, needed Traffic, rank int) {
			b.nft(chain, text, Rule{Why: why, Needed: needed, Network: f.network.ID, Container: f.container, Binding: &binding, Rank: rank})
		}
		port = fmt.Sprintf("%s dport %d", binding.Port.Proto, binding.Port.Number)
	)
	if b.mode(f.network, b.family) != "nat-unprotected" {
		own("filter-forward-in__"+br, fmt.Sprintf("%s daddr %s %s counter accept", ip, f.addr, port), Accept, Inbound, 4)
	}
	if binding.HostPort == 0 {
		return
	}
	var match []string
	needed := Inbound
	if b.Proxy.On {
		match = append(match, fmt.Sprintf("iifname != %q", br))
	} else {
		needed |= Local
	}
	if b.family == netstate.IPv6 {
		match = append(match, "ip6 saddr != fe80::/10")
	}
	if !binding.Host.IsUnspecified() {
		match = append(match, ip+" daddr "+binding.Host.String())
	}
	if binding.Host.IsLoopback() {
		needed &^= Inbound
	}
	match = append(match, fmt.Sprintf("%s dport %d counter dnat to %s comment %q", binding.Port.Proto, binding.HostPort, netip.AddrPortFrom(f.addr, binding.Port.Number), "DNAT"))
	own("nat-prerouting-and-output", strings.Join(match, " "), DNAT, needed, 0)
	if !b.Proxy.On {
		own("nat-postrouting-in__"+br, fmt.Sprintf("%s saddr %s %s daddr %s %s counter masquerade comment %q", ip, f.addr, ip, f.addr, port, "MASQ TO OWN PORT"), Hairpin, 0, 0)
	}
	if b.family == netstate.IPv4 && binding.Host.IsLoopback() && !set(b.s.Engine.Config.NoIptablesRaw) {
		own("raw-PREROUTING", fmt.Sprintf("iifname != \"lo\" ip daddr %s %s dport %d counter drop comment %q", binding.Host, binding.Port.Proto, binding.HostPort, "DROP REMOTE LOOPBACK"), RawDrop, 0, 0)
	}
}

// nftMark returns the match of a packet's mark, given with or without a mask.
func nftMark(text string) string {
	number, mask, masked := strings.Cut(hexMark(text), "/")
	if masked {
		return "meta mark & " + mask + " == " + number
	}
	return "meta mark " + number
}

// nftLines returns the rules of a chain, or the elements of a map, of Docker's table.
func (c *comparison) nftLines(name string) []line {
	if c.table == nil {
		return nil
	}
	printer := c.s.Host.NftPrinter()
	var lines []line
	add := func(text string) {
		l := newLine(text, true)
		l.number = len(lines) + 1
		lines = append(lines, l)
	}
	if set := c.table.Set(name); set != nil {
		for _, text := range printer.Elements(c.table, set) {
			add(text)
		}
	} else if chain := c.table.Chain(name); chain != nil {
		for i := range chain.Rules {
			add(printer.Rule(c.table, &chain.Rules[i]))
		}
	}
	return lines
}

// hookText says where a base chain is called, as nft does.
func hookText(h *netstate.NftHook) string {
	if h == nil {
		return "no hook"
	}
	return fmt.Sprintf("type %s hook %s priority %d; policy %s;", h.Type, h.Name, h.Priority, h.Policy)
}

// An nftSpec is a rule of Docker's nftables backend taken apart: what it matches, what it does, and its
// comment. Of an element, match is the whole.
type nftSpec struct {
	match, action, comment string
}

// parseNft takes a rule apart. The elements of a set are put in order, and numbers in hexadecimal lose
// their zeros.
func parseNft(text string) nftSpec {
	words := Words(text)
	for i, word := range words {
		if strings.HasPrefix(word, "0x") {
			words[i] = "0x" + strings.TrimLeft(word[2:], "0")
		}
		if word == "{" {
			if end := slices.Index(words[i:], "}"); end > 0 {
				inner := words[i+1 : i+end]
				for j := range inner {
					inner[j] = strings.TrimSuffix(inner[j], ",")
				}
				slices.Sort(inner)
			}
		}
	}
	var s nftSpec
	if i := slices.Index(words, "comment"); i >= 0 && i+2 == len(words) {
		s.comment, words = words[i+1], words[:i]
	}
	if i := slices.Index(words, "counter"); i >= 0 {
		s.match, s.action = strings.Join(words[:i], " "), strings.Join(words[i+1:], " ")
	} else {
		s.match = strings.Join(words, " ")
	}
	return s
}

// String returns the one text of all rules that mean the same.
func (s nftSpec) String() string { return s.match + " counter " + s.action + " comment " + s.comment }

// addr returns the container's address that the rule is for, or the zero address.
func (s nftSpec) addr() netip.Addr {
	if to, ok := strings.CutPrefix(s.action, "dnat to "); ok {
		addr, _ := netip.ParseAddrPort(to)
		return addr.Addr()
	}
	words := strings.Fields(s.match)
	for i := 0; i+2 < len(words); i++ {
		if (words[i] == "ip" || words[i] == "ip6") && words[i+1] == "daddr" {
			addr, _ := netip.ParseAddr(words[i+2])
			if addr.IsLoopback() {
				return netip.Addr{}
			}
			return addr
		}
	}
	return netip.Addr{}
}

// published returns what a DNAT matches of the packet itself: the published address and port.
func (s nftSpec) published() string {
	text := s.match
	if rest, ok := strings.CutPrefix(text, "iifname != "); ok {
		_, text, _ = strings.Cut(rest, " ")
	}
	return strings.TrimPrefix(text, "ip6 saddr != fe80::/10 ")
}

// nftSamePackets is samePackets for the nftables backend.
func nftSamePackets(why Purpose, want, found *nftSpec) bool {
	if want.comment != found.comment {
		return false
	}
	switch why {
	case DNAT:
		return found.published() == want.published()
	case Accept:
		return found.action == want.action && found.addr().IsValid() &&
			strings.ReplaceAll(found.match, found.addr().String(), "") == strings.ReplaceAll(want.match, want.addr().String(), "")
	case Masquerade:
		a, _, _ := strings.Cut(found.match, " saddr ")
		b, _, _ := strings.Cut(want.match, " saddr ")
		return a == b
	case Jump:
		a, _, element := strings.Cut(found.match, " : ")
		b, _, _ := strings.Cut(want.match, " : ")
		return a == b && (element || found.action != want.action)
	}
	return found.match == want.match
}
