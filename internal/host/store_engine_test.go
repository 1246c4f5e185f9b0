//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// containers are an engine's, by ID; a value is the state and the number of its start.
type containers struct {
	state  map[string]string
	starts map[string]int
	stuck  string // one that does not start again
	begun  func() // is called when a restart begins
}

func (e *containers) ContainerInspect(_ context.Context, id string) (container.InspectResponse, error) {
	state, ok := e.state[id]
	if !ok {
		return container.InspectResponse{}, fmt.Errorf("no such container: %w", errdefs.ErrNotFound)
	}
	return container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{
		Status: container.ContainerState(state), Running: state != "exited", Paused: state == "paused", StartedAt: fmt.Sprint("start ", e.starts[id]),
	}}}, nil
}

func (e *containers) ContainerRestart(_ context.Context, id string, _ container.StopOptions) error {
	if e.begun != nil {
		e.begun()
	}
	if id == e.stuck {
		e.state[id] = "exited"
		return errors.New("port is already allocated")
	}
	e.state[id] = "running"
	e.starts[id]++
	return nil
}

func (e *containers) ContainerPause(_ context.Context, id string) error {
	e.state[id] = "paused"
	return nil
}

func (e *containers) ContainerUnpause(_ context.Context, id string) error {
	e.state[id] = "running"
	return nil
}

func (e *containers) facts() remediate.Facts {
	return func(ctx context.Context, _ remediate.Step, guard string) (string, error) {
		c, err := e.ContainerInspect(ctx, strings.TrimPrefix(guard, remediate.GuardContainer+" "))
		if err != nil {
			return "", nil
		}
		return c.State.StartedAt, nil
	}
}

func restartOf(id, start string) remediate.Step {
	step := remediate.Set("container", "web", "running since "+start, startedAnew).Guarded(remediate.GuardContainer+" "+id, start)
	step.OneWay = true
	return step
}

func TestEngineStore(t *testing.T) {
	ctx := t.Context()
	a, b, c := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	e := &containers{state: map[string]string{a: "running", b: "paused", c: "running"}, starts: map[string]int{}, stuck: c}
	stores := remediate.Stores{"container": ContainerStore(e), "map": remediate.MapStore{"x": "1"}}
	j := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	apply := func(steps ...remediate.Step) (*remediate.Run, error) {
		return j.Apply(ctx, &remediate.Plan{Steps: steps}, stores, e.facts())
	}
	want := func(text string, err error) {
		t.Helper()
		if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Fatalf("%v: want %q", err, text)
		}
	}

	// A pause ends, and undo brings it back.
	unpause := remediate.Set("container", "db", "paused", "running").Guarded(remediate.GuardContainer+" "+b, "start 0")
	_, err := apply(unpause)
	want("", err)
	if run, err := apply(unpause); err != nil || run.Altered() || e.state[b] != "running" {
		t.Errorf("twice: %v, %+v", err, run)
	}
	_, err = j.Undo(ctx, "", stores, e.facts())
	if want("", err); e.state[b] != "paused" {
		t.Errorf("undo left db %s", e.state[b])
	}

	// One start, and not another one of the same plan; undo says that it stands.
	restart := restartOf(a, "start 0")
	run, err := apply(restart)
	if want("", err); !run.Altered() || e.starts[a] != 1 {
		t.Fatalf("%+v, %d starts", run, e.starts[a])
	}
	_, err = apply(restart)
	want("changed since it was read", err)
	_, err = j.Undo(ctx, "", stores, e.facts())
	want("container web: not undone: it cannot be taken back", err)
	if e.starts[a] != 1 || e.state[a] != "running" {
		t.Errorf("undo touched the container: %s, %d starts", e.state[a], e.starts[a])
	}

	// One that stops and does not start again is told of, and what stood before it in the plan is taken back.
	run, err = apply(remediate.Set("map", "x", "1", "2"), restartOf(c, "start 0"))
	want("port is already allocated", err)
	want("container web: not undone", err)
	if now := stores["map"].(remediate.MapStore)["x"]; run.State != remediate.RolledBack || len(run.Refused) != 1 || now != "1" {
		t.Errorf("%+v, x = %s", run, now)
	}

	// A plan may not pass a restart off as something that can be undone, nor pause a container, nor name none.
	sly := restartOf(a, "start 1")
	sly.OneWay = false
	_, err = apply(sly)
	want("one-way step", err)
	_, err = apply(remediate.Set("container", "web", "running", "paused").Guarded(remediate.GuardContainer+" "+a, "start 1"))
	if want("and nothing else", err); e.state[a] != "running" {
		t.Errorf("a plan left the container %s", e.state[a])
	}
	sly.OneWay, sly.Guards = true, nil
	_, err = apply(sly)
	want("no guard names its container", err)
	_, err = apply(restartOf(a+"/../"+b, "")) // no such container has no start
	want("no guard names its container by its whole ID", err)
	if e.starts[a] != 1 {
		t.Errorf("%d starts", e.starts[a])
	}
}

// TestRestartInterrupted presses Ctrl-C while the container is restarted whose network another one shares.
func TestRestartInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	donor, member := strings.Repeat("a", 64), strings.Repeat("b", 64)
	e := &containers{state: map[string]string{donor: "running", member: "running"}, starts: map[string]int{}, begun: interrupt}
	second := restartOf(member, "start 0")
	second.Name = "side"
	j := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	run, err := j.Apply(ctx, &remediate.Plan{Steps: []remediate.Step{restartOf(donor, "start 0"), second}}, remediate.Stores{"container": ContainerStore(e)}, e.facts())
	if !errors.Is(err, context.Canceled) || e.starts[donor] != 1 || e.starts[member] != 1 {
		t.Errorf("%v: starts of the donor %d, of the member %d", err, e.starts[donor], e.starts[member])
	}
	if run == nil || run.State != remediate.RolledBack || len(run.Refused) != 2 {
		t.Errorf("what stands is not named: %+v", run)
	}
}

// brokenOff is an engine whose connection ends while it restarts a container, which it still stops.
type brokenOff struct {
	containers
	docker *client.Client
}

func (e *brokenOff) ContainerRestart(ctx context.Context, id string, options container.StopOptions) error {
	return e.docker.ContainerRestart(ctx, id, options)
}

func TestRestartWithoutAnswer(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer engine.Close()
	docker, err := client.NewClientWithOpts(client.WithHost(strings.Replace(engine.URL, "http", "tcp", 1)), client.WithVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("a", 64)
	e := &brokenOff{containers{state: map[string]string{id: "running"}}, docker}
	j := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
	run, err := j.Apply(t.Context(), &remediate.Plan{Steps: []remediate.Step{restartOf(id, "start 0")}}, remediate.Stores{"container": ContainerStore(e)}, e.facts())
	if err == nil || run == nil || len(run.Refused) != 1 {
		t.Errorf("a restart that may go on is not named: %v", err)
	}
}
