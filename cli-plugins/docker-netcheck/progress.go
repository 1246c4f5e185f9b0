package main

import (
	"fmt"
	"time"

	"github.com/docker/cli/cli/streams"
)

// progress says on a terminal what takes its time once it has taken a second, and wipes the line when
// the returned function is called.
func progress(out *streams.Out, what string) (done func()) {
	if !out.IsTerminal() {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		shown := false
		started := time.Now()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				if shown {
					fmt.Fprint(out, "\r\x1b[K")
				}
				return
			case <-tick.C:
				shown = true
				fmt.Fprintf(out, "\r\x1b[K%s … %ds", what, int(time.Since(started).Seconds()))
			}
		}
	}()
	return func() { close(stop); <-stopped }
}
