package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

func newVersionCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of docker netcheck",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return exit.run(cmd, func(context.Context) (int, error) {
				_, err := fmt.Fprintf(dockerCLI.Out(), "docker netcheck %s, %s, %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return 0, err
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
