package dockerd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// The chains that dockerd makes.
const (
	docker      = "DOCKER"
	user        = "DOCKER-USER"
	stage1      = "DOCKER-ISOLATION-STAGE-1"
	stage2      = "DOCKER-ISOLATION-STAGE-2"
	dockerChain = "DOCKER-FORWARD"
	bridgeChain = "DOCKER-BRIDGE"
	ctChain     = "DOCKER-CT"
	internal    = "DOCKER-INTERNAL"
)

// classicChains expects what engines up to 27 make: rules for each network in FORWARD itself.
//
// FORWARD's order: the jump to DOCKER-USER, that to the isolation chains, the networks' blocks in any
// order, and of each network with icc=false its DROP after the block.
func (b *builder) classicChains() {
	b.nat()
	b.chain("filter", docker, stage1, stage2)
	if b.family == netstate.IPv4 || b.Generation >= V23 {
		b.chain("filter", user)
		b.rule("filter FORWARD", "-j "+user, Rule{Why: Jump, First: true})
		b.rule("filter "+user, "-j RETURN", Rule{Why: Return, Rank: 9})
	}
	b.rule("filter FORWARD", "-j "+stage1, Rule{Why: Jump, Rank: 1, First: true})
	b.rule("filter "+stage1, "-j RETURN", Rule{Why: Return, Rank: 9})
	b.rule("filter "+stage2, "-j RETURN", Rule{Why: Return, Rank: 9})
	for _, n := range b.bridges() {
		br, subnet := n.Bridge(), b.subnet(n)
		// The isolation of a network that is not internal is made in both families whatever it has.
		if !n.Internal {
			b.rule("filter "+stage1, fmt.Sprintf("-i %s ! -o %[1]s -j %s", br, stage2), Rule{Why: Isolation, Network: n.ID, First: true})
			b.rule("filter "+stage2, fmt.Sprintf("-o %s -j DROP", br), Rule{Why: Isolation, Network: n.ID, First: true})
		}
		if !subnet.IsValid() {
			continue
		}
		block := func(text string, why Purpose, needed Traffic) {
			b.rule("filter FORWARD", text, Rule{Why: why, Needed: needed, Network: n.ID, Rank: 2, Scope: br, First: true})
		}
		if n.Internal {
			b.internalDrops("filter "+stage1, n, subnet)
		} else {
			block(fmt.Sprintf("-o %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", br), Established, Outbound)
			block(fmt.Sprintf("-o %s -j %s", br, docker), Jump, Inbound)
			block(fmt.Sprintf("-i %s ! -o %[1]s -j ACCEPT", br), Forward, Inbound|Outbound)
		}
		if n.ICC() {
			block(fmt.Sprintf("-i %s -o %[1]s -j ACCEPT", br), ICC, Between)
		} else {
			b.rule("filter FORWARD", fmt.Sprintf("-i %s -o %[1]s -j DROP", br), Rule{Why: ICC, Network: n.ID, Rank: 3, Scope: br})
		}
	}
	b.ports()
}

// forwardChains expects what engines from 28.0.1 on make with iptables: everything in chains of their own.
func (b *builder) forwardChains() {
	isolation := stage1
	if b.Generation >= V29 {
		isolation = internal
		b.chain("filter", docker, bridgeChain, ctChain, dockerChain, internal, user)
	} else {
		b.chain("filter", docker, bridgeChain, ctChain, dockerChain, stage1, stage2, user)
	}
	b.nat()
	b.rule("filter FORWARD", "-j "+user, Rule{Why: Jump, First: true})
	b.rule("filter FORWARD", "-j "+dockerChain, Rule{Why: Jump, Needed: Inbound | Outbound | Between, Rank: 1, First: true})
	if !b.s.Engine.AtLeast(28, 2, 2) {
		b.rule("filter "+user, "-j RETURN", Rule{Why: Return, Rank: 9})
	}
	if mark := b.s.Engine.Config.BridgeAcceptFwmark; mark != "" && b.Generation >= V29 {
		b.rule("filter "+dockerChain, "-m mark --mark "+hexMark(mark)+" -j ACCEPT", Rule{Why: Trusted, First: true})
	}
	b.rule("filter "+dockerChain, "-j "+ctChain, Rule{Why: Jump, Needed: Outbound, Rank: 1})
	b.rule("filter "+dockerChain, "-j "+isolation, Rule{Why: Jump, Rank: 2})
	b.rule("filter "+dockerChain, "-j "+bridgeChain, Rule{Why: Jump, Needed: Inbound, Rank: 3})
	for _, n := range b.bridges() {
		if subnet := b.subnet(n); subnet.IsValid() {
			b.forwardNetwork(n, subnet, isolation)
		}
	}
	b.ports()
	b.raw()
}

