//go:build linux

package remediate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A tree is a store whose things are files, so that they outlive a process that is killed. Like a kernel's
// sysctls they hang together: who writes "all" writes every "conf.*".
type tree struct {
	dir     string
	spoilt  string             // a thing that refuses to be written
	reached func(point string) // called behind each write
}

func (s tree) read() map[string]string {
	things := map[string]string{}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(s.dir, file.Name()))
		if err != nil {
			panic(err)
		}
		things[file.Name()] = string(data)
	}
	return things
}

var errSpoilt = errors.New("cannot be written")

func (s tree) put(name string, value *string) error {
	if name == s.spoilt {
		return errSpoilt
	}
	path := filepath.Join(s.dir, name)
	if value == nil {
		if err := os.Remove(path); err != nil {
			return err
		}
	} else if err := os.WriteFile(path, []byte(*value), 0o600); err != nil {
		return err
	}
	if name == "all" && value != nil {
		for other := range s.read() {
			if strings.HasPrefix(other, "conf.") {
				if err := os.WriteFile(filepath.Join(s.dir, other), []byte(*value), 0o600); err != nil {
					return err
				}
			}
		}
	}
	if s.reached != nil {
		s.reached("put " + name)
	}
	return nil
}

func (s tree) Look(_ context.Context, step Step) (Step, bool, error) {
	things := s.read()
	there := Equal(MapStore(things).get(step.Name), step.New)
	if step.Name == "all" && !there {
		for _, name := range slices.Sorted(maps.Keys(things)) {
			if strings.HasPrefix(name, "conf.") {
				step.Also = append(step.Also, Step{Kind: step.Kind, Name: name, Old: MapStore(things).get(name), New: step.New})
			}
		}
	}
	return step, there, nil
}

