package probe

import (
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Needs is what NewRequest reads of a snapshot, which has to be a thorough one: others may lack the flows of a host
// on which all is well.
const Needs = packet.Needs | netstate.Conntrack

// NewRequest returns the probe for a target of a snapshot. uplink is the link that the walk has found
// (packet.Trace.Uplink); the target's own goes before it, and "" leaves the choice to the default route.
//
// An error that is ErrRefused says why there is none.
func NewRequest(s *netstate.Snapshot, t netstate.Target, uplink string) (*Request, error) {
	var tag [4]byte
	rand.Read(tag[:])
	r := &Request{Target: t, Timeout: Timeout, Tag: hex.EncodeToString(tag[:]), names: newNaming(s), host: s.Host.ID}
	if s.Engine != nil && !s.Engine.Local {
		return nil, refuse("the engine runs on another machine")
	}
	if t.Port.Proto == "sctp" {
		return nil, refuse("it speaks TCP, UDP and ICMP, not SCTP")
	}
	for i := range s.Networks {
		if bridge := s.Networks[i].Bridge(); bridge != "" {
			r.shared = append(r.shared, bridge)
		}
	}
	var err error
	switch {
	case t.Direction == netstate.In && t.From == netstate.FromOutside:
		if err = r.outside(&s.Host, uplink); err == nil {
			err = r.avoid(s)
		}
	case t.Direction == netstate.In && t.From == netstate.FromLocalhost:
		err = r.local(&s.Host, uplink)
	case t.Direction == netstate.In && t.From == netstate.FromHost:
		err = r.local(&s.Host, uplink)
	case t.Direction == netstate.Peer:
		r.Server = t.To
		if t.To.Port() == 0 {
			r.ICMP = true
		}
		if err = r.from(s, t.ID, t.Container); err == nil && !t.To.Addr().IsValid() {
			err = refuse("the target has no address to connect to")
		}
	case t.Direction == netstate.Out:
		err = r.away(s, uplink)
	default:
		err = refuse("a target that is %s from %q", t.Direction, t.From)
	}
	if err != nil {
		return nil, err
	}
	r.ports = []uint16{r.Server.Port()}
	if inside := t.Port.Number; inside != 0 && inside != r.Server.Port() {
		r.ports = append(r.ports, inside)
	}
	r.findPlaces(s)
	return r, nil
}

// outside fills in the client, the uplink, the server's address and the machine next to the host.
func (r *Request) outside(host *netstate.Namespace, uplink string) error {
	t := r.Target
	r.Client = t.Client.Unmap()
	if netstate.FamilyOf(r.Client) != t.Family {
		return refuse("the client %s has no %s address", t.Client, t.Family)
	}
	if host.LinkWith(r.Client) != nil {
		return refuse("%s is the host's own address: ask for --client host", r.Client)
	}
	if err := r.enter(host, uplink); err != nil {
		return err
	}
	if err := r.serve(host, r.Uplink); err != nil {
		return err
	}
	return r.neighbour(host)
}

// away fills in a destination outside, whose part the probe takes, the uplink and the container that asks.
func (r *Request) away(s *netstate.Snapshot, uplink string) error {
	t := r.Target
	to := t.To.Addr().Unmap()
	switch {
	case !nobodys(to):
		return refuse("%s may be somebody's: what others say to it could not be told from the probe, and might leave the machine", to)
	case t.Port.Proto == "udp":
		return refuse("out of a container it speaks TCP")
	case s.Host.LinkWith(to) != nil:
		return refuse("%s is the host's own address", to)
	}
	r.Client, r.Server = to, netip.AddrPortFrom(to, t.To.Port())
	if r.Server.Port() == 0 {
		r.Server = netip.AddrPortFrom(to, https)
	}
	if err := r.from(s, t.ID, t.Container); err != nil {
		return err
	}
	if err := r.enter(&s.Host, uplink); err != nil {
		return err
	}
	for _, a := range s.Host.Addrs {
		if a.Link == r.Uplink && netstate.FamilyOf(a.Prefix.Addr()) == t.Family {
			r.known = append(r.known, a.Prefix.Addr())
		}
	}
	return r.neighbour(&s.Host)
}

// https is the port that a container is taken to ask for outside.
const https = 443

// documentation addresses are nobody's (RFC 5737, RFC 3849, RFC 9637).
var documentation = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("3fff::/20"),
}

