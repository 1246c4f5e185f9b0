//go:build linux

package host

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWindow(t *testing.T) {
	for _, test := range []struct {
		name     string
		old, new string
		chain    string
		want     string // the chain afterwards; "new", "neither"
	}{
		{"between two", "a b", "a x b", "a b c", "a x b c"},
		{"at the head", "^ a", "^ x a", "a b", "x a b"},
		{"at the end", "a $", "a x $", "b a", "b a x"},
		{"into an empty chain", "^ $", "^ x $", "", "x"},
		{"into a chain that was empty", "^ $", "^ x $", "a", "a x"},
		{"is there", "a b", "a x b", "c a x b", "new"},
		{"is there, a rule came before it", "a b", "a x b", "a c x b", "new"},
		{"is there, elsewhere", "a b", "a x b", "b a c x", "neither"},
		{"a rule came between", "a b", "a x b", "a c b", "a c x b"},
		{"one neighbour is gone", "a b", "a x b", "c a d", "c a x d"},
		{"both neighbours are gone", "a b", "a x b", "c d", "neither"},
		{"the neighbour is there twice", "a b", "a x b", "a c a", "neither"},
		{"a rule came before the first", "^ a", "^ x a", "c a", "c x a"},
		{"the first is gone", "^ a", "^ x a", "c d", "x c d"},
		{"take out", "a x b", "a b", "a x b", "a b"},
		{"take out, rules came around", "a x b", "a b", "a c x d b", "a c d b"},
		{"take out what is gone", "a x b", "a b", "c", "new"},
		{"take out one of two", "a x b", "a b", "x c a x b", "x c a b"},
		{"take out one of two by a neighbour", "a x b", "a b", "x c a x d", "x c a d"},
		{"take out one of two that nothing tells apart", "a x b", "a b", "c x d x", "neither"},
		{"take out of the end", "x $", "$", "a x x", "a x"},
		{"replace", "a x b", "a y b", "c a x b", "c a y b"},
		{"replace, alone", "a x b", "a y b", "x", "y"},
		{"is replaced", "a x b", "a y b", "a y d", "new"},
		{"replace what is another", "a x b", "a y b", "a z b", "neither"},
		{"take out several, a rule came between", "a x y b", "a b", "a x c y b", "a c b"},
		{"take out several, one is gone", "a x y b", "a b", "a x b", "neither"},
		{"several are there, a rule came between", "a b", "a x y b", "a x c y b", "new"},
		{"one of several is there", "a b", "a x y b", "a x b", "neither"},
		{"replace several, a rule came between", "a x y b", "a z b", "a x c y b", "a z c b"},
		{"several at once", "a b", "a x y b", "a b", "a x y b"},
		{"counters", "[1:2] a b", "a [3:4] x b", "[7:8] a b", "[7:8] a [3:4] x b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, err := newWindow(rules(test.old), rules(test.new))
			if err != nil {
				t.Fatal(err)
			}
			chain := split(test.chain)
			e, holds := w.find(chain)
			got := map[state]string{holdsNew: "new", holdsNeither: "neither"}[holds]
			if holds == holdsOld {
				got = strings.Join(made(chain, e, w), " ")
				got = strings.ReplaceAll(got, "#", " ")
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	for _, bad := range [][2]string{{"a ^ b", "a b"}, {"^ a", "x ^ a"}, {"a $ b", "a b"}, {"^ a", "a"}, {"a $", "a"}} {
		if _, err := newWindow(rules(bad[0]), rules(bad[1])); err == nil {
			t.Errorf("%q is a window", bad)
		}
	}
}

// made returns the chain after an edit.
func made(chain []string, e edit, w window) []string {
	chain = slices.Insert(slices.Clone(chain), e.place, w.next...)
	for _, at := range slices.Backward(e.gone) {
		if at >= e.place {
			at += len(w.next)
		}
		chain = slices.Delete(chain, at, at+1)
	}
	return chain
}

// rules makes lines of words; counters stay with their rule.
func rules(text string) string {
	return strings.ReplaceAll(strings.Join(split(text), "\n"), "#", " ")
}

func split(text string) []string {
	var out []string
	for _, word := range strings.Fields(strings.ReplaceAll(text, "] ", "]#")) {
		out = append(out, strings.ReplaceAll(word, "#", " "))
	}
	return out
}

// What one window did, its reverse undoes, while rules of others come and go elsewhere.
func TestWindowsReverse(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 3))
		chain := make([]string, random.IntN(8))
		for i := range chain {
			chain[i] = fmt.Sprintf("r%d", i)
		}
		framed := slices.Concat([]string{chainStart}, chain, []string{chainEnd})
		from := random.IntN(len(framed) - 1)
		to := from + 2 + random.IntN(len(framed)-from-1)
		to = min(to, len(framed))
		old := slices.Clone(framed[from:to])
		// Between the first and the last line of the window some rules give way to some others.
		low, high := 1+random.IntN(len(old)-1), len(old)-1
		if low < high {
			high = low + random.IntN(high-low)
		}
		high = max(low, high)
		var put []string
		for i := range random.IntN(3) {
			put = append(put, fmt.Sprintf("x%d", i))
		}
		if low == high && put == nil {
			continue
		}
		next := slices.Replace(slices.Clone(old), low, high, put...)
		w, err := newWindow(strings.Join(old, "\n"), strings.Join(next, "\n"))
		if err != nil {
			t.Fatalf("seed %d: %q to %q: %v", seed, old, next, err)
		}
		e, holds := w.find(chain)
		if holds != holdsOld {
			t.Fatalf("seed %d: %q does not hold %q", seed, chain, old)
		}
		after := made(chain, e, w)
		if _, holds := w.find(after); holds != holdsNew {
			t.Fatalf("seed %d: %q does not hold %q", seed, after, next)
		}
		// Somebody else's rule comes in.
		busy := slices.Insert(slices.Clone(after), random.IntN(len(after)+1), "other")
		if _, holds := w.find(busy); len(put) > 1 && holds != holdsNew {
			t.Fatalf("seed %d: %q does not hold %q", seed, busy, next)
		}
		back, err := newWindow(strings.Join(next, "\n"), strings.Join(old, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		for _, now := range [][]string{after, busy} {
			e, holds := back.find(now)
			if holds != holdsOld {
				t.Fatalf("seed %d: undo %q to %q: not found in %q", seed, next, old, now)
			}
			restored := made(now, e, back)
			restored = slices.DeleteFunc(restored, func(r string) bool { return r == "other" })
			if diff := cmp.Diff(chain, restored); diff != "" {
				t.Fatalf("seed %d: %s", seed, diff)
			}
		}
	}
}
