package agent

import (
	"context"
	"errors"
	"maps"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// stores are those of this machine, what probes make, and the engine's containers.
func stores(docker host.Changer) remediate.Stores {
	all := maps.Clone(host.Stores())
	all[probe.Kind] = probe.Store{}
	all["container"] = host.ContainerStore(docker)
	return all
}

// Observe implements Observer.
func (l *local) Observe(ctx context.Context, r *probe.Request) (_ *probe.Observation, err error) {
	if err := l.here(); err != nil {
		return nil, err
	}
	plan := &remediate.Plan{Titles: []string{ProbeTitle}, Steps: r.Installs()}
	run, err := l.journal().Apply(ctx, plan, stores(l.docker), l.facts())
	if err != nil {
		return nil, err
	}
	defer func() {
		if run.ID != "" {
			_, undone := l.journal().Undo(context.WithoutCancel(ctx), run.ID, stores(l.docker), l.facts())
			err = errors.Join(err, undone)
		}
	}()
	return probe.Observe(ctx, r)
}

// Capture implements Observer.
func (l *local) Capture(ctx context.Context, c *probe.Capture, each func(probe.Packet) error) error {
	if err := l.here(); err != nil {
		return err
	}
	return c.Run(ctx, each)
}
