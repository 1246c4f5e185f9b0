package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/completion"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// reach says how the engine's host is reached.
type reach struct {
	use   string // --agent
	image string // --agent-image
	cmd   *cobra.Command
}

func (r *reach) addFlags(cmd *cobra.Command) {
	r.cmd = cmd
	flags := cmd.Flags()
	flags.StringVar(&r.use, "agent", agent.Auto, `Whether a helper container on the engine's host does the work ("auto", "always" or "never")`)
	flags.StringVar(&r.image, "agent-image", "", "Image of the helper, instead of netcheck's own binary")
	_ = cmd.RegisterFlagCompletionFunc("agent", completion.FromList(agent.Auto, agent.Always, agent.Never))
}

// open returns the engine's host. It has to be closed.
func (r *reach) open(ctx context.Context, dockerCLI command.Cli) (agent.Machine, error) {
	return agent.Open(ctx, dockerCLI.Client(), agent.Options{
		Use: r.use, Image: r.image,
		Context: dockerCLI.CurrentContext(), Address: strings.TrimSpace(dockerCLI.DockerEndpoint().Host), Notes: dockerCLI.Err(),
		Guard: r.guard,
	})
}

// guard returns the command `docker netcheck agent guard NAME` for the same engine.
func (r *reach) guard(name string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.Command(self, append(globalArgs(r.cmd.Root().Flags(), os.Args[1:]), "netcheck", "agent", "guard", name)...)
	// It outlives the docker that called us.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "DOCKER_CLI_PLUGIN_SOCKET=") })
	return cmd
}

// globalArgs returns docker's own options, which stand before the command.
func globalArgs(flags *pflag.FlagSet, args []string) []string {
	for i := 0; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "-")
		if !isFlag {
			return slices.Clone(args[:i])
		}
		flag := flags.Lookup(strings.TrimPrefix(name, "-"))
		if len(name) == 1 {
			flag = flags.ShorthandLookup(name)
		}
		if flag != nil && flag.NoOptDefVal == "" { // its value follows
			i++
		}
	}
	return nil
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

// tellLast says what became of the last change of the host if it does not stand: whoever made it may have been
// cut off, and not know. now is the host's time.
func tellLast(ctx context.Context, notes io.Writer, machine agent.Machine, now time.Time) {
	runs, err := machine.Runs(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, agent.ErrElsewhere):
		return // without a right to read the journal there is none to change the host
	case err != nil && ctx.Err() == nil:
		fmt.Fprintf(notes, "docker netcheck: whether the last change was cut off is not known: %s\n", clean(err.Error()))
		return
	case len(runs) == 0:
		return
	}
	run := runs[len(runs)-1]
	what := clean(strings.Join(run.Titles, "; "))
	switch {
	case run.State == remediate.Unfinished:
		fmt.Fprintf(notes, "docker netcheck: run %s was cut off in the middle: docker netcheck undo takes back what it did: %s\n", run.ID, what)
	case run.State == remediate.RolledBack && now.Sub(run.Time) < time.Hour:
		fmt.Fprintf(notes, "docker netcheck: run %s was rolled back, nothing of it is left (%s): %s\n", run.ID, clean(run.Why), what)
	}
}
