package agent

import (
	"context"
	"io"
	"os/exec"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// A guard is a process that outlives us if we are killed (SIGKILL) between making and starting a helper:
// the engine would keep such a container for ever. It is told by its standard input: a line that all is
// well, or else its end.
type guard struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

// safe is what a guard is told once its helper runs: then the engine removes it.
const safe = "safe\n"

// newGuard starts the command as a guard. Without one the next use tidies up (see sweep).
func newGuard(cmd *exec.Cmd) *guard {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil
	}
	detach(cmd)
	if cmd.Start() != nil {
		return nil
	}
	return &guard{cmd, in}
}

// dismiss ends the guard.
func (g *guard) dismiss() {
	if g == nil {
		return
	}
	io.WriteString(g.in, safe) // a guard that is gone needs no word
	g.in.Close()
	go g.cmd.Wait()
}

// Guard is what a guard does: it waits until in ends and, if it was not told that all is well, removes
// the helper container of that name, which may not be there yet.
func Guard(docker client.APIClient, name string, in io.Reader) error {
	if told, _ := io.ReadAll(in); string(told) == safe {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	for {
		err := docker.ContainerRemove(ctx, name, container.RemoveOptions{Force: true})
		if err == nil || !errdefs.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}
