package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// writePlan writes a plan where --apply can read it.
func writePlan(path string, plan *remediate.Plan) error {
	data, err := json.MarshalIndent(plan, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	return nil
}

// applyOptions are the options that go with --apply: the plan says all the rest.
// --persist is taken, for the contract allows it, and makes nothing that the plan does not say.
var applyOptions = []string{"apply", "yes", "persist", "allow", "agent", "agent-image"}

// completeApply checks the options that were given with --apply.
func (o *checkOptions) completeApply(cmd *cobra.Command) error {
	if len(o.containers) > 0 {
		return errors.New("--apply makes a plan as it stands: it takes no container")
	}
	var wrong error
	cmd.LocalFlags().Visit(func(f *pflag.Flag) {
		if wrong == nil && f.Changed && !slices.Contains(applyOptions, f.Name) {
			wrong = fmt.Errorf("--apply and --%s exclude each other", f.Name)
		}
	})
	return wrong
}

// runApply makes a plan that --plan wrote. Each of its steps is refused if its thing has changed since.
func runApply(ctx context.Context, dockerCLI command.Cli, o *checkOptions) (int, error) {
	data, err := os.ReadFile(o.applyFile)
	if err != nil {
		return 0, fmt.Errorf("plan: %w", err)
	}
	plan, err := remediate.ParsePlan(data)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", o.applyFile, err)
	}
	switch {
	case plan.Opens && !slices.Contains(o.allow, "open"):
		return refusedApply(dockerCLI, unchanged, errors.New("it opens what may be closed on purpose: add --allow open"))
	case plan.Disrupts && !slices.Contains(o.allow, "disrupt"):
		return refusedApply(dockerCLI, unchanged, errors.New("it interrupts traffic: add --allow disrupt"))
	}
	p := newPrinter(dockerCLI.Out(), o)
	p.plan(plan, nil)
	if len(plan.Steps) == 0 {
		return exitWell, nil
	}
	if !o.yes {
		if !dockerCLI.In().IsTerminal() {
			return 0, errors.New("nothing was changed: there is no terminal to ask on; --yes makes these changes without asking")
		}
		agreed, err := confirm(ctx, dockerCLI.In(), dockerCLI.Err(), "Make these changes?")
		if err != nil {
			return 0, err
		}
		if !agreed {
			fmt.Fprintln(dockerCLI.Err(), "nothing was changed")
			return exitFault, nil
		}
	}
	return o.reach.with(ctx, dockerCLI, func(machine agent.Machine) (int, error) {
		run, err := machine.Apply(ctx, plan)
		var stays *remediate.RefusedError
		switch {
		case err == nil:
		case errors.Is(err, agent.ErrLost) || run != nil && run.State == remediate.Unfinished:
			return 0, err
		case errors.As(err, &stays) && ctx.Err() != nil:
			return 0, fmt.Errorf("%s: %w", partlyUndone, err)
		case errors.As(err, &stays):
			return refusedApply(dockerCLI, partlyUndone, err)
		case ctx.Err() != nil:
			return 0, errors.New(unchanged)
		default:
			return refusedApply(dockerCLI, unchanged, err)
		}
		p.made(run, plan, nil)
		return exitWell, nil
	})
}

// What is left of a plan that was not made.
const (
	unchanged    = "nothing was changed"
	partlyUndone = "all that can be was taken back" // a restart stands
)

// refusedApply says what is left of a plan that was not made, and why.
func refusedApply(dockerCLI command.Cli, left string, err error) (int, error) {
	fmt.Fprintf(dockerCLI.Err(), "docker netcheck: %s: %s\n", left, clean(err.Error()))
	return exitFault, nil
}
