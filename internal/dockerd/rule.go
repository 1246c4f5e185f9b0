package dockerd

import (
	"net/netip"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A Purpose says what a rule is for.
type Purpose string

// The purposes of Docker's rules.
const (
	Jump        Purpose = "jump"        // leads packets into Docker's own chains
	DNAT        Purpose = "dnat"        // takes a published port to the container
	Accept      Purpose = "accept"      // lets a published port's packets pass
	Forward     Purpose = "forward"     // lets what a network's containers send pass
	Established Purpose = "established" // lets the replies to a network's containers pass
	ICC         Purpose = "icc"         // accepts or drops what containers of one network send each other
	Masquerade  Purpose = "masquerade"  // hides a network's containers behind the host's address
	Hairpin     Purpose = "hairpin"     // hides the host, or a container that calls its own published port
	Return      Purpose = "return"      // leaves a chain early
	Isolation   Purpose = "isolation"   // keeps networks apart, and internal ones to themselves
	DefaultDrop Purpose = "drop"        // drops what is sent to ports that are not published
	RawDrop     Purpose = "raw-drop"    // drops what is sent to a container's address, or to a loopback binding, from outside
	Trusted     Purpose = "trusted"     // excepts trusted_host_interfaces or a mark from those
	ICMP        Purpose = "icmp"        // lets ICMP to routed networks pass
	Checksum    Purpose = "checksum"    // fills in SCTP checksums
)

// Traffic is a set of kinds of traffic.
type Traffic uint

// The kinds of traffic that Docker's rules carry.
const (
	Inbound  Traffic = 1 << iota // from outside to a published port
	Local                        // from a process on the host to a published port
	Outbound                     // from a container to the world
	Between                      // from container to container
)

// TrafficOf returns the kind of a target's traffic.
func TrafficOf(t netstate.Target) Traffic {
	switch t.Direction {
	case netstate.Out:
		return Outbound
	case netstate.Peer:
		return Between
	}
	if t.From == netstate.FromHost || t.From == netstate.FromLocalhost {
		return Local
	}
	return Inbound
}

// A Rule is one rule that dockerd programs.
type Rule struct {
	Family    netstate.Family
	Table     string // "filter", "nat", "raw", "mangle"; of the nftables backend "docker-bridges"
	Chain     string
	Text      string            // as iptables-save, or nft without counters, prints it
	Other     []string          // texts that serve as well: what neighbouring releases make
	Why       Purpose           // what it is for
	Needed    Traffic           // does not pass without it where the chains' policies drop
	Network   string            // ID of the network that it belongs to; "" for all
	Container string            // ID of the container that it belongs to; "" for none
	Binding   *netstate.Binding // the published port that it belongs to, or nil; one of several that share it

	// The order of a chain, as far as it matters: a rule stands before every rule of higher rank that
	// has the same scope; a rule without scope is of every scope.
	Rank  int
	Scope string

	// Element says that Text is no rule but an element of the map that Chain names (nftables backend).
	Element bool

	// First says that dockerd inserts the rule at the head of its rank rather than appending it.
	First bool
}

// nft says whether the rule is one of the nftables backend.
func (r *Rule) nft() bool { return r.Table == nftTable }

// canonical returns the one text for all that mean the same, in the rule's own language.
func (r *Rule) canonical(text string) string { l := newLine(text, r.nft()); return l.canonical }

// precedes says whether r must stand before other in their chain.
func (r *Rule) precedes(other *Rule) bool {
	return r.Rank < other.Rank && (r.Scope == "" || other.Scope == "" || r.Scope == other.Scope)
}

// concerns says whether the rule has to do with that target: it is of its family and of no other
// network, container or port.
func (r *Rule) concerns(t netstate.Target, network string) bool {
	if r.Family != t.Family || r.Network != "" && r.Network != network || r.Container != "" && r.Container != t.ID {
		return false
	}
	if r.Binding != nil {
		return t.Direction == netstate.In && r.Binding.Port == t.Port &&
			(r.Why != DNAT || !t.Host.IsValid() || t.Host == netip.AddrPortFrom(r.Binding.Host, r.Binding.HostPort))
	}
	return true
}

// A Chain is one chain that dockerd makes, or one map of its nftables backend.
type Chain struct {
	Family netstate.Family
	Table  string
	Name   string
	Map    bool              // a map from links' names to verdicts
	Hook   *netstate.NftHook // of a base chain of the nftables backend
}

// single returns addr as iptables-save prints a single address: with its length.
func single(addr netip.Addr) string {
	return netip.PrefixFrom(addr, addr.BitLen()).String()
}
