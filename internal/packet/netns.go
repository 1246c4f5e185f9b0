package packet

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A netns is one network namespace, made ready for walking.
type netns struct {
	x         *Index
	state     *netstate.Namespace
	container string // full ID; "" for the host
	name      string // of the container; "" for the host

	links   map[string]*link
	byIndex map[int]*link
	fibs    map[netstate.Family]*fib
	filters []*netstate.Qdisc // those with filters
	hooks   map[hookKey]*hooks
	nats    map[string]bool // families that have a nat chain: with the first one the kernel translates at every hook
	sets    map[string]*ipset
	tracked map[netstate.Family]bool
	flows   map[flowKey][]*netstate.Flow // once asked for
	printer netstate.NftPrinter

	// What follows is made when it is first asked for.
	byAddr map[netip.Addr]*link
	neighs map[netip.Addr][]*netstate.Neigh
	fdb    map[fdbKey]*netstate.Neigh
	confs  map[confKey]confValue
}

// A link is a network interface in its namespace.
type link struct {
	*netstate.Link
	ns *netns
}

func newNetns(x *Index, state *netstate.Namespace, container, name string) *netns {
	n := &netns{
		x: x, state: state, container: container, name: name,
		links:   make(map[string]*link, len(state.Links)),
		byIndex: make(map[int]*link, len(state.Links)),
		fibs:    map[netstate.Family]*fib{},
	}
	for i := range state.Links {
		l := &link{&state.Links[i], n}
		n.links[l.Name] = l
		n.byIndex[l.Index] = l
	}
	for i := range state.Qdiscs {
		if q := &state.Qdiscs[i]; q.Filter != "" {
			n.filters = append(n.filters, q)
		}
	}
	return n
}

func (n *netns) link(name string) *link { return n.links[name] }

// master returns the bridge, bond or VRF that l belongs to, or nil.
func (l *link) master() *link {
	if l.Master == 0 {
		return nil
	}
	return l.ns.byIndex[l.Master]
}

// vrf returns the VRF that l belongs to, or nil.
func (l *link) vrf() *link {
	if l == nil {
		return nil
	}
	if l.Kind == "vrf" {
		return l
	}
	if m := l.master(); m != nil && m.Kind == "vrf" {
		return m
	}
	return nil
}

func (n *netns) fib(family netstate.Family) *fib {
	f := n.fibs[family]
	if f == nil {
		f = newFIB(n, family)
		n.fibs[family] = f
	}
	return f
}

// in returns object with the container's name behind it, where it is in one.
func (n *netns) in(object string) string {
	if n.name == "" {
		return object
	}
	return object + " in container " + n.name
}

// nexthop returns the hops behind a nexthop object and whether it is a blackhole.
func (n *netns) nexthop(id uint32, depth int) (hops []netstate.RouteHop, blackhole bool) {
	for i := range n.state.Nexthops {
		nh := &n.state.Nexthops[i]
		if nh.ID != id {
			continue
		}
		if nh.Blackhole {
			return nil, true
		}
		if len(nh.Group) == 0 {
			return []netstate.RouteHop{{Dev: nh.Dev, Gateway: nh.Gateway, Flags: nh.Flags}}, false
		}
		for _, member := range nh.Group {
			if depth == 0 { // the kernel has no groups of groups
				more, black := n.nexthop(member, depth+1)
				hops, blackhole = append(hops, more...), blackhole || black
			}
		}
		return hops, blackhole && len(hops) == 0
	}
	return nil, false
}

// why returns the reason why a part of this namespace could not be read, or "".
func (n *netns) why(part netstate.Part, family netstate.Family, variant string) string {
	return n.x.snap.Why(netstate.Key{Part: part, Family: family, Variant: variant, Container: n.container})
}

type confKey struct {
	family    netstate.Family
	dev, name string
}

type confValue struct {
	value int
	known bool
}

// conf returns net.FAMILY.conf.DEV.NAME as a number, and whether it is known.
func (n *netns) conf(family netstate.Family, dev, name string) (int, bool) {
	key := confKey{family, dev, name}
	v, met := n.confs[key]
	if !met {
		if text, ok := n.state.Sysctls[confName(family, dev, name)]; ok {
			value, err := strconv.Atoi(strings.TrimSpace(text))
			v = confValue{value, err == nil}
		}
		if n.confs == nil {
			n.confs = map[confKey]confValue{}
		}
		n.confs[key] = v
	}
	return v.value, v.known
}

// confName returns "net.ipv4.conf.eth0.forwarding"; a dot inside the link's name is written "/".
func confName(family netstate.Family, dev, name string) string {
	return "net." + family.String() + ".conf." + strings.ReplaceAll(dev, ".", "/") + "." + name
}

