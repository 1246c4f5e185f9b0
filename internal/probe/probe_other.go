//go:build !linux

package probe

import (
	"context"
	"errors"
	"io"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// errOther: the engine's host is Linux; where this program is not, the one on the engine's host does it.
var errOther = errors.New("live connections and captures are made on Linux only")

// Observe is refused: see the one for Linux.
func Observe(context.Context, *Request) (*Observation, error) { return nil, refuse("%v", errOther) }

// Run fails: see the one for Linux.
func (c *Capture) Run(context.Context, func(Packet) error) error { return errOther }

// A File writes a capture as pcapng.
type File struct{}

// NewFile fails: see the one for Linux.
func (c *Capture) NewFile(io.Writer) (*File, error) { return nil, errOther }

// Write fails.
func (*File) Write(Packet) error { return errOther }

// Store is the store of what probes make: see the one for Linux.
type Store struct{}

// Look implements remediate.Store.
func (Store) Look(_ context.Context, step remediate.Step) (remediate.Step, bool, error) {
	return step, false, errOther
}

// Swap implements remediate.Store.
func (Store) Swap(_ context.Context, steps []remediate.Step) ([]bool, error) {
	return make([]bool, len(steps)), errOther
}
