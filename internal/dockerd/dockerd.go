// Package dockerd knows what the Docker engine programs into a Linux host: the firewall chains and
// rules that each of its releases makes for its networks and published ports, computed from what
// `docker inspect` says, and in which order they must stand.
//
// A Program is that expectation for one host. It can be compared with what the host holds, and the
// differences can be turned into the edits that bring Docker's own rules back as dockerd would make
// them. It covers bridge networks; Swarm's ingress and legacy links are not judged, and their rules are
// left in peace.
//
// Sources: libnetwork's bridge driver at the tags v20.10.24 to v29.7.2, and captures of what those
// engines made.
package dockerd

import (
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A Program is what the engine of a host is expected to have programmed.
type Program struct {
	Generation Generation
	Nftables   bool    // the engine's nftables backend; false: iptables
	Proxy      Setting // docker-proxy
	IPv6       Setting // ip6tables
	Chains     []Chain
	Rules      []Rule // in the order in which dockerd makes them

	unjudged map[netstate.Family]string
	variant  map[netstate.Family]string
	networks map[string]*netstate.Network
	owned    map[owner][]int // numbers of Rules, for For
}

// An owner is what a rule is for: one network, one container of it, or all.
type owner struct{ network, container string }

// The families that an engine programs.
var families = []netstate.Family{netstate.IPv4, netstate.IPv6}

// Expected returns what the engine of s should have programmed for its networks and the inspected
// containers. It needs the engine's part and takes into account what it finds of links, sysctls and
// iptables. Of what cannot be judged it expects nothing: see Unjudged.
func Expected(s *netstate.Snapshot) *Program {
	p := &Program{unjudged: map[netstate.Family]string{}, variant: map[netstate.Family]string{}, networks: map[string]*netstate.Network{}}
	if why := unjudged(s); why != "" {
		for _, family := range families {
			p.unjudged[family] = why
		}
		return p
	}
	for i := range s.Networks {
		p.networks[s.Networks[i].ID] = &s.Networks[i]
	}
	p.Generation = GenerationOf(s.Engine)
	p.Nftables = nftables(s.Engine)
	p.Proxy = userlandProxy(s)
	p.IPv6 = ip6tables(s)
	for _, family := range families {
		if family == netstate.IPv4 && unset(s.Engine.Config.Iptables) || family == netstate.IPv6 && !p.IPv6.On {
			continue
		}
		if p.Generation == V28Sets {
			p.unjudged[family] = "engine 28.0.0 uses ipsets in its rules"
			continue
		}
		b := builder{Program: p, s: s, family: family, seen: map[string]bool{}}
		switch {
		case p.Nftables:
			b.nftables()
			p.unjudged[family] = s.Why(netstate.Key{Part: netstate.Nftables})
		case p.Generation >= V28:
			b.forwardChains()
		default:
			b.classicChains()
		}
	}
	if !p.Nftables {
		p.chooseVariants(s)
	}
	return p
}

// unjudged says why nothing is expected at all, or "".
func unjudged(s *netstate.Snapshot) string {
	switch {
	case s.Engine == nil:
		if why := s.Why(netstate.Key{Part: netstate.Engine}); why != "" {
			return why
		}
		return "no engine"
	case s.Engine.Rootless && !s.Engine.Local:
		return "a rootless engine programs its own network namespace"
	case !s.Engine.Local:
		return "the engine programs another network namespace"
	case s.Why(netstate.Key{Part: netstate.Engine}) != "":
		return s.Why(netstate.Key{Part: netstate.Engine})
	}
	return ""
}

// Unjudged returns why nothing can be said about a family's rules, or "". A family that the engine was
// told not to program is judged: nothing is expected of it.
func (p *Program) Unjudged(family netstate.Family) string { return p.unjudged[family] }

// Variant returns the variant of iptables, "nft" or "legacy", in which the engine's rules of that family
// are or belong, or "".
func (p *Program) Variant(family netstate.Family) string { return p.variant[family] }

// For returns the rules that have to do with a target: those of its family that are of its container and
// port, of the network through which it goes, or of all. There are none where no rule of the engine's
// carries the target: a port that docker-proxy alone serves, a container without a bridge network.
func (p *Program) For(s *netstate.Snapshot, t netstate.Target) []*Rule {
	network := p.networkOf(s, t)
	if network == "" {
		return nil
	}
	if p.owned == nil {
		p.owned = map[owner][]int{}
		for i := range p.Rules {
			of := owner{p.Rules[i].Network, p.Rules[i].Container}
			p.owned[of] = append(p.owned[of], i)
		}
	}
	candidates := slices.Concat(p.owned[owner{}], p.owned[owner{network, ""}], p.owned[owner{"", t.ID}], p.owned[owner{network, t.ID}])
	slices.Sort(candidates)
	var rules []*Rule
	for _, i := range candidates {
		if r := &p.Rules[i]; r.concerns(t, network) {
			rules = append(rules, r)
		}
	}
	return rules
}

// Hits returns those of the differences without whose undoing a target's traffic does not pass where the
// chains' policies drop: of the rules that it needs, and of the chains and maps in which those stand.
func (p *Program) Hits(s *netstate.Snapshot, all []Difference, t netstate.Target) []Difference {
	if len(all) == 0 {
		return nil
	}
	type place struct{ table, chain string }
	rules, places := map[*Rule]bool{}, map[place]bool{}
	for _, r := range p.For(s, t) {
		if r.Needed&TrafficOf(t) != 0 {
			rules[r], places[place{r.Table, r.Chain}] = true, true
		}
	}
	var hits []Difference
	for i := range all {
		switch d := &all[i]; {
		case d.Family != t.Family, d.Kind == Stale, d.Kind == LeftOver:
		case rules[d.Rule], d.Rule == nil && (places[place{d.Table, d.Chain}] || d.Kind == Dormant && len(places) > 0):
			hits = append(hits, *d)
		}
	}
	return hits
}

// networkOf returns the ID of the bridge network through which a target's packets reach or leave its
// container, or "".
func (p *Program) networkOf(s *netstate.Snapshot, t netstate.Target) string {
	c := s.Container(t.ID)
	if c == nil {
		return ""
	}
	if t.Direction == netstate.In {
		for _, f := range p.forwards(c, t.Family) {
			if f.binding.Port == t.Port {
				return f.network.ID
			}
		}
		return ""
	}
	bridged := func(id string) string {
		if n := p.networks[id]; n != nil && n.Bridge() != "" {
			return id
		}
		return ""
	}
	if t.Direction == netstate.Peer {
		for _, e := range c.Endpoints {
			prefix := e.IPv4
			if t.Family == netstate.IPv6 {
				prefix = e.IPv6
			}
			if prefix.IsValid() && prefix.Contains(t.To.Addr()) {
				return bridged(e.NetworkID)
			}
		}
	}
	if e := p.Gateway(c, t.Family); e != nil {
		return bridged(e.NetworkID)
	}
	return ""
}

// Published says whether the engine programs rules for that binding of the container; if not, docker-proxy
// alone serves it.
func (p *Program) Published(c *netstate.Container, b netstate.Binding) bool {
	family := netstate.FamilyOf(b.Host)
	if family == 0 {
		family = netstate.IPv4
	}
	for _, f := range p.forwards(c, family) {
		if f.binding.Port == b.Port && f.binding.HostPort == b.HostPort && (f.binding.Host == b.Host || !b.Host.IsValid()) {
			return true
		}
	}
	return false
}

// A builder collects the chains and rules of one family.
type builder struct {
	*Program
	s      *netstate.Snapshot
	family netstate.Family
	seen   map[string]bool
}

// chain expects chains in a table.
func (b *builder) chain(table string, names ...string) {
	for _, name := range names {
		b.Chains = append(b.Chains, Chain{Family: b.family, Table: table, Name: name})
	}
}

// rule expects a rule, once however often it is asked for. Place is its table and chain.
func (b *builder) rule(place, text string, r Rule) {
	r.Family, r.Text = b.family, text
	r.Table, r.Chain, _ = strings.Cut(place, " ")
	if key := place + " " + canonical(text); !b.seen[key] {
		b.seen[key] = true
		b.Rules = append(b.Rules, r)
	}
}

// v6 chooses by the builder's family.
func (b *builder) v6(four, six string) string {
	if b.family == netstate.IPv6 {
		return six
	}
	return four
}
