package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

func newHistoryCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	var format string
	var all bool
	var at reach
	cmd := &cobra.Command{
		Use:   "history [OPTIONS]",
		Short: "List the fixes that were made on this host",
		Long: `List the fixes that were made on this host

What a live probe installed and took away again is left out, unless with --all or as JSON.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usage(cmd, "--format %q: is neither table nor json", format)
			}
			return exit.run(cmd, func(ctx context.Context) (int, error) {
				return at.with(ctx, dockerCLI, func(machine agent.Machine) (int, error) {
					return runHistory(ctx, dockerCLI, machine, format, all)
				})
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&format, "format", "table", `Format output: "table" or "json"`)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Show the runs of live probes as well")
	at.addFlags(cmd)
	return cmd
}

func runHistory(ctx context.Context, dockerCLI command.Cli, machine agent.Machine, format string, all bool) (int, error) {
	runs, err := machine.Runs(ctx)
	if err != nil {
		return 0, err
	}
	if format == "json" {
		return 0, json.NewEncoder(dockerCLI.Out()).Encode(runs)
	}
	w := tabwriter.NewWriter(dockerCLI.Out(), 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "RUN\tTIME\tSTATE\tSTEPS\tFIX")
	for _, run := range runs {
		if !all && gone(&run) {
			continue
		}
		state := run.State
		if len(run.Refused) > 0 {
			state += fmt.Sprintf(", but for %d", len(run.Refused))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", run.ID, run.Time.Local().Format("2006-01-02 15:04:05"), state, len(run.Steps), clean(strings.Join(run.Titles, "; ")))
	}
	return 0, w.Flush()
}

// gone says whether a run is that of a live probe of which nothing is left.
func gone(run *remediate.Run) bool {
	return slices.Equal(run.Titles, []string{agent.ProbeTitle}) && len(run.Refused) == 0 &&
		(run.State == remediate.Undone || run.State == remediate.RolledBack)
}
