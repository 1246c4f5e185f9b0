package remediate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A RefusedError says that an undo left some steps alone, and took back all others. That is final: the
// namespace, link, container, engine or boot that those steps changed is not there any more, or a step
// has no inverse.
type RefusedError struct {
	Run     string
	Refused []Refusal
}

// Error lists the steps and the reasons.
func (e *RefusedError) Error() string {
	var each []string
	for _, refusal := range e.Refused {
		each = append(each, refusal.Object+": not undone: "+refusal.Why)
	}
	return "run " + e.Run + ": " + strings.Join(each, "; ")
}

// Undo takes a run back, the last step first: the run with that ID, or the last one that stands when it is
// "". A run that was cut off is completed as a roll-back. With nothing to undo the error is [ErrNothing].
//
// It is made whole or not at all: if a thing holds neither what the run gave it nor what it had before
// ([ErrChanged]), or a guard cannot be told, everything stays as it was, and undo may be tried again. The
// exception are steps that can never be undone, because a guard has changed or they have no inverse: these
// are left alone, the others are taken back, and the error is a [*RefusedError]. Of a run that was cut off
// a thing that somebody has changed since is left alone likewise: such a run must not stand.
//
// Once begun, an undo is not interrupted by the end of ctx.
//
// An older run can be undone if no later one that stands changed any of its things; else it is [ErrOverlap].
func (j *Journal) Undo(ctx context.Context, id string, stores Stores, facts Facts) (*Run, error) {
	// Without a journal there is nothing to undo, and no reason to make one.
	if runs, err := j.Runs(); err != nil {
		return nil, err
	} else if len(runs) == 0 {
		return nil, none(id)
	}
	release, err := j.lock()
	if err != nil {
		return nil, err
	}
	defer release()
	runs, err := j.Runs()
	if err != nil {
		return nil, err
	}
	run, err := runs.Standing(id)
	if err != nil {
		return nil, err
	}
	if err := (&Plan{Steps: run.Steps}).fits(stores); err != nil {
		return nil, err
	}
	refused := map[int]string{}
	for i, m := range run.marks {
		if m != doing && m != done && m != undoing {
			continue
		}
		why, err := lapsed(ctx, run.Steps[i], facts)
		if err != nil {
			return nil, err
		}
		if why != "" {
			refused[i] = why
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := j.resume(run)
	if err != nil {
		return nil, err
	}
	defer w.close()

	wasCutOff := run.State == Unfinished
	before := slices.Clone(run.marks)
	left, err := w.back(context.WithoutCancel(ctx), stores, refused, wasCutOff)
	if err != nil {
		if wasCutOff {
			return run, err
		}
		return run, errors.Join(err, w.again(ctx, stores, before))
	}
	end := record{Op: "end", Time: time.Now().UTC(), State: Undone, Refused: left}
	if wasCutOff {
		end.State, end.Why = RolledBack, "it was cut off"
	}
	if err := w.write(end); err != nil {
		return run, fmt.Errorf("journal: %w", err)
	}
	if len(left) > 0 {
		return run, &RefusedError{run.ID, left}
	}
	return run, nil
}

func none(id string) error {
	if id == "" {
		return ErrNothing
	}
	return fmt.Errorf("run %s: no such run: %w", id, ErrNothing)
}

// Standing returns the run that Undo would take back: that with the ID, or the last one that stands when it
// is "". Its errors are those of Undo. The history may be that of another host.
func (runs History) Standing(id string) (*Run, error) {
	for i := range runs {
		if run := &runs[i]; run.State == Unfinished {
			if id != "" && id != run.ID {
				return nil, fmt.Errorf("run %s %w", run.ID, ErrUnfinished)
			}
			return run, nil
		}
	}
	for i := len(runs) - 1; i >= 0; i-- {
		run := &runs[i]
		if id == "" && run.State != Applied || id != "" && id != run.ID {
			continue
		}
		switch run.State {
		case Damaged:
			return nil, fmt.Errorf("journal: run %s: %s", run.ID, run.Why)
		case Applied:
			return run, runs[i+1:].overlap(run)
		}
		return nil, fmt.Errorf("run %s: is %s already: %w", run.ID, run.State, ErrNothing)
	}
	return nil, none(id)
}

// overlap is an error if one of the later runs, while it stands, changed a thing that run changed.
func (later History) overlap(run *Run) error {
	mine := map[string]Step{}
	for i, step := range run.Steps {
		if run.Changed[i] {
			for _, key := range step.keys() {
				mine[key] = step
			}
		}
	}
	for i := len(later) - 1; i >= 0; i-- {
		if later[i].State != Applied {
			continue
		}
		for n, step := range later[i].Steps {
			if !later[i].Changed[n] {
				continue
			}
			for _, key := range step.keys() {
				if first, ok := mine[key]; ok {
					return fmt.Errorf("run %s: %s %w: run %s", run.ID, first.Object(), ErrOverlap, later[i].ID)
				}
			}
		}
	}
	return nil
}

// again makes anew what an undo took back before it was refused.
func (w *writer) again(ctx context.Context, stores Stores, before []mark) error {
	ctx = context.WithoutCancel(ctx)
	var failed []error
	for at := w.takenBack(before); len(at) > 0; {
		n := w.transaction(at)
		if err := w.swap(ctx, stores, at[:n]); err != nil {
			failed = append(failed, err)
		}
		at = at[n:]
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	// A step whose undo was refused stands as it stood.
	stands := w.marked(undoing)
	if len(stands) > 0 {
		changed := make([]bool, len(stands))
		for i := range changed {
			changed[i] = true
		}
		if err := w.write(record{Op: "did", At: stands, Changed: changed}); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return w.write(record{Op: "end", Time: time.Now().UTC(), State: Applied})
}

// takenBack returns the steps that were done before and are not now.
func (w *writer) takenBack(before []mark) []int {
	var at []int
	for i, m := range before {
		if m == done && w.run.marks[i] == untouched {
			at = append(at, i)
		}
	}
	return at
}
