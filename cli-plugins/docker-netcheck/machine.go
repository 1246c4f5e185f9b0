package main

import (
	"context"
	"strings"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/completion"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
)

// reach says how the engine's host is reached.
type reach struct {
	use   string // --agent
	image string // --agent-image
}

func (r *reach) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&r.use, "agent", agent.Auto, `Whether a helper container on the engine's host does the work ("auto", "always" or "never")`)
	flags.StringVar(&r.image, "agent-image", "", "Image of the helper, instead of netcheck's own binary")
	_ = cmd.RegisterFlagCompletionFunc("agent", completion.FromList(agent.Auto, agent.Always, agent.Never))
}

// open returns the engine's host. It has to be closed.
func (r *reach) open(ctx context.Context, dockerCLI command.Cli) (agent.Machine, error) {
	return agent.Open(ctx, dockerCLI.Client(), agent.Options{
		Use: r.use, Image: r.image,
		Context: dockerCLI.CurrentContext(), Address: address(dockerCLI), Notes: dockerCLI.Err(),
	})
}

// address is where the engine is, as the user gave it.
func address(dockerCLI command.Cli) string {
	return strings.TrimSpace(dockerCLI.DockerEndpoint().Host)
}

// with calls f with the engine's host, and closes it.
func (r *reach) with(ctx context.Context, dockerCLI command.Cli, f func(agent.Machine) (int, error)) (int, error) {
	machine, err := r.open(ctx, dockerCLI)
	if err != nil {
		return 0, err
	}
	code, err := f(machine)
	if closing := machine.Close(); err == nil {
		err = closing
	}
	return code, err
}
