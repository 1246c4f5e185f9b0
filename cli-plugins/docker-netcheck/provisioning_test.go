//go:build linux

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestProvisioning runs what docs/provisioning.md shows, twice in a row each.
func TestProvisioning(t *testing.T) {
	lab.Need(t)
	page, err := os.ReadFile("../../docs/provisioning.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(page, -1)
	if len(scripts) != 2 {
		t.Fatalf("docs/provisioning.md: there are %d shell scripts, want 2", len(scripts))
	}
	b := newBench(t, lab.Options{Suite: lab.Forky, Daemon: noProxy}, buildPlugin(t))
	b.web([]string{"-p", "80:80"}, nil)
	b.must(b.host.WriteFile(b.ctx, "/root/provision", string(scripts[0][1])))
	b.must(b.host.WriteFile(b.ctx, "/root/reviewed", string(scripts[1][1])))
	b.must(b.host.WriteFile(b.ctx, sysctlFile, "net.ipv4.ip_forward = 0\n"))

	t.Run("shell", func(t *testing.T) {
		b := b.in(t)
		b.sh(flushAll + "; " + hardened)
		for _, want := range []string{"changed\n", "unchanged\n", "unchanged\n"} {
			if out, exit := b.run("sh", "/root/provision"); out != want || exit != 0 {
				t.Errorf("exit status %d: %s%s, want %s", exit, out, b.stderr, want)
			}
		}
		b.well()
		// What no fix is known for ends with its status and the report.
		b.sh(hopelessly)
		if out, exit := b.run("sh", "/root/provision"); exit != 1 || out != "" || !strings.Contains(b.stderr, checks.ReportSchema) {
			t.Errorf("exit status %d: %s%s", exit, out, b.stderr)
		}
		b.sh(hopefully)
	})

	t.Run("reviewed", func(t *testing.T) {
		b := b.in(t)
		b.sh(flushAll + "; " + hardened)
		broken := b.state()
		if _, exit := b.run("docker", "netcheck", "--all", "--plan", "/root/plan.json"); exit != 1 {
			t.Errorf("--plan: exit status %d: %s", exit, b.stderr)
		}
		b.settles(broken)
		b.sh("sysctl -qw net.ipv4.conf.eth0.rp_filter=1") // what the plan is not about may change
		for range 2 {
			if out, exit := b.run("sh", "/root/reviewed", "/root/plan.json"); exit != 0 {
				t.Errorf("exit status %d: %s%s", exit, out, b.stderr)
			}
		}
		b.well()
		b.sh("sysctl -qw net.ipv4.conf.eth0.rp_filter=0")
		b.undoes(broken)
		// The engine is not the one that it was made for: nothing is made.
		b.must(b.host.RestartDockerd(b.ctx))
		b.sh("docker start web >/dev/null; " + hardened)
		other := b.state()
		if out, exit := b.run("sh", "/root/reviewed", "/root/plan.json"); exit != 1 || !strings.Contains(b.stderr, "nothing was changed: ") || !strings.Contains(b.stderr, "changed since it was read: engine: was") {
			t.Errorf("a plan that does not fit: exit status %d: %s%s", exit, out, b.stderr)
		}
		b.settles(other)
	})

	t.Run("ansible", func(t *testing.T) {
		b := b.in(t)
		b.sh(flushAll + "; " + hardened)
		broken := b.state()
		for i, run := range []struct{ check, changed bool }{{true, true}, {true, true}, {false, true}, {true, false}, {false, false}} {
			if changed, failed := b.task(run.check); failed || changed != run.changed {
				t.Errorf("run %d, check mode %v: changed %v, failed %v; %s", i, run.check, changed, failed, b.stderr)
			}
			if run.check && run.changed {
				if now := b.state(); now != broken {
					t.Errorf("check mode changed the host:\n%s", diff(broken, now))
				}
			}
		}
		b.well()
	})
}

// task does what Ansible does with the task of docs/provisioning.md.
func (b *bench) task(checkMode bool) (changed, failed bool) {
	b.t.Helper()
	args := []string{"--fix", "--yes", "--persist"}
	well := []int{0}
	if checkMode {
		args, well = []string{"--dry-run"}, []int{0, 1}
	}
	report, exit := b.netcheck(append([]string{"--all"}, args...)...)
	switch {
	case exit != 0 && exit != 1:
	case checkMode:
		changed = len(report.Plan.Steps) > 0
	default:
		changed = report.Fix.Changed
	}
	return changed, !slices.Contains(well, exit)
}
