//go:build linux

package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
)

// inbound says which ways are those of a client to a published port.
var inbound = map[string]bool{"in": true, "near": true, "in6": true, "host": true, "localhost": true}

// unprovable says of which faults there is nothing to send a packet to or by.
var unprovable = map[string]string{
	"uplink-down":         "link eth0 is down: no client's packet comes in there",
	"not-published":       "80/tcp is not published on a port of the host",
	"gateway-mode-routed": "80/tcp is not published on a port of the host",

	"ctr-paused":              "one connection says nothing of what fails: the socket answered: SYN/ACK",
	"published-loopback-only": "no client outside connects to 127.0.0.1",
}

// TestLiveFaults makes a live connection to each port that a fault keeps clients from: it ends where the
// prediction says, and at the hop of the cause. A part of the faults is tried, by rotation, and all of them
// on all engines with NETCHECK_TEST_ALL=1.
func TestLiveFaults(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	number := 0
	for _, f := range allFaults() {
		if !inbound[f.way] || f.status != "" || slices.Contains(f.args, "--host") {
			continue
		}
		number++
		if os.Getenv("NETCHECK_TEST_ALL") == "" && number%6 != 1 {
			continue
		}
		for _, suite := range suitesOf(f.suites, number/6) {
			t.Run(f.name+"/"+suite, func(t *testing.T) {
				t.Parallel()
				f.live(t, suite, path)
			})
		}
	}
}

func (f fault) live(t *testing.T, suite, path string) {
	b := f.host(t, suite, path)
	args := f.args
	if args == nil {
		args = []string{"web"}
	}
	out, _ := b.run("docker", append([]string{"netcheck", "trace", "--live", "--format", "json"}, args...)...)
	var report struct {
		Traces []struct {
			Target netstate.Target
			Stops  []struct {
				Hop         packet.Hop
				Object, Why string
			}
		}
		Live         []*checks.Live
		Observations []*probe.Observation
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s%s", err, out, b.stderr)
	}
	tried := 0
	for i, trace := range report.Traces {
		if trace.Target.Direction != netstate.In {
			continue
		}
		tried++
		live := report.Live[i]
		t.Logf("%s: %s: %s (last %s)", checks.Name(trace.Target), live.Result, live.Why, live.Last)
		o := report.Observations[i]
		if why := unprovable[f.name]; why != "" {
			if live.Result != probe.Unproved || live.Why != why {
				t.Errorf("should be unproved: %s", why)
			}
			continue
		}
		if live.Result != probe.Proved {
			t.Errorf("%s is %s: %s\nthe walk: %s\nseen: %s", checks.Name(trace.Target), live.Result, live.Why, jsonOf(trace.Stops), o)
			continue
		}
		if len(trace.Stops) == 0 || trace.Stops[0].Hop.IsReply() || strings.HasPrefix(trace.Stops[0].Object, "neigh ") { // a bridge floods what is for nobody
			continue
		}
		for _, c := range o.Copies {
			if stop := slices.Index(packet.Hops, trace.Stops[0].Hop); !c.Hop.IsReply() && slices.Index(packet.Hops, c.Hop) > stop {
				t.Errorf("%s: seen at %s, beyond %s: %s", checks.Name(trace.Target), c.Hop, trace.Stops[0].Hop, c.Text)
			}
		}
	}
	if tried == 0 {
		t.Error("no port was tried")
	}
}

// TestLiveHealthy makes a whole handshake from everywhere, and out of the container, on a host where all is
// well, and after a fix: that is its proof.
func TestLiveHealthy(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	for _, suite := range lab.Suites() {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, lab.Options{Suite: suite, IPv6: true, Firewalld: suite == lab.Trixie}, path)
			b.web([]string{"-p", "80:80"}, nil)
			if suite == lab.Trixie { // IPv6 clients come to docker-proxy, which the zone has to let in
				_, err := b.host.Sh(b.ctx, "firewall-cmd -q --add-port=80/tcp")
				b.must(err)
			}
			for _, args := range [][]string{{"--live", "web"}, {"--live", "--client", "host", "web"}, {"--live", "--client", "localhost", "web"}} {
				if report, exit := b.netcheck(args...); exit != 0 || !proved(report) {
					t.Errorf("%v: exit status %d: %s", args, exit, b.text(args))
				}
			}
			b.inject(hardened)
			report, exit := b.netcheck("--fix", "--yes", "--live", "web")
			if exit != 0 || report.Fix == nil || !report.Fix.Changed || !report.Fix.Proved {
				t.Errorf("--fix --live: exit status %d, %s\n%s", exit, jsonOf(report.Fix), b.stderr)
			}
			b.inject("docker pause web")
			report, exit = b.netcheck("--live", "web")
			if live := report.Targets[0].Live; exit != 1 || live.Result != probe.Unproved || !strings.Contains(live.Why, "SYN/ACK") {
				t.Errorf("a paused container answers, and fails: exit status %d, %s", exit, jsonOf(live))
			}
			runs, _ := b.run("docker", "netcheck", "history")
			if n := strings.Count(runs, "\n"); n != 2 || strings.Contains(runs, agent.ProbeTitle) {
				t.Errorf("history is more than the one fix:\n%s", runs)
			}
		})
	}
}
