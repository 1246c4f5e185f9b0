package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/docker/cli/cli/streams"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// A journalOnly is a machine of which only the journal is read.
type journalOnly struct {
	agent.Machine
	runs remediate.History
	err  error
}

func (j journalOnly) Runs(context.Context) (remediate.History, error) { return j.runs, j.err }

// TestTellLast holds that a journal that cannot be read is told, but not to who may not read it.
func TestTellLast(t *testing.T) {
	for _, c := range []struct {
		err  error
		told string
	}{
		{nil, ""},
		{fmt.Errorf("journal: %w", fs.ErrPermission), ""},
		{fmt.Errorf("journal: %w", fs.ErrNotExist), ""},
		{fmt.Errorf("another host: %w", agent.ErrElsewhere), ""},
		{errors.New("journal: input/output error\x1b[2J"), `input/output error\x1b[2J`},
	} {
		var notes strings.Builder
		tellLast(t.Context(), &notes, journalOnly{err: c.err}, time.Time{})
		if got := notes.String(); c.told == "" && got != "" || !strings.Contains(got, c.told) {
			t.Errorf("%v: %q", c.err, got)
		}
	}
}

// TestObservedDrops prints what the kernel told, and nothing that it did not.
func TestObservedDrops(t *testing.T) {
	var out strings.Builder
	p := newPrinter(streams.NewOut(&out), &checkOptions{})
	p.observed(&checks.Live{}, &probe.Observation{Drops: []probe.Drop{
		{Hop: "route", Reason: "IP\x1b[2J", Function: "f\n", Unsure: true}, {Hop: "socket", Reason: "NO_SOCKET", Function: "tcp_v4_rcv", Text: "IP a > b"},
	}})
	for _, want := range []string{
		"drop  route           IP\\x1b[2J in f\\x0a (this packet or another)\n", "drop  socket          NO_SOCKET in tcp_v4_rcv: IP a > b\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
