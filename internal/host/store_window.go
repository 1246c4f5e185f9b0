//go:build linux

package host

import (
	"errors"
	"slices"
	"strings"
)

// The ends of a chain, in a window.
const (
	chainStart = "^"
	chainEnd   = "$"
)

// A window is a change of one place in a chain: the rules before it and behind it stay, and between them
// come those of next for those of gone. It is what differs between the two values of a step.
type window struct {
	before, gone, next, behind []string
}

// newWindow compares two values, each of which is some rules that follow each other, one a line, from the
// chain's start (a line "^") or to its end ("$") if they say so. Counters before a rule are part of it, but
// are not compared.
func newWindow(old, new string) (window, error) {
	a, b := strings.Split(old, "\n"), strings.Split(new, "\n")
	if old == "" {
		a = nil
	}
	if new == "" {
		b = nil
	}
	for _, lines := range [][]string{a, b} {
		for i, line := range lines {
			if line == "" || line == chainStart && i > 0 || line == chainEnd && i < len(lines)-1 {
				return window{}, errors.New("is no piece of a chain: one rule a line, from ^ or to $")
			}
		}
	}
	n := 0
	for n < min(len(a), len(b)) && sameRule(a[n], b[n]) {
		n++
	}
	m := 0
	for m < min(len(a), len(b))-n && sameRule(a[len(a)-1-m], b[len(b)-1-m]) {
		m++
	}
	w := window{a[:n], a[n : len(a)-m], b[n : len(b)-m], a[len(a)-m:]}
	if slices.ContainsFunc(slices.Concat(w.gone, w.next), func(line string) bool { return line == chainStart || line == chainEnd }) {
		return window{}, errors.New("both values must begin, and end, at the same place of the chain")
	}
	return w, nil
}

// bare returns a rule without its counters.
func bare(rule string) string {
	if rest, ok := strings.CutPrefix(rule, "["); ok {
		if counters, text, ok := strings.Cut(rest, "] "); ok && strings.Trim(counters, "0123456789:") == "" {
			return text
		}
	}
	return rule
}

func sameRule(a, b string) bool { return bare(a) == bare(b) }

// A state is what a chain says of a window.
type state uint8

const (
	holdsOld state = iota
	holdsNew
	holdsNeither
)

// An edit is what a window does to a chain that holds the old value: it takes out the rules at gone, which
// are in order, and puts next in before the rule at place.
type edit struct {
	gone  []int
	place int
}

// span is the edit of rules that follow each other.
func span(at, n int) edit {
	e := edit{place: at}
	for i := range n {
		e.gone = append(e.gone, at+i)
	}
	return e
}

// find says which value the chain holds and, if it is the old one, what makes it the new one.
//
// Rules of others may have come between since. Where the window is not found whole, rules are found by
// themselves, if each is there once, and a place by the one neighbour that is still there.
func (w window) find(chain []string) (edit, state) {
	// Neighbours alone say little: where rules are taken out, these are looked for first.
	values := []struct {
		rules []string
		holds state
	}{{w.next, holdsNew}, {w.gone, holdsOld}}
	if len(w.next) == 0 {
		slices.Reverse(values)
	}
	for _, value := range values {
		if at := w.whole(chain, value.rules); at >= 0 && (len(value.rules) > 0 || len(w.before) > 0 && len(w.behind) > 0) {
			return span(at, len(value.rules)), value.holds
		}
	}
	if at := w.touching(chain, w.next); len(at) > 0 && len(w.gone) == 0 {
		return edit{}, holdsNew
	}
	if at := occurrences(chain, w.gone); len(at) == 1 {
		return span(at[0], len(w.gone)), holdsOld
	}
	if at := w.touching(chain, w.gone); len(at) == 1 {
		return span(at[0], len(w.gone)), holdsOld
	}
	if at := w.touching(chain, w.next); len(at) > 0 {
		return edit{}, holdsNew
	}

	gone, goneLeft := apart(chain, w.gone)
	_, nextLeft := apart(chain, w.next)
	switch {
	case len(w.gone) > 0 && gone != nil && nextLeft == len(w.next):
		return edit{gone, gone[0]}, holdsOld
	case len(w.next) > 1 && nextLeft == 0 && goneLeft == len(w.gone):
		return edit{}, holdsNew
	case len(w.next) == 0 && goneLeft == len(w.gone):
		return edit{}, holdsNew // what was to go is gone
	case len(w.gone) == 0 && nextLeft == len(w.next):
		if place, ok := w.place(chain); ok {
			return edit{place: place}, holdsOld
		}
	}
	return edit{}, holdsNeither
}

