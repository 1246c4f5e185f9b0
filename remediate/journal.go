package remediate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// JournalDir is where the journal of a host is kept.
const JournalDir = "/var/lib/docker-netcheck"

// HistorySchema and journalSchema name the document format of a history and of a run's file.
const (
	HistorySchema = "netcheck.history/v1"
	journalSchema = "netcheck.journal/v1"
)

// A Journal keeps what was changed, so that it can be taken back.
//
// It is a directory that only its owner can enter, with one file a run: lines of JSON, each synced before
// what it announces is done. The first line holds the whole run, and room for the lines that follow is
// reserved with it, so that a full disk is met before anything has changed. A last line that was cut off
// counts as not written. One run goes on at a time; the lock goes with the process that holds it.
type Journal struct {
	Dir string

	reached func(point string) // for tests: called behind each write and each swap
}

// The states of a run.
const (
	Applied    = "applied"
	Undone     = "undone"      // but for what stands in Refused
	RolledBack = "rolled back" // it failed or was interrupted, and nothing of it is left
	Unfinished = "unfinished"  // it was cut off, by kill -9 or a power cut: Undo puts back what it did
	Damaged    = "damaged"     // its file cannot be understood
)

var (
	// ErrBusy means that another process is changing the host.
	ErrBusy = errors.New("another run is going on")
	// ErrUnfinished means that an earlier run was cut off and must be undone first.
	ErrUnfinished = errors.New("was cut off: undo it first")
	// ErrNothing means that there is nothing to undo.
	ErrNothing = errors.New("nothing to undo")
	// ErrOverlap means that a later run changed the same thing.
	ErrOverlap = errors.New("was changed again by a later run: undo that one first")
)

// A Run is one use of Apply and what became of it.
type Run struct {
	ID      string    `json:"run"` // a number; later runs have higher ones; "" of a run that had nothing to do
	Time    time.Time `json:"time"`
	PID     int       `json:"pid,omitempty"`
	State   string    `json:"state"`
	Why     string    `json:"why,omitempty"` // of a run that was rolled back or is damaged
	Titles  []string  `json:"titles"`
	Steps   []Step    `json:"steps"`
	Changed []bool    `json:"changed"` // by step: it changed something, which stands or was undone later
	Refused []Refusal `json:"refused,omitempty"`

	marks []mark // by step; nil of a run that was not read from its file
	size  int64  // of the part of the file that was understood
}

// A Refusal is a step that undo left alone.
type Refusal struct {
	Object string `json:"object"`
	Why    string `json:"why"`
}

// A mark says how far a step has come.
type mark uint8

const (
	untouched mark = iota // or taken back
	doing                 // announced, and not known to be done
	done
	undoing
	idle // the thing held the new value already, or the step is refused: never touched again
)

// Altered says whether the run changed anything.
func (r *Run) Altered() bool { return slices.Contains(r.Changed, true) }

// A History is the runs of a journal, the oldest first.
type History []Run

// MarshalJSON writes schema and runs.
func (h History) MarshalJSON() ([]byte, error) {
	return plainJSON(struct {
		Schema string `json:"schema"`
		Runs   []Run  `json:"runs"`
	}{HistorySchema, orEmpty([]Run(h))})
}

// UnmarshalJSON is the inverse of MarshalJSON. It reads what may come from another host.
func (h *History) UnmarshalJSON(data []byte) error {
	var doc struct {
		Schema string `json:"schema"`
		Runs   []Run  `json:"runs"`
	}
	if err := strictJSON(data, &doc); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if doc.Schema != HistorySchema {
		return fmt.Errorf("history: its schema is %q, this netcheck reads %q", doc.Schema, HistorySchema)
	}
	for _, run := range doc.Runs {
		if len(run.Changed) != len(run.Steps) {
			return fmt.Errorf("history: run %q: %d steps, and what became of %d", run.ID, len(run.Steps), len(run.Changed))
		}
	}
	*h = doc.Runs
	return nil
}

