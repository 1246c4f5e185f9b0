package remediate

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// A doubtful store loses the answer of what it is asked for, and makes it or not.
type doubtful struct {
	MapStore
	lose, makes bool
}

var errLost = errors.New("the answer is lost")

func (s *doubtful) Swap(ctx context.Context, steps []Step) ([]bool, error) {
	if !s.lose {
		return s.MapStore.Swap(ctx, steps)
	}
	s.lose = false
	changed := make([]bool, len(steps))
	changed[0] = true
	if s.makes {
		s.MapStore.Swap(ctx, steps[:1])
	}
	return changed, Uncertain(errLost)
}

// A step that may have been made is looked at again: nothing of it is left, and no undo is taken for done.
func TestUncertain(t *testing.T) {
	ctx := context.Background()
	for _, makes := range []bool{false, true} {
		s := &doubtful{MapStore{"x": "1", "y": "1"}, true, makes}
		stores := Stores{"map": s}
		j := &Journal{Dir: filepath.Join(t.TempDir(), "journal")}
		plan := &Plan{Steps: []Step{Set("map", "x", "1", "2"), Set("map", "y", "1", "2")}}
		run, err := j.Apply(ctx, plan, stores, nil)
		if !errors.Is(err, errLost) || err.Error() != errLost.Error() || run.State != RolledBack || s.MapStore["x"] != "1" || s.MapStore["y"] != "1" {
			t.Errorf("makes %v: %v, %+v, %v", makes, err, run, s.MapStore)
		}

		if _, err := j.Apply(ctx, plan, stores, nil); err != nil {
			t.Fatal(err)
		}
		s.lose = true
		if _, err := j.Undo(ctx, "", stores, nil); !errors.Is(err, errLost) {
			t.Errorf("makes %v: undo: %v", makes, err)
		}
		if _, err := j.Undo(ctx, "", stores, nil); err != nil || s.MapStore["x"] != "1" || s.MapStore["y"] != "1" {
			t.Errorf("makes %v: undo again: %v, %v", makes, err, s.MapStore)
		}
	}
}
