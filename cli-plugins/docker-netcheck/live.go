package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli/streams"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
)

// prove makes one live connection for each target, sets it beside what was predicted, and returns what
// was seen, by target.
func (o *checkOptions) prove(ctx context.Context, notes *streams.Out, found *judged) ([]*probe.Observation, error) {
	done := progress(notes, "making a live connection")
	defer done()
	observations := make([]*probe.Observation, len(found.report.Targets))
	for i := range found.report.Targets {
		j := &found.report.Targets[i]
		observation, err := o.observe(ctx, found, j)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		verdict := probe.Verdict{}
		if err != nil {
			verdict = probe.Refusal(err)
		} else {
			trace := found.host.Walk(j.Target)
			verdict = probe.Compare(trace, observation)
			observations[i] = observation
			if verdict.Result == probe.Proved && j.Status == checks.Fail && !trace.Verdict.Stops() {
				// What fails is not on the packet's way: a paused container's socket answers too.
				verdict.Result = probe.Unproved
				verdict.Why = "one connection says nothing of what fails: " + verdict.Why
			}
		}
		j.Live = &checks.Live{Result: verdict.Result, Last: verdict.Last, Why: verdict.Why, Not: verdict.Not}
	}
	found.report.Weigh()
	return observations, nil
}

// observe makes the live connection of one target.
func (o *checkOptions) observe(ctx context.Context, found *judged, j *checks.Judgement) (*probe.Observation, error) {
	observer, ok := o.machine.(agent.Observer)
	if !ok {
		return nil, fmt.Errorf("%w: a live connection is made on the engine's own host only: run docker netcheck there, as root", probe.ErrRefused)
	}
	uplink := o.iface
	if uplink == "" {
		uplink = found.host.Walk(j.Target).Uplink
	}
	request, err := probe.NewRequest(found.snapshot, j.Target, uplink)
	if err != nil {
		return nil, err
	}
	return observer.Observe(ctx, request)
}

// proved says whether a live connection showed that every target is well.
func proved(r *checks.Report) bool {
	for i := range r.Targets {
		if live := r.Targets[i].Live; live == nil || live.Result != probe.Proved || r.Targets[i].Status == checks.Fail {
			return false
		}
	}
	return len(r.Targets) > 0
}

// completeLive checks the options that go with --live.
func (o *checkOptions) completeLive() error {
	if o.live && o.from != "" {
		return errors.New("--live makes a connection on this host: it does not go with --from")
	}
	if o.live && o.ask.SPort != 0 {
		return errors.New("--live makes a connection of its own: --client takes no port with it")
	}
	o.thorough = o.thorough || o.live // also where all is well: the probe must not be taken for one of the client's connections
	return nil
}
