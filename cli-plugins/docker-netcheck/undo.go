package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

func newUndoCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	var yes bool
	var at reach
	cmd := &cobra.Command{
		Use:   "undo [OPTIONS] [RUN]",
		Short: "Take a fix back, the last one unless another is named",
		Long: `Take a fix back, the last one unless another is named

Puts back what the run found, to the byte, and only where nothing else has changed it since. What
was made for a container, a link or a boot that is gone is left alone, and said; so is a restart, which
cannot be taken back.

Exit status: 0 done, 1 refused, 125 usage or own error.`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return exit.run(cmd, func(ctx context.Context) (int, error) {
				return at.with(ctx, dockerCLI, func(machine agent.Machine) (int, error) {
					return runUndo(ctx, dockerCLI, machine, strings.Join(args, ""), yes)
				})
			})
		},
		ValidArgsFunction: completeRuns,
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	at.addFlags(cmd)
	return cmd
}

// atMost is cobra.MaximumNArgs with docker's words and netcheck's exit status.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(cmd, "%s takes at most %d argument(s), %d given", cmd.CommandPath(), n, len(args))
		}
		return nil
	}
}

func completeRuns(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	runs, _ := (&remediate.Journal{Dir: remediate.JournalDir}).Runs()
	var ids []string
	for _, run := range runs {
		if run.State == remediate.Applied || run.State == remediate.Unfinished {
			ids = append(ids, run.ID)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func runUndo(ctx context.Context, dockerCLI command.Cli, machine agent.Machine, id string, yes bool) (int, error) {
	if !yes {
		runs, err := machine.Runs(ctx)
		if err != nil {
			return 0, err
		}
		run, err := runs.Standing(id)
		if err != nil {
			return refusedUndo(dockerCLI, err)
		}
		newPrinter(dockerCLI.Out(), &checkOptions{}).takeBack(run)
		if !dockerCLI.In().IsTerminal() {
			return 0, errors.New("nothing was changed: there is no terminal to ask on; --yes does it without asking")
		}
		agreed, err := confirm(ctx, dockerCLI.In(), dockerCLI.Err(), "Take this back?")
		if err != nil {
			return 0, err
		}
		if !agreed {
			fmt.Fprintln(dockerCLI.Err(), "nothing was changed")
			return exitFault, nil
		}
		id = run.ID
	}
	run, err := machine.Undo(ctx, id)
	if err != nil {
		return refusedUndo(dockerCLI, err)
	}
	fmt.Fprintf(dockerCLI.Out(), "run %s: taken back: %s\n", run.ID, clean(strings.Join(run.Titles, "; ")))
	return exitWell, nil
}

// refusedUndo says why nothing, or not everything, was taken back.
func refusedUndo(dockerCLI command.Cli, err error) (int, error) {
	if errors.Is(err, context.Canceled) {
		return 0, err
	}
	hint := ""
	if errors.Is(err, remediate.ErrNothing) {
		hint = " (docker netcheck history lists the runs)"
	}
	fmt.Fprintf(dockerCLI.Err(), "docker netcheck undo: %s%s\n", clean(err.Error()), hint)
	return exitFault, nil
}

// takeBack prints what undo would do.
func (p *printer) takeBack(run *remediate.Run) {
	fmt.Fprintf(p.out, "run %s of %s: %s\n", run.ID, run.Time.Local().Format("2006-01-02 15:04:05"), clean(strings.Join(run.Titles, "; ")))
	for i := len(run.Steps) - 1; i >= 0; i-- {
		if run.Changed[i] && run.Steps[i].OneWay {
			fmt.Fprintf(p.out, "%s: cannot be taken back\n", clean(run.Steps[i].Object()))
		} else if run.Changed[i] {
			for line := range strings.Lines(run.Steps[i].Reverse().Diff()) {
				fmt.Fprintln(p.out, clean(strings.TrimSuffix(line, "\n")))
			}
		}
	}
}
