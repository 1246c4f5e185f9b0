//go:build !linux

package host

import (
	"context"
	"errors"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// errNotLinux says why nothing can be read or changed here: Docker's hosts are Linux machines, also behind
// Docker Desktop. They are reached by internal/agent.
var errNotLinux = errors.New("this machine is no Docker host: only Linux ones can be looked at")

// Collect is for Linux hosts.
func Collect(context.Context, Options) (*netstate.Snapshot, error) { return nil, errNotLinux }

// Locate says that an engine is never here.
func Locate(context.Context, Dialer) Place {
	why := "this machine is no Linux host"
	return Place{Why: why, Elsewhere: why}
}

// Stores returns none.
func Stores() remediate.Stores { return nil }

// Facts knows nothing here.
func Facts(remediate.Facts) remediate.Facts {
	return func(context.Context, remediate.Step, string) (string, error) { return "", errNotLinux }
}

// EngineFacts knows nothing here.
func EngineFacts(Docker) remediate.Facts { return Facts(nil) }
