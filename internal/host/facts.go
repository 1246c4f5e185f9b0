//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// EngineFacts answers the guards that only the engine knows: "container ID" is when it was started,
// "engine" dockerd's PID and start.
func EngineFacts(docker Docker) remediate.Facts {
	return func(ctx context.Context, _ remediate.Step, guard string) (string, error) {
		kind, object, _ := strings.Cut(guard, " ")
		switch kind {
		case remediate.GuardContainer:
			c, err := docker.ContainerInspect(ctx, object)
			if errdefs.IsNotFound(err) {
				return "", nil
			}
			if err != nil {
				return "", fmt.Errorf("container %s: %w", object, err)
			}
			return c.State.StartedAt, nil
		case remediate.GuardEngine:
			var m machine
			if pid := m.findDockerd(docker.DaemonHost()); pid != 0 {
				return EngineGuard(pid, m.started(pid)), nil
			}
			return "", nil
		}
		return "", errors.New("is not known")
	}
}

// EngineGuard is the value of the guard "engine" for a dockerd.
func EngineGuard(pid int, started string) string { return fmt.Sprintf("%d@%s", pid, started) }
