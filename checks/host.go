package checks

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// A Host is what a check is shown: the parts of a Snapshot that it asked for, and what follows from
// them by computation. Whatever is computed is computed once a snapshot, however many targets there are.
type Host struct {
	*netstate.Snapshot
	whole *whole
}

// whole is shared by all views of one snapshot.
type whole struct {
	snapshot    *netstate.Snapshot
	views       map[netstate.Part]*Host
	containers  func() map[string]*netstate.Container
	holders     func() map[netip.Addr][]held
	boot        map[string][]sysctlLine // for atBoot
	index       func() *packet.Index
	program     func() *dockerd.Program
	differences func() []dockerd.Difference
	traces      map[netstate.Target]*packet.Trace
}

// NewHost prepares a snapshot for Run.
func NewHost(s *netstate.Snapshot) *Host {
	w := &whole{
		snapshot: s,
		views:    map[netstate.Part]*Host{},
		boot:     map[string][]sysctlLine{},
		index:    sync.OnceValue(func() *packet.Index { return packet.New(s) }),
		program:  sync.OnceValue(func() *dockerd.Program { return dockerd.Expected(s) }),
		traces:   map[netstate.Target]*packet.Trace{},
	}
	w.containers = sync.OnceValue(func() map[string]*netstate.Container {
		byID := make(map[string]*netstate.Container, len(s.Containers))
		for i := range s.Containers {
			byID[s.Containers[i].ID] = &s.Containers[i]
		}
		return byID
	})
	w.holders = sync.OnceValue(func() map[netip.Addr][]held { return holdersIn(s) })
	w.differences = sync.OnceValue(func() []dockerd.Difference { return w.program().Compare(s) })
	return &Host{s, w}
}

// only returns the view of the host that shows the given parts.
func (h *Host) only(parts netstate.Part) *Host {
	view, ok := h.whole.views[parts]
	if !ok {
		view = &Host{h.whole.snapshot.Only(parts), h.whole}
		h.whole.views[parts] = view
	}
	return view
}

// Container returns the container with that full ID, or nil.
func (h *Host) Container(id string) *netstate.Container {
	if len(h.Containers) == 0 { // this view shows none
		return nil
	}
	return h.whole.containers()[id]
}

// Walk returns the way of the target's packet through the host, as far as it can be told from what was
// read: what could not be read makes the walk unsure at that place.
func (h *Host) Walk(t netstate.Target) *packet.Trace {
	trace, ok := h.whole.traces[t]
	if !ok {
		trace = h.whole.index().Walk(t)
		h.whole.traces[t] = trace
	}
	return trace
}

// Program returns what the engine has to have programmed into this host. The caller needs
// netstate.Engine.
func (h *Host) Program() *dockerd.Program { return h.whole.program() }

// stops returns what stops the target's packets and is of one of the kinds, each object once.
func (h *Host) stops(t netstate.Target, kinds ...packet.Kind) []packet.Stop {
	var stops []packet.Stop
	for _, stop := range h.Walk(t).Stops {
		if slices.Contains(kinds, stop.Kind) && !slices.ContainsFunc(stops, func(s packet.Stop) bool { return s.Object == stop.Object }) {
			stops = append(stops, stop)
		}
	}
	return stops
}

// found returns the finding of a stop: a failure, or unknown where the walk is not sure of it.
func found(stop packet.Stop) Finding {
	return Finding{
		Problem: stop.Why, Object: stop.Object, At: stop.Hop, Evidence: stop.Evidence,
		Unknown: !stop.Verdict.Stops(), stop: &stop,
	}
}

// bridgeOf returns the name of the bridge by which the target's container has its default route in the
// target's family, or "".
func bridgeOf(h *Host, t netstate.Target) string {
	c := h.Container(t.ID)
	if c == nil {
		return ""
	}
	endpoint := h.Program().Gateway(c, t.Family)
	if endpoint == nil {
		return ""
	}
	if network := h.Network(endpoint.NetworkID); network != nil {
		return network.Bridge()
	}
	return ""
}

// compared returns all differences between what the engine programmed and what is there, once.
func (h *Host) compared() []dockerd.Difference { return h.whole.differences() }
