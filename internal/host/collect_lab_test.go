//go:build linux

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
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
	Repeat     int    // collect so often, and answer with the last snapshot and all times
	Timeout    time.Duration
	Document   bool // answer with the first difference between the snapshot and what its document says
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
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if request.Timeout != 0 {
			ctx, cancel = context.WithTimeout(ctx, request.Timeout)
		}
		start := time.Now()
		s, err := Collect(ctx, Options{
			Docker: docker, Containers: request.Containers, All: request.All, Parts: request.Parts, Thorough: true,
		})
		answer.Times = append(answer.Times, time.Since(start))
		cancel()
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
		if request.Document {
			answer.Error = documentDiffers(s)
		}
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

// What cannot be read is missing with its reason, and the rest is there.
func TestCollectMissing(t *testing.T) {
	h := lab.New(t, lab.Options{Firewalld: true})
	if err := h.Web(t.Context(), "web", "-p", "80:80"); err != nil {
		t.Fatal(err)
	}
	web := collectRequest{Containers: []string{"web"}, Parts: netstate.All}

	t.Run("no such container", func(t *testing.T) {
		answer := collectIn(t, h, collectRequest{Containers: []string{"web", "nobody"}, Parts: netstate.All})
		if answer.Kind != "container" || answer.Error != "no such container: nobody" {
			t.Errorf("%q: %s", answer.Kind, answer.Error)
		}
	})
	t.Run("no engine", func(t *testing.T) {
		answer := collectIn(t, h, collectRequest{Docker: "unix:///run/nothing.sock", Parts: netstate.All})
		if answer.Kind != "engine" || !strings.Contains(answer.Error, "/run/nothing.sock") {
			t.Errorf("%q: %s", answer.Kind, answer.Error)
		}
	})
	t.Run("without root", func(t *testing.T) {
		if _, err := h.Sh(t.Context(), "chmod 666 /run/docker.sock"); err != nil {
			t.Fatal(err)
		}
		s := collectIn(t, h, web, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups").Snapshot
		id := s.Containers[0].ID
		for _, key := range []netstate.Key{
			{Part: netstate.Nftables}, {Part: netstate.Iptables}, {Part: netstate.Links, Container: id}, {Part: netstate.Sysctls, Container: id},
		} {
			if why := s.Why(key); why != "needs root: sudo docker netcheck …" {
				t.Errorf("%v: %q", key, why)
			}
		}
		for _, part := range []netstate.Part{netstate.Engine, netstate.Links, netstate.Routes, netstate.Sysctls, netstate.Sockets} {
			if why := s.Why(netstate.Key{Part: part}); why != "" {
				t.Errorf("%v: %q", part, why)
			}
		}
		if !s.Engine.Local || s.Host.Link("docker0") == nil || s.Host.Sysctls["net.ipv4.ip_forward"] != "1" {
			t.Errorf("engine %+v, %d links, ip_forward %q", s.Engine, len(s.Host.Links), s.Host.Sysctls["net.ipv4.ip_forward"])
		}
	})
	t.Run("in time", func(t *testing.T) {
		deaf, err := h.Listen("127.0.0.1:7777")
		if err != nil {
			t.Fatal(err)
		}
		defer deaf.Close()
		late := web
		late.Timeout = 2 * time.Second
		answer := collectIn(t, h, late, "DBUS_SYSTEM_BUS_ADDRESS=tcp:host=127.0.0.1,port=7777")
		if answer.Error != "" {
			t.Fatal(answer.Error)
		}
		s := answer.Snapshot
		if why := s.Why(netstate.Key{Part: netstate.Firewalld}); why != "not read in time" || len(s.Missing) != 1 {
			t.Errorf("missing: %v", s.Missing)
		}
		if len(s.Host.Links) == 0 || len(s.Host.Iptables) == 0 || s.Host.Nft == nil {
			t.Error("what was read in time is not there")
		}
	})
	t.Run("no firewalld", func(t *testing.T) {
		if err := h.StopFirewalld(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := collectIn(t, h, web).Snapshot; s.Firewalld != nil || len(s.Missing) != 0 {
			t.Errorf("firewalld %v, missing %v", s.Firewalld, s.Missing)
		}
	})
	t.Run("stopped container", func(t *testing.T) {
		if _, err := h.Docker(t.Context(), "kill", "web"); err != nil {
			t.Fatal(err)
		}
		s := collectIn(t, h, web).Snapshot
		if c := s.Containers[0]; c.Running || len(c.Configured) != 1 || len(s.Sandboxes) != 0 || len(s.Missing) != 0 {
			t.Errorf("%+v, missing %v", c, s.Missing)
		}
	})
}

// An engine in another network namespace than the program is not the host's that it reads.
func TestCollectElsewhere(t *testing.T) {
	h := lab.New(t, lab.Options{})
	if err := h.Web(t.Context(), "web", "-p", "80:80"); err != nil {
		t.Fatal(err)
	}
	s := collectIn(t, h, collectRequest{Containers: []string{"web"}, Parts: netstate.All}, "unshare", "-n").Snapshot
	id := s.Containers[0].ID
	for _, key := range []netstate.Key{{Part: netstate.Links}, {Part: netstate.Iptables}, {Part: netstate.Links, Container: id}} {
		if why := s.Why(key); !strings.Contains(why, "another network namespace") {
			t.Errorf("%v: %q", key, why)
		}
	}
	if s.Engine.Local || len(s.Host.Links) != 0 || s.Engine.Version == "" {
		t.Errorf("engine %+v, host %+v", s.Engine, s.Host)
	}
}
