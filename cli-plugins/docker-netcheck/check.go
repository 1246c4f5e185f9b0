package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/completion"
	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/metadata"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
)

// checkOptions are the options of `docker netcheck` itself.
type checkOptions struct {
	containers []string
	all        bool
	host       bool // no container: what any would meet
	filter     opts.FilterOpt
	port       string
	client     string
	iface      string
	to         string
	wait       time.Duration
	timeout    time.Duration
	from       string // a saved snapshot instead of this host
	only       []string
	skip       []string

	fix     bool
	dryRun  bool
	yes     bool
	persist bool
	allow   []string

	planFile  string // --plan
	applyFile string // --apply

	format  string
	quiet   bool
	live    bool
	noTrunc bool
	verbose bool

	reach   reach
	machine agent.Machine // the engine's host

	thorough bool // read what helps to name a fault and to mend it as well

	suite []*checks.Check // of only and skip
	ask   checks.Ask      // of port, client, iface and to
}

func newNetcheckCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	options := checkOptions{filter: opts.NewFilterOpt()}
	cmd := &cobra.Command{
		Use:   "netcheck [OPTIONS] CONTAINER [CONTAINER...]",
		Short: metadata.Short,
		Long: metadata.Short + `

Names the one object on the engine's host (a rule, a sysctl, a route, a zone, a socket) that stops a
client from reaching the container, or the container from reaching out. Nothing is changed without --fix
or --apply, and nothing is sent without --live.

Exit status: 0 all well, 1 something is wrong, 2 something could not be judged, 125 usage or own error.`,
		Example: `  docker netcheck web                    judge every published port of web, and its way out
  docker netcheck --port 80/tcp web      judge one port
  docker netcheck --dry-run web          show what --fix would change, to the byte
  docker netcheck --fix web              show the fix, ask, make it, judge again
  docker netcheck undo                   take the last fix back
  docker netcheck --from FILE            judge what docker netcheck snapshot wrote on another host
  docker netcheck -- undo                judge a container that is called undo`,
		Args: cobra.ArbitraryArgs,

		RunE: func(cmd *cobra.Command, args []string) error {
			options.containers = args
			if options.applyFile != "" {
				if err := options.completeApply(cmd); err != nil {
					return usage(cmd, "%w", err)
				}
				return exit.of(runApply, cmd, dockerCLI, &options)
			}
			if err := options.complete(); err != nil {
				return usage(cmd, "%w", err)
			}
			return exit.of(runCheck, cmd, dockerCLI, &options)
		},
		ValidArgsFunction: completion.ContainerNames(dockerCLI, true),
	}
	cmd.SetFlagErrorFunc(cli.FlagErrorFunc)
	// docker's template takes a command with subcommands for one that does nothing itself.
	cmd.SetHelpFunc(func(asked *cobra.Command, args []string) {
		if asked == cmd {
			cmd.SetUsageTemplate(strings.Replace(cmd.Root().UsageTemplate(),
				"{{- if .HasSubCommands}}  {{ .CommandPath}}", "{{- if .HasSubCommands}}  {{.UseLine}}\n        {{ .CommandPath}}", 1))
		}
		cmd.Root().HelpFunc()(asked, args)
	})

	flags := cmd.Flags()
	flags.BoolVarP(&options.all, "all", "a", false, "Judge all running containers")
	flags.BoolVar(&options.host, "host", false, "Judge the host before any container runs: what any published port would meet")
	flags.Var(&options.filter, "filter", "Judge the running containers that match (as in docker ps)")
	flags.StringVar(&options.port, "port", "", `Judge this port of the container only (e.g., "80/tcp")`)
	flags.StringVar(&options.client, "client", "", `Where the client is ("outside", "host", "localhost" or ADDR[:PORT])`)
	flags.StringVar(&options.iface, "iface", "", "Network interface by which the outside client comes in")
	flags.StringVar(&options.to, "to", "", "Judge the way to this container or address instead (CONTAINER[:PORT] or ADDR[:PORT])")
	flags.DurationVar(&options.wait, "wait", 0, "Judge again until all is well, for at most this long")
	flags.DurationVar(&options.timeout, "timeout", 20*time.Second, "What was not read by then is unknown")
	flags.StringVar(&options.from, "from", "", `Judge a saved snapshot instead of this host ("-" for STDIN)`)
	flags.StringSliceVar(&options.only, "only", nil, "Run these checks only")
	flags.StringSliceVar(&options.skip, "skip", nil, "Leave these checks out")
	flags.BoolVar(&options.fix, "fix", false, "Make the fixes, after asking")
	flags.BoolVar(&options.dryRun, "dry-run", false, "Show the plan and its diff, change nothing")
	flags.BoolVarP(&options.yes, "yes", "y", false, "Do not ask (with --fix)")
	flags.BoolVar(&options.persist, "persist", false, "Make the fixes last over a reboot too (with --fix)")
	flags.StringSliceVar(&options.allow, "allow", nil, `Allow fixes that "open" what was closed, or "disrupt" traffic`)
	flags.BoolVar(&options.live, "live", false, "Prove it with one live connection, of which nothing leaves this host")
	flags.StringVar(&options.planFile, "plan", "", "Write the plan to this file, change nothing")
	flags.StringVar(&options.applyFile, "apply", "", "Make the plan of this file, which --plan wrote")
	flags.StringVar(&options.format, "format", "", `Format output: "table", "json", or a Go template for each target`)
	flags.BoolVarP(&options.quiet, "quiet", "q", false, "Print only the names of containers that fail")
	flags.BoolVar(&options.noTrunc, "no-trunc", false, "Do not shorten long lines")
	flags.BoolVarP(&options.verbose, "verbose", "v", false, "Show every check")
	options.reach.addFlags(cmd)
	names := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return strings.Split(checks.Names(checks.Suite), ", "), cobra.ShellCompDirectiveNoFileComp
	}
	for name, complete := range map[string]cobra.CompletionFunc{
		"only": names, "skip": names,
		"client": completion.FromList("outside", "host", "localhost"),
		"allow":  completion.FromList("open", "disrupt"),
		"format": completion.FromList("table", "json"),
	} {
		_ = cmd.RegisterFlagCompletionFunc(name, complete)
	}

	cmd.AddCommand(
		newAgentCommand(dockerCLI, exit),
		newUndoCommand(dockerCLI, exit),
		newHistoryCommand(dockerCLI, exit),
		newExplainCommand(dockerCLI, exit),
		newSnapshotCommand(dockerCLI, exit),
		newTraceCommand(dockerCLI, exit),
		newCaptureCommand(dockerCLI, exit),
		newVersionCommand(dockerCLI, exit),
	)
	return cmd
}