// nobodys says whether an address is nobody's.
func nobodys(addr netip.Addr) bool {
	return slices.ContainsFunc(documentation, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// out says whether the container asks and the probe is the machine outside, not the client.
func (r *Request) out() bool { return r.Target.Direction == netstate.Out }

// from names the container that connects.
func (r *Request) from(s *netstate.Snapshot, id, name string) error {
	c, ns := s.Container(id), s.Sandboxes[id]
	if c == nil || ns == nil || c.PID == 0 {
		return refuse("%s does not run", name)
	}
	r.peer = place{container: c.ID, name: c.Name, pid: c.PID, id: ns.ID}
	return nil
}

// enter fills in the uplink: that of the target, the given one, or that of the default route.
func (r *Request) enter(host *netstate.Namespace, uplink string) error {
	t := r.Target
	switch {
	case t.Iface != "":
		uplink = t.Iface
	case uplink == "":
		uplink = defaultLink(host, t.Family)
	}
	link := host.Link(uplink)
	switch {
	case uplink == "":
		return refuse("it is not known by which link a client's packets come in: name it with --iface")
	case link == nil:
		return refuse("the host has no link %s", uplink)
	case slices.Contains(r.shared, uplink) || link.Loopback:
		return refuse("%s is no uplink", uplink)
	}
	if master := host.LinkAt(link.Master); link.Master != 0 && master != nil && master.Kind != "vrf" {
		return refuse("%s is a port of %s: packets come in there", uplink, master.Name)
	}
	if !link.Up || !link.Carrier {
		return refuse("link %s is down: no client's packet comes in there", uplink)
	}
	r.Uplink = uplink
	return nil
}

// serve chooses the address of the host that is connected to.
func (r *Request) serve(host *netstate.Namespace, uplink string) error {
	addr := r.Target.Host.Addr().Unmap()
	if r.Target.From == netstate.FromLocalhost && (!addr.IsValid() || addr.IsUnspecified() || !addr.IsLoopback()) {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if r.Target.Family == netstate.IPv6 {
			addr = netip.IPv6Loopback()
		}
	}
	if !addr.IsValid() || addr.IsUnspecified() {
		addr = firstAddr(host, uplink, r.Target.Family)
	}
	if !addr.IsValid() {
		return refuse("link %s has no %s address that a client could connect to", uplink, r.Target.Family)
	}
	if addr.IsLoopback() && r.Target.From == netstate.FromOutside {
		return refuse("no client outside connects to %s", addr)
	}
	r.Server = netip.AddrPortFrom(addr, r.Target.Host.Port())
	if r.Server.Port() == 0 {
		return refuse("%s is not published on a port of the host", r.Target.Port)
	}
	return nil
}

func (r *Request) local(host *netstate.Namespace, uplink string) error {
	if uplink == "" {
		uplink = defaultLink(host, r.Target.Family)
	}
	return r.serve(host, uplink)
}

// neighbour finds out who is next to the host on the way back to the client, and refuses a client whose
// entries the probe would disturb.
func (r *Request) neighbour(host *netstate.Namespace) error {
	link := host.Link(r.Uplink)
	next, known := nextHop(host, link.Name, r.Client)
	if !known {
		return nil // no way back: that is for the probe to find out
	}
	var entry *netstate.Neigh
	for i := range host.Neighs {
		if e := &host.Neighs[i]; e.Link == link.Name && e.Addr == next && !e.Proxy {
			entry = e
		}
	}
	if next == r.Client && !link.NoARP && !link.PointTo {
		// The host would ask the real segment for the client, or ask a live one again.
		switch {
		case entry == nil || entry.MAC == "":
			return refuse("%s would be a neighbour on %s, and the host has no entry for it: a reply would ask the real segment", r.Client, link.Name)
		case !slices.Contains([]string{"permanent", "noarp", "reachable", "delay", "probe"}, entry.State):
			// A packet for a stale one would have the host ask again; all others leave it as it is.
			return refuse("the host's entry for the neighbour %s on %s is %s: a reply would disturb it", r.Client, link.Name, entry.State)
		}
	}
	if entry != nil {
		r.NextHop = entry.MAC
	}
	return nil
}

// avoid lists the ports of the client's live connections: the probe would be taken for one of them, and end it.
func (r *Request) avoid(s *netstate.Snapshot) error {
	if s.Parts&netstate.Conntrack != 0 {
		why := s.Why(netstate.Key{Part: netstate.Conntrack})
		if why == "" && !s.Thorough && len(s.Host.Flows) == 0 {
			why = "not asked for"
		}
		if why != "" && !nobodys(r.Client) {
			return refuse("the probe could be taken for a connection of %s, which were not read: %s", r.Client, why)
		}
	}
	for _, flow := range s.Host.Flows {
		if flow.Original.Src.Addr() == r.Client {
			r.taken = append(r.taken, flow.Original.Src.Port())
		}
	}
	return nil
}

// defaultLink returns the link of the default route with the lowest metric in the main table, or else the
// first link beside Docker's that has an address of that family; "" if there is none.
func defaultLink(host *netstate.Namespace, family netstate.Family) string {
	best := ""
	var metric uint32
	for _, route := range host.Routes {
		if route.Family == family && route.Table == tableMain && route.Type == "unicast" && route.Dst.Bits() == 0 && len(route.Hops) > 0 {
			if best == "" || route.Metric < metric {
				best, metric = route.Hops[0].Dev, route.Metric
			}
		}
	}
	if best != "" {
		return best
	}
	for i := range host.Links {
		l := &host.Links[i]
		if !l.Loopback && l.Master == 0 && l.Kind != "bridge" && l.Up && firstAddr(host, l.Name, family).IsValid() {
			return l.Name
		}
	}
	return ""
}

const tableMain = 254

// nextHop returns the machine that a packet for addr is handed to on that link: the gateway of the
// longest route there, or addr itself. It looks at the main table only; that is enough to know a MAC.
func nextHop(host *netstate.Namespace, link string, addr netip.Addr) (netip.Addr, bool) {
	bits, found := -1, netip.Addr{}
	for _, route := range host.Routes {
		if route.Table != tableMain || route.Type != "unicast" || !route.Dst.Contains(addr) || route.Dst.Bits() <= bits {
			continue
		}
		for _, hop := range route.Hops {
			if hop.Dev == link {
				bits, found = route.Dst.Bits(), addr
				if hop.Gateway.IsValid() {
					found = hop.Gateway
				}
				break
			}
		}
	}
	return found, bits >= 0
}

// firstAddr returns the first address of a link that a client could connect to.
func firstAddr(host *netstate.Namespace, link string, family netstate.Family) netip.Addr {
	for _, a := range host.Addrs {
		addr := a.Prefix.Addr()
		if a.Link == link && netstate.FamilyOf(addr) == family && !addr.IsLinkLocalUnicast() && !addr.IsLoopback() &&
			!slices.Contains(a.Flags, "tentative") && !slices.Contains(a.Flags, "dadfailed") && !slices.Contains(a.Flags, "deprecated") {
			return addr
		}
	}
	return netip.Addr{}
}

// findPlaces lists where copies are taken: the uplink, and bridge, veth and interface of the target's
// container; of a peer both containers'.
func (r *Request) findPlaces(s *netstate.Snapshot) {
	if r.Uplink != "" {
		r.places = append(r.places, place{hop: packet.Uplink, link: r.Uplink})
	}
	to := r.Target.ID
	if r.Target.Direction == netstate.Peer {
		to = r.Target.ToID
	}
	r.places = append(r.places, placesOf(s, to)...)
}

// placesOf returns bridge, veth and interface of a container for each of its networks, as far as they
// could be read.
func placesOf(s *netstate.Snapshot, id string) []place {
	c := s.Container(id)
	if c == nil || c.PID == 0 {
		return nil
	}
	inside := s.Sandboxes[id]
	if inside == nil {
		return nil
	}
	var bridges, veths, eths []place
	for i := range inside.Links {
		l := &inside.Links[i]
		if l.Loopback || l.Kind != "veth" {
			continue
		}
		eths = append(eths, place{hop: packet.Container, link: l.Name, container: id, name: c.Name, pid: c.PID, id: inside.ID})
		outer := s.Host.LinkAt(l.Peer)
		if outer == nil || outer.Kind != "veth" || outer.Peer != l.Index {
			continue
		}
		veths = append(veths, place{hop: packet.Veth, link: outer.Name})
		bridge := s.Host.LinkAt(outer.Master)
		if outer.Master != 0 && bridge != nil && !slices.ContainsFunc(bridges, func(p place) bool { return p.link == bridge.Name }) {
			bridges = append(bridges, place{hop: packet.Bridge, link: bridge.Name})
		}
	}
	return slices.Concat(bridges, veths, eths)
}

// A naming joins what the kernel's trace tells (table, chain, handle) to the rules of a snapshot.
type naming struct {
	rules    *netstate.Ruleset
	iptables []netstate.IptablesSet
	print    netstate.NftPrinter
}

func newNaming(s *netstate.Snapshot) naming {
	return naming{s.Host.Nft, s.Host.Iptables, s.Host.NftPrinter()}
}
