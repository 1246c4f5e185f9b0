//go:build linux

package remediate

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestHistoryFromElsewhere says that what would be undone is told of another host's history as on that host.
func TestHistoryFromElsewhere(t *testing.T) {
	j, _, apply := journal(t)
	for _, step := range []Step{Set("map", "a", "1", "2"), Set("map", "b", "1", "2"), Set("map", "a", "2", "3")} {
		run, err := apply(step)
		must(t, run, err)
	}
	runs, err := j.Runs()
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(runs)
	if err != nil {
		t.Fatal(err)
	}
	var there History
	if err := json.Unmarshal(document, &there); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]error{"": nil, "3": nil, "2": nil, "1": ErrOverlap, "4": ErrNothing} {
		here, err := runs.Standing(id)
		if !errors.Is(err, want) {
			t.Fatalf("run %q: %v, want %v", id, err, want)
		}
		run, err := there.Standing(id)
		if !errors.Is(err, want) || err == nil && run.ID != here.ID {
			t.Errorf("run %q from elsewhere: %v, %v", id, run, err)
		}
	}
}

// TestStrayFile says that a file of another name is not taken for a run's.
func TestStrayFile(t *testing.T) {
	j, _, apply := journal(t)
	run, err := apply(Set("map", "a", "1", "2"))
	must(t, run, err)
	for _, name := range []string{"7.jsonl", "run-8.jsonl.bak", "run-run-9.jsonl"} {
		if err := os.WriteFile(filepath.Join(j.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if runs, err := j.Runs(); err != nil || len(runs) != 1 {
		t.Errorf("%d runs, %v", len(runs), err)
	}
}