func (n *netns) ignoresLinkdown(family netstate.Family, dev string) bool {
	all, _ := n.conf(family, "all", "ignore_routes_with_linkdown")
	own, _ := n.conf(family, dev, "ignore_routes_with_linkdown")
	return all > 0 || own > 0
}

// either ORs a switch of all links with the link's own, as route_localnet, accept_local and src_valid_mark are.
func (n *netns) either(family netstate.Family, dev, name string) bool {
	all, _ := n.conf(family, "all", name)
	own, _ := n.conf(family, dev, name)
	return all > 0 || own > 0
}

// larger is how rp_filter is joined.
func (n *netns) larger(family netstate.Family, dev, name string) int {
	all, _ := n.conf(family, "all", name)
	own, _ := n.conf(family, dev, name)
	return max(all, own)
}

// addrs returns the addresses of that family on a link, the primary ones first, as the kernel lists them.
func (n *netns) addrs(dev string, family netstate.Family) []netstate.Addr {
	var found []netstate.Addr
	for _, a := range n.state.Addrs {
		if a.Link == dev && netstate.FamilyOf(a.Prefix.Addr()) == family {
			found = append(found, a)
		}
	}
	slices.SortStableFunc(found, func(a, b netstate.Addr) int {
		return btoi(slices.Contains(a.Flags, "secondary")) - btoi(slices.Contains(b.Flags, "secondary"))
	})
	return found
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// has says whether the namespace has the address.
func (n *netns) has(addr netip.Addr) bool { return n.linkWith(addr) != nil }

// linkWith returns the link that holds addr, or nil.
func (n *netns) linkWith(addr netip.Addr) *link {
	if n.byAddr == nil {
		n.byAddr = make(map[netip.Addr]*link, len(n.state.Addrs))
		for _, a := range n.state.Addrs {
			if held := a.Prefix.Addr(); n.byAddr[held] == nil {
				n.byAddr[held] = n.links[a.Link]
			}
		}
	}
	return n.byAddr[addr.Unmap()]
}

// neigh returns what the namespace knows of the neighbours with that address.
func (n *netns) neigh(addr netip.Addr) []*netstate.Neigh {
	if n.neighs == nil {
		n.neighs = make(map[netip.Addr][]*netstate.Neigh, len(n.state.Neighs))
		for i := range n.state.Neighs {
			e := &n.state.Neighs[i]
			n.neighs[e.Addr] = append(n.neighs[e.Addr], e)
		}
	}
	return n.neighs[addr]
}

// source chooses the address that the kernel would send from by that link to that next hop.
// Source: inet_select_addr, and RFC 6724 as far as one link has a choice. global: no address of link scope.
func (n *netns) source(dev *link, toward, dst netip.Addr, global bool) netip.Addr {
	if dev == nil {
		return netip.Addr{}
	}
	family := netstate.FamilyOf(dst)
	if family == netstate.IPv6 {
		return n.source6(dev, dst)
	}
	var first netip.Addr
	for _, a := range n.addrs(dev.Name, family) {
		if a.Scope == "host" || global && a.Scope == "link" || slices.Contains(a.Flags, "secondary") {
			continue
		}
		on := a.Prefix
		if a.Peer.IsValid() {
			on = a.Peer
		}
		if on.Masked().Contains(toward) {
			return a.Prefix.Addr()
		}
		if !first.IsValid() {
			first = a.Prefix.Addr()
		}
	}
	if first.IsValid() {
		return first
	}
	for _, a := range n.state.Addrs {
		if netstate.FamilyOf(a.Prefix.Addr()) == family && a.Scope != "host" && a.Scope != "link" {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

func (n *netns) source6(dev *link, dst netip.Addr) netip.Addr {
	var best netip.Addr
	score := -1
	consider := func(a netstate.Addr, own bool) {
		addr := a.Prefix.Addr()
		if netstate.FamilyOf(addr) != netstate.IPv6 || slices.Contains(a.Flags, "tentative") || slices.Contains(a.Flags, "dadfailed") {
			return
		}
		if addr.IsLinkLocalUnicast() && !own {
			return
		}
		s := commonBits(addr, dst)
		if addr.IsLinkLocalUnicast() == dst.IsLinkLocalUnicast() {
			s += 1000
		}
		if own {
			s += 500
		}
		if !slices.Contains(a.Flags, "deprecated") {
			s += 250
		}
		if loopback(addr) != loopback(dst) {
			s -= 900
		}
		if s > score {
			best, score = addr, s
		}
	}
	for _, a := range n.state.Addrs {
		consider(a, a.Link == dev.Name)
	}
	return best
}

func commonBits(a, b netip.Addr) int {
	for n := a.BitLen(); n > 0; n-- {
		if p, err := a.Prefix(n); err == nil && p.Contains(b) {
			return n
		}
	}
	return 0
}
