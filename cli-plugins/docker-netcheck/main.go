// Command docker-netcheck is the Docker CLI plugin `docker netcheck`: it says which object on this host
// stops a client from reaching a container, and puts it right.
package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"

	climetadata "github.com/docker/cli/cli-plugins/metadata"
	"github.com/docker/cli/cli-plugins/plugin"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/metadata"
)

// heapLimit is how much memory is taken before the garbage collector does anything: a run is over in
// milliseconds, and what it reads of most hosts is far less.
const heapLimit = 64 << 20

// lazyCollector keeps the garbage collector from working before heapLimit is reached. From then on it works as
// it usually does: a limit below what is in use would have it collect all the time.
func lazyCollector() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(heapLimit)
	runtime.AddCleanup(new([64]byte), func(struct{}) {
		debug.SetGCPercent(100)
		debug.SetMemoryLimit(math.MaxInt64)
	}, struct{}{})
}

func main() {
	lazyCollector()
	if len(os.Args) > 1 && os.Args[1] == agent.ServeArg { // in a helper container
		os.Exit(agent.Main(os.Args[2:]))
	}
	os.Args = alone(os.Args)
	exit := &exitStatus{}
	plugin.Run(func(dockerCLI command.Cli) *cobra.Command {
		return newNetcheckCommand(dockerCLI, exit)
	}, climetadata.Metadata{
		SchemaVersion: metadata.SchemaVersion,
		Vendor:        metadata.Vendor,
		Version:       metadata.Version,
	})
	os.Exit(exit.code)
}

// alone makes `docker-netcheck web` the same command as `docker-netcheck netcheck web`, which is how
// docker calls a plugin. Global options before the plugin's name come from docker alone.
func alone(args []string) []string {
	if os.Getenv(climetadata.ReexecEnvvar) != "" {
		return args
	}
	if len(args) > 1 {
		switch args[1] {
		case "netcheck", climetadata.MetadataSubcommandName, climetadata.HookSubcommandName, cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
			return args
		}
	}
	return append([]string{args[0], "netcheck"}, args[1:]...)
}

// exitStatus is the status of a run that ended with a report: plugin.Run knows only errors, and prints
// them.
type exitStatus struct{ code int }

// The exit statuses.
const (
	exitWell        = 0
	exitFault       = 1   // something is wrong
	exitUnknown     = 2   // nothing known to be wrong, but something could not be judged
	exitError       = 125 // usage, or netcheck's own error
	exitInterrupted = 130
)
