//go:build linux

package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An insideRequest makes the test binary, started inside of a lab's host, read the host and probe it.
type insideRequest struct {
	Container string
	Targets   []insideTarget
	Capture   *insideCapture
}

// An insideCapture makes it capture. It prints "ready" first, and ends at the end of its standard input.
type insideCapture struct {
	Port     netstate.Port
	Count    int
	Duration time.Duration
	File     string
}

// An insideTarget says which of the container's targets is probed, and how.
type insideTarget struct {
	From    string // netstate.FromOutside, …
	Client  netip.Addr
	Iface   string
	To      netip.AddrPort // of a peer
	Out     bool           // the container asks Client
	Proto   string         // "" for tcp
	V6      bool
	ICMP    bool
	HTTP    bool
	Lacks   []string // of the kernel: see Request.lacks
	Timeout time.Duration
	Stay    bool // print "ready" once all is installed, and wait to be killed
}

// An insideAnswer is what becomes of each.
type insideAnswer struct {
	Snapshot     *netstate.Snapshot
	Observations []*Observation
	Errors       []string
}

const insideVariable = "NETCHECK_TEST_PROBE"

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(insideVariable); ok {
		if err := inside(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func inside(text string) error {
	debug.SetTraceback("all")
	hung := time.AfterFunc(time.Minute, func() { panic("hung") })
	defer hung.Stop()
	var request insideRequest
	if err := json.Unmarshal([]byte(text), &request); err != nil {
		return err
	}
	docker, err := client.NewClientWithOpts(client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer docker.Close()
	s, err := host.Collect(context.Background(), host.Options{Docker: docker, Containers: []string{request.Container}, Parts: Needs, Thorough: true})
	if err != nil {
		return err
	}
	if request.Capture != nil {
		return request.Capture.run(s)
	}
	answer := insideAnswer{Snapshot: s}
	for _, t := range request.Targets {
		o, err := t.observe(s)
		answer.Observations = append(answer.Observations, o)
		words := ""
		if err != nil {
			words = err.Error()
		}
		answer.Errors = append(answer.Errors, words)
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func (i insideCapture) run(s *netstate.Snapshot) error {
	c, err := NewCapture(s, CaptureOptions{
		Container: s.Asked[0], Port: i.Port, Count: i.Count, Duration: i.Duration, Ready: func() { fmt.Println("ready") },
	})
	if err != nil {
		return err
	}
	out, err := os.Create(i.File)
	if err != nil {
		return err
	}
	defer out.Close()
	file, err := c.NewFile(out)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	err = c.Run(ctx, func(p Packet) error {
		fmt.Println(c.Line(p))
		return file.Write(p)
	})
	fmt.Print(c.Table())
	text, _ := json.Marshal(c.Counts())
	fmt.Printf("%s\n", text)
	return err
}

func (t insideTarget) observe(s *netstate.Snapshot) (*Observation, error) {
	r, err := t.request(s)
	if err != nil {
		return nil, err
	}
	if t.Stay {
		e := &experiment{Request: r, o: &Observation{}}
		if err := e.prepare(); err != nil {
			return nil, err
		}
		fmt.Println("ready")
		select {}
	}
	return Observe(context.Background(), r)
}

func (t insideTarget) request(s *netstate.Snapshot) (*Request, error) {
	c := s.Container(s.Asked[0])
	target := netstate.Target{Container: c.Name, ID: c.ID, Direction: netstate.In, From: t.From, Family: netstate.IPv4, Client: t.Client, Iface: t.Iface}
	if t.V6 {
		target.Family = netstate.IPv6
	}
	if t.To.IsValid() {
		target.Direction, target.From, target.To = netstate.Peer, netstate.FromContainer, t.To
		if t.To.Port() != 0 {
			target.Port = netstate.Port{Number: t.To.Port(), Proto: "tcp"}
		}
	}
	if t.Out {
		target.Direction, target.From, target.To, target.Client = netstate.Out, netstate.FromContainer, netip.AddrPortFrom(t.Client, 0), netip.Addr{}
	}
	proto := t.Proto
	if proto == "" {
		proto = "tcp"
	}
	for _, b := range c.Published {
		if target.Direction == netstate.In && netstate.FamilyOf(b.Host) == target.Family && b.Port.Proto == proto {
			target.Port, target.Host = b.Port, netip.AddrPortFrom(b.Host, b.HostPort)
			break
		}
	}
	r, err := NewRequest(s, target, "")
	if err != nil {
		return nil, err
	}
	r.ICMP, r.HTTP, r.lacks = t.ICMP, t.HTTP, t.Lacks
	if t.Timeout > 0 {
		r.Timeout = t.Timeout
	}
	return r, nil
}

const insidePath = "/usr/local/bin/probe.test"

// insideWords is the command line that runs a request inside of a host, with the test binary put there.
func insideWords(t testing.TB, h *lab.Host, request insideRequest) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.Path(insidePath)); err != nil {
		if err := h.Install(t.Context(), self, insidePath); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"env", insideVariable + "=" + string(text), insidePath}
}

// observeIn probes a container of a lab's host.
func observeIn(t testing.TB, h *lab.Host, container string, targets ...insideTarget) insideAnswer {
	t.Helper()
	words := insideWords(t, h, insideRequest{Container: container, Targets: targets})
	out, err := h.Run(t.Context(), words[0], words[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	var answer insideAnswer
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if os.Getenv("NETCHECK_TEST_SHOW") != "" {
		for i, o := range answer.Observations {
			text, _ := json.MarshalIndent(o, "", "  ")
			t.Logf("%s %s", answer.Errors[i], text)
		}
	}
	return answer
}
