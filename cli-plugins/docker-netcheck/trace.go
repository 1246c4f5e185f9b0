package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/completion"
	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
)

// traceSchema names the document that trace --format json prints.
const traceSchema = "netcheck.trace/v1"

// A traceReport is that document.
type traceReport struct {
	Schema string          `json:"schema"`
	Read   time.Time       `json:"read"`
	Traces []*packet.Trace `json:"traces"`

	// Live is what one connection for each trace showed, in the same order; null where none was made.
	Live         []*checks.Live       `json:"live,omitempty"`
	Observations []*probe.Observation `json:"observations,omitempty"`
}

func newTraceCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	options := checkOptions{filter: opts.NewFilterOpt(), timeout: 20 * time.Second}
	cmd := &cobra.Command{
		Use:   "trace [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Show the way of a packet through the host, hop by hop",
		Long: `Show the way of a packet through the host, hop by hop

Computes, without sending anything, what the kernel does with the packet: each rule that has a say,
each route, each rewrite, and the reply's way back. Where it dies stands a cross and the object.

Where the client's port is given, it is the way of that connection: an entry of the kernel's table that it
has already decides, as for the kernel.

With --live it also makes one connection, from a client of its own whose packets enter by the uplink
like any other's and whose answers are taken off before they leave, and shows at which hops it was seen.
Out of the container it goes to a machine of its own, with an address that is nobody's.

Exit status: 0 it gets through, 1 it does not, 2 it cannot be told, 125 usage or own error.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			options.containers = args
			if err := options.complete(); err != nil {
				return usage(cmd, "%w", err)
			}
			if options.format != "" && options.format != "json" {
				return usage(cmd, "--format %q: is not json", options.format)
			}
			return exit.of(runTrace, cmd, dockerCLI, &options)
		},
		ValidArgsFunction: completion.ContainerNames(dockerCLI, true),
	}
	flags := cmd.Flags()
	flags.StringVar(&options.port, "port", "", `Follow packets to this port of the container only (e.g., "80/tcp")`)
	flags.StringVar(&options.client, "client", "", `Where the client is ("outside", "host", "localhost" or ADDR[:PORT])`)
	flags.StringVar(&options.iface, "iface", "", "Network interface by which the outside client comes in")
	flags.StringVar(&options.to, "to", "", "Follow the packets to this container or address instead (CONTAINER[:PORT] or ADDR[:PORT])")
	flags.StringVar(&options.from, "from", "", `Follow them through a saved snapshot instead of this host ("-" for STDIN)`)
	flags.StringVar(&options.format, "format", "", `Format output: "json"`)
	flags.BoolVar(&options.live, "live", false, "Make the connection, of which nothing leaves this host, and show where it was seen")
	flags.BoolVar(&options.noTrunc, "no-trunc", false, "Do not shorten long lines")
	flags.BoolVarP(&options.verbose, "verbose", "v", false, "With --live, show the jumps between chains as well")
	options.reach.addFlags(cmd)
	return cmd
}

func runTrace(ctx context.Context, dockerCLI command.Cli, o *checkOptions) (int, error) {
	if o.from != "" {
		found, err := o.judgeFile()
		if err != nil {
			return 0, err
		}
		return o.printTraces(dockerCLI, found, nil)
	}
	return o.reach.with(ctx, dockerCLI, func(machine agent.Machine) (int, error) {
		o.machine = machine
		done := progress(dockerCLI.Err(), "reading the host")
		found, err := o.judge(ctx)
		done()
		if err != nil {
			return 0, err
		}
		var observations []*probe.Observation
		if o.live {
			if observations, err = o.prove(ctx, dockerCLI.Err(), found); err != nil {
				return 0, err
			}
		}
		return o.printTraces(dockerCLI, found, observations)
	})
}

// printTraces prints the way of each target, and what a live connection showed of it, and returns the exit
// status.
func (o *checkOptions) printTraces(dockerCLI command.Cli, found *judged, observations []*probe.Observation) (int, error) {
	document := traceReport{Schema: traceSchema, Read: found.snapshot.Read, Traces: []*packet.Trace{}}
	status := exitWell
	for i := range found.report.Targets {
		trace := found.host.Walk(found.report.Targets[i].Target)
		document.Traces = append(document.Traces, trace)
		if o.live {
			document.Live = append(document.Live, found.report.Targets[i].Live)
			document.Observations = observations
		}
		switch live := found.report.Targets[i].Live; {
		case live != nil && live.Result == checks.Contradicted && status == exitWell:
			status = exitUnknown
		case live != nil && live.Result == checks.Contradicted:
		case trace.Verdict.Stops():
			status = exitFault
		case trace.Verdict == packet.May && status == exitWell:
			status = exitUnknown
		}
	}
	if o.format == "json" {
		encoder := json.NewEncoder(dockerCLI.Out())
		encoder.SetEscapeHTML(false)
		return status, encoder.Encode(document)
	}
	p := newPrinter(dockerCLI.Out(), o)
	for i, trace := range document.Traces {
		if i > 0 {
			fmt.Fprintln(p.out)
		}
		p.trace(trace)
		if o.live {
			p.observed(found.report.Targets[i].Live, observations[i])
		}
	}
	return status, nil
}

// observed prints what a live connection showed: each copy in order of time, the rules that it met, and
// what the kernel threw away.
func (p *printer) observed(live *checks.Live, o *probe.Observation) {
	p.line("  live: %s: %s", live.Result, clean(live.Why))
	if o == nil {
		return
	}
	for _, c := range o.Copies {
		p.line("    %s  %-15s %-15s %s", c.Time.Format("15:04:05.000000"), c.Hop, clean(c.Link), clean(c.Text))
	}
	// What sends again meets the same once more: that is told once.
	told := map[string]bool{}
	once := func(line string) {
		if !told[line] {
			told[line] = true
			p.line("%s", line)
		}
	}
	jumps := 0
	for _, rule := range o.Rules {
		if rule.Moves() && !p.verbose {
			jumps++
			continue
		}
		once(fmt.Sprintf("    rule  %-15s %s: %s", rule.Hop, clean(rule.Object), clean(rule.Did())))
	}
	if jumps > 0 {
		p.line("    and %d jumps between chains, which -v shows", jumps)
	}
	for _, drop := range o.Drops {
		line := fmt.Sprintf("    drop  %-15s %s", clean(string(drop.Hop)), clean(drop.Did()))
		if drop.Text != "" {
			line += ": " + clean(drop.Text)
		}
		once(line)
	}
	if o.Conntrack != nil {
		p.line("    conntrack  %s → %s, reply %s → %s", o.Conntrack.Original.Src, o.Conntrack.Original.Dst, o.Conntrack.Reply.Src, o.Conntrack.Reply.Dst)
	}
	for _, what := range slices.Sorted(maps.Keys(o.Missing)) {
		p.line("    %s: not available: %s", what, clean(o.Missing[what]))
	}
	if len(live.Not) > 0 {
		p.line("    not traversed: %s", clean(strings.Join(live.Not, "; ")))
	}
}

// verdictStatus shows what becomes of a packet with the marks of a report.
func verdictStatus(v packet.Verdict) checks.Status {
	switch {
	case v.Stops():
		return checks.Fail
	case v == packet.May:
		return checks.Unknown
	}
	return checks.Pass
}

// trace prints one way: a line for each thing that had a say, a rewritten packet below it, the reply
// behind the request.
func (p *printer) trace(trace *packet.Trace) {
	p.line("%s %s   %s", p.mark(verdictStatus(trace.Verdict)), p.paint("1", clean(checks.Name(trace.Target))), clean(trace.Packet))
	p.steps(trace.Request, trace.Stops, false)
	if trace.Arrives != "" {
		p.line("  arrives as %s, by way of %s", clean(trace.Arrives), trace.Via)
	}
	if len(trace.Reply) > 0 {
		p.line("  reply")
		p.steps(trace.Reply, trace.Stops, true)
	}
	for _, note := range trace.Notes {
		p.line("  note: %s", clean(note))
	}
}

// steps prints what had a say on the way there or back, and each place that stops the packet.
func (p *printer) steps(steps []packet.Step, stops []packet.Stop, reply bool) {
	told := map[string]bool{}
	for _, step := range steps {
		by := ""
		if step.Owner != "" {
			by = "  [" + step.Owner + "]"
		}
		if step.Packets > 0 {
			by += fmt.Sprintf("  packets: %d", step.Packets)
		}
		p.line("  %s %-10s %s: %s%s", p.mark(verdictStatus(step.Verdict)), step.Hop.Place(), clean(step.Object), clean(step.Did), by)
		if step.Packet != "" {
			p.line("               → %s", clean(step.Packet))
		}
		if step.Verdict != packet.Pass {
			told[step.Object] = true
		}
	}
	for _, stop := range stops {
		if stop.Hop.IsReply() == reply && !told[stop.Object] {
			p.line("  %s %-10s %s: %s", p.mark(verdictStatus(stop.Verdict)), stop.Hop.Place(), clean(stop.Object), clean(stop.Why))
		}
	}
}
