package packet

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Routing tables that have a name.
const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255
)

// standardTables are those of the rules that every namespace is born with, in their order.
var standardTables = []uint32{tableLocal, tableMain, tableDefault}

// A fib is the routing of one family in one namespace.
type fib struct {
	ns       *netns
	family   netstate.Family
	rules    []netstate.Rule
	standard bool // no rule but the three that every namespace is born with
	tables   map[uint32]*table
	bits     []int // prefix lengths that occur in the tables of those three, longest first
}

// A table finds routes by prefix. Routes of a prefix stand in the order in which the kernel tries them.
type table struct {
	bits   []int // prefix lengths that occur, longest first
	routes map[netip.Prefix][]*netstate.Route
}

func newFIB(ns *netns, family netstate.Family) *fib {
	f := &fib{ns: ns, family: family, tables: map[uint32]*table{}}
	for i := range ns.state.Routes {
		r := &ns.state.Routes[i]
		if r.Family != family {
			continue
		}
		t := f.tables[r.Table]
		if t == nil {
			t = &table{routes: map[netip.Prefix][]*netstate.Route{}}
			f.tables[r.Table] = t
		}
		key := r.Dst.Masked()
		t.routes[key] = append(t.routes[key], r)
	}
	for _, t := range f.tables {
		for prefix, routes := range t.routes {
			if !slices.Contains(t.bits, prefix.Bits()) {
				t.bits = append(t.bits, prefix.Bits())
			}
			slices.SortStableFunc(routes, func(a, b *netstate.Route) int {
				return cmp.Or(
					cmp.Compare(b.Src.Bits(), a.Src.Bits()),
					cmp.Compare(b.TOS, a.TOS),
					cmp.Compare(a.Metric, b.Metric))
			})
		}
		slices.SortFunc(t.bits, func(a, b int) int { return b - a })
	}
	for _, r := range ns.state.Rules {
		if r.Family == family {
			f.rules = append(f.rules, r)
		}
	}
	if len(f.rules) == 0 {
		// Every namespace has them unless somebody took them away, and then there is one left.
		f.rules = []netstate.Rule{
			{Family: family, Priority: 0, Action: "table", Table: tableLocal},
			{Family: family, Priority: 32766, Action: "table", Table: tableMain},
		}
	}
	slices.SortStableFunc(f.rules, func(a, b netstate.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	f.standard = !slices.ContainsFunc(f.rules, custom)
	for _, id := range standardTables {
		if t := f.tables[id]; t != nil {
			f.bits = mergeBits(f.bits, t.bits)
		}
	}
	return f
}

// custom says whether the rule is none of the three of a new namespace.
func custom(r netstate.Rule) bool {
	plain := netstate.Rule{Family: r.Family, Priority: r.Priority, Action: "table", Table: r.Table}
	at := map[uint32]uint32{tableLocal: 0, tableMain: 32766, tableDefault: 32767}
	priority, known := at[r.Table]
	return !known || priority != r.Priority || !plainRule(r, plain)
}

func plainRule(r, plain netstate.Rule) bool {
	return r.Action == plain.Action && !r.Not && !r.Src.IsValid() && !r.Dst.IsValid() && r.Iif == "" && r.Oif == "" &&
		r.Mark == 0 && r.Mask == 0 && r.TOS == 0 && r.Protocol == 0 && r.SPort == nil && r.DPort == nil && r.UID == nil &&
		!r.L3mdev && r.SuppressPrefixLen == nil && r.SuppressGroup == nil && r.TunID == 0 && len(r.Opaque) == 0
}

// A flow is a question to the FIB.
type flow struct {
	src, dst     netip.Addr // src zero: not chosen yet
	iif          *link      // nil: the packet starts here, which rules know as iif lo
	oif          *link      // nil: any
	mark         uint32
	proto        uint8
	sport, dport port
	tos          uint8
	uid          int // -1: not known
	vrf          *link
}

// A decision is the FIB's answer.
type decision struct {
	route     *netstate.Route // nil: none
	rule      *netstate.Rule  // that led to it, or that refused; nil: no rule but the standard ones
	hop       netstate.RouteHop
	out       *link
	gateway   netip.Addr          // the next hop; the destination itself where it is on link
	others    []netstate.RouteHop // that it may take as well; the chosen hop may be among them
	forbidden string              // "blackhole", "unreachable", "prohibit"
}

func (d *decision) found() bool { return d.route != nil && d.forbidden == "" }

// local says whether the packet is for this namespace.
func (d *decision) local() bool {
	return d.found() && (d.route.Type == "local" || d.route.Type == "broadcast" || d.route.Type == "anycast")
}

// lookup answers what the kernel's fib_lookup would. ask settles what cannot be told.
func (f *fib) lookup(w *walker, q flow) decision {
	if f.standard && f.family == netstate.IPv4 {
		// The kernel keeps local and main in one trie until a rule is added: the longest prefix of both wins.
		return f.search(w, q, nil, f.bits, standardTables...)
	}
	for i := 0; i < len(f.rules); i++ {
		r := &f.rules[i]
		fits := f.fits(w, r, q)
		if fits == maybe {
			fits = answerOf(w.may())
		}
		if fits == no {
			continue
		}
		switch r.Action {
		case "table", "":
			id := r.Table
			if r.L3mdev {
				if q.vrf == nil {
					continue
				}
				id = q.vrf.Table
			}
			t := f.tables[id]
			if t == nil {
				continue
			}
			d := f.search(w, q, r, t.bits, id)
			if d.route == nil {
				continue
			}
			if n := r.SuppressPrefixLen; n != nil && d.forbidden == "" && d.route.Dst.Bits() <= *n {
				continue
			}
			if r.SuppressGroup != nil && w.may() {
				continue
			}
			return d
		case "goto":
			for i+1 < len(f.rules) && f.rules[i+1].Priority < r.Goto {
				i++
			}
		case "nop":
		default:
			return decision{rule: r, forbidden: r.Action}
		}
	}
	return decision{}
}

// fits says whether the rule is for the flow. Source: fib_rule_match.
func (f *fib) fits(w *walker, r *netstate.Rule, q flow) answer {
	is := yes
	if len(r.Opaque) > 0 || r.TunID != 0 {
		is = maybe
	}
	also := func(a answer) { is = is.and(a) }
	if r.Iif != "" {
		name := "lo"
		if q.iif != nil {
			name = q.iif.Name
		}
		also(answerOf(r.Iif == name || q.vrf != nil && r.Iif == q.vrf.Name))
	}
	if r.Oif != "" {
		also(answerOf(q.oif != nil && r.Oif == q.oif.Name))
	}
	if r.Mask != 0 {
		also(answerOf((q.mark^r.Mark)&r.Mask == 0))
	}
	if r.L3mdev {
		also(answerOf(q.vrf != nil))
	}
	if r.Src.IsValid() && r.Src.Bits() > 0 {
		also(answerOf(q.src.IsValid() && r.Src.Contains(q.src)))
	}
	if r.Dst.IsValid() && r.Dst.Bits() > 0 {
		also(answerOf(r.Dst.Contains(q.dst)))
	}
	if r.TOS != 0 {
		also(answerOf(q.tos == r.TOS))
	}
	if r.Protocol != 0 {
		also(answerOf(q.proto == r.Protocol))
	}
	if r.SPort != nil {
		also(q.sport.within(port(r.SPort[0]), port(r.SPort[1])))
	}
	if r.DPort != nil {
		also(q.dport.within(port(r.DPort[0]), port(r.DPort[1])))
	}
	if r.UID != nil {
		switch {
		case q.iif != nil || q.uid == 0:
			// A packet that came in is the namespace owner's, which is root.
			also(answerOf(r.UID[0] == 0))
		case q.uid < 0:
			also(maybe)
		default:
			also(answerOf(uint32(q.uid) >= r.UID[0] && uint32(q.uid) <= r.UID[1]))
		}
	}
	return is.invert(r.Not)
}

// search finds the best route for the flow in the tables, which are one where there are several: at the
// same prefix the first table's routes come first. bits are the prefix lengths that occur in them.
func (f *fib) search(w *walker, q flow, r *netstate.Rule, bits []int, ids ...uint32) decision {
	for _, n := range bits {
		prefix, err := q.dst.Prefix(n)
		if err != nil {
			continue
		}
		for _, id := range ids {
			t := f.tables[id]
			if t == nil {
				continue
			}
			routes := t.routes[prefix]
			for i, route := range routes {
				if d, ok := f.usable(w, q, route); ok {
					d.rule = r
					if d.forbidden == "throw" {
						return decision{}
					}
					if f.family == netstate.IPv6 && len(d.others) == 0 {
						f.siblings(&d, q, routes[i+1:], w)
					}
					return d
				}
			}
		}
	}
	return decision{}
}

func mergeBits(a, b []int) []int {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b int) int { return b - a })
	return slices.Compact(all)
}

