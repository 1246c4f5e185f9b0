package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/checks"
)

func newExplainCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CHECK]",
		Short: "Say what a check looks at and what to do about it, or list the checks",
		Args:  atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && checks.Find(args[0]) == nil {
				return usage(cmd, "%q is no check: there are %s", args[0], checks.Names(checks.Suite))
			}
			return exit.run(cmd, func(context.Context) (int, error) {
				if len(args) == 0 {
					return 0, listChecks(dockerCLI.Out())
				}
				explain(dockerCLI.Out(), checks.Find(args[0]))
				return 0, nil
			})
		},
		ValidArgs: strings.Split(checks.Names(checks.Suite), ", "),
	}
}

func listChecks(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "CHECK\tTRUE WHEN ALL IS WELL")
	for _, check := range checks.Suite {
		fmt.Fprintf(w, "%s\t%s\n", check.Name, check.Title)
	}
	return w.Flush()
}

func explain(out io.Writer, check *checks.Check) {
	fmt.Fprintf(out, "%s: %s\n\n%s\n\nreads: %s\n", check.Name, check.Title, check.Doc, check.Needs)
	if check.Inside != 0 {
		fmt.Fprintf(out, "reads of the container: %s\n", check.Inside)
	}
	if len(check.Requires) > 0 {
		fmt.Fprintf(out, "only if these pass: %s\n", checks.Names(check.Requires))
	}
}
