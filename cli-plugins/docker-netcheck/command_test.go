//go:build linux

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestCommand uses the command as people and scripts do, on one real engine.
func TestCommand(t *testing.T) {
	b := newBench(t, lab.Options{}, buildPlugin(t))
	b.web([]string{"-p", "80:80"}, nil)
	healthy := b.state()

	for _, c := range []struct {
		name           string
		args           []string
		exit           int
		stdout, stderr string // a part of it; "-" for nothing at all
	}{
		{"well", []string{"netcheck", "web"}, 0, "nothing on this host stops it", "-"},
		{"quiet and well", []string{"netcheck", "-q", "web"}, 0, "-", "-"},
		{"no such container", []string{"netcheck", "nowhere"}, 125, "-", "no such container: nowhere"},
		{"a hostile name", []string{"netcheck", "--", "a\x1b[2Jb"}, 125, "-", `a\x1b[2Jb`},
		{"a container called like a command", []string{"netcheck", "--", "undo"}, 125, "-", "no such container: undo"},
		{"nothing to undo", []string{"netcheck", "undo", "--yes"}, 1, "-", "nothing to undo"},
		{"no history", []string{"netcheck", "history"}, 0, "RUN", "-"},
		{"by its ID", []string{"netcheck", b.id("web")}, 0, "web 80/tcp", "-"},
		{"all", []string{"netcheck", "--all"}, 0, "web 80/tcp", "-"},
		{"filter", []string{"netcheck", "--filter", "name=web"}, 0, "web 80/tcp", "-"},
		{"a template", []string{"netcheck", "--format", "{{.Container}} {{.Direction}} {{.Status}}", "web"}, 0, "web in pass\nweb out pass\n", "-"},
		{"a bad template", []string{"netcheck", "--format", "{{.Nothing}}", "web"}, 125, "-", "--format"},
		{"only one check", []string{"netcheck", "-v", "--only", "forwarding", "web"}, 0, "✓ forwarding", "-"},
		{"trace", []string{"netcheck", "trace", "web"}, 0, "dnat to 172.17.0.2:80", "-"},
		{"an interface that is not there", []string{"netcheck", "--iface", "eth9", "web"}, 125, "-", "eth9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, exit := b.run("docker", c.args...)
			if exit != c.exit {
				t.Errorf("exit status %d, want %d", exit, c.exit)
			}
			holds(t, "stdout", out, c.stdout)
			holds(t, "stderr", b.stderr, c.stderr)
		})
	}
	if after := b.state(); after != healthy {
		t.Fatalf("asking changed the host:\n%s", diff(healthy, after))
	}

	b.inject(hardened)
	broken := b.state()
	t.Run("alone", func(t *testing.T) {
		out, exit := b.run(lab.PluginPath, "web")
		if exit != 1 {
			t.Errorf("exit status %d: %s", exit, b.stderr)
		}
		holds(t, "stdout", out, "sysctl net.ipv4.ip_forward")
	})
	t.Run("names of those that fail", func(t *testing.T) {
		if out, exit := b.run("docker", "netcheck", "-q", "web"); out != "web\n" || exit != 1 {
			t.Errorf("exit status %d, stdout %q", exit, out)
		}
	})
	t.Run("no terminal and no --yes", func(t *testing.T) {
		out, exit := b.run("docker", "netcheck", "--fix", "web")
		if exit != 1 {
			t.Errorf("exit status %d", exit)
		}
		holds(t, "stdout", out, "sysctl net.ipv4.ip_forward\n-0\n+1\n")
		holds(t, "stderr", b.stderr, "nothing was changed")
	})
	t.Run("dry run", func(t *testing.T) {
		out, exit := b.run("docker", "netcheck", "--dry-run", "--format", "json", "web")
		var report struct {
			Plan struct{ Diff string }
			Fix  any
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil || exit != 1 || report.Plan.Diff != "sysctl net.ipv4.ip_forward\n-0\n+1\n" || report.Fix != nil {
			t.Errorf("exit status %d, %v: %s", exit, err, out)
		}
	})
	t.Run("without root", func(t *testing.T) {
		out, exit := b.run("env", "HOME=/tmp", "setpriv", "--reuid=65534", "--regid=65534", "--groups="+b.group("docker"), "docker", "netcheck", "--agent", "never", "web")
		// Forwarding can be read by anybody, so the cause is still found; nothing unread passes.
		if exit != 1 {
			t.Errorf("exit status %d, stderr %s", exit, b.stderr)
		}
		holds(t, "stdout", out, "sysctl net.ipv4.ip_forward")
		holds(t, "stdout", out, "UNKNOWN")
		holds(t, "stdout", out, "root")
	})
	if after := b.state(); after != broken {
		t.Errorf("asking changed the host:\n%s", diff(broken, after))
	}

	t.Run("twice", func(t *testing.T) {
		for i, changed := range []bool{true, false} {
			report, exit := b.netcheck("--fix", "--yes", "web")
			if exit != 0 || report.Fix != nil && report.Fix.Changed != changed || report.Fix == nil && changed {
				t.Errorf("run %d: exit status %d, fix %s", i+1, exit, jsonOf(report.Fix))
			}
		}
	})
	t.Run("without root on a healthy host", func(t *testing.T) {
		_, exit := b.run("env", "HOME=/tmp", "setpriv", "--reuid=65534", "--regid=65534", "--groups="+b.group("docker"), "docker", "netcheck", "--agent", "never", "web")
		if exit != 2 {
			t.Errorf("exit status %d, want 2: what could not be read is never well", exit)
		}
	})
	t.Run("history", func(t *testing.T) {
		out, _ := b.run("docker", "netcheck", "history")
		holds(t, "stdout", out, "turn IPv4 forwarding on")
	})
}

// holds compares what was printed with the part of it that is expected.
func holds(t *testing.T, what, got, want string) {
	t.Helper()
	if want == "-" && got != "" || want != "-" && !strings.Contains(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (b *bench) id(name string) string {
	b.t.Helper()
	id, err := b.host.Inspect(b.ctx, name, "{{.Id}}")
	b.must(err)
	return id
}

// group is the number of a group of the host.
func (b *bench) group(name string) string {
	b.t.Helper()
	line, err := b.host.Run(b.ctx, "getent", "group", name)
	b.must(err)
	return strings.Split(line, ":")[2]
}
