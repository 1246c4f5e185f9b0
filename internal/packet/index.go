package packet

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An Index answers where packets go in one snapshot. What it needs of it is parsed when first met, and
// once. It may be used by several goroutines.
type Index struct {
	snap *netstate.Snapshot

	mu        sync.Mutex
	traces    map[netstate.Target]*Trace
	host      *netns
	sandboxes map[string]*netns // by full container ID; all of those that were read
	byID      map[string]*netstate.Container
	byAddr    map[netip.Addr][]*link
	byPort    map[int]*link // index of a veth on the host → its end in a container
	bridges   map[netip.Addr]string
}

// New returns an Index of s. It is cheap; s must not change afterwards.
func New(s *netstate.Snapshot) *Index {
	return &Index{snap: s, traces: map[netstate.Target]*Trace{}}
}

// Walk sends the target's first packet, its reply and a later packet through the snapshot. The trace
// is shared: it is for reading.
func (x *Index) Walk(t netstate.Target) *Trace {
	x.mu.Lock()
	defer x.mu.Unlock()
	if trace := x.traces[t]; trace != nil {
		return trace
	}
	x.prepare()
	trace := x.explore(t, func(w *walker) { w.walk(t) })
	x.traces[t] = trace
	return trace
}

// prepare makes the parts ready that every walk uses.
func (x *Index) prepare() {
	if x.host != nil {
		return
	}
	s := x.snap
	x.host = newNetns(x, &s.Host, "", "")
	x.sandboxes = make(map[string]*netns, len(s.Sandboxes))
	x.byAddr = map[netip.Addr][]*link{}
	x.byPort = map[int]*link{}
	x.byID = make(map[string]*netstate.Container, len(s.Containers))
	for i := range s.Containers {
		if c := &s.Containers[i]; x.byID[c.ID] == nil {
			x.byID[c.ID] = c
		}
	}
	seen := map[string]*netns{}
	for _, id := range x.donorsFirst() {
		state := s.Sandboxes[id]
		if state == nil || state.ID != "" && state.ID == s.Host.ID {
			continue
		}
		if same := seen[state.ID]; same != nil && state.ID != "" {
			x.sandboxes[id] = same // container:ID networking
			continue
		}
		name := id
		if c := x.container(id); c != nil {
			name = c.Name
		}
		ns := newNetns(x, state, id, name)
		seen[state.ID] = ns
		x.sandboxes[id] = ns
		for _, l := range ns.links {
			if port := x.peer(l); port != nil {
				x.byPort[port.Index] = l
			}
		}
		for _, a := range state.Addrs {
			if addr := a.Prefix.Addr(); !loopback(addr) && ns.links[a.Link] != nil {
				x.byAddr[addr] = append(x.byAddr[addr], ns.links[a.Link])
			}
		}
	}
	x.bridges = map[netip.Addr]string{}
	for i := range s.Networks {
		network := &s.Networks[i]
		name := network.Bridge()
		if name == "" {
			continue
		}
		for _, m := range network.Members {
			x.bridges[m.IPv4.Addr()], x.bridges[m.IPv6.Addr()] = name, name
		}
	}
	for i := range s.Containers {
		for j := range s.Containers[i].Endpoints {
			e := &s.Containers[i].Endpoints[j]
			if network := s.Network(e.NetworkID); network != nil && network.Bridge() != "" {
				x.bridges[e.IPv4.Addr()], x.bridges[e.IPv6.Addr()] = network.Bridge(), network.Bridge()
			}
		}
	}
	delete(x.bridges, netip.Addr{})
}

// donorsFirst returns the IDs of the sandboxes in an order that is always the same. A namespace that containers share
// is named by the one that made it.
func (x *Index) donorsFirst() []string {
	member := func(id string) int {
		c := x.container(id)
		return btoi(c == nil || strings.HasPrefix(c.NetworkMode, "container:"))
	}
	return slices.SortedFunc(maps.Keys(x.snap.Sandboxes), func(a, b string) int {
		return cmp.Or(member(a)-member(b), strings.Compare(a, b))
	})
}

// container returns the container with that full ID, or nil.
func (x *Index) container(id string) *netstate.Container { return x.byID[id] }

// namespace returns the namespace of a container, or nil: it was not read, or there is none.
func (x *Index) namespace(c *netstate.Container) *netns {
	if ns := x.sandboxes[c.ID]; ns != nil {
		return ns
	}
	if c.NetworkMode == "host" {
		return x.host
	}
	if id, ok := strings.CutPrefix(c.NetworkMode, "container:"); ok {
		return x.sandboxes[id]
	}
	return nil
}

// peer returns the other end of a veth that stands in the host's namespace, or nil.
func (x *Index) peer(l *link) *link {
	if l == nil {
		return nil
	}
	other := x.host.byIndex[l.Peer]
	if other == nil || other.Kind != "veth" || other.Peer != l.Index {
		return nil
	}
	if nsid := l.ns.state.NSID; nsid != nil && other.PeerNS != nil && *nsid != *other.PeerNS {
		return nil
	}
	return other
}

// plugged returns the end, in a container that was read, of a veth of the host, or nil.
func (x *Index) plugged(port *link) *link {
	if port == nil {
		return nil
	}
	return x.byPort[port.Index]
}

// holder returns the interface of a container that was read which has addr, or nil; one that is plugged
// into the bridge goes before others, and among those the one that the host's neighbour entry is of.
func (x *Index) holder(addr netip.Addr, bridge *link) *link {
	var found *link
	plugged := false
	for _, l := range x.byAddr[addr] {
		port := x.peer(l)
		here := bridge != nil && port != nil && port.Master == bridge.Index
		if here && slices.ContainsFunc(x.host.neigh(addr), func(e *netstate.Neigh) bool { return e.Link == bridge.Name && e.MAC == l.MAC }) {
			return l
		}
		if !plugged {
			found, plugged = l, here
		}
	}
	return found
}

// bridgeOf returns the bridge of the network in which the engine gave that address to a container, or nil.
func (x *Index) bridgeOf(addr netip.Addr) *link {
	if name := x.bridges[addr]; name != "" {
		return x.host.link(name)
	}
	return nil
}
