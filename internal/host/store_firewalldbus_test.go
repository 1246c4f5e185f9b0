//go:build linux

package host

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// The ways in which a bus breaks at a call that changes something.
const (
	lost      = "the call is lost"         // the connection ends before firewalld hears of it
	unheard   = "the answer is lost"       // the connection ends behind it
	gone      = "the bus is gone"          // likewise, and there is no other one
	cancelled = "ctx ends during the call" // and the answer comes behind that
)

// firewalldChanges are the calls that change something, as they stand in a message.
var firewalldChanges = [][]byte{[]byte("\x00setPolicySettings\x00"), []byte("\x00update\x00"), []byte("\x00changeZoneOfInterface\x00"),
	[]byte("\x00addInterface\x00"), []byte("\x00removeInterface\x00")}

// A brokenBus stands before a host's system bus, and breaks at one of the calls that change something.
type brokenBus struct {
	net.Listener
	path   string
	how    string
	cancel func()
	left   atomic.Int32 // changes until it breaks; below 0: it has
}

// breakBus has the bus break at the change with that number, from 1, until mend.
func breakBus(t *testing.T, path, how string, at int, cancel func()) (mend func() (broke bool)) {
	t.Helper()
	b := &brokenBus{path: path, how: how, cancel: cancel}
	b.left.Store(int32(at))
	if err := os.Rename(path, path+".whole"); err != nil {
		t.Fatal(err)
	}
	mend = sync.OnceValue(func() bool {
		b.Close()
		if err := os.Rename(path+".whole", path); err != nil {
			t.Error(err)
		}
		return b.left.Load() <= 0
	})
	t.Cleanup(func() { mend() })
	var err error
	if b.Listener, err = net.Listen("unix", path); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			client, err := b.Accept()
			if err != nil {
				return
			}
			go b.serve(client.(*net.UnixConn))
		}
	}()
	return mend
}

func (b *brokenBus) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", b.path+".whole")
	if err != nil {
		return
	}
	defer server.Close()
	var breaks atomic.Bool
	left := make(chan struct{}) // the client has
	go func() {
		defer client.Close()
		copyChunks(client, server, func([]byte) bool {
			switch {
			case !breaks.Load():
				return true
			case b.how == cancelled:
				b.cancel()
				select { // a client that waits for the answer gets it
				case <-left:
				case <-time.After(200 * time.Millisecond):
				}
				return true
			case b.how == gone:
				b.Close()
			}
			return false
		})
	}()
	defer close(left)
	copyChunks(server, client, func(chunk []byte) bool {
		if slices.ContainsFunc(firewalldChanges, func(name []byte) bool { return bytes.Contains(chunk, name) }) && b.left.Add(-1) == 0 {
			breaks.Store(true)
			return b.how != lost
		}
		return true
	})
}

// copyChunks copies what passes, until something does not.
func copyChunks(to, from net.Conn, passes func(chunk []byte) bool) {
	chunk := make([]byte, 1<<16)
	for {
		n, err := from.Read(chunk)
		if err != nil || !passes(chunk[:n]) {
			return
		}
		if _, err := to.Write(chunk[:n]); err != nil {
			return
		}
	}
}

// brokenAtEach makes the step with a bus that breaks at each of the calls that change something. Then all is as
// before, or the run says that it is not and undo puts it right.
func (m machine) brokenAtEach(t *testing.T, h *lab.Host, step remediate.Step) {
	t.Helper()
	state := func() string {
		t.Helper()
		rules, err := h.Run(context.Background(), "nft", "list", "ruleset")
		if err != nil {
			t.Fatal(err)
		}
		return rules + tree(t, m.path("etc/firewalld"))
	}
	before := state()
	for _, how := range []string{lost, unheard, gone, cancelled} {
		at := 1
		for ; ; at++ {
			ctx, cancel := context.WithCancel(context.Background())
			journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
			mend := breakBus(t, m.path("run/dbus/system_bus_socket"), how, at, cancel)
			run, err := journal.Apply(ctx, &remediate.Plan{Steps: []remediate.Step{step}}, m.stores(), m.facts(nil))
			cancel()
			want := remediate.RolledBack
			broke := mend()
			switch {
			case !broke:
				want = remediate.Applied
			case how == gone:
				want = remediate.Unfinished
			}
			if run == nil || run.State != want || (err == nil) == broke || broke && (how == cancelled) != errors.Is(err, context.Canceled) {
				t.Errorf("%s, %s at change %d: %v, %+v; want %s", step.Object(), how, at, err, run, want)
			}
			if want != remediate.RolledBack {
				if _, err := journal.Undo(context.Background(), "", m.stores(), m.facts(nil)); err != nil {
					t.Errorf("%s, %s at change %d: undo: %v", step.Object(), how, at, err)
				}
			}
			if diff := cmp.Diff(before, state()); diff != "" {
				t.Fatalf("%s, %s at change %d, left:\n%s", step.Object(), how, at, diff)
			}
			if !broke {
				break
			}
		}
		if at == 1 {
			t.Errorf("%s: %s at no change", step.Object(), how)
		}
	}
}
