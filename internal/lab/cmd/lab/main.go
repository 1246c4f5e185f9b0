//go:build linux

// Command lab starts Docker hosts in namespaces, for people. It needs root.
//
//	lab up   [OPTIONS]             start a host, say how to use it, wait for Ctrl-C
//	lab exec [OPTIONS] [CMD ARG…]  run a command, or a shell, in a host of its own
//	lab root [SUITE…]              build the roots that hosts start from
//
// See the package lab for what a host is.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

const usage = `usage: lab up [OPTIONS] | lab exec [OPTIONS] [CMD ARG...] | lab root [SUITE...]

options of up and exec:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	var status exitStatus
	switch {
	case errors.As(err, &status):
		os.Exit(int(status))
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// An exitStatus is that of the command of lab exec.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

type config struct {
	lab.Options
	plugin string
	empty  bool
}

func run(ctx context.Context, args []string) error {
	var c config
	flags := flag.NewFlagSet("lab", flag.ExitOnError)
	flags.StringVar(&c.Suite, "suite", lab.Bookworm, "Debian suite: "+strings.Join(lab.Suites(), ", "))
	flags.StringVar(&c.Dockerd, "dockerd", "", "`path` of another dockerd")
	flags.BoolVar(&c.NoDockerd, "no-dockerd", false, "without an engine")
	flags.BoolVar(&c.Firewalld, "firewalld", false, "with firewalld")
	flags.BoolVar(&c.IPv6, "ipv6", false, "with IPv6 outside and on the default network")
	flags.IntVar(&c.Clients, "clients", 1, "outside clients")
	flags.StringVar(&c.plugin, "plugin", "", "`path` of docker-netcheck, to install")
	flags.BoolVar(&c.empty, "empty", false, "without the container web")
	noProxy := flags.Bool("no-proxy", false, "without docker-proxy")
	daemon := flags.String("daemon", "", "daemon.json as `JSON`")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if len(args) == 0 {
		flags.Usage()
		os.Exit(2)
	}
	flags.Parse(args[1:])

	c.Daemon = map[string]any{}
	if c.IPv6 {
		c.Daemon["ipv6"] = true
		c.Daemon["ip6tables"] = true
		c.Daemon["experimental"] = true // ip6tables was, in 20.10
		c.Daemon["fixed-cidr-v6"] = "fd00:d0c:e::/64"
	}
	if *noProxy {
		c.Daemon["userland-proxy"] = false
	}
	if *daemon != "" {
		if err := json.Unmarshal([]byte(*daemon), &c.Daemon); err != nil {
			return fmt.Errorf("--daemon: %w", err)
		}
	}
	switch args[0] {
	case "up":
		return up(ctx, c)
	case "exec":
		return execute(ctx, c, flags.Args())
	case "root":
		return roots(ctx, flags.Args())
	}
	flags.Usage()
	os.Exit(2)
	return nil
}

// up starts a host and keeps it until ctx ends.
func up(ctx context.Context, c config) error {
	begin := time.Now()
	h, err := start(ctx, c)
	if err != nil {
		return err
	}
	defer h.Close()
	fmt.Printf("host     %s, %s, in %s\n", c.Suite, lab.HostAddr, time.Since(begin).Round(10*time.Millisecond))
	if !c.NoDockerd {
		version, err := h.Docker(ctx, "version", "--format", "{{.Server.Version}}")
		if err != nil {
			return err
		}
		fmt.Printf("engine   %s  DOCKER_HOST=%s\n", strings.TrimSpace(version), h.EngineAddr())
		if !c.empty {
			fmt.Printf("web      http://%s/ from the client\n", lab.HostAddr)
		}
	}
	fmt.Printf("logs     %s\n", h.Path("/var/log"))
	fmt.Printf("enter    %s bash\n", h.Enter())
	for i, client := range h.Clients {
		fmt.Printf("client %d %s curl -m 2 http://%s/\n", i, client.Enter(), lab.HostAddr)
	}
	fmt.Println("Ctrl-C ends it.")
	<-ctx.Done()
	return nil
}

// execute runs one command in a host and ends it.
func execute(ctx context.Context, c config, args []string) error {
	h, err := start(ctx, c)
	if err != nil {
		return err
	}
	defer h.Close()
	if len(args) == 0 {
		args = []string{"bash"}
	}
	// Ctrl-C is the command's, which has it from the terminal.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cmd := h.Command(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitStatus(exit.ExitCode())
	}
	return err
}

func start(ctx context.Context, c config) (*lab.Host, error) {
	if err := lab.Usable(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	h, err := lab.Start(ctx, c.Options)
	if err != nil {
		return nil, err
	}
	if c.plugin != "" {
		err = h.Install(ctx, c.plugin, lab.PluginPath)
	}
	if err == nil && !c.NoDockerd && !c.empty {
		err = h.Web(ctx, "web", "-p", "80:80")
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func roots(ctx context.Context, suites []string) error {
	if err := lab.Usable(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if len(suites) == 0 {
		suites = lab.Suites()
	}
	for _, suite := range suites {
		dir, err := lab.Root(ctx, suite)
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		fmt.Println(dir)
	}
	return nil
}
