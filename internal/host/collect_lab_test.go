package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker/docker/client"
)

// A collectRequest makes the test binary, started inside of a lab's host, collect that host.
type collectRequest struct {
	Containers []string
	All        bool
	Parts      netstate.Part
	Docker     string // address; "" for the usual one
	Repeat     int    // collect so often, and answer with the times alone
}

// A collectAnswer is what it prints.
type collectAnswer struct {
	Snapshot *netstate.Snapshot
	Error    string
	Kind     string // which of Collect's errors
	Times    []time.Duration
}

const collectVariable = "NETCHECK_TEST_COLLECT"

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(collectVariable); ok {
		os.Exit(collectInside(text))
	}
	os.Exit(m.Run())
}

// collectInside answers one collectRequest on stdout.
func collectInside(text string) int {
	var request collectRequest
	var answer collectAnswer
	if err := json.Unmarshal([]byte(text), &request); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	options := []client.Opt{client.WithAPIVersionNegotiation()}
	if request.Docker != "" {
		options = append(options, client.WithHost(request.Docker))
	}
	for range max(1, request.Repeat) {
		docker, err := client.NewClientWithOpts(options...)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		start := time.Now()
		s, err := Collect(context.Background(), Options{
			Docker: docker, Containers: request.Containers, All: request.All, Parts: request.Parts,
		})
		answer.Times = append(answer.Times, time.Since(start))
		docker.Close()
		if err != nil {
			answer.Error = err.Error()
			for kind, sentinel := range map[string]error{"engine": ErrNoEngine, "container": ErrNoContainer} {
				if errors.Is(err, sentinel) {
					answer.Kind = kind
				}
			}
			break
		}
		answer.Snapshot = s
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// collectIn runs Collect inside a lab's host.
func collectIn(t *testing.T, h *lab.Host, request collectRequest, prefix ...string) collectAnswer {
	t.Helper()
	const inside = "/usr/local/bin/collect.test"
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.Path(inside)); err != nil {
		if err := h.Install(t.Context(), self, inside); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	words := append(append([]string{"env", collectVariable + "=" + string(text)}, prefix...), inside)
	out, err := h.Run(t.Context(), words[0], words[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	var answer collectAnswer
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestCollectTimes(t *testing.T) {
	if os.Getenv("NETCHECK_TEST_TIMES") == "" {
		t.Skip("prints times: set NETCHECK_TEST_TIMES to a number of repetitions")
	}
	repeat, _ := strconv.Atoi(os.Getenv("NETCHECK_TEST_TIMES"))
	for _, suite := range []string{lab.Bookworm, lab.Forky} {
		h := lab.New(t, lab.Options{Suite: suite, Firewalld: true, Daemon: map[string]any{}})
		if err := h.Web(t.Context(), "web", "-p", "80:80"); err != nil {
			t.Fatal(err)
		}
		usual := netstate.Engine | netstate.Links | netstate.Routes | netstate.Sysctls | netstate.Sockets | netstate.Iptables | netstate.Nftables | netstate.Firewalld
		for _, parts := range append(usual.Each(), usual&^netstate.Firewalld, usual, netstate.All) {
			answer := collectIn(t, h, collectRequest{Containers: []string{"web"}, Parts: parts, Repeat: max(2, repeat)})
			fmt.Printf("%s %-80s", suite, parts)
			for _, d := range answer.Times {
				fmt.Printf(" %.1f", d.Seconds()*1000)
			}
			fmt.Println(answer.Error, answer.Snapshot.Missing)
			if dir := os.Getenv("NETCHECK_TEST_DUMP"); dir != "" && parts == netstate.All {
				text, _ := json.MarshalIndent(answer.Snapshot, "", " ")
				os.WriteFile(dir+"/"+suite+".json", text, 0o644)
			}
		}
	}
}
