// Package lazyregexp holds regular expressions that are compiled when they are first used. Most runs find
// all well and use none of them, and docker starts the program twice: to compile all took 0.4 ms of each start.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that returns the expression; it panics where that is none.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
