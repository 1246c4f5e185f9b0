// Package host is the only one that touches the machine: Collect reads it into a netstate.Snapshot, and
// the stores write to it. It decides nothing.
package host

import (
	"context"
	"errors"
	"net"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
)

// The errors of Collect, beside that of a context that ended. Their texts end with what they are about.
var (
	// ErrNoEngine says that no engine answers: "no engine reachable: Cannot connect to …".
	ErrNoEngine = errors.New("no engine reachable")
	// ErrNoContainer says that a container was asked for that the engine does not have: "no such
	// container: web".
	ErrNoContainer = errors.New("no such container")
)

// Options say what Collect reads.
type Options struct {
	Docker     Docker
	Context    string        // name of the docker context behind Docker
	Containers []string      // names, IDs or unique beginnings of IDs
	All        bool          // the running containers as well
	Filters    filters.Args  // those running containers that pass, as docker ps --filter
	Thorough   bool          // also what only a fault makes needed, see Collect
	Parts      netstate.Part // what is read; containers that are asked for are inspected in any case
	Place      Place         // of the engine, as Locate found it; the zero value: its address tells
	Root       string        // where /proc, /sys and /etc are; "" for the root directory
}

// Docker is the little of the Docker API that is used; *client.Client of
// github.com/docker/docker/client satisfies it.
//
// No ServerVersion: like Info it makes the engine run runc and docker-init, which takes as long as everything
// else together.
type Docker interface {
	Ping(context.Context) (types.Ping, error)
	Info(context.Context) (system.Info, error)
	ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error)
	ContainerList(context.Context, container.ListOptions) ([]container.Summary, error)
	NetworkList(context.Context, network.ListOptions) ([]network.Summary, error)
	NetworkInspect(ctx context.Context, id string, o network.InspectOptions) (network.Inspect, error)
	DaemonHost() string    // "unix:///var/run/docker.sock"
	ClientVersion() string // API version that was agreed upon
}

// A Changer is the little of the Docker API that changes containers; *client.Client of
// github.com/docker/docker/client satisfies it.
type Changer interface {
	ContainerInspect(ctx context.Context, name string) (container.InspectResponse, error)
	ContainerRestart(ctx context.Context, id string, o container.StopOptions) error
	ContainerPause(ctx context.Context, id string) error
	ContainerUnpause(ctx context.Context, id string) error
}

// AgentLabel marks netcheck's own helper containers, which Collect does not count among the running ones.
const AgentLabel = "docker-netcheck.agent"

// A Dialer connects to an engine; *client.Client of github.com/docker/docker/client is one.
type Dialer interface {
	Dialer() func(context.Context) (net.Conn, error)
}

// A Place says where an engine is, as seen from this program.
type Place struct {
	Here      bool   // on this host, and this program can read and change all of it
	PID       int    // of dockerd, if it is Here; 0: not known
	Why       string // it is not Here: a clause
	Elsewhere string // it is known not to be on this host: the same clause; "" if that is not known
}
