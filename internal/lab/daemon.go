//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Starting longer than this is a failure. It leaves room for a busy machine.
const startTimeout = 60 * time.Second

// A daemon is a process of the host that we started and may stop. Its log is
// /var/log/NAME.log in the host.
type daemon struct {
	name  string
	cmd   *exec.Cmd     // nsenter; the daemon is its child
	ended chan struct{} // closed when it has ended
	err   error         // valid then
}

// startDaemon starts a daemon and waits until ready returns nil.
func (h *Host) startDaemon(ctx context.Context, ready func(context.Context) error, name string, args ...string) error {
	// Not with ctx: it outlives the call.
	script := `exec "$@" >>/var/log/"$0".log 2>&1`
	cmd := h.Command(context.Background(), "sh", append([]string{"-c", script, filepath.Base(name), name}, args...)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // spared by Ctrl-C
	d := &daemon{name: filepath.Base(name), cmd: cmd, ended: make(chan struct{})}

	h.mu.Lock()
	if h.daemons == nil {
		h.mu.Unlock()
		return errClosed
	}
	if old := h.daemons[d.name]; old != nil && !old.hasEnded() {
		h.mu.Unlock()
		return fmt.Errorf("%s: already running", d.name)
	}
	if err := cmd.Start(); err != nil {
		h.mu.Unlock()
		return err
	}
	h.daemons[d.name] = d
	h.mu.Unlock()
	go func() {
		d.err = cmd.Wait()
		close(d.ended)
	}()

	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready in %s", startTimeout))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		select {
		case <-d.ended:
			fail(fmt.Errorf("ended: %v", d.err))
		case <-ctx.Done():
		}
	}()
	if err := poll(ctx, func() error { return ready(ctx) }); err != nil {
		return fmt.Errorf("%s: %w\n%s", d.name, err, h.Log(d.name, 20))
	}
	return nil
}

func (d *daemon) hasEnded() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}

// Log returns the last lines of a daemon's log.
func (h *Host) Log(name string, lines int) string {
	b, err := os.ReadFile(h.Path("/var/log/" + name + ".log"))
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b), lines)
}

// stopDaemon signals a daemon and waits for its end. One that does not run is
// stopped already.
func (h *Host) stopDaemon(ctx context.Context, name string, sig unix.Signal) error {
	h.mu.Lock()
	d := h.daemons[name]
	h.mu.Unlock()
	if d == nil || d.hasEnded() {
		return nil
	}
	for _, pid := range children(d.cmd.Process.Pid) {
		if err := unix.Kill(pid, sig); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	select {
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w\n%s", name, context.Cause(ctx), h.Log(name, 20))
	}
}

// StartDockerd starts the engine, with arguments besides Options.Args, and
// waits until it answers.
func (h *Host) StartDockerd(ctx context.Context, args ...string) error {
	name := "dockerd"
	if h.options.Dockerd != "" {
		name = engineDir + "/" + filepath.Base(h.options.Dockerd)
	}
	// The containers' cgroups are outside of the host. Here we find them again.
	all := slices.Concat([]string{"--cgroup-parent=/" + h.id}, h.options.Args, args)
	return h.startDaemon(ctx, h.ping, name, all...)
}

// StopDockerd stops the engine as a service manager does, and with it, unless
// it has live-restore, the containers.
func (h *Host) StopDockerd(ctx context.Context) error {
	return h.stopDaemon(ctx, h.dockerd(), unix.SIGTERM)
}

// KillDockerd kills the engine. Containers and containerd live on.
func (h *Host) KillDockerd(ctx context.Context) error {
	return h.stopDaemon(ctx, h.dockerd(), unix.SIGKILL)
}

// RestartDockerd stops and starts the engine.
func (h *Host) RestartDockerd(ctx context.Context, args ...string) error {
	if err := h.StopDockerd(ctx); err != nil {
		return err
	}
	return h.StartDockerd(ctx, args...)
}

func (h *Host) dockerd() string {
	if h.options.Dockerd != "" {
		return filepath.Base(h.options.Dockerd)
	}
	return "dockerd"
}

// EngineAddr is the engine's address for a client outside of the host, as in
// DOCKER_HOST.
func (h *Host) EngineAddr() string { return "unix://" + h.Path("/run/docker.sock") }

// ping asks the engine whether it is there.
func (h *Host) ping(ctx context.Context) error {
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Path("/run/docker.sock"))
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// StartFirewalld starts firewalld, after the system bus if that does not run
// yet, and waits until it answers on the bus.
func (h *Host) StartFirewalld(ctx context.Context) error {
	if err := h.startBus(ctx); err != nil {
		return err
	}
	running := func(ctx context.Context) error {
		out, err := h.Run(ctx, "dbus-send", "--system", "--print-reply", "--dest=org.fedoraproject.FirewallD1",
			"/org/fedoraproject/FirewallD1", "org.freedesktop.DBus.Properties.Get",
			"string:org.fedoraproject.FirewallD1", "string:state")
		if err == nil && !strings.Contains(out, "RUNNING") {
			err = errors.New(out)
		}
		return err
	}
	return h.startDaemon(ctx, running, "firewalld", "--nofork", "--nopid")
}

// StopFirewalld stops firewalld, which takes its rules away.
func (h *Host) StopFirewalld(ctx context.Context) error {
	return h.stopDaemon(ctx, "firewalld", unix.SIGTERM)
}

// startBus starts the system bus, once.
func (h *Host) startBus(ctx context.Context) error {
	h.mu.Lock()
	d := h.daemons["dbus-daemon"]
	h.mu.Unlock()
	if d != nil && !d.hasEnded() {
		return nil
	}
	if _, err := h.Run(ctx, "mkdir", "-p", "/run/dbus"); err != nil {
		return err
	}
	listening := func(context.Context) error {
		conn, err := net.Dial("unix", h.Path("/run/dbus/system_bus_socket"))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return h.startDaemon(ctx, listening, "dbus-daemon", "--system", "--nofork", "--nopidfile")
}