// forwardNetwork expects the filter rules of one network on engines from 28.0.1 on.
func (b *builder) forwardNetwork(n *netstate.Network, subnet netip.Prefix, isolation string) {
	br, mode := n.Bridge(), b.mode(n, b.family)
	own := func(chain, text string, why Purpose, needed Traffic, rank int, first bool) {
		b.rule("filter "+chain, text, Rule{Why: why, Needed: needed, Network: n.ID, Rank: rank, Scope: br, First: first})
	}
	verdict := "ACCEPT"
	if !n.ICC() {
		verdict = "DROP"
	}
	if n.Internal {
		own(dockerChain, fmt.Sprintf("-i %s -o %[1]s -j %s", br, verdict), ICC, b.ifAccept(verdict, Between), 4, false)
		b.internalDrops("filter "+isolation, n, subnet)
		return
	}
	own(ctChain, fmt.Sprintf("-o %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", br), Established, Outbound, 0, false)
	own(bridgeChain, fmt.Sprintf("-o %s -j %s", br, docker), Jump, Inbound, 0, false)
	if n.ICC() {
		own(dockerChain, fmt.Sprintf("-i %s -j ACCEPT", br), Forward, Inbound|Outbound|Between, 4, false)
	} else {
		own(dockerChain, fmt.Sprintf("-i %s -o %[1]s -j DROP", br), ICC, 0, 4, false)
		own(dockerChain, fmt.Sprintf("-i %s ! -o %[1]s -j ACCEPT", br), Forward, Inbound|Outbound, 5, false)
	}
	if mode == "routed" {
		own(docker, fmt.Sprintf("-o %s -p %s -j ACCEPT", br, b.v6("icmp", "ipv6-icmp")), ICMP, 0, 0, false)
	}
	if mode == "nat-unprotected" {
		own(docker, fmt.Sprintf("! -i %s -o %[1]s -j ACCEPT", br), Accept, Inbound, 1, false)
	} else {
		own(docker, fmt.Sprintf("! -i %s -o %[1]s -j DROP", br), DefaultDrop, 0, 1, false)
	}
	if isolation == stage1 {
		// What a routed network is sent, or answers, must pass before the jumps to the second stage.
		if mode == "routed" {
			b.rule("filter "+stage1, fmt.Sprintf("-i %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", br),
				Rule{Why: Isolation, Needed: Between, Network: n.ID, First: true})
			b.rule("filter "+stage1, fmt.Sprintf("-o %s -j RETURN", br), Rule{Why: Isolation, Needed: Between, Network: n.ID, First: true})
		}
		b.rule("filter "+stage1, fmt.Sprintf("-i %s ! -o %[1]s -j %s", br, stage2), Rule{Why: Isolation, Network: n.ID, Rank: 1, Scope: br})
		b.rule("filter "+stage2, fmt.Sprintf("-o %s -j DROP", br), Rule{Why: Isolation, Network: n.ID, First: true})
	}
}

func (b *builder) ifAccept(verdict string, needed Traffic) Traffic {
	if verdict == "ACCEPT" {
		return needed
	}
	return 0
}

// internalDrops expects the two rules that keep an internal network to itself. For IPv6 they leave out
// the bridge's own other side; engines between 23 and 26.0 are taken to make either form.
func (b *builder) internalDrops(place string, n *netstate.Network, subnet netip.Prefix) {
	br := n.Bridge()
	plain := [2]string{fmt.Sprintf("! -s %s -o %s -j DROP", subnet, br), fmt.Sprintf("! -d %s -i %s -j DROP", subnet, br)}
	exact := [2]string{fmt.Sprintf("! -s %s ! -i %s -o %[2]s -j DROP", subnet, br), fmt.Sprintf("! -d %s -i %s ! -o %[2]s -j DROP", subnet, br)}
	for i := range plain {
		r := Rule{Why: Isolation, Network: n.ID, Scope: br, First: true}
		text := plain[i]
		if b.family == netstate.IPv6 && b.Generation >= V23 {
			text = exact[i]
			if b.Generation == V23 {
				r.Other = []string{plain[i]}
			}
		}
		b.rule(place, text, r)
	}
}

