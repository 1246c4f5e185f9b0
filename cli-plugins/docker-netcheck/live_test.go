package main

import (
	"testing"

	"github.com/docker/cli/opts"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
)

// TestLiveReads holds that a live connection is made only where the client's own connections are known, whatever
// checks are asked for and however well all is.
func TestLiveReads(t *testing.T) {
	o := checkOptions{containers: []string{"web"}, filter: opts.NewFilterOpt(), timeout: 1, only: []string{"published"}, live: true}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if missing := probe.Needs &^ o.needs(); missing != 0 || o.needs()&netstate.Conntrack == 0 || !o.thorough {
		t.Errorf("%v is not read, thorough %v", missing, o.thorough)
	}
}
