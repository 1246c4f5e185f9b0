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
