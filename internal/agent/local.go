package agent

import (
	"context"
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// local is the host that this program runs on.
type local struct {
	docker  engineAPI
	context string
	place   host.Place
}

// An engineAPI is what is used of the Docker API.
type engineAPI interface {
	host.Docker
	host.Changer
}

func (l *local) Collect(ctx context.Context, o host.Options) (*netstate.Snapshot, error) {
	o.Docker, o.Context, o.Place = l.docker, l.context, l.place
	return host.Collect(ctx, o)
}

func (l *local) journal() *remediate.Journal { return &remediate.Journal{Dir: remediate.JournalDir} }

func (l *local) facts() remediate.Facts { return host.Facts(host.EngineFacts(l.docker)) }

// here refuses to change a host that is not the engine's.
func (l *local) here() error {
	if l.place.Elsewhere != "" {
		return fmt.Errorf("%s: %w", l.place.Elsewhere, ErrElsewhere)
	}
	return nil
}

func (l *local) Apply(ctx context.Context, plan *remediate.Plan) (*remediate.Run, error) {
	if err := l.here(); err != nil {
		return nil, err
	}
	return l.journal().Apply(ctx, plan, stores(l.docker), l.facts())
}

func (l *local) Undo(ctx context.Context, id string) (*remediate.Run, error) {
	if err := l.here(); err != nil {
		return nil, err
	}
	return l.journal().Undo(ctx, id, stores(l.docker), l.facts())
}

func (l *local) Runs(context.Context) (remediate.History, error) {
	if err := l.here(); err != nil {
		return nil, err
	}
	return l.journal().Runs()
}

func (l *local) Close() error { return nil }
