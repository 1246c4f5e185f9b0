// Package agent reaches the host of an engine, wherever that is.
//
// Where the program runs as root in the engine's own namespaces, it reads and changes the host itself.
// Everywhere else (a user of the group docker, a VM, ssh, TCP) the same program does so on the engine's
// host: its own binary becomes an image there, and runs in a helper container that shares the host's
// network and PID namespace and changes into the host's root. The helper reads requests on its standard
// input and answers on its standard output, until that input ends; then it is gone. Judging stays with
// the client: what comes back is the same Snapshot.
//
// docs/security.md tells what runs with which rights.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/docker/docker/client"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// ErrLost means that a helper that was to change something gave no answer: what became of that is told by
// Runs.
var ErrLost = errors.New("it is not known what became of it: docker netcheck history tells")

// ErrElsewhere means that the engine's host is out of reach.
var ErrElsewhere = fmt.Errorf("nothing can be done there with --agent %s", Never)

// A Machine is the host of an engine: what can be read and changed there. Its methods are those of host
// and remediate, with their errors; they are not for use side by side.
type Machine interface {
	// Collect is host.Collect. Docker and Context are set by the machine.
	Collect(context.Context, host.Options) (*netstate.Snapshot, error)
	// Apply, Undo and Runs are those of the journal on that host.
	Apply(context.Context, *remediate.Plan) (*remediate.Run, error)
	Undo(ctx context.Context, id string) (*remediate.Run, error)
	Runs(context.Context) (remediate.History, error)
	// Close ends what was started there and waits until it is gone.
	Close() error
}

// An Observer is a Machine on which packets can be watched.
type Observer interface {
	// Observe is probe.Observe. What the probe installs is in the journal while it is there.
	Observe(context.Context, *probe.Request) (*probe.Observation, error)
	// Capture is Run of a capture that was made from the machine's snapshot. A packet is read when the one
	// before it was taken.
	Capture(context.Context, *probe.Capture, func(probe.Packet) error) error
}

// ProbeTitle is the title of the runs in which a live probe installs and takes away what it needs.
const ProbeTitle = "live probe"

// When the helper is used.
const (
	Auto   = "auto"   // unless we are root on the engine's own host
	Always = "always" // in any case
	Never  = "never"  // nothing is started; what of the host cannot be read from here is missing
)

// Options say how a host is reached.
type Options struct {
	Use     string    // Auto, Always or Never; "" is Auto
	Image   string    // a reference that the engine knows, instead of our own binary
	Context string    // name of the docker context, for the snapshot
	Address string    // of the engine, for Notes: "ssh://user@host"
	Notes   io.Writer // gets a line when a helper is used, and why

	// Guard returns the command that calls the function Guard for a helper of that name; nil: none.
	Guard func(name string) *exec.Cmd
}

// Open finds out where the engine is and returns its host. It starts nothing: a helper is started when
// it is first needed.
func Open(ctx context.Context, docker client.APIClient, o Options) (Machine, error) {
	switch o.Use {
	case "", Auto, Always, Never:
	default:
		return nil, fmt.Errorf("--agent %q: is none of %s, %s and %s", o.Use, Auto, Always, Never)
	}
	if o.Notes == nil {
		o.Notes = io.Discard
	}
	if o.Use == Always {
		return &remote{docker: docker, o: o, why: "--agent " + Always}, nil
	}
	place := host.Locate(ctx, docker)
	if place.Here || o.Use == Never {
		return &local{docker, o.Context, place}, nil
	}
	return &remote{docker: docker, o: o, why: place.Why}, nil
}
