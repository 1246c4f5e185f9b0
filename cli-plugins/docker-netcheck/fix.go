package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/streams"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// plan makes the report's plan: what --fix would do, with what it would not do and why.
func (o *checkOptions) plan(found *judged) ([]checks.Refusal, error) {
	fixes, refused := found.report.Fixes(checks.Consent{
		Open:    contains(o.allow, "open"),
		Disrupt: contains(o.allow, "disrupt"),
		Partial: len(o.only) > 0,
	})
	plan, err := remediate.NewPlan(fixes, o.persist)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	found.report.Plan = plan
	return refused, nil
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

// runFix shows the plan and, with --fix, makes it, then judges again: the proof is the same function.
func runFix(ctx context.Context, dockerCLI command.Cli, o *checkOptions, found *judged) (int, error) {
	refused, err := o.plan(found)
	if err != nil {
		return 0, err
	}
	plan := found.report.Plan
	text := !o.quiet && o.format == ""
	if text {
		if err := o.print(dockerCLI, found); err != nil {
			return 0, err
		}
		newPrinter(dockerCLI.Out(), o).plan(plan, refused)
	}
	if o.planFile != "" {
		if err := writePlan(o.planFile, plan); err != nil {
			return 0, err
		}
	}
	notMade := func(status int) (int, error) {
		if text {
			return status, nil
		}
		if o.fix {
			found.report.Fix = &checks.FixOutcome{Applied: []remediate.Step{}, Refused: orEmpty(refused)}
		}
		return status, o.print(dockerCLI, found)
	}
	if !o.fix || len(plan.Steps) == 0 {
		return notMade(statusOf(found.report))
	}
	if !o.yes {
		if !dockerCLI.In().IsTerminal() {
			fmt.Fprintln(dockerCLI.Err(), "nothing was changed: there is no terminal to ask on; --yes makes the plan without asking")
			return notMade(statusOf(found.report))
		}
		agreed, err := confirm(ctx, dockerCLI.In(), dockerCLI.Err(), "Make these changes?")
		if err != nil {
			return 0, err
		}
		if !agreed {
			fmt.Fprintln(dockerCLI.Err(), "nothing was changed")
			return notMade(statusOf(found.report))
		}
	}

	run, err := o.machine.Apply(ctx, plan)
	if errors.Is(err, agent.ErrLost) {
		return 0, err
	}
	if err != nil {
		return 0, fmt.Errorf("nothing was changed: %w", err)
	}
	after, err := o.settled(ctx, dockerCLI.Err(), found.report, plan)
	if err == nil {
		after.report.Before = found.report.Targets
		after.report.Plan = plan
		after.report.Fix = &checks.FixOutcome{
			Run: run.ID, Applied: applied(run), Changed: run.Altered(), Refused: orEmpty(refused),
			Rechecked: true,
		}
		err = checks.Helped(found.report, after.report, plan)
	}
	if err == nil && o.live {
		if _, err = o.prove(ctx, dockerCLI.Err(), after); err == nil {
			after.report.Fix.Proved = proved(after.report)
		}
	}
	if err != nil {
		// What did not help, or could not be seen to help, does not stay.
		if run.ID != "" {
			if _, undoErr := o.machine.Undo(context.WithoutCancel(ctx), run.ID); undoErr != nil {
				return 0, errors.Join(err, undoErr)
			}
		}
		if after == nil {
			return 0, fmt.Errorf("everything was taken back: %w", err)
		}
		fmt.Fprintf(dockerCLI.Err(), "docker netcheck: everything was taken back: %s\n", clean(err.Error()))
		after.report.Fix.Rechecked, after.report.Fix.Changed = false, false
		after.report.Fix.Applied = []remediate.Step{}
		after.report.Targets, after.report.Before = found.report.Targets, []checks.Judgement{}
		after.report.Verdict = found.report.Verdict
		if !text {
			return exitFault, o.print(dockerCLI, after)
		}
		return exitFault, nil
	}
	if text {
		p := newPrinter(dockerCLI.Out(), o)
		p.made(run)
	}
	if err := o.print(dockerCLI, after); err != nil {
		return 0, err
	}
	return statusOf(after.report), nil
}

// settling is how long a change may take to show: links learn of each other's carrier up to a second late.
const settling = 3 * time.Second

// settled judges again after a plan was made: until all is well, or for as long as it may take to show.
func (o *checkOptions) settled(ctx context.Context, notes *streams.Out, before *checks.Report, plan *remediate.Plan) (*judged, error) {
	done := progress(notes, "judging again")
	defer done()
	for deadline := time.Now().Add(settling); ; {
		after, err := o.judge(ctx)
		if err != nil || after.report.Verdict != checks.Fail && checks.Helped(before, after.report, plan) == nil || time.Now().After(deadline) {
			return after, err
		}
		select {
		case <-ctx.Done():
			return after, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// applied returns the steps that changed something.
func applied(run *remediate.Run) []remediate.Step {
	steps := []remediate.Step{}
	for i, step := range run.Steps {
		if run.Changed[i] {
			steps = append(steps, step)
		}
	}
	return steps
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// plan prints what will be done, exactly, and what will not.
func (p *printer) plan(plan *remediate.Plan, refused []checks.Refusal) {
	fmt.Fprintln(p.out)
	if len(plan.Steps) == 0 {
		fmt.Fprintln(p.out, "PLAN  nothing to change")
	} else {
		fmt.Fprintln(p.out, "PLAN")
		for line := range strings.Lines(plan.Diff()) {
			line = clean(strings.TrimSuffix(line, "\n"))
			switch {
			case strings.HasPrefix(line, "+"):
				line = p.paint("32", line)
			case strings.HasPrefix(line, "-"):
				line = p.paint("31", line)
			}
			fmt.Fprintln(p.out, line)
		}
	}
	for _, refusal := range refused {
		p.line("  not made: %s: %s", clean(refusal.Fix), clean(refusal.Why))
	}
}

// made says what was done and how it is taken back.
func (p *printer) made(run *remediate.Run) {
	fmt.Fprintln(p.out)
	if run.ID == "" {
		fmt.Fprintln(p.out, "DONE  nothing had to be changed")
	} else {
		fmt.Fprintf(p.out, "DONE  run %s; docker netcheck undo takes it back\n", run.ID)
	}
	fmt.Fprintln(p.out)
}

// confirm asks a question of which only y and yes are a yes. A cancelled context is no answer.
func confirm(ctx context.Context, in io.Reader, out io.Writer, question string) (bool, error) {
	fmt.Fprintf(out, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(out)
		return false, errors.New("nothing was changed")
	case line := <-answer:
		return line == "y" || line == "yes", nil
	}
}