// A record is one line of a run's file.
type record struct {
	Op      string    `json:"op"` // "begin", then "do", "did", "undo", "undid" for the steps At, "end"
	Schema  string    `json:"schema,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	PID     int       `json:"pid,omitempty"`
	Titles  []string  `json:"titles,omitempty"`
	Steps   []Step    `json:"steps,omitempty"`
	There   []bool    `json:"there,omitempty"` // of begin: holds the new value already
	At      []int     `json:"at,omitempty"`
	Changed []bool    `json:"changed,omitempty"` // of did, as long as At
	State   string    `json:"state,omitempty"`   // of end
	Why     string    `json:"why,omitempty"`
	Refused []Refusal `json:"refused,omitempty"`
}

// take carries a record into the run; false if it makes no sense there.
func (r *Run) take(rec record) bool {
	if (rec.Op == "begin") == (r.Steps != nil) {
		return false
	}
	for _, i := range rec.At {
		if i < 0 || i >= len(r.Steps) {
			return false
		}
	}
	switch rec.Op {
	case "begin":
		if rec.Schema != journalSchema || len(rec.Steps) == 0 || len(rec.There) != len(rec.Steps) {
			return false
		}
		r.Time, r.PID, r.Titles, r.Steps, r.State = rec.Time, rec.PID, orEmpty(rec.Titles), rec.Steps, Unfinished
		r.Changed, r.marks = make([]bool, len(r.Steps)), make([]mark, len(r.Steps))
		for i, there := range rec.There {
			if there {
				r.marks[i] = idle
			}
		}
	case "do", "undo":
		r.State = Unfinished
		for _, i := range rec.At {
			r.marks[i] = map[string]mark{"do": doing, "undo": undoing}[rec.Op]
		}
	case "did":
		if len(rec.Changed) != len(rec.At) {
			return false
		}
		for n, i := range rec.At {
			if rec.Changed[n] {
				r.marks[i], r.Changed[i] = done, true
			} else {
				r.marks[i] = idle
			}
		}
	case "undid":
		for _, i := range rec.At {
			r.marks[i] = untouched
		}
	case "end":
		r.State, r.Why, r.Refused = rec.State, rec.Why, rec.Refused
	default:
		return false
	}
	return true
}

// Runs returns the runs of the journal, the oldest first; none if there is no journal yet.
func (j *Journal) Runs() (History, error) {
	entries, err := os.ReadDir(j.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var runs History
	for _, entry := range entries {
		id, isRun := strings.CutPrefix(entry.Name(), "run-")
		id, isLines := strings.CutSuffix(id, ".jsonl")
		if _, err := strconv.ParseUint(id, 10, 63); !isRun || !isLines || err != nil {
			continue
		}
		run, err := j.read(id)
		if err != nil {
			return nil, err
		}
		if run != nil {
			runs = append(runs, *run)
		}
	}
	slices.SortFunc(runs, func(a, b Run) int { return number(a.ID) - number(b.ID) })
	return runs, nil
}

// number returns the number of a run.
func number(id string) int {
	n, _ := strconv.Atoi(id)
	return n
}

func (j *Journal) path(id string) string { return filepath.Join(j.Dir, "run-"+id+".jsonl") }

// read returns the run, or nil if it was cut off before it began.
func (j *Journal) read(id string) (*Run, error) {
	file, err := os.OpenFile(j.path(id), os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: run %s: %w", id, err)
	}
	defer file.Close()
	run := &Run{ID: id, State: Damaged, Titles: []string{}}
	in := bufio.NewReader(file)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF { // what stands behind the last line end was cut off
			if run.Steps == nil {
				return nil, nil
			}
			return run, nil
		}
		if err != nil {
			return nil, fmt.Errorf("journal: run %s: %w", id, err)
		}
		var rec record
		if json.Unmarshal(line, &rec) != nil || !run.take(rec) {
			if _, err := in.Peek(1); err == io.EOF && run.Steps != nil && bytes.IndexByte(line, 0) >= 0 {
				return run, nil // a power cut left zeros where the last line was to be
			}
			run.State, run.Why = Damaged, fmt.Sprintf("line %d of %s cannot be understood", n, j.path(id))
			return run, nil
		}
		run.size += int64(len(line))
	}
}

// lock makes the directory where there is none and takes the lock. The lock ends with release.
func (j *Journal) lock() (release func(), err error) {
	if err := j.ready(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(j.Dir, "lock"), os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	busy, err := lockFile(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("journal: lock %s: %w", file.Name(), err)
	}
	if busy {
		defer file.Close()
		holder := make([]byte, 64)
		n, _ := file.ReadAt(holder, 0)
		pid, _, _ := strings.Cut(string(holder[:n]), "\n")
		return nil, fmt.Errorf("%w: process %s", ErrBusy, pid)
	}
	// Whom it names is for the message alone: the lock holds without it.
	if file.Truncate(0) == nil {
		fmt.Fprintf(file, "%d\n", os.Getpid())
	}
	return func() {
		unlockFile(file) // a child that is just being started may have the file open as well
		file.Close()
	}, nil
}

// ready makes the directory, and refuses one that others may enter.
func (j *Journal) ready() error {
	info, err := os.Lstat(j.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(j.Dir, 0o700); err != nil {
			return err
		}
		if err := syncDir(filepath.Dir(j.Dir)); err != nil {
			return err
		}
		info, err = os.Lstat(j.Dir)
	}
	if err != nil {
		return err
	}
	owner, err := ownerOf(info)
	if err != nil {
		return err
	}
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s: is no directory", j.Dir)
	case owner != os.Geteuid():
		return fmt.Errorf("%s: belongs to user %d, not to %d", j.Dir, owner, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s: others may enter it (mode %04o): it must be 0700", j.Dir, info.Mode().Perm())
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// A writer appends records to the file of a run, and carries them into the run.
type writer struct {
	journal *Journal
	run     *Run
	file    *os.File
}

// create starts the file of a new run.
func (j *Journal) create(id string, begin record) (*writer, error) {
	file, err := os.OpenFile(j.path(id), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|noFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	w := &writer{j, &Run{ID: id}, file}
	begin.Op, begin.Schema = "begin", journalSchema
	if err = w.write(begin); err == nil {
		err = w.reserve()
	}
	if err == nil {
		err = syncDir(j.Dir)
	}
	if err != nil {
		file.Close()
		os.Remove(file.Name())
		return nil, fmt.Errorf("journal: %w", err)
	}
	return w, nil
}

// resume opens the file of a run to go on with it.
func (j *Journal) resume(run *Run) (*writer, error) {
	file, err := os.OpenFile(j.path(run.ID), os.O_WRONLY|noFollow, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	w := &writer{j, run, file}
	err = file.Truncate(run.size) // of a line that was cut off
	if err == nil {
		err = w.reserve()
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("journal: %w", err)
	}
	return w, nil
}

// reserve makes room for all lines that a run, its roll-back included, can still need.
func (w *writer) reserve() error {
	room := int64(8192 + 512*len(w.run.Steps))
	return reserve(w.file, w.run.size, room)
}

// write appends a record, and returns when it is on the disk.
func (w *writer) write(rec record) error {
	line, err := plainJSON(rec)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err := w.file.WriteAt(line, w.run.size); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return err
	}
	if !w.run.take(rec) {
		return fmt.Errorf("journal: run %s: a record %q that makes no sense", w.run.ID, rec.Op)
	}
	w.run.size += int64(len(line))
	w.journal.at("journal " + rec.Op)
	return nil
}

// close gives back the room that was not needed.
func (w *writer) close() {
	w.file.Truncate(w.run.size)
	w.file.Close()
}

func (j *Journal) at(point string) {
	if j.reached != nil {
		j.reached(point)
	}
}