// nat expects the nat table's chain, jumps and rules of the networks.
func (b *builder) nat() {
	b.chain("nat", docker)
	b.rule("nat PREROUTING", "-m addrtype --dst-type LOCAL -j "+docker, Rule{Why: Jump, Needed: Inbound})
	if b.Proxy.On {
		// Loopback is docker-proxy's, and what the host sends to its own addresses may be.
		b.rule("nat OUTPUT", "! -d "+b.v6("127.0.0.0/8", "::1/128")+" -m addrtype --dst-type LOCAL -j "+docker, Rule{Why: Jump})
	} else {
		b.rule("nat OUTPUT", "-m addrtype --dst-type LOCAL -j "+docker, Rule{Why: Jump, Needed: Local})
	}
	for _, n := range b.bridges() {
		subnet := b.subnet(n)
		if n.Internal || !subnet.IsValid() {
			continue
		}
		br, routed := n.Bridge(), b.mode(n, b.family) == "routed"
		action, host := "MASQUERADE", n.Options["com.docker.network.host_"+b.family.String()]
		if addr, err := netip.ParseAddr(host); err == nil && !addr.IsUnspecified() && (b.family == netstate.IPv4 || b.s.Engine.AtLeast(26, 0, 0)) {
			action = "SNAT --to-source " + addr.String()
		}
		if !b.Proxy.On {
			b.rule("nat POSTROUTING", fmt.Sprintf("-o %s -m addrtype --src-type LOCAL -j %s", br, action),
				Rule{Why: Hairpin, Needed: Local, Network: n.ID, First: true})
		}
		if n.Masquerade() && !routed {
			b.rule("nat POSTROUTING", fmt.Sprintf("-s %s ! -o %s -j %s", subnet, br, action), Rule{Why: Masquerade, Needed: Outbound, Network: n.ID, First: true})
		}
		if n.Masquerade() && b.Proxy.On && b.Generation < V29 && !(routed && b.Generation == V27) {
			b.rule("nat "+docker, fmt.Sprintf("-i %s -j RETURN", br), Rule{Why: Return, Network: n.ID, First: true})
		}
	}
}

// ports expects the rules of published ports, but for the raw table's.
func (b *builder) ports() {
	for i := range b.s.Containers {
		for _, f := range b.forwards(&b.s.Containers[i], b.family) {
			b.port(f)
		}
	}
}

func (b *builder) port(f forward) {
	var (
		br      = f.network.Bridge()
		mode    = b.mode(f.network, b.family)
		addr    = single(f.addr)
		proto   = f.binding.Port.Proto
		binding = f.binding
		match   = fmt.Sprintf("-p %s -m %[1]s --dport", proto)
		rule    = func(why Purpose, needed Traffic) Rule {
			return Rule{Why: why, Needed: needed, Network: f.network.ID, Container: f.container, Binding: &binding}
		}
	)
	if mode != "nat-unprotected" {
		accept := rule(Accept, Inbound)
		accept.Scope = br
		accept.First = b.Generation >= V28
		b.rule("filter "+docker, fmt.Sprintf("-d %s ! -i %s -o %[2]s %s %d -j ACCEPT", addr, br, match, f.binding.Port.Number), accept)
	}
	if f.binding.HostPort == 0 {
		return
	}
	var dnat []string
	if b.family == netstate.IPv6 && b.Generation >= V27 {
		dnat = append(dnat, "! -s fe80::/10")
	}
	if !f.binding.Host.IsUnspecified() {
		dnat = append(dnat, "-d "+single(f.binding.Host))
	}
	needed := Inbound
	if b.Proxy.On {
		dnat = append(dnat, "! -i "+br)
	} else {
		needed |= Local
	}
	if f.binding.Host.IsLoopback() {
		needed &^= Inbound
	}
	dnat = append(dnat, fmt.Sprintf("%s %d -j DNAT --to-destination %s", match, f.binding.HostPort, netip.AddrPortFrom(f.addr, f.binding.Port.Number)))
	b.rule("nat "+docker, strings.Join(dnat, " "), rule(DNAT, needed))
	if b.Generation < V28Sets || !b.Proxy.On {
		b.rule("nat POSTROUTING", fmt.Sprintf("-s %s -d %[1]s %s %d -j MASQUERADE", addr, match, f.binding.Port.Number), rule(Hairpin, 0))
	}
	if proto == "sctp" && b.Generation < V28Sets {
		b.rule("mangle POSTROUTING", fmt.Sprintf("-p sctp -m sctp --sport %d -j CHECKSUM --checksum-fill", f.binding.Port.Number), rule(Checksum, 0))
	}
}

