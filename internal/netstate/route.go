package netstate

import "net/netip"

// A Route is one entry of a routing table, as RTM_GETROUTE dumps it.
type Route struct {
	Family   Family       `json:"family"`
	Table    uint32       `json:"table"`
	Type     string       `json:"type"`         // "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw"
	Dst      netip.Prefix `json:"dst"`          // 0.0.0.0/0 or ::/0 for default
	Src      netip.Prefix `json:"src,omitzero"` // IPv6 source-specific routing
	TOS      uint8        `json:"tos,omitempty"`
	Metric   uint32       `json:"metric,omitempty"`
	Scope    string       `json:"scope,omitempty"`
	Protocol string       `json:"protocol,omitempty"` // "kernel", "boot", "static", "dhcp", "ra", or the number
	PrefSrc  netip.Addr   `json:"prefsrc,omitzero"`
	MTU      int          `json:"mtu,omitempty"`
	Hops     []RouteHop   `json:"hops,omitempty"`    // one, or several of a multipath route; none for blackhole and the like
	Nexthop  uint32       `json:"nexthop,omitempty"` // id of a nexthop object, which then stands for Hops
}

// A RouteHop is one way out of a route.
type RouteHop struct {
	Dev     string     `json:"dev,omitempty"`
	Gateway netip.Addr `json:"gateway,omitzero"`
	Weight  int        `json:"weight,omitempty"`
	Flags   []string   `json:"flags,omitempty"` // "onlink", "linkdown", "dead"
}

// A Nexthop is a nexthop object (RTM_GETNEXTHOP).
type Nexthop struct {
	ID        uint32     `json:"id"`
	Family    Family     `json:"family,omitempty"`
	Dev       string     `json:"dev,omitempty"`
	Gateway   netip.Addr `json:"gateway,omitzero"`
	Blackhole bool       `json:"blackhole,omitempty"`
	Group     []uint32   `json:"group,omitempty"` // ids of the members
	Flags     []string   `json:"flags,omitempty"`
}

// A Rule is one policy routing rule (ip rule).
type Rule struct {
	Family            Family       `json:"family"`
	Priority          uint32       `json:"priority"`
	Action            string       `json:"action"` // "table", "goto", "nop", "blackhole", "unreachable", "prohibit"
	Table             uint32       `json:"table,omitempty"`
	Goto              uint32       `json:"goto,omitempty"`
	Not               bool         `json:"not,omitempty"`
	Src               netip.Prefix `json:"src,omitzero"`
	Dst               netip.Prefix `json:"dst,omitzero"`
	Iif               string       `json:"iif,omitempty"`
	Oif               string       `json:"oif,omitempty"`
	Mark              uint32       `json:"mark,omitempty"`
	Mask              uint32       `json:"mask,omitempty"` // 0: the rule does not look at the mark
	TOS               uint8        `json:"tos,omitempty"`
	Protocol          uint8        `json:"ipproto,omitempty"`
	SPort             *[2]uint16   `json:"sport,omitempty"`
	DPort             *[2]uint16   `json:"dport,omitempty"`
	UID               *[2]uint32   `json:"uid,omitempty"`
	L3mdev            bool         `json:"l3mdev,omitempty"`
	SuppressPrefixLen *int         `json:"suppress_prefixlength,omitempty"`
	SuppressGroup     *int         `json:"suppress_ifgroup,omitempty"`
	TunID             uint64       `json:"tun_id,omitempty"`
	Opaque            []string     `json:"opaque,omitempty"` // attributes that were not understood: the rule may or may not match
}
