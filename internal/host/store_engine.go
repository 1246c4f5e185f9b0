//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// ContainerStore holds what an engine's containers are doing, kind "container". A name is the container's, for
// people: the step's guard "container ID" finds it. There are two changes:
//
//	paused                              → running
//	running since 2026-11-21T12:33:07Z  → started anew, a one-way step
//
// To start anew is the engine's own restart: a stop with the container's own signal and time, then a start.
func ContainerStore(docker Changer) remediate.Store { return containerStore{docker} }

type containerStore struct{ docker Changer }

const startedAnew = "started anew"

// Look implements [remediate.Store]. It refuses all but the two changes: to pause a container is for undo alone.
func (s containerStore) Look(ctx context.Context, step remediate.Step) (remediate.Step, bool, error) {
	is := func(value *string, want string) bool { return value != nil && *value == want }
	anew := step.OneWay && is(step.New, startedAnew)
	goesOn := !step.OneWay && is(step.Old, "paused") && is(step.New, "running")
	if !anew && !goesOn {
		return step, false, fmt.Errorf("%s: can be started anew, by a one-way step, or go on after a pause, and nothing else", step.Object())
	}
	now, err := s.now(ctx, step)
	return step, err == nil && remediate.Equal(now, step.New), err
}

// Swap implements [remediate.Store]. What was begun is not interrupted: a container in the middle of a restart is
// one that does not run, and those that share its network have none until they are started anew as well.
func (s containerStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		now, err := s.now(ctx, step)
		switch {
		case err != nil:
			return changed, err
		case remediate.Equal(now, step.New):
			continue
		case !remediate.Equal(now, step.Old):
			return changed, remediate.Changed(step, now)
		}
		if step.OneWay {
			ctx = context.WithoutCancel(ctx)
		}
		if err := s.put(context.WithoutCancel(ctx), step); err != nil {
			after, unknown := s.now(context.WithoutCancel(ctx), step)
			changed[i] = unknown != nil || !remediate.Equal(after, now) || // stopped, and not started again
				step.OneWay && client.IsErrConnectionFailed(err) // the engine may still be at it
			return changed, fmt.Errorf("%s: %w", step.Object(), err)
		}
		changed[i] = true
	}
	return changed, nil
}

// now returns what the container is doing, nil if there is none.
func (s containerStore) now(ctx context.Context, step remediate.Step) (*string, error) {
	id, err := containerOf(step)
	if err != nil {
		return nil, err
	}
	c, err := s.docker.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", step.Object(), err)
	}
	value := string(c.State.Status)
	if step.OneWay && c.State.Running && !c.State.Paused {
		value = "running since " + c.State.StartedAt
	}
	return &value, nil
}

func (s containerStore) put(ctx context.Context, step remediate.Step) error {
	id, err := containerOf(step)
	if err != nil {
		return err
	}
	switch {
	case step.New == nil:
	case *step.New == startedAnew:
		return s.docker.ContainerRestart(ctx, id, container.StopOptions{})
	case *step.New == "running":
		return s.docker.ContainerUnpause(ctx, id)
	case *step.New == "paused":
		return s.docker.ContainerPause(ctx, id)
	}
	return errors.New("no step can make that of a container")
}

// containerOf returns the ID of the container that the step's guard names.
func containerOf(step remediate.Step) (string, error) {
	found := ""
	for guard := range step.Guards {
		if kind, id, _ := strings.Cut(guard, " "); kind == remediate.GuardContainer {
			if found != "" {
				return "", fmt.Errorf("%s: its guards name more than one container", step.Object())
			}
			found = id
		}
	}
	// It becomes part of an address of the engine's, and a plan may come from elsewhere.
	if len(found) != 64 || strings.Trim(found, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%s: no guard names its container by its whole ID", step.Object())
	}
	return found, nil
}
