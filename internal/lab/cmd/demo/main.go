//go:build linux

// Command demo shows docker netcheck at work on a real engine: it starts one in namespaces, breaks it,
// lets netcheck find and fix what is broken, and takes everything down again. `make demo` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

func main() {
	suite := flag.String("suite", lab.Bookworm, "Debian suite whose engine is used: "+strings.Join(lab.Suites(), ", "))
	plugin := flag.String("plugin", "bin/docker-netcheck", "the plugin, as make build makes it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *suite, *plugin); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// A story is the demo on its host. After the first step that goes otherwise than told, the others do
// nothing.
type story struct {
	ctx  context.Context
	host *lab.Host
	err  error
}

func run(ctx context.Context, suite, plugin string) (err error) {
	fmt.Printf("Starting a Docker host in namespaces (%s, with firewalld) and a client outside of it.\n", suite)
	fmt.Println("The first time this builds a Debian root, which takes half a minute.")
	host, err := lab.Start(ctx, lab.Options{Suite: suite, Firewalld: true})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println("\nTaking the host down; nothing of it stays.")
		err = errors.Join(err, host.Close())
	}()
	if err := host.Install(ctx, plugin, lab.PluginPath); err != nil {
		return err
	}
	if err := host.Web(ctx, "web", "-p", "80:80"); err != nil {
		return err
	}
	s := &story{ctx: ctx, host: host}

	s.say("A container is published with -p 80:80, and a client outside gets its page.")
	s.client("ok")

	s.say("Somebody applies a hardening rule.")
	s.command(0, "sysctl", "-w", "net.ipv4.ip_forward=0")
	s.client("timeout")

	s.say("On the host itself curl still answers, so where is the fault?")
	s.command(0, "curl", "-sS", "--max-time", "2", "http://127.0.0.1/")

	s.say("Ask. Nothing is sent and nothing is changed; --dry-run adds the diff of the fix.")
	s.command(1, "docker", "netcheck", "--dry-run", "web")

	s.say("Let it make the fix. It reads the host once more and judges again.")
	s.command(0, "docker", "netcheck", "web", "--fix", "--yes")
	s.client("ok")

	s.say("Take it back: what the fix changed is as before, to the byte.")
	s.command(0, "docker", "netcheck", "undo", "--yes")
	s.command(0, "sysctl", "net.ipv4.ip_forward")
	return s.err
}

func (s *story) say(text string) {
	if s.err == nil {
		fmt.Printf("\n== %s\n", text)
	}
}

// client lets the outside client fetch the page and compares what comes of it.
func (s *story) client(want string) {
	if s.err != nil {
		return
	}
	body, err := s.host.Far(false).Get(s.ctx, "http://"+lab.HostAddr+"/")
	got := lab.Outcome(err)
	fmt.Printf("client$ curl http://%s/\n%s\n", lab.HostAddr, strings.TrimSpace(body+" ["+got+"]"))
	if got != want {
		s.err = fmt.Errorf("the client got %s, expected %s", got, want)
	}
}

// command runs a command on the host, shows it, and compares its exit status.
func (s *story) command(want int, name string, args ...string) {
	if s.err != nil {
		return
	}
	fmt.Println("host$", name, strings.Join(args, " "))
	cmd := s.host.Command(s.ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.err = err
		return
	}
	got := cmd.ProcessState.ExitCode()
	if strings.HasPrefix(strings.Join(args, " "), "netcheck") {
		fmt.Printf("[exit status %d]\n", got)
	}
	if got != want {
		s.err = fmt.Errorf("%s %s: exit status %d, expected %d", name, strings.Join(args, " "), got, want)
	}
}
