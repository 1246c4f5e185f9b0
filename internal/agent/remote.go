package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/client"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// remote is a host that is reached through helpers. There is one at a time: it reads until something is
// to be changed, and is then replaced by one that may.
type remote struct {
	docker client.APIClient
	o      Options
	why    string
	image  string
	helper *helper
}

// session returns a running helper with those rights at least.
func (r *remote) session(ctx context.Context, rights string) (*helper, error) {
	if r.helper != nil {
		if level(r.helper.rights) >= level(rights) {
			return r.helper, nil
		}
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	if r.image == "" {
		image, err := ensureImage(ctx, r.docker, r.o)
		if err != nil {
			return nil, explain(err)
		}
		at := ""
		if r.o.Address != "" {
			at = " (" + r.o.Address + ")"
		}
		fmt.Fprintf(r.o.Notes, "docker netcheck: through a helper container on the engine's host%s: %s\n", at, r.why)
		r.image = image
	}
	h, err := start(ctx, r.docker, r.o, r.image, rights)
	if err != nil {
		return nil, explain(err)
	}
	r.helper = h
	return h, nil
}

// explain says of an error of the engine what it means for the helper.
func explain(err error) error {
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("%w: %w", host.ErrNoEngine, err)
	}
	return fmt.Errorf("helper container: %w", err)
}

// ask starts a helper if there is none, and asks it. A deadline of ctx counts from when the helper runs:
// to bring it there may take longer than to read.
func (r *remote) ask(ctx context.Context, q request) (*reply, error) {
	return r.askFor(ctx, q, func(*reply) error { return errors.New("the helper's answer comes in parts") })
}

// askFor is ask with an answer that comes in parts.
func (r *remote) askFor(ctx context.Context, q request, each func(*reply) error) (*reply, error) {
	begun := time.Now()
	starting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})
	defer stop()
	h, err := r.session(starting, needs[q.Do])
	if err != nil {
		return nil, err
	}
	asking := starting
	if deadline, ok := ctx.Deadline(); ok {
		q.Timeout = deadline.Sub(begun)
		// The helper keeps the time. What it says then is worth a moment.
		var done context.CancelFunc
		asking, done = context.WithTimeout(starting, q.Timeout+2*time.Second)
		defer done()
	}
	return h.ask(asking, q, each)
}

func (r *remote) Collect(ctx context.Context, o host.Options) (*netstate.Snapshot, error) {
	a, err := r.ask(ctx, request{Do: doCollect, Collect: &collection{
		Context: r.o.Context, Containers: o.Containers, All: o.All, Filters: o.Filters, Thorough: o.Thorough, Parts: o.Parts,
	}})
	if err != nil {
		return nil, err
	}
	return netstate.Decode(bytes.NewReader(a.Snapshot))
}

func (r *remote) Apply(ctx context.Context, plan *remediate.Plan) (*remediate.Run, error) {
	document, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	return runOf(r.ask(ctx, request{Do: doApply, Plan: document}))
}

func (r *remote) Undo(ctx context.Context, id string) (*remediate.Run, error) {
	return runOf(r.ask(ctx, request{Do: doUndo, Run: id}))
}

// runOf returns the run of a reply: one that was rolled back comes with an error.
func runOf(a *reply, err error) (*remediate.Run, error) {
	switch {
	case a == nil:
		return nil, err
	case a.Run == nil && err == nil:
		return nil, errors.New("the helper's answer holds no run")
	case a.Run != nil && len(a.Run.Changed) != len(a.Run.Steps):
		return nil, errors.Join(err, errors.New("the helper's answer does not say what became of each step"))
	}
	return a.Run, err
}

func (r *remote) Runs(ctx context.Context) (remediate.History, error) {
	a, err := r.ask(ctx, request{Do: doHistory})
	if err != nil {
		return nil, err
	}
	var runs remediate.History
	err = json.Unmarshal(a.History, &runs)
	return runs, err
}

// Observe implements Observer. The helper makes its own request of the same target.
func (r *remote) Observe(ctx context.Context, p *probe.Request) (*probe.Observation, error) {
	a, err := r.ask(ctx, request{Do: doObserve, Observe: &observation{
		Target: p.Target, Uplink: p.Uplink, HTTP: p.HTTP, ICMP: p.ICMP, Timeout: p.Timeout,
	}})
	if err != nil {
		return nil, err
	}
	if a.Observation == nil || a.Observation.Schema != probe.Schema {
		return nil, errors.New("the helper's answer holds no observation")
	}
	return a.Observation, nil
}

// Capture implements Observer. The helper makes its own capture with the same options.
func (r *remote) Capture(ctx context.Context, c *probe.Capture, each func(probe.Packet) error) error {
	o := c.Options()
	a, err := r.askFor(ctx, request{Do: doCapture, Capture: &capture{
		Container: o.Container, Port: o.Port, Client: o.Client, Iface: o.Iface, Hops: o.Hops,
		Count: o.Count, Duration: o.Duration, Snaplen: o.Snaplen,
	}}, func(part *reply) error {
		switch {
		case part.Packet == nil:
			if part.Ready && o.Ready != nil {
				o.Ready()
			}
			return nil
		case !c.Has(*part.Packet):
			return errors.New("the helper's packet is of no hop that was read")
		}
		return each(*part.Packet)
	})
	if err != nil {
		return err
	}
	return c.SetCounts(a.Counts)
}

func (r *remote) Close() error {
	if r.helper == nil {
		return nil
	}
	h := r.helper
	r.helper = nil
	return h.close()
}
