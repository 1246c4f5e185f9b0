package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/metadata"
)

func newVersionCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of docker netcheck",
		Args:  atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return exit.run(cmd, func(context.Context) (int, error) {
				_, err := fmt.Fprintf(dockerCLI.Out(), "docker netcheck %s, %s, %s/%s\n", metadata.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return 0, err
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
