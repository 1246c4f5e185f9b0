//go:build linux

package host

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The tests' goroutine keeps the first thread: the runtime ends every thread that a goroutine leaves locked but
// that one, which would stay in the namespace of some test, and with it /proc/self/ns/net.
func init() { runtime.LockOSThread() }

// ownNetns gives the test a network namespace of its own until it ends: the calling goroutine's thread is
// in it, and so is what it starts. Other goroutines are not.
func ownNetns(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in the test's namespace, and returns what it printed.
func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// ip runs a batch of ip commands, one a line; those of IPv6 that would not show it begin with -6.
func ip(t *testing.T, batch string) {
	t.Helper()
	batches := [2]string{}
	for _, line := range strings.Split(batch, "\n") {
		line, six := strings.CutPrefix(line, "-6 ")
		batches[map[bool]int{true: 1}[six]] += line + "\n"
	}
	for i, family := range []string{"-4", "-6"} {
		command := exec.Command("ip", family, "-batch", "-")
		if i == 0 {
			command = exec.Command("ip", "-batch", "-")
		}
		command.Stdin = strings.NewReader(batches[i])
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("ip: %v\n%s", err, out)
		}
	}
	if strings.Contains(batch, " up\n") {
		steady(t)
	}
}

// steady waits until the links that are up have found that out: the kernel tells them a little later.
func steady(t *testing.T) {
	t.Helper()
	before, same := "", 0
	for deadline := time.Now().Add(10 * time.Second); same < 4 && time.Now().Before(deadline); time.Sleep(15 * time.Millisecond) {
		now := run(t, "ip", "link") + run(t, "ip", "-6", "route", "show", "table", "all")
		if same++; now != before {
			before, same = now, 0
		}
	}
}

// roundTrip applies the steps, looks, and undoes them: state must be as before then, and not in between.
func roundTrip(t *testing.T, steps []remediate.Step, state func() string, look func()) {
	t.Helper()
	machine{}.roundTrip(t, steps, state, look)
}

func (m machine) roundTrip(t *testing.T, steps []remediate.Step, state func() string, look func()) {
	t.Helper()
	stores, facts := m.stores(), m.facts(nil)
	ctx := context.Background()
	journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	plan, err := remediate.NewPlan([]*remediate.Fix{{Title: "test", Steps: steps}}, false)
	if err != nil {
		t.Fatal(err)
	}
	before := state()
	cutOff(t, stores, plan.Steps, state)
	run, err := journal.Apply(ctx, plan, stores, facts)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	if slices.Contains(run.Changed, false) {
		t.Errorf("apply: not every step changed something: %v", run.Changed)
	}
	if look != nil {
		look()
	}
	between := state()
	if between == before {
		t.Error("apply: nothing changed")
	}
	again, err := journal.Apply(ctx, plan, stores, facts)
	if err != nil || again.Altered() {
		t.Errorf("apply twice: %v, changed %v", err, again.Changed)
	}
	if diff := cmp.Diff(between, state()); diff != "" {
		t.Errorf("apply twice changed:\n%s", diff)
	}
	if _, err := journal.Undo(ctx, "", stores, facts); err != nil {
		t.Fatalf("undo: %v", err)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("undo left:\n%s", diff)
	}
}

// cutOff makes the steps up to each of them in turn, as a process does that is killed before the next, and
// takes them and that one back as an undo does that does not know how far it came.
func cutOff(t *testing.T, stores remediate.Stores, steps []remediate.Step, state func() string) {
	t.Helper()
	ctx := context.Background()
	before := state()
	for n := range len(steps) {
		var looked []remediate.Step
		for _, step := range steps {
			step, _, err := stores[step.Kind].Look(ctx, step)
			if err != nil {
				t.Fatalf("look: %v", err)
			}
			looked = append(looked, step)
		}
		for _, step := range looked[:n] {
			if _, err := stores[step.Kind].Swap(ctx, []remediate.Step{step}); err != nil {
				t.Fatalf("cut off behind step %d: %v", n, err)
			}
		}
		looked = looked[:n+1]
		slices.Reverse(looked)
		for _, step := range looked {
			step = step.Reverse()
			step.Settle = true
			if _, err := stores[step.Kind].Swap(ctx, []remediate.Step{step}); err != nil {
				t.Fatalf("cut off behind step %d: take back: %v", n, err)
			}
		}
		if diff := cmp.Diff(before, state()); diff != "" {
			t.Fatalf("cut off behind step %d: left:\n%s", n, diff)
		}
		if len(steps) > 12 { // enough is enough
			return
		}
	}
}

// sortedLines returns the lines of a text in their order by name.
func sortedLines(text string) []string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return lines
}