// touching returns where the rules stand with one of the window's neighbours next to them.
func (w window) touching(chain, rules []string) []int {
	return slices.DeleteFunc(occurrences(chain, rules), func(at int) bool { return !w.touches(chain, at, len(rules)) })
}

// apart returns where the rules stand, if each of them is there once and they are in order; and how many of
// them are not there at all.
func apart(chain, rules []string) (at []int, missing int) {
	ordered := true
	for _, rule := range rules {
		found := occurrences(chain, []string{rule})
		if len(found) == 0 {
			missing++
		}
		if len(found) != 1 || len(at) > 0 && found[0] <= at[len(at)-1] {
			ordered = false
			continue
		}
		at = append(at, found[0])
	}
	if !ordered {
		at = nil
	}
	return at, missing
}

// framed returns the window with the neighbours that it has in the chain on the sides where it has none: an
// undo finds its place by them.
func (w window) framed(chain []string, e edit) window {
	first, last := e.place, e.place
	if n := len(e.gone); n > 0 {
		first, last = e.gone[0], e.gone[n-1]+1
	}
	if len(w.before) == 0 {
		w.before = neighbour(chain, first-1)
	}
	if len(w.behind) == 0 {
		w.behind = neighbour(chain, last)
	}
	return w
}

// neighbour returns the line of a rule of the chain or of its end. A rule that says nothing has none.
func neighbour(chain []string, at int) []string {
	switch {
	case at < 0:
		return []string{chainStart}
	case at >= len(chain):
		return []string{chainEnd}
	case chain[at] == "":
		return nil
	}
	return chain[at : at+1]
}

// whole returns where rules stand between all of the window's neighbours, or -1.
func (w window) whole(chain, rules []string) int {
	for at := range len(chain) - len(rules) + 1 {
		if matches(chain, at, rules) && w.precede(chain, at) && w.follow(chain, at+len(rules)) {
			return at
		}
	}
	return -1
}

// touches says whether n rules at a place have one of the window's neighbours next to them.
func (w window) touches(chain []string, at, n int) bool {
	return len(w.before) > 0 && w.precede(chain, at) || len(w.behind) > 0 && w.follow(chain, at+n)
}

// place returns where the window's place is by one of its neighbours, which must be there once: by the
// rule behind it, for what is put in before a rule must not come behind it, else by that before it.
func (w window) place(chain []string) (at int, ok bool) {
	if len(w.behind) > 0 {
		if w.behind[0] == chainEnd {
			if len(w.before) == 0 || w.before[0] == chainStart && len(w.before) == 1 {
				return len(chain), true
			}
		} else if found := occurrences(chain, w.behind[:1]); len(found) == 1 {
			return found[0], true
		}
	}
	if len(w.before) > 0 {
		last := w.before[len(w.before)-1]
		if last == chainStart {
			return 0, true
		}
		if found := occurrences(chain, []string{last}); len(found) == 1 {
			return found[0] + 1, true
		}
	}
	return 0, false
}

// precede says whether the window's neighbours before it end at a place.
func (w window) precede(chain []string, at int) bool {
	rules := w.before
	if len(rules) > 0 && rules[0] == chainStart {
		if rules = rules[1:]; at != len(rules) {
			return false
		}
	}
	return matches(chain, at-len(rules), rules)
}

// follow says whether the window's neighbours behind it begin at a place.
func (w window) follow(chain []string, at int) bool {
	rules := w.behind
	if len(rules) > 0 && rules[len(rules)-1] == chainEnd {
		if rules = rules[:len(rules)-1]; at != len(chain)-len(rules) {
			return false
		}
	}
	return matches(chain, at, rules)
}

// matches says whether the rules stand at a place of the chain.
func matches(chain []string, at int, rules []string) bool {
	if at < 0 || at+len(rules) > len(chain) {
		return false
	}
	for i, rule := range rules {
		if !sameRule(chain[at+i], rule) {
			return false
		}
	}
	return true
}

// occurrences returns every place where the rules stand; none for no rules.
func occurrences(chain, rules []string) []int {
	var found []int
	for at := 0; len(rules) > 0 && at+len(rules) <= len(chain); at++ {
		if matches(chain, at, rules) {
			found = append(found, at)
		}
	}
	return found
}
