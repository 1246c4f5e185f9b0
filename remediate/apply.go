package remediate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Apply makes the plan, whole or not at all.
//
// Before anything changes, every guard is compared, every store looks at its things, and the whole run is
// written to the journal. A step that fails takes those before it back, and so does the end of ctx, which
// is looked at around each transaction. Then the error is that of the step or ctx's cause, and the returned run
// says "rolled back"; the run is "unfinished", and the error says more, if even that failed: Undo goes on
// from there.
//
// A plan whose things all hold their new values changes nothing and is not journalled: the run has no ID
// then. While another process is at work the error is [ErrBusy]; after a run that was cut off it is
// [ErrUnfinished].
func (j *Journal) Apply(ctx context.Context, plan *Plan, stores Stores, facts Facts) (*Run, error) {
	if err := plan.fits(stores); err != nil {
		return nil, err
	}
	if err := guarded(ctx, plan.Steps, facts); err != nil {
		return nil, err
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
	next := 1
	for _, run := range runs {
		next = max(next, number(run.ID)+1)
		switch run.State {
		case Unfinished:
			return nil, fmt.Errorf("run %s %w", run.ID, ErrUnfinished)
		case Damaged:
			return nil, fmt.Errorf("journal: run %s: %s: move that file away to go on", run.ID, run.Why)
		}
	}

	begin := record{Time: time.Now().UTC(), PID: os.Getpid(), Titles: plan.Titles, There: make([]bool, len(plan.Steps))}
	for i, step := range plan.Steps {
		step, there, err := stores[step.Kind].Look(ctx, step)
		if err != nil {
			return nil, err
		}
		begin.Steps = append(begin.Steps, step)
		begin.There[i] = there && !step.OneWay
	}
	if !slices.Contains(begin.There, false) {
		return &Run{Time: begin.Time, PID: begin.PID, State: Applied, Titles: orEmpty(plan.Titles),
			Steps: orEmpty(begin.Steps), Changed: make([]bool, len(begin.Steps))}, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := j.create(fmt.Sprint(next), begin)
	if err != nil {
		return nil, err
	}
	defer w.close()

	if err := w.forward(ctx, stores); err != nil {
		return w.run, w.rollBack(ctx, stores, err)
	}
	if err := w.write(record{Op: "end", Time: time.Now().UTC(), State: Applied}); err != nil {
		return w.run, w.rollBack(ctx, stores, fmt.Errorf("journal: %w", err))
	}
	return w.run, nil
}

// fits says whether every step has a store.
func (p *Plan) fits(stores Stores) error {
	for _, step := range p.Steps {
		if stores[step.Kind] == nil {
			return fmt.Errorf("%s: nothing here can change a %s", step.Object(), step.Kind)
		}
	}
	return nil
}

// guarded compares the guards of the steps.
func guarded(ctx context.Context, steps []Step, facts Facts) error {
	for _, step := range steps {
		why, err := lapsed(ctx, step, facts)
		if err != nil {
			return err
		}
		if why != "" {
			return fmt.Errorf("%s: %w: %s", step.Object(), ErrChanged, why)
		}
	}
	return nil
}

// lapsed compares the guards of a step, and says which one has changed; "" is none.
func lapsed(ctx context.Context, step Step, facts Facts) (why string, err error) {
	guards := make([]string, 0, len(step.Guards))
	for guard := range step.Guards {
		guards = append(guards, guard)
	}
	slices.Sort(guards)
	for _, guard := range guards {
		if facts == nil {
			return "", fmt.Errorf("%s: %s: is not known", step.Object(), guard)
		}
		now, err := facts(ctx, step, guard)
		if err != nil {
			return "", fmt.Errorf("%s: %s: %w", step.Object(), guard, err)
		}
		switch want := step.Guards[guard]; {
		case now == want:
		case guard == GuardBoot:
			return "the host was started anew since, and what was changed before went with it", nil
		case guard == GuardPID:
			return fmt.Sprintf("the process %s, by which the namespace is entered, is gone", want), nil
		case now == "":
			return fmt.Sprintf("%s: was %s, is gone", guard, want), nil
		default:
			return fmt.Sprintf("%s: was %s, is %s", guard, want, now), nil
		}
	}
	return "", nil
}

// forward makes every step that is untouched.
func (w *writer) forward(ctx context.Context, stores Stores) error {
	for at := w.marked(untouched); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(at) == 0 {
			return nil
		}
		n := w.transaction(at)
		if err := w.swap(ctx, stores, at[:n]); err != nil {
			return err
		}
		at = at[n:]
	}
}

// marked returns the steps with one of the marks.
func (w *writer) marked(marks ...mark) []int {
	var at []int
	for i, m := range w.run.marks {
		if slices.Contains(marks, m) {
			at = append(at, i)
		}
	}
	return at
}

// transaction returns how many of the steps, from the first on, are made at once: those of one kind.
func (w *writer) transaction(at []int) int {
	n := 1
	for n < len(at) && w.run.Steps[at[n]].Kind == w.run.Steps[at[0]].Kind {
		n++
	}
	return n
}

// swap makes the steps as one transaction.
func (w *writer) swap(ctx context.Context, stores Stores, at []int) error {
	if err := w.write(record{Op: "do", At: at}); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	steps := make([]Step, len(at))
	for n, i := range at {
		steps[n] = w.run.Steps[i]
	}
	changed, err := stores[steps[0].Kind].Swap(ctx, steps)
	w.journal.at("swap")
	if changed == nil {
		changed = make([]bool, len(at))
	}
	rec := record{Op: "did", At: at, Changed: changed}
	if n := uncertain(changed, err); n >= 0 {
		rec.At, rec.Changed = slices.Delete(slices.Clone(at), n, n+1), slices.Delete(slices.Clone(changed), n, n+1)
	}
	if e := w.write(rec); e != nil {
		w.run.take(rec) // it is true all the same, and the roll-back needs it
		err = errors.Join(err, fmt.Errorf("journal: %w", e))
	}
	return err
}

// uncertain returns which of the steps may have been made or not, -1 if that is known of all.
func uncertain(changed []bool, err error) int {
	if !errors.Is(err, ErrUncertain) {
		return -1
	}
	for n, did := range slices.Backward(changed) {
		if did {
			return n
		}
	}
	return -1
}

// rollBack takes back what the run did, because of cause, and returns cause and what went wrong besides.
func (w *writer) rollBack(ctx context.Context, stores Stores, cause error) error {
	refused, err := w.back(context.WithoutCancel(ctx), stores, nil, true)
	if err != nil {
		return errors.Join(cause, fmt.Errorf("run %s: not all could be taken back, undo it again: %w", w.run.ID, err))
	}
	end := record{Op: "end", Time: time.Now().UTC(), State: RolledBack, Why: cause.Error(), Refused: refused}
	if err := w.write(end); err != nil {
		w.run.take(end)
		return errors.Join(cause, fmt.Errorf("journal: %w", err))
	}
	if len(refused) > 0 {
		return errors.Join(cause, &RefusedError{w.run.ID, refused})
	}
	return cause
}

// back takes back every step that was done or may have been, the last first, but for those whose index
// refused gives a reason for. Of a run that must not stand (salvage) it takes back all that it can: what
// somebody else has changed since is left alone like those. Else it ends at the first error.
func (w *writer) back(ctx context.Context, stores Stores, refused map[int]string, salvage bool) (left []Refusal, err error) {
	at := w.marked(doing, done, undoing)
	slices.Reverse(at)
	at = slices.DeleteFunc(at, func(i int) bool {
		why := refused[i]
		if w.run.Steps[i].OneWay {
			why = "it cannot be taken back"
			if w.run.marks[i] != done {
				why += ", and may not have been made"
			}
		}
		if why != "" {
			left = append(left, Refusal{w.run.Steps[i].Object(), why})
		}
		return why != ""
	})
	var failed []error
	for size := 0; len(at) > 0; {
		n := w.transaction(at)
		if size > 0 {
			n = min(n, size)
		}
		err := w.swapBack(ctx, stores, at[:n])
		size = 0
		switch {
		case err == nil:
		case !salvage:
			return left, err
		case !slices.ContainsFunc(at[:n], func(i int) bool { return w.run.marks[i] != untouched }):
			// It is taken back, and only the journal does not know: its last record will fail as well.
		case n > 1:
			size = 1 // one by one, so that one step does not hold the others
			at = slices.DeleteFunc(at, func(i int) bool { return w.run.marks[i] == untouched })
			continue
		case errors.Is(err, ErrChanged):
			left = append(left, Refusal{w.run.Steps[at[0]].Object(), err.Error()})
		default:
			failed = append(failed, err)
		}
		at = at[n:]
	}
	return left, errors.Join(failed...)
}

// swapBack takes the steps back as one transaction.
func (w *writer) swapBack(ctx context.Context, stores Stores, at []int) error {
	steps := make([]Step, len(at))
	for n, i := range at {
		steps[n] = w.run.Steps[i].Reverse()
		steps[n].Settle = w.run.marks[i] != done
	}
	// Without a journal it is still better to take a step back than to leave it.
	failed := w.write(record{Op: "undo", At: at})
	changed, err := stores[steps[0].Kind].Swap(ctx, steps)
	w.journal.at("swap back")
	rec := record{Op: "undid", At: at}
	if err != nil {
		rec.At = nil
		for n, did := range changed {
			if did && n != uncertain(changed, err) {
				rec.At = append(rec.At, at[n])
			}
		}
	}
	if e := w.write(rec); e != nil {
		w.run.take(rec)
		failed = errors.Join(failed, e)
	}
	return errors.Join(err, failed)
}