// raw expects the rules that keep others than the host from reaching a container's address or a
// loopback binding directly.
func (b *builder) raw() {
	if set(b.s.Engine.Config.NoIptablesRaw) {
		return
	}
	if b.Generation >= V28Raw && !set(b.s.Engine.Config.AllowDirectRouting) {
		for _, a := range b.attachments(b.s, b.family) {
			if a.network.Internal || b.mode(a.network, b.family) != "nat" || !b.subnet(a.network).IsValid() {
				continue
			}
			addr, scope := single(a.addr), a.addr.String()
			for _, trusted := range strings.FieldsFunc(a.network.Options["com.docker.network.bridge.trusted_host_interfaces"], func(r rune) bool { return r == ':' }) {
				b.rule("raw PREROUTING", fmt.Sprintf("-d %s -i %s -j ACCEPT", addr, trusted), Rule{Why: Trusted, Network: a.network.ID, Container: a.container, Scope: scope})
			}
			b.rule("raw PREROUTING", fmt.Sprintf("-d %s ! -i %s -j DROP", addr, a.network.Bridge()),
				Rule{Why: RawDrop, Network: a.network.ID, Container: a.container, Rank: 1, Scope: scope})
		}
	}
	for i := range b.s.Containers {
		for _, f := range b.forwards(&b.s.Containers[i], b.family) {
			binding := f.binding
			own := Rule{Why: RawDrop, Network: f.network.ID, Container: f.container, Binding: &binding, Scope: "port"}
			match := fmt.Sprintf("-p %s -m %[1]s --dport", binding.Port.Proto)
			if b.Generation == V28 && b.mode(f.network, b.family) == "nat" && binding.HostPort != 0 {
				b.rule("raw PREROUTING", fmt.Sprintf("-d %s ! -i %s %s %d -j DROP", single(f.addr), f.network.Bridge(), match, binding.Port.Number), own)
			}
			if b.family == netstate.IPv4 && binding.Host.IsLoopback() && binding.HostPort != 0 {
				b.rule("raw PREROUTING", fmt.Sprintf("-d %s ! -i lo %s %d -j DROP", single(binding.Host), match, binding.HostPort), own)
			}
		}
	}
}

// bridges returns the bridge networks of this host, docker0 first.
func (b *builder) bridges() []*netstate.Network {
	var list []*netstate.Network
	for i := range b.s.Networks {
		if n := &b.s.Networks[i]; n.Bridge() != "" && !n.ConfigOnly && (n.Scope == "" || n.Scope == "local") {
			list = append(list, n)
		}
	}
	slices.SortStableFunc(list, func(x, y *netstate.Network) int { return falseFirst(x.Name != "bridge", y.Name != "bridge") })
	return list
}

// subnet returns the network's prefix in the builder's family, or the zero prefix if the network does
// not use that family.
func (b *builder) subnet(n *netstate.Network) netip.Prefix {
	if b.family == netstate.IPv4 && !n.IPv4 || b.family == netstate.IPv6 && !n.IPv6 {
		return netip.Prefix{}
	}
	subnet, _ := n.Subnet(b.family)
	return subnet.Prefix.Masked()
}

// hexMark writes a mark with its mask, in any base, as iptables-save does.
func hexMark(text string) string {
	number, mask, masked := strings.Cut(canonicalValue("--mark", text), "/")
	var n, m uint32
	if _, err := fmt.Sscan(number, &n); err != nil {
		return text
	}
	if _, err := fmt.Sscan(mask, &m); err != nil || !masked || m == 0xffffffff {
		return fmt.Sprintf("0x%x", n)
	}
	return fmt.Sprintf("0x%x/0x%x", n, m)
}
