//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Main is the program inside a helper container: it serves requests on stdin until that ends, and
// returns the exit status. args are those behind ServeArg: with which rights it runs.
func Main(args []string) int {
	rights := strings.Join(args, " ")
	if level(rights) < 0 {
		fmt.Fprintf(os.Stderr, "%s is for netcheck's own helper containers\n", ServeArg)
		return 125
	}
	if err := enterHost(rights); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) { // its capabilities suffice
			err = fmt.Errorf("the engine's seccomp profile or a security module of the host forbids it: %w", err)
		}
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	s := server{rights: rights}
	if err := s.serve(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	return 0
}

// enterHost makes the host's root ours, so that its own programs, its D-Bus and its files are used.
func enterHost(rights string) error {
	if rights == reading {
		// The engine mounts "/" read-only, but older ones not what is mounted below it. A kernel before
		// 5.12 cannot do better; what is read is the same.
		_ = unix.MountSetattr(unix.AT_FDCWD, hostRoot, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err := unix.Chroot(hostRoot); err != nil {
		return fmt.Errorf("enter the host's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter the host's root: %w", err)
	}
	for name, value := range map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// A server answers requests.
type server struct {
	rights string
	docker client.APIClient // once the engine was found
}

// errGone is why a run is rolled back whose client went away.
var errGone = fmt.Errorf("its client went away: %w", context.Canceled)

// serve answers requests, one by one, until there are no more. When the input ends, or ctx does, what is
// going on is cancelled: a plan in the middle is rolled back, and that is still answered.
func (s *server) serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	requests := make(chan request)
	ended := make(chan error, 1)
	go func() {
		defer cancel(errGone)
		r := bufio.NewReader(in)
		for {
			var q request
			if err := receive(r, maxRequest, &q); err != nil {
				ended <- err
				return
			}
			select {
			case requests <- q:
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			}
		}
	}()
	for {
		select {
		case q := <-requests:
			answer := s.answer(ctx, q, func(part *reply) error { return send(out, part) })
			if err := send(out, answer); err != nil && ctx.Err() == nil {
				return fmt.Errorf("answer: %w", err)
			}
		case <-ctx.Done():
			select {
			case err := <-ended:
				if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
					return nil
				}
				return err
			default: // a signal
				return nil
			}
		}
	}
}

// answer does what is asked for. Parts of the answer go to more.
func (s *server) answer(ctx context.Context, q request, more func(*reply) error) *reply {
	a := &reply{}
	if q.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.Timeout)
		defer cancel()
	}
	a.Error = failureOf(s.do(ctx, q, a, more))
	return a
}

func (s *server) do(ctx context.Context, q request, a *reply, more func(*reply) error) (err error) {
	if level(s.rights) < level(needs[q.Do]) {
		return fmt.Errorf("%s: this helper may only %s", q.Do, s.rights)
	}
	// Which engine it is, its own container has shown.
	here := &local{place: host.Place{Here: true}}
	if q.Do == doHistory {
		runs, err := here.Runs(ctx)
		if err != nil {
			return err
		}
		a.History, err = json.Marshal(runs)
		return err
	}
	if s.docker == nil {
		if s.docker, err = findEngine(ctx, q.Engine); err != nil {
			return err
		}
	}
	here.docker = s.docker
	switch {
	case q.Do == doCollect && q.Collect != nil:
		here.context = q.Collect.Context
		snapshot, err := here.Collect(ctx, host.Options{
			Containers: q.Collect.Containers, All: q.Collect.All, Filters: q.Collect.Filters, Thorough: q.Collect.Thorough, Parts: q.Collect.Parts,
		})
		if err != nil {
			return err
		}
		var document bytes.Buffer
		err = snapshot.Encode(&document)
		a.Snapshot = document.Bytes()
		return err
	case q.Do == doApply:
		plan, err := remediate.ParsePlan(q.Plan)
		if err != nil {
			return err
		}
		a.Run, err = here.Apply(ctx, plan)
		return err
	case q.Do == doUndo:
		a.Run, err = here.Undo(ctx, q.Run)
		return err
	case q.Do == doObserve && q.Observe != nil:
		a.Observation, err = q.Observe.make(ctx, here)
		return err
	case q.Do == doCapture && q.Capture != nil:
		a.Counts, err = q.Capture.run(ctx, here, more)
		return err
	}
	return fmt.Errorf("%q: this helper cannot do that", q.Do)
}

// make makes the live connection. What it needs of the host it reads anew: a client does not tell where
// to put a program.
func (o *observation) make(ctx context.Context, here *local) (*probe.Observation, error) {
	snapshot, err := here.Collect(ctx, host.Options{Containers: []string{o.Target.ID}, Parts: probe.Needs, Thorough: true})
	if err != nil {
		return nil, err
	}
	r, err := probe.NewRequest(snapshot, o.Target, o.Uplink)
	if err != nil {
		return nil, err
	}
	r.HTTP, r.ICMP, r.Timeout = o.HTTP, o.ICMP, o.Timeout
	return here.Observe(ctx, r)
}

// run captures. As with a live connection, the host is read anew.
func (o *capture) run(ctx context.Context, here *local, more func(*reply) error) ([]probe.HopCount, error) {
	snapshot, err := here.Collect(ctx, host.Options{Containers: []string{o.Container}, Parts: probe.CaptureNeeds})
	if err != nil {
		return nil, err
	}
	var unsent error
	c, err := probe.NewCapture(snapshot, probe.CaptureOptions{
		Container: o.Container, Port: o.Port, Client: o.Client, Iface: o.Iface, Hops: o.Hops,
		Count: o.Count, Duration: o.Duration, Snaplen: o.Snaplen,
		Ready: func() { unsent = more(&reply{More: true, Ready: true}) },
	})
	if err != nil {
		return nil, err
	}
	err = here.Capture(ctx, c, func(p probe.Packet) error {
		return errors.Join(unsent, more(&reply{More: true, Packet: &p}))
	})
	return c.Counts(), err
}

// findEngine returns a client of the engine that has the helper's container, over a Unix socket of the
// host: the one that the client used, the usual one, or any that a dockerd listens on.
func findEngine(ctx context.Context, e engine) (client.APIClient, error) {
	var last error
	tried := map[string]bool{"": true}
	for _, sockets := range []func() []string{
		func() []string { return []string{e.Socket, "/var/run/docker.sock"} },
		host.EngineSockets,
	} {
		for _, path := range sockets() {
			if tried[path] {
				continue
			}
			tried[path] = true
			docker, err := client.NewClientWithOpts(client.WithHost("unix://"+path), client.WithVersion(e.API))
			if err != nil {
				last = err
				continue
			}
			probe, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err = docker.ContainerInspect(probe, e.Container)
			cancel()
			if err == nil {
				return docker, nil
			}
			last = fmt.Errorf("%s: %w", path, err)
			docker.Close()
		}
	}
	return nil, fmt.Errorf("no Unix socket on the engine's host leads to the engine: %w", last)
}