func (s tree) Swap(_ context.Context, steps []Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		now := MapStore(s.read()).get(step.Name)
		switch {
		case Equal(now, step.New):
			if !step.Settle {
				continue
			}
		case !Equal(now, step.Old):
			return changed, Changed(step, now)
		default:
			if err := s.put(step.Name, step.New); err != nil {
				return changed, err
			}
			changed[i] = true
		}
		for _, also := range step.Also {
			if err := s.put(also.Name, also.New); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// grow makes a tree of eight things, some of which hang together.
func grow(t *testing.T, random *rand.Rand) tree {
	s := tree{dir: t.TempDir()}
	for _, name := range []string{"a", "b", "c", "d", "all", "conf.a", "conf.b", "conf.c"} {
		if name == "all" || random.IntN(4) > 0 {
			value := fmt.Sprint(random.IntN(3))
			if err := s.put(name, &value); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"conf.a", "conf.b", "conf.c"} {
		value := fmt.Sprint(random.IntN(3))
		if err := s.put(name, &value); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// plan makes a plan of steps of two kinds that fits the tree.
func (s tree) plan(random *rand.Rand) *Plan {
	now := MapStore(s.read())
	plan := &Plan{Titles: []string{"change things"}}
	names := []string{"a", "b", "all", "c", "d"}
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:1+random.IntN(len(names))] {
		var value *string
		if name == "all" || random.IntN(3) > 0 {
			text := fmt.Sprint(random.IntN(3))
			value = &text
		}
		kind := []string{"x", "y"}[random.IntN(2)]
		plan.Steps = append(plan.Steps, Step{Kind: kind, Name: name, Old: now.get(name), New: value})
	}
	return plan
}

func (s tree) stores() Stores { return Stores{"x": s, "y": s} }

func TestLaws(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := grow(t, random)
		plan := s.plan(random)
		j := &Journal{Dir: filepath.Join(t.TempDir(), "journal")}
		before := s.read()

		// With each step spoilt in turn nothing changes.
		for _, step := range plan.Steps {
			bad := s
			bad.spoilt = step.Name
			if Equal(MapStore(before).get(step.Name), step.New) {
				continue
			}
			run, err := j.Apply(ctx, plan, bad.stores(), nil)
			if !errors.Is(err, errSpoilt) || run.State != RolledBack {
				t.Fatalf("seed %d: %s spoilt: %v, run %+v", seed, step.Name, err, run)
			}
			if diff := cmp.Diff(before, s.read()); diff != "" {
				t.Fatalf("seed %d: %s spoilt: something changed: %s", seed, step.Name, diff)
			}
		}

		// A step that finds neither value changes nothing.
		for i, step := range plan.Steps {
			if Equal(step.Old, step.New) || Equal(MapStore(before).get(step.Name), step.New) {
				continue
			}
			other := "other"
			stale := &Plan{Steps: slices.Clone(plan.Steps)}
			stale.Steps[i].Old = &other
			if _, err := j.Apply(ctx, stale, s.stores(), nil); !errors.Is(err, ErrChanged) {
				t.Fatalf("seed %d: %s stale: %v", seed, step.Name, err)
			}
			if diff := cmp.Diff(before, s.read()); diff != "" {
				t.Fatalf("seed %d: %s stale: something changed: %s", seed, step.Name, diff)
			}
		}

		// Apply twice is apply once.
		first, err := j.Apply(ctx, plan, s.stores(), nil)
		if err != nil {
			t.Fatalf("seed %d: apply: %v", seed, err)
		}
		after := s.read()
		for _, step := range plan.Steps {
			if !Equal(MapStore(after).get(step.Name), step.New) {
				t.Fatalf("seed %d: %s does not hold %s", seed, step.Name, brief(step.New))
			}
		}
		second, err := j.Apply(ctx, plan, s.stores(), nil)
		if err != nil || second.Altered() || second.ID != "" {
			t.Fatalf("seed %d: apply again: %v, run %+v", seed, err, second)
		}
		if diff := cmp.Diff(after, s.read()); diff != "" {
			t.Fatalf("seed %d: apply again changed: %s", seed, diff)
		}

		// Undo after apply is the identity, and undoing it again is nothing.
		if first.Altered() {
			if _, err := j.Undo(ctx, "", s.stores(), nil); err != nil {
				t.Fatalf("seed %d: undo: %v", seed, err)
			}
		}
		if diff := cmp.Diff(before, s.read()); diff != "" {
			t.Fatalf("seed %d: undo left: %s", seed, diff)
		}
		if _, err := j.Undo(ctx, "", s.stores(), nil); !errors.Is(err, ErrNothing) {
			t.Fatalf("seed %d: undo again: %v", seed, err)
		}
	}
}

// TestMain is also the process that is killed: with NETCHECK_KILL=N it applies a plan, or undoes it, and
// kills itself at the N-th point.
func TestMain(m *testing.M) {
	if os.Getenv("NETCHECK_KILL") == "" {
		os.Exit(m.Run())
	}
	var at, seed int
	var what, things, dir string
	fmt.Sscan(os.Getenv("NETCHECK_KILL"), &at, &seed, &what, &things, &dir)
	random := rand.New(rand.NewPCG(uint64(seed), 2))
	s := tree{dir: things}
	plan := s.plan(random)
	count := 0
	kill := func(string) {
		if count++; count == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s.reached = kill
	j := &Journal{Dir: dir, reached: kill}
	var err error
	switch what {
	case "apply":
		_, err = j.Apply(context.Background(), plan, s.stores(), nil)
	case "undo":
		_, err = j.Undo(context.Background(), "", s.stores(), nil)
	case "fail": // the last step fails, so that the roll-back is killed as well
		s.spoilt = plan.Steps[len(plan.Steps)-1].Name
		if _, err = j.Apply(context.Background(), plan, s.stores(), nil); errors.Is(err, errSpoilt) {
			err = nil
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestKilled(t *testing.T) {
	ctx := context.Background()
	for _, what := range []string{"apply", "fail", "undo"} {
		points := 0
		for seed := range 8 {
			killed := 0
			for at := 1; ; at++ {
				random := rand.New(rand.NewPCG(uint64(seed), 1))
				s := grow(t, random)
				j := &Journal{Dir: filepath.Join(t.TempDir(), "journal")}
				before := s.read()
				if what == "undo" {
					run, err := j.Apply(ctx, s.plan(rand.New(rand.NewPCG(uint64(seed), 2))), s.stores(), nil)
					if err != nil {
						t.Fatal(err)
					}
					if !run.Altered() {
						break
					}
				}
				child := exec.Command(os.Args[0])
				child.Env = append(os.Environ(), fmt.Sprintf("NETCHECK_KILL=%d %d %s %s %s", at, seed, what, s.dir, j.Dir))
				out, err := child.CombinedOutput()
				var exit *exec.ExitError
				if err == nil {
					break // it came to its end before the point
				} else if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("%s, seed %d, killed at %d: %v\n%s", what, seed, at, err, out)
				}
				killed++
				runs, err := j.Runs()
				if err != nil {
					t.Fatal(err)
				}
				if len(runs) > 0 && runs[0].State == Unfinished {
					if _, err := j.Apply(ctx, s.plan(random), s.stores(), nil); !errors.Is(err, ErrUnfinished) {
						t.Fatalf("%s, seed %d, killed at %d: the next run: %v", what, seed, at, err)
					}
				}
				if _, err := j.Undo(ctx, "", s.stores(), nil); err != nil && !errors.Is(err, ErrNothing) {
					t.Fatalf("%s, seed %d, killed at %d: undo: %v", what, seed, at, err)
				}
				if diff := cmp.Diff(before, s.read()); diff != "" {
					t.Fatalf("%s, seed %d, killed at %d: not restored: %s", what, seed, at, diff)
				}
			}
			points += killed
		}
		if points < 40 {
			t.Errorf("%s: killed at %d points only: the plans do too little", what, points)
		}
	}
}
