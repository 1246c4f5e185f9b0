package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
)

// ServeArg is the first argument of the program inside a helper container; Main gets the others.
const ServeArg = "netcheck-agent-serve"

// With which rights a helper runs: the value of its label, and its argument. Each includes those before.
const (
	reading  = "read"   // Collect, Runs, Capture
	changing = "change" // Apply, Undo: the host's root is writable
	watching = "watch"  // Observe
)

// hostRoot is where the host's root is in a helper container.
const hostRoot = "/host"

// namePrefix is how the name of each helper container begins.
const namePrefix = "netcheck-agent-"

// capabilities are what helpers may do, by their rights, and why. They are not privileged: they get no
// device, and the engine's seccomp profile holds.
var capabilities = []struct {
	rights string
	names  []string
}{
	{reading, []string{
		"SYS_CHROOT",      // to use the host's own programs and D-Bus
		"SYS_ADMIN",       // to enter the network namespaces of containers
		"SYS_PTRACE",      // to open those namespaces, and to see whose sockets are whose
		"DAC_READ_SEARCH", // to read what belongs to other users: /proc/PID/fd, configuration
		"NET_ADMIN",       // to list nf_tables, conntrack and ipsets
		"NET_RAW",         // iptables-legacy-save opens a raw socket, and so does a capture
	}},
	// To replace a configuration file by one with the same owner and mode, also where its directory
	// belongs to somebody else.
	{changing, []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"}},
	{watching, []string{
		"SYSLOG",           // to name the kernel's function that dropped a packet
		"NET_BIND_SERVICE", // to answer in a far server's place, at its port
	}},
}

// level is the place of some rights among all; -1: there are none of that name.
func level(rights string) int {
	for i, c := range capabilities {
		if c.rights == rights {
			return i
		}
	}
	return -1
}

// spec is the helper's container.
func spec(image, rights string) (*container.Config, *container.HostConfig) {
	var caps []string
	for _, c := range capabilities[:level(rights)+1] {
		caps = append(caps, c.names...)
	}
	config := &container.Config{
		Image: image, Cmd: []string{ServeArg, rights},
		AttachStdin: true, AttachStdout: true, AttachStderr: true,
		OpenStdin: true, StdinOnce: true, // its input ends when the client does
		User: "0:0", WorkingDir: "/",
		Labels: map[string]string{
			host.AgentLabel: rights,
			"org.opencontainers.image.description": "docker netcheck's helper: it looks at the network of this host, " +
				"or puts it right, and is gone when it has answered",
		},
	}
	return config, &container.HostConfig{
		AutoRemove:     true,
		NetworkMode:    "host",
		PidMode:        "host",
		UsernsMode:     "host", // with userns-remap there are no host namespaces otherwise
		CapDrop:        []string{"ALL"},
		CapAdd:         caps,
		SecurityOpt:    []string{"apparmor=unconfined", "label=disable", "no-new-privileges"},
		ReadonlyRootfs: true,
		LogConfig:      container.LogConfig{Type: "none"}, // what it answers is not to be written to a disk
		Mounts: []mount.Mount{{
			Type: mount.TypeBind, Source: "/", Target: hostRoot, ReadOnly: rights == reading,
		}},
	}
}

// A helper is a running helper container.
type helper struct {
	docker client.APIClient
	id     string
	name   string
	rights string
	stream types.HijackedResponse
	out    *bufio.Reader // what it answers
	said   *tail         // on stderr
	gone   chan error    // has a value when it is removed, or that cannot be told
	swept  chan struct{} // closed when those were removed that others left
}

// start starts a helper. When ctx ends meanwhile, nothing of it is left.
func start(ctx context.Context, docker client.APIClient, o Options, image, rights string) (_ *helper, err error) {
	h := &helper{docker: docker, name: newName(), rights: rights, said: &tail{}}
	config, hostConfig := spec(image, rights)
	// A request that is cut off may have been carried out: what was begun is waited for.
	steady, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if o.Guard != nil {
		defer newGuard(o.Guard(h.name)).dismiss()
	}
	created, err := docker.ContainerCreate(steady, config, hostConfig, nil, nil, h.name)
	if err != nil {
		return nil, err
	}
	h.id = created.ID
	defer func() {
		if err != nil {
			h.kill()
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.gone = make(chan error, 1)
	go h.await()
	h.stream, err = docker.ContainerAttach(steady, h.id, container.AttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(w, h.said, h.stream.Reader)
		w.CloseWithError(err) // nil is io.EOF
	}()
	h.out = bufio.NewReader(r)
	if err := docker.ContainerStart(steady, h.id, container.StartOptions{}); err != nil {
		h.stream.Close()
		return nil, err
	}
	h.swept = make(chan struct{})
	go func() {
		defer close(h.swept)
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		sweep(ctx, docker, h.id)
	}()
	return h, nil
}

func newName() string {
	var random [6]byte
	rand.Read(random[:]) // never fails
	return namePrefix + hex.EncodeToString(random[:])
}

// grace is how long a helper may take to end what it was told to stop.
const grace = 10 * time.Second

// ask sends a request and returns the reply; parts that come before it go to each. When ctx ends, the
// helper is told to stop, and its answer is still waited for if there is something in it: a plan is rolled
// back, a capture has counts.
func (h *helper) ask(ctx context.Context, q request, each func(*reply) error) (*reply, error) {
	q.Engine = engine{Socket: socketOf(h.docker.DaemonHost()), API: h.docker.ClientVersion(), Container: h.id}
	type result struct {
		reply *reply
		err   error
	}
	done := make(chan result, 1)
	go func() {
		err := send(h.stream.Conn, q)
		for {
			a := &reply{}
			if err == nil {
				err = receive(h.out, maxReply, a)
			}
			if err == nil && a.More {
				err = each(a)
				continue
			}
			done <- result{a, err}
			return
		}
	}()
	var got result
	select {
	case got = <-done:
	case <-ctx.Done():
		h.stream.CloseWrite()
		patience := grace
		if q.Do == doCollect || q.Do == doHistory {
			patience = 0
		}
		select {
		case got = <-done:
		case <-time.After(patience):
			return nil, h.lost(q, ctx.Err())
		}
	}
	switch {
	case got.err != nil && ctx.Err() != nil && q.Do != doCapture:
		return nil, h.lost(q, ctx.Err())
	case got.err != nil:
		return nil, h.lost(q, h.silent(got.err))
	}
	return got.reply, got.reply.Error.err()
}

// lost adds to the error of a request without an answer what that leaves open.
func (h *helper) lost(q request, err error) error {
	if q.Do == doApply || q.Do == doUndo {
		return fmt.Errorf("%w: %w", err, ErrLost)
	}
	return err
}

// silent words the error of a helper that gave no answer.
func (h *helper) silent(err error) error {
	text := strings.TrimSpace(h.said.String())
	switch {
	case text != "":
		return fmt.Errorf("helper container %s: %s", h.name, text)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("helper container %s ended without an answer", h.name)
	}
	return fmt.Errorf("helper container %s: %w", h.name, err)
}

// await waits until the helper is removed. It begins before the helper does: an engine that has just
// removed a container may not answer at all (seen with 20.10).
func (h *helper) await() {
	removed, failed := h.docker.ContainerWait(context.Background(), h.id, container.WaitConditionRemoved)
	select {
	case <-removed:
		h.gone <- nil
	case err := <-failed:
		if errdefs.IsNotFound(err) {
			err = nil
		}
		h.gone <- err
	}
}

// close ends the helper and waits until it is removed.
func (h *helper) close() error {
	<-h.swept
	h.stream.Close() // its input ends; what it still says goes nowhere
	late := time.NewTimer(grace)
	defer late.Stop()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		select {
		case err := <-h.gone:
			if err == nil {
				return nil
			}
		case <-again.C:
			ctx, cancel := context.WithTimeout(context.Background(), grace)
			_, err := h.docker.ContainerInspect(ctx, h.id)
			cancel()
			if errdefs.IsNotFound(err) {
				return nil
			}
		case <-late.C:
			if h.rights == reading {
				return h.kill()
			}
			return fmt.Errorf("helper container %s is still at work", h.name)
		}
	}
}

// kill removes the helper, whatever it does. It must not be at work on a plan.
func (h *helper) kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := h.docker.ContainerRemove(ctx, h.id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // conflict: it is being removed
		return nil
	}
	return fmt.Errorf("helper container %s is left: %w", h.name, err)
}

// socketOf returns the path of the Unix socket behind a daemon's address, or "".
func socketOf(daemonHost string) string {
	path, ok := strings.CutPrefix(daemonHost, "unix://")
	if !ok {
		return ""
	}
	return path
}

// A tail keeps the last of what is written to it.
type tail struct {
	mu   sync.Mutex
	last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if over := len(t.last) - 2048; over > 0 {
		t.last = bytes.Clone(t.last[over:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}
