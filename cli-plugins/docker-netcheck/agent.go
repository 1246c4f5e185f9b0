package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
)

func newAgentCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent COMMAND",
		Short: "List and remove the helper's images",
		Long: `List and remove the helper's images

Where netcheck cannot look at the engine's host itself (without root, on a VM, over ssh or TCP), it runs
its own program there, in a helper container that is gone when it has answered. What stays is the image,
for the next time. docs/security.md says what the helper may do and how to forbid it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAgentListCommand(dockerCLI, exit), newAgentRemoveCommand(dockerCLI, exit), newAgentGuardCommand(dockerCLI))
	return cmd
}

func newAgentListCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List the helper's images and containers on the engine",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usage(cmd, "--format %q: is neither table nor json", format)
			}
			return exit.run(cmd, func(ctx context.Context) (int, error) { return exitWell, runAgentList(ctx, dockerCLI, format) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&format, "format", "table", `Format output: "table" or "json"`)
	return cmd
}

func runAgentList(ctx context.Context, dockerCLI command.Cli, format string) error {
	items, err := agent.Inventory(ctx, dockerCLI.Client())
	if err != nil {
		return err
	}
	if format == "json" {
		return json.NewEncoder(dockerCLI.Out()).Encode(items)
	}
	w := tabwriter.NewWriter(dockerCLI.Out(), 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "KIND\tNAME\tCREATED\tSTATE\tSIZE")
	for _, item := range items {
		size := ""
		if item.Size > 0 {
			size = units.HumanSizeWithPrecision(float64(item.Size), 3)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", item.Kind, clean(item.Name), item.Created.Local().Format("2006-01-02 15:04:05"), item.State, size)
	}
	return w.Flush()
}

func newAgentRemoveCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	return &cobra.Command{
		Use:     "rm",
		Aliases: []string{"remove"},
		Short:   "Remove the helper's images, and containers that were left",
		Long: `Remove the helper's images, and containers that were left

A helper that is at work is left alone. The journal of fixes stays, for undo.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return exit.run(cmd, func(ctx context.Context) (int, error) { return exitWell, runAgentRemove(ctx, dockerCLI) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func runAgentRemove(ctx context.Context, dockerCLI command.Cli) error {
	items, err := agent.Inventory(ctx, dockerCLI.Client())
	if err != nil {
		return err
	}
	removed, err := agent.Remove(ctx, dockerCLI.Client(), items)
	for _, item := range removed {
		fmt.Fprintf(dockerCLI.Out(), "%s %s\n", item.Kind, clean(item.Name))
	}
	return err
}

// newAgentGuardCommand is for netcheck itself.
func newAgentGuardCommand(dockerCLI command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "guard NAME", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Remove a helper container whose client was killed while it started",
		RunE: func(_ *cobra.Command, args []string) error {
			return agent.Guard(dockerCLI.Client(), args[0], dockerCLI.In())
		},
	}
}
