//go:build linux

package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestFlush flushes Docker's tables on real engines: the fix brings back what the engine itself had
// programmed, and undo the flushed tables.
func TestFlush(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	for _, suite := range ends() {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			testFlush(t, suite, path)
		})
	}
}

// ends are the oldest and the newest engine; all of them with NETCHECK_TEST_ALL=1.
func ends() []string {
	if os.Getenv("NETCHECK_TEST_ALL") != "" {
		return lab.Suites()
	}
	return []string{lab.Bookworm, lab.Forky}
}

func testFlush(t *testing.T, suite, path string) {
	options := lab.Options{Suite: suite, IPv6: true, Daemon: map[string]any{"userland-proxy": false}}
	dual := []string{"--network", "dual", "-p", "80:80"}
	network := `docker network create --ipv6 --subnet fd00:aa::/64 dual`
	commands := []string{"iptables", "ip6tables"}
	if suite != lab.Forky { // up to 26 ip6tables is an experiment
		options.Daemon["experimental"], options.Daemon["ip6tables"] = true, true
	}
	b := newBench(t, options, path)
	b.must(b.host.ImportImage(b.ctx))
	b.sh(network + "; docker network create other; docker run -d --name other --network other -p 8081:80 bb:1 sleep 9999")
	b.web(dual, []string{"httpd", "-f", "-p", "[::]:80", "-h", "/www"})
	b.sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
	programmed := ownRules(b.state())

	for _, c := range []struct{ name, flush string }{
		{"filter", "CMD -F"},
		{"nat", "CMD -t nat -F"},
		{"raw", "CMD -t raw -F"},
		{"all", "for t in filter nat raw; do CMD -t $t -F; CMD -t $t -X; done"},
		{"ruleset", "nft flush ruleset; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := b.in(t)
			for _, command := range commands {
				b.sh(strings.ReplaceAll(c.flush, "CMD", command))
			}
			broken := b.state()
			if ownRules(broken) == programmed {
				t.Skip("this engine has nothing there")
			}
			report, exit := b.netcheck("--fix", "--yes", "web")
			if exit != 0 {
				t.Fatalf("--fix: exit status %d, %s\n%s", exit, refusedIn(report), b.stderr)
			}
			if got := ownRules(b.state()); got != programmed {
				t.Errorf("not what the engine had programmed:\n%s", diff(programmed, got))
			}
			for _, way := range []string{"in", "in6"} {
				if got := b.probe(way); got != "ok" {
					t.Errorf("%s: %s", way, got)
				}
			}
			if report.Fix == nil || !report.Fix.Changed {
				return // it warned, and nothing had to be changed
			}
			if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 0 {
				t.Errorf("undo: exit status %d: %s%s", exit, out, b.stderr)
			}
			b.settles(broken)
			if _, exit := b.netcheck("--fix", "--yes", "web"); exit != 0 {
				t.Errorf("--fix after undo: exit status %d\n%s", exit, b.stderr)
			}
			if report, exit := b.netcheck("--fix", "--yes", "web"); exit != 0 || report.Fix != nil && report.Fix.Changed {
				t.Errorf("--fix twice: exit status %d, %s", exit, jsonOf(report.Fix))
			}
		})
	}
}

// ownRules returns the rules of a host's state, without those of the legacy variant, in an order that does
// not depend on when they were made: table by table, the lines of each sorted. Where the order matters,
// clients tell.
func ownRules(state string) string {
	var out strings.Builder
	var lines []string
	flush := func() {
		slices.Sort(lines)
		for _, line := range lines {
			out.WriteString(line + "\n")
		}
		lines = nil
	}
	in := false
	for line := range strings.Lines(state) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "# "):
			flush()
			in = strings.HasSuffix(line, "tables-nft-save")
			if in {
				out.WriteString(line + "\n")
			}
		case !in:
		case strings.HasPrefix(line, "*"):
			flush()
			out.WriteString(line + "\n")
		case line != "COMMIT" && line != "":
			lines = append(lines, line)
		}
	}
	flush()
	return out.String()
}

// sh runs a script in the host, which must succeed, and returns what it printed.
func (b *bench) sh(script string) string {
	b.t.Helper()
	out, err := b.host.Sh(b.ctx, script)
	b.must(err)
	return out
}

// in returns the bench for a subtest.
func (b *bench) in(t testing.TB) *bench {
	c := *b
	c.t = t
	return &c
}

// refusedIn returns what a report refused to fix, and why.
func refusedIn(r *checks.Report) string {
	if r.Fix == nil {
		return "nothing was to be fixed"
	}
	return r.Fix.Why + " " + jsonOf(r.Fix.Refused)
}
