//go:build linux

package main

import (
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// restartCutOff presses Ctrl-C, and kills the program, in the middle of a restart that takes three seconds: the
// container runs again all the same, and what cannot be taken back is named.
func restartCutOff(b *bench) {
	b.sh(`docker run -d --name slow --stop-timeout 3 bb:1 sh -c 'trap "" TERM; while :; do sleep 1; done'`)
	defer b.sh("docker rm -f slow >/dev/null")
	started := func() string { return b.sh("docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' slow") }
	fix := func(signal string) int {
		b.sh("nsenter -t $(docker inspect -f '{{.State.Pid}}' slow) -n ip link del eth0")
		_, exit := b.run("timeout", "--preserve-status", "-s", signal, "2", lab.PluginPath, "--fix", "--yes", "--allow", "disrupt", "slow")
		return exit
	}
	last := func() remediate.Run {
		runs := b.history()
		return runs[len(runs)-1]
	}
	const stays = "container slow: not undone: it cannot be taken back"

	before := started()
	if exit := fix("INT"); exit != 130 || !strings.Contains(b.stderr, "interrupted: all that can be was taken back") || !strings.Contains(b.stderr, stays) {
		b.t.Errorf("Ctrl-C: exit status %d: %s", exit, b.stderr)
	}
	if run := last(); run.State != remediate.RolledBack || len(run.Refused) != 1 {
		b.t.Errorf("Ctrl-C left a run that is %s, %s", run.State, jsonOf(run.Refused))
	}
	now := started()
	if now == before || !strings.HasPrefix(now, "true") {
		b.t.Errorf("the container: before %s, now %s", before, now)
	}

	fix("KILL")
	if run := last(); run.State != remediate.Unfinished {
		b.t.Errorf("kill -9 left a run that is %s", run.State)
	}
	if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 1 || !strings.Contains(b.stderr, stays) {
		b.t.Errorf("undo: exit status %d: %s%s", exit, out, b.stderr)
	}
	b.sh(`for i in $(seq 100); do [ "$(docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' slow)" != "` + strings.TrimSpace(now) + `" ] && break; sleep .1; done`)
	if got := started(); got == now || !strings.HasPrefix(got, "true") {
		b.t.Errorf("kill -9: the container: before %s, now %s", now, got)
	}
}

// restartFails has a container whose restart the engine refuses in the middle: a directory that it mounts is gone.
// It does not run then, and nobody is told that nothing was changed.
func restartFails(b *bench) {
	b.sh("mkdir /tmp/frail && docker run -d --name frail --stop-timeout 0 --mount type=bind,src=/tmp/frail,dst=/frail bb:1 sleep 1000")
	defer b.sh("docker rm -f frail >/dev/null; rm -rf /tmp/frail")
	const cut = "nsenter -t $(docker inspect -f '{{.State.Pid}}' frail) -n ip link del eth0"
	const stands = "all that can be was taken back: container frail: "
	down := func() {
		b.t.Helper()
		if running := strings.TrimSpace(b.sh("docker inspect -f '{{.State.Running}}' frail")); running != "false" {
			b.t.Errorf("the restart did not fail: running is %s", running)
		}
	}

	b.sh(cut + "; rmdir /tmp/frail; sysctl -qw net.ipv4.ip_forward=0")
	defer b.sh("sysctl -qw net.ipv4.ip_forward=1")
	report, exit := b.netcheck("--fix", "--yes", "--allow", "disrupt", "frail", "web")
	if exit != 1 || report.Fix == nil || !report.Fix.Changed || !strings.HasPrefix(report.Fix.Why, stands) || !strings.Contains(b.stderr, stands) {
		b.t.Errorf("--fix: exit status %d, %s\n%s", exit, jsonOf(report.Fix), b.stderr)
	}
	if report.Fix != nil && (len(report.Fix.Applied) != 1 || report.Fix.Applied[0].Kind != "container" || len(report.Plan.Steps) < 2) {
		b.t.Errorf("all but the restart is taken back: %s", jsonOf(report.Fix.Applied))
	}
	if len(report.Targets) == 0 || len(report.Targets[0].Causes) == 0 || report.Targets[0].Causes[0].Check != "running" {
		b.t.Errorf("the report is not of the host as it is left: %s", jsonOf(report.Targets))
	}
	down()

	b.sh("mkdir /tmp/frail && docker start frail && " + cut)
	b.run("docker", "netcheck", "--plan", "/tmp/frail.plan", "--allow", "disrupt", "frail")
	b.sh("rmdir /tmp/frail")
	if out, exit := b.run("docker", "netcheck", "--apply", "/tmp/frail.plan", "--yes", "--allow", "disrupt"); exit != 1 || !strings.Contains(b.stderr, stands) {
		b.t.Errorf("--apply: exit status %d: %s%s", exit, out, b.stderr)
	}
	down()
}
