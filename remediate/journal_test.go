//go:build linux

package remediate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// journal returns a journal, a store of three things, and a function that applies a plan of steps.
func journal(t *testing.T) (*Journal, MapStore, func(...Step) (*Run, error)) {
	j := &Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	m := MapStore{"a": "1", "b": "1", "c": "1"}
	return j, m, func(steps ...Step) (*Run, error) {
		return j.Apply(context.Background(), &Plan{Titles: []string{"test"}, Steps: steps}, Stores{"map": m}, nil)
	}
}

func must(t *testing.T, run *Run, err error) *Run {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func TestJournalIsPrivate(t *testing.T) {
	j, m, apply := journal(t)
	run, err := apply(Set("map", "a", "1", "2"))
	must(t, run, err)
	for name, mode := range map[string]os.FileMode{"": 0o700, "run-1.jsonl": 0o600, "lock": 0o600} {
		info, err := os.Stat(filepath.Join(j.Dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: mode %v, %v", name, info.Mode(), err)
		}
	}
	if err := os.Chmod(j.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(Set("map", "b", "1", "2")); err == nil || m["b"] != "1" {
		t.Errorf("a directory that others may enter: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(j.Dir, link); err != nil {
		t.Fatal(err)
	}
	j.Dir = link
	if _, err := apply(Set("map", "b", "1", "2")); err == nil || m["b"] != "1" {
		t.Errorf("a link in place of the directory: %v", err)
	}
}

func TestUndoOlder(t *testing.T) {
	ctx := context.Background()
	j, m, apply := journal(t)
	for _, step := range []Step{Set("map", "a", "1", "2"), Set("map", "b", "1", "2"), Set("map", "a", "2", "3")} {
		run, err := apply(step)
		must(t, run, err)
	}
	stores := Stores{"map": m}
	_, err := j.Undo(ctx, "1", stores, nil)
	if !errors.Is(err, ErrOverlap) || err.Error() != "run 1: map a was changed again by a later run: undo that one first: run 3" {
		t.Errorf("undo 1: %v", err)
	}
	if _, err := j.Undo(ctx, "2", stores, nil); err != nil || m["b"] != "1" {
		t.Errorf("undo 2: %v, %v", err, m)
	}
	if _, err := j.Undo(ctx, "2", stores, nil); !errors.Is(err, ErrNothing) {
		t.Errorf("undo 2 again: %v", err)
	}
	if _, err := j.Undo(ctx, "9", stores, nil); !errors.Is(err, ErrNothing) {
		t.Errorf("undo 9: %v", err)
	}
	for range 2 {
		if _, err := j.Undo(ctx, "", stores, nil); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(MapStore{"a": "1", "b": "1", "c": "1"}, m); diff != "" {
		t.Error(diff)
	}
	runs, err := j.Runs()
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		if run.State != Undone {
			t.Errorf("run %s is %s", run.ID, run.State)
		}
	}
	text, err := json.Marshal(runs)
	if err != nil || !bytes.HasPrefix(text, []byte(`{"schema":"netcheck.history/v1","runs":[{"run":"1",`)) {
		t.Errorf("%s, %v", text, err)
	}
}

// An undo that meets a thing that was changed since leaves everything as it was.
func TestUndoIsWhole(t *testing.T) {
	ctx := context.Background()
	j, m, apply := journal(t)
	other := MapStore{"x": "1"}
	stores := Stores{"map": m, "other": other}
	plan := &Plan{Steps: []Step{Set("map", "a", "1", "2"), Set("other", "x", "1", "2"), Set("map", "b", "1", "2")}}
	if _, err := j.Apply(ctx, plan, stores, nil); err != nil {
		t.Fatal(err)
	}
	m["a"] = "9"
	if _, err := j.Undo(ctx, "", stores, nil); !errors.Is(err, ErrChanged) {
		t.Fatalf("undo: %v", err)
	}
	if diff := cmp.Diff(Stores{"map": MapStore{"a": "9", "b": "2", "c": "1"}, "other": MapStore{"x": "2"}}, stores); diff != "" {
		t.Errorf("a refused undo changed something: %s", diff)
	}
	m["a"] = "2"
	run, err := apply(Set("map", "c", "1", "2")) // the refused undo did not leave the run cut off
	must(t, run, err)
	for range 2 {
		if _, err := j.Undo(ctx, "", stores, nil); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(Stores{"map": MapStore{"a": "1", "b": "1", "c": "1"}, "other": MapStore{"x": "1"}}, stores); diff != "" {
		t.Error(diff)
	}
}

func TestFoundDone(t *testing.T) {
	j, m, apply := journal(t)
	m["a"] = "2"
	run, err := apply(Set("map", "a", "1", "2"), Set("map", "b", "1", "2"))
	must(t, run, err)
	if diff := cmp.Diff([]bool{false, true}, run.Changed); diff != "" {
		t.Error(diff)
	}
	if _, err := j.Undo(context.Background(), "", Stores{"map": m}, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(MapStore{"a": "2", "b": "1", "c": "1"}, m); diff != "" {
		t.Error(diff)
	}
}

func TestGuards(t *testing.T) {
	ctx := context.Background()
	j, m, _ := journal(t)
	stores := Stores{"map": m}
	facts := map[string]string{GuardBoot: "one", "ifindex docker0": "3"}
	ask := func(_ context.Context, _ Step, guard string) (string, error) {
		if facts[guard] == "?" {
			return "", errors.New("nobody knows")
		}
		return facts[guard], nil
	}
	plan := &Plan{Steps: []Step{
		Set("map", "a", "1", "2").Guarded("ifindex docker0", "3"),
		Set("map", "b", "1", "2").Guarded(GuardBoot, "one"),
		Set("map", "c", "1", "2"),
	}}
	if _, err := j.Apply(ctx, plan, stores, nil); err == nil || m["c"] != "1" {
		t.Fatalf("guards that nobody knows: %v", err)
	}
	facts["ifindex docker0"] = "4"
	if _, err := j.Apply(ctx, plan, stores, ask); !errors.Is(err, ErrChanged) || m["c"] != "1" {
		t.Fatalf("another link: %v", err)
	}
	facts["ifindex docker0"] = "3"
	if _, err := j.Apply(ctx, plan, stores, ask); err != nil {
		t.Fatal(err)
	}
	facts[GuardBoot] = "?"
	if _, err := j.Undo(ctx, "", stores, ask); err == nil || m["c"] != "2" {
		t.Fatalf("a guard that nobody knows: %v", err)
	}
	facts[GuardBoot], facts["ifindex docker0"] = "two", ""
	run, err := j.Undo(ctx, "", stores, ask)
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("undo: %v", err)
	}
	want := []Refusal{
		{"map b", "the host was started anew since, and what was changed before went with it"},
		{"map a", "ifindex docker0: was 3, is gone"},
	}
	if diff := cmp.Diff(want, run.Refused); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(MapStore{"a": "2", "b": "2", "c": "1"}, m); diff != "" {
		t.Error(diff)
	}
}

func TestOneWay(t *testing.T) {
	j, m, _ := journal(t)
	restart := Step{Kind: "map", Name: "restart", New: new(string), OneWay: true}
	plan, err := NewPlan([]*Fix{{Title: "r", Steps: []Step{restart}}, {Title: "s", Steps: []Step{Set("map", "a", "1", "2")}}}, false)
	if err != nil || plan.Steps[1].Name != "restart" {
		t.Fatalf("%v, %+v", err, plan)
	}
	if _, err := j.Apply(context.Background(), plan, Stores{"map": m}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = j.Undo(context.Background(), "", Stores{"map": m}, nil)
	if err == nil || err.Error() != "run 1: map restart: not undone: it cannot be taken back" || m["a"] != "1" {
		t.Errorf("undo: %v, %v", err, m)
	}

	// Cut off in the middle of it, nobody knows whether it was done: it is named all the same.
	j = &Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	m["restart"] = "before"
	restart = Step{Kind: "map", Name: "restart", Old: m.get("restart"), New: new(string), OneWay: true}
	if _, err := j.Apply(context.Background(), &Plan{Steps: []Step{restart}}, Stores{"map": m}, nil); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(j.path("1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(j.path("1"), whole[:bytes.Index(whole, []byte(`{"op":"did"`))], 0o600); err != nil {
		t.Fatal(err)
	}
	run, err := j.Undo(context.Background(), "", Stores{"map": m}, nil)
	if want := []Refusal{{"map restart", "it cannot be taken back, and may not have been made"}}; run == nil || run.State != RolledBack || !cmp.Equal(run.Refused, want) || err == nil {
		t.Errorf("undo of one that was cut off: %v, %+v", err, run)
	}
	// A plan that says of it that it disrupts nothing is not read.
	document, err := json.Marshal(Plan{Steps: []Step{restart}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePlan(document); err == nil {
		t.Error("a plan with a one-way step that does not say that it disrupts was read")
	}
}

func TestInterrupted(t *testing.T) {
	j, m, _ := journal(t)
	ctx, cancel := context.WithCancel(context.Background())
	swaps := 0
	j.reached = func(point string) {
		if point == "swap" {
			if swaps++; swaps == 2 {
				cancel()
			}
		}
	}
	stores := Stores{"map": m, "other": MapStore{"x": "1"}, "third": MapStore{"y": "1"}}
	plan := &Plan{Steps: []Step{Set("map", "a", "1", "2"), Set("other", "x", "1", "2"), Set("third", "y", "1", "2")}}
	run, err := j.Apply(ctx, plan, stores, nil)
	if !errors.Is(err, context.Canceled) || run.State != RolledBack || swaps != 2 {
		t.Fatalf("%v, %+v", err, run)
	}
	if diff := cmp.Diff(Stores{"map": MapStore{"a": "1", "b": "1", "c": "1"}, "other": MapStore{"x": "1"}, "third": MapStore{"y": "1"}}, stores); diff != "" {
		t.Error(diff)
	}
}

func TestTwoAtOnce(t *testing.T) {
	j, m, apply := journal(t)
	inside := make(chan error)
	j.reached = func(point string) {
		if point == "swap" {
			second := &Journal{Dir: j.Dir}
			_, err := second.Apply(context.Background(), &Plan{Steps: []Step{Set("map", "b", "1", "2")}}, Stores{"map": MapStore{"b": "1"}}, nil)
			go func() { inside <- err }()
			j.reached = nil
		}
	}
	run, err := apply(Set("map", "a", "1", "2"))
	must(t, run, err)
	if err := <-inside; !errors.Is(err, ErrBusy) || err.Error() != fmt.Sprintf("another run is going on: process %d", os.Getpid()) {
		t.Errorf("the second: %v", err)
	}
	if m["b"] != "1" {
		t.Error("the second changed something")
	}
}

// Whatever is cut off of the last line counts as not written.
func TestTornLine(t *testing.T) {
	ctx := context.Background()
	j, m, apply := journal(t)
	run, err := apply(Set("map", "a", "1", "2"), Set("map", "b", "1", "2"))
	must(t, run, err)
	path := j.path("1")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.IndexByte(whole, '\n')
	for size := range whole {
		for _, tail := range []string{"", "\x00\x00\x00\x00\n"} {
			if err := os.WriteFile(path, append(whole[:size:size], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			runs, err := j.Runs()
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case size <= begin && tail != "": // zeros in place of the only line: nothing can have been done
				continue
			case size <= begin:
				if len(runs) != 0 {
					t.Fatalf("%d bytes: %+v", size, runs)
				}
				continue
			case len(runs) != 1 || runs[0].State != Unfinished:
				t.Fatalf("%d bytes: %+v", size, runs)
			}
			// Between the first line and "do" nothing was done; behind it, it may have been.
			for _, done := range []bool{true, false} {
				written := whole[:bytes.LastIndexByte(whole[:size], '\n')]
				if bytes.Contains(written, []byte(`"did"`)) && !done || !bytes.Contains(written, []byte(`"do"`)) && done {
					continue
				}
				m["a"], m["b"] = "1", "1"
				if done {
					m["a"], m["b"] = "2", "2"
				}
				if err := os.WriteFile(path, append(whole[:size:size], tail...), 0o600); err != nil {
					t.Fatal(err)
				}
				if tail == "" {
					if _, err := j.Undo(ctx, "", Stores{"map": m}, nil); err != nil {
						t.Fatalf("%d bytes: undo: %v", size, err)
					}
					if m["a"] != "1" || m["b"] != "1" {
						t.Fatalf("%d bytes, done %v: %v", size, done, m)
					}
				}
			}
		}
	}
	// Damage before the last line is no cut: the run is not touched.
	damaged := bytes.Replace(whole, []byte(`{"op":"do"`), []byte(`{"op":"d0"`), 1)
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	m["a"], m["b"] = "2", "2"
	if _, err := j.Undo(ctx, "1", Stores{"map": m}, nil); err == nil || !strings.Contains(err.Error(), "line 2 of") || m["a"] != "2" {
		t.Errorf("undo of a damaged run: %v", err)
	}
	if _, err := apply(Set("map", "c", "1", "2")); err == nil || m["c"] != "1" {
		t.Errorf("apply beside a damaged run: %v", err)
	}
}

// A full disk is met before anything changes.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root, for a file system of its own")
	}
	runtime.LockOSThread() // the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	m := MapStore{"a": "1"}
	j := &Journal{Dir: filepath.Join(dir, "journal")}
	step := Set("map", "a", "1", "2")
	plan := &Plan{Steps: []Step{step}}
	if _, err := j.Apply(context.Background(), plan, Stores{"map": m}, nil); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err = fill.Write(make([]byte, 4096)); err == nil; _, err = fill.Write(make([]byte, 4096)) {
	}
	back := &Plan{Steps: []Step{step.Reverse()}}
	if _, err := j.Apply(context.Background(), back, Stores{"map": m}, nil); !errors.Is(err, unix.ENOSPC) || m["a"] != "2" {
		t.Errorf("apply on a full disk: %v, %v", err, m)
	}
	if _, err := j.Undo(context.Background(), "", Stores{"map": m}, nil); !errors.Is(err, unix.ENOSPC) || m["a"] != "2" {
		t.Errorf("undo on a full disk: %v, %v", err, m)
	}
	if err := os.Remove(fill.Name()); err != nil {
		t.Fatal(err)
	}
	fill.Close()
	if _, err := j.Undo(context.Background(), "", Stores{"map": m}, nil); err != nil || m["a"] != "1" {
		t.Errorf("undo: %v, %v", err, m)
	}
}
