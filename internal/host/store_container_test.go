//go:build linux

package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// sandbox starts a process in a network namespace of its own, and returns how to run programs there.
func sandbox(t *testing.T) (pid, netns string, inside func(command ...string) string, end func()) {
	t.Helper()
	child := exec.Command("sleep", "600")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		child.Process.Kill()
		child.Wait()
	}
	t.Cleanup(end)
	pid = strconv.Itoa(child.Process.Pid)
	netns, err := os.Readlink("/proc/" + pid + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	inside = func(command ...string) string {
		t.Helper()
		return run(t, append([]string{"nsenter", "-n", "-t", pid}, command...)...)
	}
	return pid, netns, inside, end
}

func TestContainerNamespace(t *testing.T) {
	ownNetns(t)
	pid, netns, inside, end := sandbox(t)
	for _, line := range []string{
		"ip link set lo up", "ip link add eth0 type veth peer name p0", "ip link set p0 addrgenmode none", "ip link set eth0 addrgenmode none", "ip link set p0 up",
		"ip addr add 172.17.0.2/16 dev eth0", "ip -6 addr add fd00::2/64 dev eth0 nodad",
	} {
		inside(strings.Fields(line)...)
	}
	state := func() string {
		return settled(inside("ip", "addr") + inside("ip", "route") + inside("ip", "-6", "route") + inside("sysctl", "-a", "-r", "net.ipv[46].conf.*.(forwarding|rp_filter)"))
	}
	at := func(step remediate.Step) remediate.Step {
		return step.Guarded(remediate.GuardPID, pid).Guarded(remediate.GuardNetns, netns)
	}
	plan := &remediate.Plan{Steps: []remediate.Step{
		at(remediate.Set("link", "eth0 in container web", "down", "up")),
		at(remediate.Add("route", "default in container web", "via 172.17.0.1 dev eth0")),
		at(remediate.Set("sysctl", "net.ipv4.conf.eth0.rp_filter in container web", "0", "2")),
		at(remediate.Set("sysctl", "net.ipv4.ip_forward in container web", "0", "1")),
	}}
	before, own := state(), whole(t)
	ctx := context.Background()
	journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	if _, err := journal.Apply(ctx, plan, Stores(), Facts(nil)); err != nil {
		t.Fatal(err)
	}
	if text := inside("ip", "route"); !strings.Contains(text, "default via 172.17.0.1") {
		t.Errorf("the route is not there: %s", text)
	}
	if _, err := journal.Undo(ctx, "", Stores(), Facts(nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("undo left:\n%s", diff)
	}
	if diff := cmp.Diff(own, whole(t)); diff != "" {
		t.Errorf("the namespace of the test changed:\n%s", diff)
	}

	// With its namespace the change has gone, and a namesake is not touched.
	if _, err := journal.Apply(ctx, plan, Stores(), Facts(nil)); err != nil {
		t.Fatal(err)
	}
	end()
	run, err := journal.Undo(ctx, "", Stores(), Facts(nil))
	var refused *remediate.RefusedError
	if !errors.As(err, &refused) || len(refused.Refused) != len(plan.Steps) {
		t.Fatalf("undo: %v", err)
	}
	if run.State != remediate.Undone {
		t.Errorf("the run is %s", run.State)
	}
	if _, err := journal.Apply(ctx, plan, Stores(), Facts(nil)); !errors.Is(err, remediate.ErrChanged) {
		t.Errorf("apply to a namespace that is gone: %v", err)
	}
	other := remediate.Set("link", "eth0", "down", "up").Guarded(remediate.GuardPID, strconv.Itoa(os.Getpid())).Guarded(remediate.GuardNetns, netns)
	if _, err := Stores()["link"].Swap(ctx, []remediate.Step{other}); !errors.Is(err, remediate.ErrChanged) {
		t.Errorf("another process of that number: %v", err)
	}
}
