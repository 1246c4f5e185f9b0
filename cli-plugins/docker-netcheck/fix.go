package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
		if text {
			fmt.Fprintf(dockerCLI.Err(), "nothing was changed: docker netcheck --apply %s makes this plan\n", clean(o.planFile))
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
	if o.fix && len(plan.Steps) == 0 && statusOf(found.report) != exitWell {
		fmt.Fprintf(dockerCLI.Err(), "docker netcheck: nothing was changed: %s\n", clean(whyNothing(found.report, refused)))
	}
	if text && o.dryRun && o.planFile == "" && len(plan.Steps) > 0 {
		fmt.Fprintln(dockerCLI.Err(), "nothing was changed: --fix in place of --dry-run makes this plan")
	}
	if !o.fix || len(plan.Steps) == 0 {
		return notMade(statusOf(found.report))
	}
	if !o.yes {
		if !dockerCLI.In().IsTerminal() {
			fmt.Fprintln(dockerCLI.Err(), "docker netcheck: nothing was changed: there is no terminal to ask on; --yes makes these changes without asking")
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
	if err != nil {
		return o.notApplied(ctx, dockerCLI, found, run, refused, err)
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
		return o.takeBack(ctx, dockerCLI, found, after, run, refused, err)
	}
	if text {
		newPrinter(dockerCLI.Out(), o).made(run, plan, found.report)
	}
	if err := o.print(dockerCLI, after); err != nil {
		return 0, err
	}
	return statusOf(after.report), nil
}

// whyNothing says why a plan for a host on which not all is well is empty.
func whyNothing(r *checks.Report, refused []checks.Refusal) string {
	if len(refused) > 0 {
		return refused[0].Why
	}
	for i := range r.Targets {
		for _, result := range r.Targets[i].Results {
			if result.Status == checks.Unknown {
				return result.Check + " is not known: " + result.Reason
			}
		}
	}
	return "no fix is known for it"
}

// notApplied says why a plan was not made. What somebody else did meanwhile ends with a report; what
// netcheck itself cannot do here is its own error.
func (o *checkOptions) notApplied(ctx context.Context, dockerCLI command.Cli, found *judged, run *remediate.Run, refused []checks.Refusal, err error) (int, error) {
	var stays *remediate.RefusedError
	switch {
	case errors.Is(err, agent.ErrLost):
		return 0, err
	case run != nil && run.State == remediate.Unfinished:
		return 0, err // it says what is left
	case errors.As(err, &stays) && run != nil:
		stand := slices.DeleteFunc(applied(run), func(step remediate.Step) bool {
			return !slices.ContainsFunc(stays.Refused, func(r remediate.Refusal) bool { return r.Object == step.Object() })
		})
		return o.partlyApplied(ctx, dockerCLI, found, &checks.FixOutcome{
			Run: run.ID, Applied: stand, Changed: len(stand) > 0, Refused: orEmpty(refused), Why: partlyUndone + ": " + err.Error(),
		})
	case ctx.Err() != nil:
		return 0, errors.New(unchanged)
	case run == nil && !errors.Is(err, remediate.ErrChanged) && !errors.Is(err, remediate.ErrBusy):
		return 0, fmt.Errorf("nothing was changed: %w", err)
	}
	fmt.Fprintf(dockerCLI.Err(), "docker netcheck: nothing was changed: %s\n", clean(err.Error()))
	found.report.Fix = &checks.FixOutcome{Applied: []remediate.Step{}, Refused: orEmpty(refused), Why: err.Error()}
	if run != nil {
		found.report.Fix.Run = run.ID
	}
	return exitFault, o.printDocument(dockerCLI, found)
}

// partlyApplied shows the host as a plan left it that failed and has a step that cannot be taken back: a restart
// that failed leaves a container that does not run.
func (o *checkOptions) partlyApplied(ctx context.Context, dockerCLI command.Cli, found *judged, outcome *checks.FixOutcome) (int, error) {
	after, err := o.judge(ctx)
	if err != nil {
		return 0, errors.New(outcome.Why)
	}
	fmt.Fprintf(dockerCLI.Err(), "docker netcheck: %s\n", clean(outcome.Why))
	after.report.Before, after.report.Plan, after.report.Fix = found.report.Targets, found.report.Plan, outcome
	return exitFault, o.print(dockerCLI, after)
}

// takeBack undoes a plan that did not help because of err, and shows the report with it and the one
// without. after is nil if it is not known what the plan did.
func (o *checkOptions) takeBack(ctx context.Context, dockerCLI command.Cli, found, after *judged, run *remediate.Run, refused []checks.Refusal, err error) (int, error) {
	taken := "everything was taken back"
	if run.ID != "" {
		_, undoErr := o.machine.Undo(context.WithoutCancel(ctx), run.ID)
		var stays *remediate.RefusedError
		switch {
		case errors.As(undoErr, &stays):
			taken = partlyUndone + " (" + stays.Error() + ")"
		case undoErr != nil:
			return 0, fmt.Errorf("%w; run %s was not taken back: %w", err, run.ID, undoErr)
		}
	}
	switch {
	case ctx.Err() != nil:
		return 0, errors.New(taken)
	case after == nil:
		return 0, fmt.Errorf("%s: %w", taken, err)
	}
	if !o.quiet && o.format == "" {
		fmt.Fprintln(dockerCLI.Out(), "\nWITH THE FIX, which is taken back:")
		if err := o.print(dockerCLI, after); err != nil {
			return 0, err
		}
	}
	fmt.Fprintf(dockerCLI.Err(), "docker netcheck: %s: %s\n", clean(taken), clean(err.Error()))
	found.report.Fix = &checks.FixOutcome{
		Run: run.ID, Applied: []remediate.Step{}, Refused: orEmpty(refused), Why: err.Error(), Tried: after.report.Targets,
	}
	return exitFault, o.printDocument(dockerCLI, found)
}

// printDocument prints a report that a person has seen already.
func (o *checkOptions) printDocument(dockerCLI command.Cli, found *judged) error {
	if !o.quiet && o.format == "" {
		return nil
	}
	return o.print(dockerCLI, found)
}

// How long a change may take to show: links learn of each other's carrier up to a second late, and a program that
// was started anew does not listen at once.
const (
	settling = 3 * time.Second
	starting = 20 * time.Second
)

// settled judges again after a plan was made: until all is well, or for as long as it may take to show.
func (o *checkOptions) settled(ctx context.Context, notes *streams.Out, before *checks.Report, plan *remediate.Plan) (*judged, error) {
	done := progress(notes, "judging again")
	defer done()
	patience := settling
	if plan.Disrupts {
		patience = starting
	}
	for deadline := time.Now().Add(patience); ; {
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

// made says what was done, how long it lasts and how it is taken back. before is nil where no fix is known
// but only its plan.
func (p *printer) made(run *remediate.Run, plan *remediate.Plan, before *checks.Report) {
	fmt.Fprintln(p.out)
	if run.ID == "" {
		fmt.Fprintln(p.out, "DONE  nothing had to be changed")
	} else {
		fmt.Fprintf(p.out, "DONE  run %s; docker netcheck undo %s\n", run.ID, undoes(run))
		if before != nil {
			for _, title := range before.Fleeting(plan) {
				fmt.Fprintf(p.out, "      until reboot: %s\n", clean(title))
			}
		} else {
			fmt.Fprintln(p.out, "      whether it helped, docker netcheck CONTAINER tells")
		}
	}
	fmt.Fprintln(p.out)
}

// undoes says what undo makes of a run.
func undoes(run *remediate.Run) string {
	var stays []string
	for i, step := range run.Steps {
		if step.OneWay && run.Changed[i] {
			stays = append(stays, clean(step.Object()))
		}
	}
	switch len(stays) {
	case 0:
		return "takes it back"
	case len(run.Steps):
		return "cannot take it back"
	}
	return "takes it back, but for " + strings.Join(stays, ", ")
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
