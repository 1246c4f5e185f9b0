// Package remediate changes a host and takes the change back.
//
// A change is a list of steps. A [Step] is a compare-and-swap on one named thing: it says what the
// thing holds and what it shall hold, and a [Store] carries it out, or refuses with [ErrChanged] when
// the thing holds neither. A [Plan] is the steps of some fixes, in order, with their diff. [Journal.Apply]
// makes a plan whole or not at all; [Journal.Undo] takes a run back.
//
// The laws, each of which is tested:
//
//   - undo after apply restores every thing that a step names or drags along;
//   - apply twice is apply once: a thing that already holds the new value is left alone, and undo leaves
//     it alone as well;
//   - a step that fails leaves nothing changed;
//   - a process killed at any point leaves a journal from which undo restores everything.
//
// The package knows nothing of what it changes: stores for the kinds of things on a Docker host are in
// internal/host, and [MapStore] is one for tests.
package remediate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Step changes one named thing from Old to New.
type Step struct {
	Kind string // which store: "sysctl", "link", "iptables", …
	Name string // of the thing, as the store's documentation says

	// Old is what the thing held when it was read, New what it shall hold; nil: there is none.
	Old, New *string

	// Also are things that change along when this one does, whoever changes it: they are journalled with
	// it and written after it, New on apply and Old on undo, without being compared. The store adds what
	// it knows of. Their own Also is empty.
	Also []Step

	// Guards say which incarnation of the world the step was made for: a guard (see [GuardBoot] and the
	// others) and the answer that it had. A step whose guard has another answer now is refused.
	Guards map[string]string

	// OneWay marks a step that has no inverse (a restart). It comes last in a plan, and undo names it as
	// not undone.
	OneWay bool

	// Settle is set by the engine for a step that was cut off half-way: what stands in Also is written
	// even if the thing itself already holds New. It is not part of a document.
	Settle bool
}

// The guards that steps may carry. Some name an object behind a space: "ifindex docker0". Further ones
// are as good: a guard is a question to which [Facts] knows the answer.
const (
	GuardBoot      = "boot"      // boot id of the kernel; runtime state does not outlive it
	GuardEngine    = "engine"    // dockerd's "PID@start": rules that it made may be others after its restart
	GuardContainer = "container" // "container ID": StartedAt
	GuardNetwork   = "network"   // "network NAME": ID
	GuardIfindex   = "ifindex"   // "ifindex LINK": index of the link, in the step's namespace
	GuardNetns     = "netns"     // the network namespace that the step changes: "net:[4026531840]"
	GuardPID       = "pid"       // a process in that namespace, by which it is entered; absent: our own namespace
)

// Set returns the step that changes a thing from old to new.
func Set(kind, name, old, new string) Step {
	return Step{Kind: kind, Name: name, Old: &old, New: &new}
}

// Add returns the step that makes a thing that is not there.
func Add(kind, name, new string) Step { return Step{Kind: kind, Name: name, New: &new} }

// Remove returns the step that removes a thing.
func Remove(kind, name, old string) Step { return Step{Kind: kind, Name: name, Old: &old} }

// Guarded returns the step with one more guard. s keeps its own.
func (s Step) Guarded(guard, value string) Step {
	guards := maps.Clone(s.Guards)
	if guards == nil {
		guards = map[string]string{}
	}
	guards[guard] = value
	s.Guards = guards
	return s
}

// Reverse returns the step that takes s back.
func (s Step) Reverse() Step {
	s.Old, s.New = s.New, s.Old
	also := make([]Step, len(s.Also))
	for i, a := range s.Also {
		also[i] = a.Reverse()
	}
	slices.Reverse(also)
	s.Also = also
	return s
}

// Object names the thing as reports do: "sysctl net.ipv4.ip_forward".
func (s Step) Object() string {
	switch s.Kind {
	case "iptables": // the name begins with the command: iptables, ip6tables-legacy, …
		return s.Name
	case "firewalld-zone", "firewalld-source":
		return "firewalld zone of " + s.Name
	case "firewalld-zone-permanent", "firewalld-source-permanent":
		return "firewalld permanent zone of " + s.Name
	case "firewalld-policy-permanent":
		return "firewalld permanent policy " + s.Name
	}
	return strings.ReplaceAll(s.Kind, "-", " ") + " " + s.Name
}

// key tells things apart: two steps with one key are about one thing.
func (s Step) key() string { return s.Kind + "\x00" + s.Name + "\x00" + s.Guards[GuardNetns] }

// keys returns the keys of all things that the step changes.
func (s Step) keys() []string {
	keys := []string{s.key()}
	for _, a := range s.Also {
		keys = append(keys, a.key())
	}
	return keys
}

// A Fix is a remedy for one finding.
type Fix struct {
	Title   string // "turn IPv4 forwarding on"
	Steps   []Step // what helps now; none where it is Persist that helps
	Persist []Step // what keeps it after a reboot or a reload of the firewall; made with --persist alone

	// Opens: it lets through what somebody may have closed on purpose, or changes a rule, route or entry
	// that neither Docker nor netcheck made. Disrupts: it interrupts traffic or restarts something.
	Opens, Disrupts bool
}

// A Store holds the things of one kind.
type Store interface {
	// Look is asked before a step is journalled, and changes nothing. It returns the step with what the
	// store knows to change along (Also) and the guards that bind it to this boot or namespace, and says
	// whether the thing already holds New. It does not judge whether the thing holds Old: an earlier step
	// may bring it about.
	Look(context.Context, Step) (completed Step, there bool, err error)

	// Swap carries out steps that follow each other, in order, as one transaction where the kind has
	// any. A thing that holds New is left alone, one that holds neither Old nor New is ErrChanged.
	// It reports which steps changed something; with an error, those that changed something and still
	// stand, which is none if the transaction was refused whole. With [ErrUncertain] the last of these may
	// stand or not, or half of it: it is taken back like one that was cut off, with Settle.
	Swap(context.Context, []Step) (changed []bool, err error)
}

// Stores are the stores by the kind of their steps.
type Stores map[string]Store

// Facts answers a guard of a step: what it is now. An error means that it is not known, and the step is
// refused; an answer of "" means that the object is gone.
type Facts func(ctx context.Context, step Step, guard string) (string, error)

// ErrChanged means that a thing holds neither what a step found nor what it shall hold.
var ErrChanged = errors.New("changed since it was read")

// Changed returns the error for a step whose thing holds now, which is neither Old nor New; nil means
// that there is none. It wraps [ErrChanged].
func Changed(step Step, now *string) error {
	return fmt.Errorf("%s: %w: expected %s, found %s", step.Object(), ErrChanged, brief(step.Old), brief(now))
}

// ErrUncertain means that a step was begun, and that it is not known what became of it.
var ErrUncertain = errors.New("may have been made all the same")

// Uncertain returns err, in its own words, as one that is [ErrUncertain] too.
func Uncertain(err error) error { return uncertainError{err} }

type uncertainError struct{ error }

func (e uncertainError) Unwrap() []error { return []error{e.error, ErrUncertain} }

// brief shows a value in a sentence.
func brief(value *string) string {
	if value == nil {
		return "nothing"
	}
	text := *value
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return fmt.Sprintf("%q", text)
}

// Equal says whether two values are the same, absence included.
func Equal(a, b *string) bool {
	return a == b || a != nil && b != nil && *a == *b
}