// usable says whether the route is for the flow, and by which hop.
func (f *fib) usable(w *walker, q flow, route *netstate.Route) (decision, bool) {
	if route.TOS != 0 && route.TOS != q.tos {
		return decision{}, false
	}
	if route.Src.IsValid() && route.Src.Bits() > 0 && !(q.src.IsValid() && route.Src.Contains(q.src)) {
		return decision{}, false
	}
	d := decision{route: route}
	switch route.Type {
	case "blackhole", "unreachable", "prohibit", "throw":
		d.forbidden = route.Type
		return d, true
	case "unicast", "local", "broadcast", "anycast", "":
	default: // multicast, nat, …
		return decision{}, false
	}
	hops := route.Hops
	if route.Nexthop != 0 {
		var blackhole bool
		hops, blackhole = f.ns.nexthop(route.Nexthop, 0)
		if blackhole {
			d.forbidden = "blackhole"
			return d, true
		}
	}
	good := make([]netstate.RouteHop, 0, 1)
	for _, hop := range hops {
		if slices.Contains(hop.Flags, "dead") {
			continue
		}
		link := f.ns.link(hop.Dev)
		if q.oif != nil && link != q.oif && !(q.vrf != nil && q.oif == q.vrf) {
			continue
		}
		if link != nil && slices.Contains(hop.Flags, "linkdown") && f.ns.ignoresLinkdown(f.family, hop.Dev) {
			continue
		}
		good = append(good, hop)
	}
	if len(good) == 0 {
		return decision{}, false
	}
	d.use(f.ns, q, good[0])
	if len(good) > 1 {
		d.others = good // the one that is used included
		for _, hop := range good[1:] {
			if w.may() {
				d.use(f.ns, q, hop)
				break
			}
		}
	}
	return d, true
}