// of runs a command so that each way of ending has its exit status: a report its own, an interrupt
// 130, everything else 125. Ctrl-C cancels the context, whether docker tells the plugin or the terminal
// does.
func (exit *exitStatus) of(run func(context.Context, command.Cli, *checkOptions) (int, error), cmd *cobra.Command, dockerCLI command.Cli, options *checkOptions) error {
	return exit.run(cmd, func(ctx context.Context) (int, error) { return run(ctx, dockerCLI, options) })
}

func (exit *exitStatus) run(cmd *cobra.Command, run func(context.Context) (int, error)) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code, err := run(ctx)
	switch {
	case err == nil:
		exit.code = code
		return nil
	case ctx.Err() != nil:
		return cli.StatusError{StatusCode: exitInterrupted, Status: "interrupted: " + clean(err.Error())}
	}
	var status cli.StatusError
	if errors.As(err, &status) {
		return err
	}
	return cli.StatusError{StatusCode: exitError, Status: "docker netcheck: " + clean(err.Error()), Cause: err}
}

// usage returns an error of usage, worded as docker's own.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return cli.FlagErrorFunc(cmd, fmt.Errorf(format, args...))
}

// complete checks the options against each other and reads those that are text.
func (o *checkOptions) complete() error {
	selected := len(o.containers) > 0
	filtered := o.filter.Value().Len() > 0
	switch {
	case o.from != "" && (o.fix || o.all || filtered || o.wait != 0):
		return errors.New("--from judges what a file says: it goes with none of --fix, --wait, --all, --filter")
	case o.host && (selected || o.all || filtered || o.to != "" || o.fix || o.planFile != ""):
		return errors.New("--host judges no container: it goes with no container, --all, --filter, --to, --fix or --plan")
	case !selected && !o.all && !filtered && o.from == "" && !o.host:
		return errors.New("requires at least 1 container, or --all, or --filter")
	case selected && (o.all || filtered):
		return errors.New("containers are given by name, or by --all and --filter, not both")
	case o.yes && !o.fix || o.persist && !o.fix && o.planFile == "":
		return errors.New("--yes and --persist go with --fix")
	case o.fix && o.planFile != "":
		return errors.New("--plan writes down what --fix would do: give one of them")
	case o.fix && o.dryRun:
		return errors.New("--fix makes the changes that --dry-run shows: give one of them")
	case o.quiet && o.format != "":
		return errors.New("--quiet and --format exclude each other")
	case o.wait < 0 || o.timeout <= 0:
		return errors.New("--wait and --timeout take a positive duration, as in 30s")
	}
	for _, word := range o.allow {
		if word != "open" && word != "disrupt" {
			return fmt.Errorf("--allow %s: is neither open nor disrupt", word)
		}
	}
	if o.port != "" {
		port, err := netstate.ParsePort(o.port)
		if err != nil {
			return fmt.Errorf("--port %w", err)
		}
		o.ask.Port = port
	}
	switch o.client {
	case "", netstate.FromOutside, netstate.FromHost, netstate.FromLocalhost:
		o.ask.From = o.client
	default:
		addr, err := netip.ParseAddr(o.client)
		if with, wrong := netip.ParseAddrPort(o.client); wrong == nil {
			addr, o.ask.SPort, err = with.Addr(), with.Port(), nil
			o.thorough = true // its connection is looked for
		}
		if err != nil || addr.Zone() != "" {
			return fmt.Errorf("--client %q: is none of outside, host, localhost, and no address", o.client)
		}
		o.ask.Client = addr.Unmap()
	}
	o.ask.Iface = o.iface
	if o.to != "" {
		if err := askTo(&o.ask, o.to); err != nil {
			return err
		}
	}
	if err := o.completeLive(); err != nil {
		return err
	}
	return o.chooseSuite()
}

