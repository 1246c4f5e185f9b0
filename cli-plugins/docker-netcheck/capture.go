package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/completion"
	"github.com/spf13/cobra"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
)

// captureOptions are the options of docker netcheck capture.
type captureOptions struct {
	container string
	file      string
	port      string
	client    string
	hops      []string
	probe.CaptureOptions
}

// captureHops are the hops that can be named.
var captureHops = []packet.Hop{packet.Uplink, packet.Bridge, packet.Veth, packet.Container}

func newCaptureCommand(dockerCLI command.Cli, exit *exitStatus) *cobra.Command {
	var o captureOptions
	var at reach
	cmd := &cobra.Command{
		Use:   "capture [OPTIONS] CONTAINER",
		Short: "Show a container's packets at every hop at once",
		Long: `Show a container's packets at every hop at once

Captures this container's packets, and no others, on the uplink, on its bridge, on the host's end of
its veth pair and in the container, on both sides of address translation. A line for each packet says
at which hop it was seen; the table at the end shows between which hops packets vanish.

It ends after --count packets or --duration, or with Ctrl-C. With -w everything goes to a pcapng file
with one interface a hop, which Wireshark and tcpdump open.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(cmd, "%s takes 1 container, %d given", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.container = args[0]
			if err := o.complete(); err != nil {
				return usage(cmd, "%w", err)
			}
			return exit.run(cmd, func(ctx context.Context) (int, error) {
				return at.with(ctx, dockerCLI, func(machine agent.Machine) (int, error) {
					return 0, runCapture(ctx, dockerCLI, machine, o)
				})
			})
		},
		ValidArgsFunction: completion.ContainerNames(dockerCLI, false),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.file, "write", "w", "", "Write a pcapng file, instead of lines")
	flags.StringVar(&o.port, "port", "", `Capture this port of the container only (e.g., "80/tcp")`)
	flags.StringVar(&o.client, "client", "", "Capture what this address sends or gets only")
	flags.StringVar(&o.Iface, "iface", "", "The uplink, instead of that of the default route")
	flags.StringSliceVar(&o.hops, "hop", nil, `Capture at these hops only ("uplink", "bridge", "veth", "container")`)
	flags.IntVar(&o.Count, "count", probe.CaptureCount, "End after this many packets, of all hops together")
	flags.DurationVar(&o.Duration, "duration", probe.CaptureDuration, "End after this time")
	flags.IntVar(&o.Snaplen, "snaplen", probe.CaptureSnaplen, "Keep this many bytes of a packet")
	at.addFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("hop", completion.FromList("uplink", "bridge", "veth", "container"))
	return cmd
}

// complete checks the options and reads those that are text.
func (o *captureOptions) complete() error {
	if o.port != "" {
		port, err := netstate.ParsePort(o.port)
		if err != nil {
			return fmt.Errorf("--port %w", err)
		}
		o.Port = port
	}
	if o.client != "" {
		addr, err := netip.ParseAddr(o.client)
		if err != nil || addr.Zone() != "" {
			return fmt.Errorf("--client %q: is no address", o.client)
		}
		o.Client = addr.Unmap()
	}
	for _, name := range o.hops {
		if !slices.Contains(captureHops, packet.Hop(name)) {
			return fmt.Errorf("--hop %q: is none of uplink, bridge, veth, container", name)
		}
		o.Hops = append(o.Hops, packet.Hop(name))
	}
	if o.Count <= 0 || o.Duration <= 0 || o.Snaplen <= 0 {
		return errors.New("--count, --duration and --snaplen are greater than 0: a capture has an end")
	}
	return nil
}

func runCapture(ctx context.Context, dockerCLI command.Cli, machine agent.Machine, o captureOptions) (err error) {
	watch, can := machine.(agent.Observer)
	if !can {
		return errors.New("packets cannot be captured on this machine: it is no Linux host")
	}
	reading, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	s, err := machine.Collect(reading, host.Options{Containers: []string{o.container}, Parts: probe.CaptureNeeds})
	if err != nil {
		return err
	}
	o.CaptureOptions.Container = s.Asked[0]
	o.Ready = func() {
		fmt.Fprintf(dockerCLI.Err(), "capturing the packets of %s, at most %d of them and %s; Ctrl-C ends it\n", clean(s.Container(s.Asked[0]).Name), o.Count, o.Duration)
	}
	capture, err := probe.NewCapture(s, o.CaptureOptions)
	if err != nil {
		return err
	}
	each := func(p probe.Packet) error {
		_, err := fmt.Fprintln(dockerCLI.Out(), clean(capture.Line(p)))
		return err
	}
	if o.file != "" {
		file, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out, err := capture.NewFile(file)
		if err != nil {
			return fmt.Errorf("capture %s: %w", o.file, err)
		}
		each = out.Write
	}
	// An end by Ctrl-C is an end as good as any: what was captured is shown.
	if err := watch.Capture(ctx, capture, each); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	table := dockerCLI.Out()
	if o.file != "" {
		table = dockerCLI.Err()
	}
	for line := range strings.Lines(capture.Table()) {
		fmt.Fprintln(table, clean(strings.TrimSuffix(line, "\n")))
	}
	return nil
}