// siblings looks at the routes of the same prefix behind d's: IPv6 takes those of an equal metric by turns.
func (f *fib) siblings(d *decision, q flow, rest []*netstate.Route, w *walker) {
	for _, route := range rest {
		if route.Metric != d.route.Metric || route.Table != d.route.Table || route.Type != d.route.Type {
			return
		}
		other, ok := f.usable(w, q, route)
		if !ok || other.forbidden != "" || other.hop.Dev == d.hop.Dev && other.hop.Gateway == d.hop.Gateway {
			continue
		}
		d.others = append(d.others, other.hop)
		if w.may() {
			rule := d.rule
			*d = other
			d.rule = rule
			return
		}
	}
}

func (d *decision) use(ns *netns, q flow, hop netstate.RouteHop) {
	d.hop, d.out, d.gateway = hop, ns.link(hop.Dev), hop.Gateway
	if !d.gateway.IsValid() {
		d.gateway = q.dst
	}
}

// addrType is the kernel's inet_addr_type: what the local table says of an address, else "unicast". With
// dev not nil the route must be on that link. Source: __inet_dev_addr_type.
func (f *fib) addrType(addr netip.Addr, dev *link) string {
	if !addr.IsValid() {
		return "unspec" // a snapshot may lack the address
	}
	if f.family == netstate.IPv4 {
		b := addr.As4()
		switch {
		case b[0] == 0 || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return "broadcast"
		case addr.IsMulticast():
			return "multicast"
		}
	} else if addr.IsMulticast() {
		return "multicast"
	}
	t := f.tables[tableLocal]
	if t == nil {
		return "unicast"
	}
	for _, n := range t.bits {
		prefix, err := addr.Prefix(n)
		if err != nil {
			continue
		}
		for _, route := range t.routes[prefix] {
			if dev == nil || slices.ContainsFunc(route.Hops, func(h netstate.RouteHop) bool { return h.Dev == dev.Name }) {
				return route.Type
			}
			return "unicast"
		}
	}
	return "unicast"
}