// chooseSuite applies --only and --skip.
func (o *checkOptions) chooseSuite() error {
	for _, name := range append(slices.Clone(o.only), o.skip...) {
		if checks.Find(name) == nil {
			return fmt.Errorf("%q is no check: there are %s", name, checks.Names(checks.Suite))
		}
	}
	for _, check := range checks.Suite {
		if (len(o.only) == 0 || slices.Contains(o.only, check.Name)) && !slices.Contains(o.skip, check.Name) {
			o.suite = append(o.suite, check)
		}
	}
	if len(o.suite) == 0 {
		return errors.New("--only and --skip leave no check")
	}
	return nil
}

// needs returns the parts that are read: all that any check is shown, whichever are run, as the packet's walk
// meets all of it.
func (o *checkOptions) needs() netstate.Part {
	needs := netstate.Engine | netstate.Routes
	for _, check := range checks.Suite {
		needs |= check.Needs | check.Inside
	}
	if o.live {
		needs |= probe.Needs
	}
	return needs
}

// read reads the host and returns the snapshot with the IDs of the containers that were asked for.
func (o *checkOptions) read(ctx context.Context) (*netstate.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return o.machine.Collect(ctx, host.Options{
		Containers: o.collected(), All: o.all, Filters: o.filter.Value(), Parts: o.needs(), Thorough: o.thorough,
	})
}

// judged is one reading of the host and what was found.
type judged struct {
	snapshot *netstate.Snapshot
	host     *checks.Host
	report   *checks.Report
}

// judge reads the host and judges it. Where not all is well it does so once more, and more thoroughly.
func (o *checkOptions) judge(ctx context.Context) (*judged, error) {
	s, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	found, err := o.judgeSnapshot(s)
	if err == nil && !o.thorough && found.report.Verdict != checks.Pass {
		o.thorough = true
		return o.judge(ctx)
	}
	return found, err
}

// judgeSnapshot judges what was read, now or at another time.
func (o *checkOptions) judgeSnapshot(s *netstate.Snapshot) (*judged, error) {
	if o.host {
		with, why := checks.Hypothetical(s)
		if with == nil {
			return nil, fmt.Errorf("--host: %s", why)
		}
		s = with
	}
	targets, notes, err := checks.Targets(s, o.ask)
	if err != nil {
		return nil, err
	}
	h := checks.NewHost(s)
	report := checks.Judge(o.suite, h, targets)
	report.Notes = append(notes, checks.LeftOvers(h, report)...)
	return &judged{s, h, report}, nil
}

func runCheck(ctx context.Context, dockerCLI command.Cli, o *checkOptions) (int, error) {
	if o.from != "" {
		return checkFile(ctx, dockerCLI, o)
	}
	return o.reach.with(ctx, dockerCLI, func(machine agent.Machine) (int, error) {
		o.machine = machine
		return check(ctx, dockerCLI, o)
	})
}

func check(ctx context.Context, dockerCLI command.Cli, o *checkOptions) (int, error) {
	done := progress(dockerCLI.Err(), "reading the host")
	found, err := o.judge(ctx)
	for deadline := time.Now().Add(o.wait); err == nil && found.report.Verdict != checks.Pass && found.report.Verdict != checks.Warn && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			done()
			return 0, ctx.Err()
		case <-time.After(time.Second):
		}
		found, err = o.judge(ctx)
	}
	done()
	if err != nil {
		return 0, err
	}
	tellLast(ctx, dockerCLI.Err(), o.machine, found.snapshot.Read)
	if o.live {
		if _, err := o.prove(ctx, dockerCLI.Err(), found); err != nil {
			return 0, err
		}
	}
	return o.finish(ctx, dockerCLI, found)
}

// finish prints what was found, or shows and makes its fixes.
func (o *checkOptions) finish(ctx context.Context, dockerCLI command.Cli, found *judged) (int, error) {
	if o.fix || o.dryRun || o.planFile != "" {
		return runFix(ctx, dockerCLI, o, found)
	}
	if _, err := o.plan(found); err != nil {
		return 0, err
	}
	if err := o.print(dockerCLI, found); err != nil {
		return 0, err
	}
	return statusOf(found.report), nil
}

// statusOf returns the exit status of a report.
func statusOf(report *checks.Report) int {
	switch report.Verdict {
	case checks.Fail:
		return exitFault
	case checks.Unknown:
		return exitUnknown
	}
	return exitWell
}

// print writes the report to stdout in the format that was asked for.
func (o *checkOptions) print(dockerCLI command.Cli, found *judged) error {
	switch {
	case o.quiet:
		return printNames(dockerCLI.Out(), found.report)
	case o.format != "":
		return printFormat(dockerCLI.Out(), o.format, !o.noTrunc, found.report)
	}
	p := newPrinter(dockerCLI.Out(), o)
	p.report(found.report, found.host)
	return nil
}
