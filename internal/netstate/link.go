package netstate

import (
	"fmt"
	"net/netip"
)

// A Family is an address family: 4, 6, or 0 for either.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "ipv4", "ipv6" or "".
func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return ""
}

// ParseFamily is the inverse of Family.String.
func ParseFamily(text string) (Family, error) {
	switch text {
	case "":
		return 0, nil
	case "ipv4":
		return IPv4, nil
	case "ipv6":
		return IPv6, nil
	}
	return 0, fmt.Errorf("%q is no address family", text)
}

// MarshalText makes a family its name in JSON.
func (f Family) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Family) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFamily(string(text))
	return err
}

// FamilyOf returns the family of addr; an IPv4-mapped IPv6 address is IPv4. The zero address has none.
func FamilyOf(addr netip.Addr) Family {
	switch {
	case addr.Is4(), addr.Is4In6():
		return IPv4
	case addr.Is6():
		return IPv6
	}
	return 0
}

// A Link is one network interface, as RTM_GETLINK gives it.
type Link struct {
	Index    int          `json:"index"`
	Name     string       `json:"name"`
	Kind     string       `json:"kind,omitempty"`  // rtnl kind: "veth", "bridge", "vlan", …; "" for hardware and lo
	Up       bool         `json:"up"`              // IFF_UP
	Carrier  bool         `json:"carrier"`         // IFF_LOWER_UP
	State    string       `json:"state,omitempty"` // operstate: "up", "down", "lowerlayerdown", …
	Loopback bool         `json:"loopback,omitempty"`
	PointTo  bool         `json:"pointopoint,omitempty"`
	NoARP    bool         `json:"noarp,omitempty"`
	MTU      int          `json:"mtu"`
	MAC      string       `json:"mac,omitempty"`
	Master   int          `json:"master,omitempty"`  // index of the bridge, bond or VRF that it belongs to
	Peer     int          `json:"peer,omitempty"`    // IFLA_LINK: a veth's other end, a VLAN's parent; an index in PeerNS's namespace
	PeerNS   *int         `json:"peer_ns,omitempty"` // IFLA_LINK_NETNSID; nil: this namespace
	Table    uint32       `json:"table,omitempty"`   // of a VRF
	VLAN     int          `json:"vlan,omitempty"`
	Mode     string       `json:"mode,omitempty"` // of macvlan and ipvlan
	Bridge   *Bridge      `json:"bridge,omitempty"`
	Port     *BridgePort  `json:"port,omitempty"`
	VLANs    []BridgeVLAN `json:"vlans,omitempty"` // of a port of a bridge that filters them, and of that bridge itself
	XDP      bool         `json:"xdp,omitempty"`
}

// A Bridge is what only a bridge has.
type Bridge struct {
	VLANFiltering  bool `json:"vlan_filtering,omitempty"`
	STP            bool `json:"stp,omitempty"`
	CallIptables   bool `json:"nf_call_iptables,omitempty"` // this bridge's own; ORed with the sysctl
	CallIp6tables  bool `json:"nf_call_ip6tables,omitempty"`
	CallArptables  bool `json:"nf_call_arptables,omitempty"`
	MulticastSnoop bool `json:"mcast_snooping,omitempty"`
}

// A BridgePort is what only a bridge's port has.
type BridgePort struct {
	State    string `json:"state"` // "disabled", "listening", "learning", "forwarding", "blocking"
	Hairpin  bool   `json:"hairpin,omitempty"`
	Isolated bool   `json:"isolated,omitempty"`
	Guard    bool   `json:"guard,omitempty"`
	Learning bool   `json:"learning,omitempty"`
	Flood    bool   `json:"flood,omitempty"`
	Locked   bool   `json:"locked,omitempty"`
}

// A BridgeVLAN is a VLAN that a bridge or a bridge's port takes part in.
type BridgeVLAN struct {
	ID       int  `json:"id"`
	PVID     bool `json:"pvid,omitempty"`     // of frames that come in without a tag
	Untagged bool `json:"untagged,omitempty"` // its frames go out without a tag
}

// An Addr is one address of a link.
type Addr struct {
	Link   string       `json:"link"`
	Prefix netip.Prefix `json:"prefix"`          // the address with its network's length
	Peer   netip.Prefix `json:"peer,omitzero"`   // of a point-to-point address
	Scope  string       `json:"scope,omitempty"` // "global", "link", "host"
	Flags  []string     `json:"flags,omitempty"` // "tentative", "dadfailed", "deprecated", "secondary", "noprefixroute", …
}

// A Neigh is one entry of the neighbour tables (ARP, NDP) or a bridge's forwarding table (Family 0).
type Neigh struct {
	Link   string     `json:"link"`
	Addr   netip.Addr `json:"addr,omitzero"`
	MAC    string     `json:"mac,omitempty"`
	State  string     `json:"state"`            // "reachable", "stale", "failed", "permanent", …
	Master string     `json:"master,omitempty"` // of a forwarding entry: the bridge
	VLAN   int        `json:"vlan,omitempty"`   // of a forwarding entry
	Sticky bool       `json:"sticky,omitempty"` // of a forwarding entry: it does not move to another port
	Proxy  bool       `json:"proxy,omitempty"`
}

// A Qdisc is one queueing discipline or filter that may hold, change or drop packets.
type Qdisc struct {
	Link   string `json:"link"`
	Kind   string `json:"kind"`             // "noqueue", "fq_codel", "tbf", "netem", "clsact", …
	Parent string `json:"parent"`           // "root", "ingress", "egress", or a handle
	Filter string `json:"filter,omitempty"` // of a classifier: its kind, "bpf" with a program's name
	Drops  uint64 `json:"drops,omitempty"`
	Text   string `json:"text,omitempty"` // as tc prints it, where known
}

// Link returns the link of that name, or nil.
func (n *Namespace) Link(name string) *Link {
	for i := range n.Links {
		if n.Links[i].Name == name {
			return &n.Links[i]
		}
	}
	return nil
}

// LinkAt returns the link with that index, or nil.
func (n *Namespace) LinkAt(index int) *Link {
	for i := range n.Links {
		if n.Links[i].Index == index {
			return &n.Links[i]
		}
	}
	return nil
}

// LinkWith returns the link that holds addr, or nil.
func (n *Namespace) LinkWith(addr netip.Addr) *Link {
	for _, a := range n.Addrs {
		if a.Prefix.Addr() == addr.Unmap() {
			return n.Link(a.Link)
		}
	}
	return nil
}

// Sysctl returns the value of a sysctl and whether it was there.
func (n *Namespace) Sysctl(name string) (string, bool) {
	value, ok := n.Sysctls[name]
	return value, ok
}