// routeText writes a route as ip route prints it.
func routeText(r *netstate.Route) string {
	if r == nil {
		return "route: none"
	}
	var b strings.Builder
	b.WriteString("route ")
	if r.Type != "unicast" && r.Type != "" {
		b.WriteString(r.Type + " ")
	}
	switch {
	case r.Dst.Bits() == 0:
		b.WriteString("default")
	case r.Dst.IsSingleIP():
		b.WriteString(r.Dst.Addr().String())
	default:
		b.WriteString(r.Dst.String())
	}
	if r.Src.IsValid() && r.Src.Bits() > 0 {
		b.WriteString(" from " + r.Src.String())
	}
	if r.Nexthop != 0 {
		b.WriteString(" nhid " + strconv.Itoa(int(r.Nexthop)))
	}
	for _, hop := range r.Hops {
		if len(r.Hops) > 1 {
			b.WriteString(" nexthop")
		}
		if hop.Gateway.IsValid() {
			b.WriteString(" via " + hop.Gateway.String())
		}
		if hop.Dev != "" {
			b.WriteString(" dev " + hop.Dev)
		}
	}
	if r.Table != tableMain && r.Table != 0 {
		b.WriteString(" table " + tableName(r.Table))
	}
	if r.Metric != 0 {
		b.WriteString(" metric " + strconv.Itoa(int(r.Metric)))
	}
	return b.String()
}

func tableName(id uint32) string {
	switch id {
	case tableMain:
		return "main"
	case tableLocal:
		return "local"
	case tableDefault:
		return "default"
	}
	return strconv.Itoa(int(id))
}

// ruleText writes a policy rule as ip rule prints it, without its priority and colon.
func ruleText(r *netstate.Rule) string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(int(r.Priority)) + ": ")
	if r.Not {
		b.WriteString("not ")
	}
	prefix := func(word string, p netip.Prefix) {
		switch {
		case !p.IsValid():
		case p.IsSingleIP():
			b.WriteString(word + " " + p.Addr().String() + " ")
		default:
			b.WriteString(word + " " + p.String() + " ")
		}
	}
	if r.Src.IsValid() {
		prefix("from", r.Src)
	} else {
		b.WriteString("from all ")
	}
	prefix("to", r.Dst)
	if r.Mask != 0 {
		b.WriteString("fwmark 0x" + strconv.FormatUint(uint64(r.Mark), 16))
		if r.Mask != 0xffffffff {
			b.WriteString("/0x" + strconv.FormatUint(uint64(r.Mask), 16))
		}
		b.WriteByte(' ')
	}
	if r.Iif != "" {
		b.WriteString("iif " + r.Iif + " ")
	}
	if r.Oif != "" {
		b.WriteString("oif " + r.Oif + " ")
	}
	switch r.Action {
	case "table", "":
		b.WriteString("lookup " + tableName(r.Table))
		if r.SuppressPrefixLen != nil {
			b.WriteString(" suppress_prefixlength " + strconv.Itoa(*r.SuppressPrefixLen))
		}
	case "goto":
		b.WriteString("goto " + strconv.Itoa(int(r.Goto)))
	default:
		b.WriteString(r.Action)
	}
	return b.String()
}
