package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

func newSnapshotCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	var output string
	var redact bool
	var at reach
	cmd := &cobra.Command{
		Use:   "snapshot [OPTIONS] [CONTAINER...]",
		Short: "Write what netcheck reads of this host, for a report from another machine",
		Long: `Write what netcheck reads of this host, for a report from another machine

The document holds named fields of the engine, the given containers (all running ones by default) and
the host's network. It holds no environment, no labels and no command lines; with --redact no public
addresses either. docs/snapshot.md says what stands where; docker netcheck --from FILE judges it.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return exit.run(cmd, func(ctx context.Context) (int, error) {
				return at.with(ctx, dockerCLI, func(machine agent.Machine) (int, error) {
					return 0, runSnapshot(ctx, dockerCLI, machine, args, output, redact)
				})
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().BoolVar(&redact, "redact", false, "Replace public addresses, hardware addresses and the host's name")
	at.addFlags(cmd)
	return cmd
}

func runSnapshot(ctx context.Context, dockerCLI command.Cli, machine agent.Machine, containers []string, output string, redact bool) error {
	done := progress(dockerCLI.Err(), "reading the host")
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	s, err := machine.Collect(ctx, host.Options{
		Containers: containers, All: len(containers) == 0, Parts: netstate.All, Thorough: true,
	})
	done()
	if err != nil {
		return err
	}
	if redact {
		s = s.Redact()
	}
	var document bytes.Buffer
	if err := s.Encode(&document); err != nil {
		return err
	}
	if output == "" {
		_, err = document.WriteTo(dockerCLI.Out())
		return err
	}
	if err := os.WriteFile(output, document.Bytes(), 0o600); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}
