//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// flushAll takes all of Docker's rules, and the chains that they are in.
const flushAll = "for t in filter nat raw; do iptables -t $t -F; iptables -t $t -X; done; iptables -P FORWARD DROP"

// TestFix uses --fix and undo as an operator does whose host does not hold still.
func TestFix(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	for _, suite := range ends() {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, lab.Options{Suite: suite, Daemon: noProxy}, path)
			b.web([]string{"-p", "80:80"}, nil)
			for _, c := range []struct {
				name string
				test func(*bench)
			}{
				{"a file says 0", fileSaysZero},
				{"it does not help", notHelped},
				{"half a plan", halfAPlan},
				{"rules of somebody else", foreignRules},
				{"interrupted", interrupted},
				{"killed", killed},
				{"a restart is cut off", restartCutOff},
				{"a restart fails", restartFails},
				{"two at once", twoAtOnce},
				{"while containers start", whileContainersStart},
				{"not root", notRoot},
				{"read-only sysctls", readOnlySysctls},
				{"legacy tables are locked", legacyLocked},
				{"the disk is full", diskFull},
				{"older runs", olderRuns},
				{"another boot", otherBoot},
				{"the container is another", otherContainer},
				{"the engine is another", otherEngine},
			} {
				if suite == lab.Bookworm && c.name == "legacy tables are locked" {
					continue // it takes as long as netcheck waits for the lock
				}
				t.Run(c.name, func(t *testing.T) { c.test(b.in(t)) })
			}
		})
	}
}

// well wants web to be reached, and no run to be left over.
func (b *bench) well() {
	b.t.Helper()
	if got := b.probe("in"); got != "ok" {
		b.t.Errorf("a client: %s", got)
	}
}

// fixes runs --fix --yes and wants it to help.
func (b *bench) fixes(options ...string) *checks.Report {
	b.t.Helper()
	report, exit := b.netcheck(append([]string{"--fix", "--yes", "web"}, options...)...)
	if exit != 0 || report.Fix == nil || !report.Fix.Changed || !report.Fix.Rechecked {
		b.t.Fatalf("--fix: exit status %d, %s\n%s", exit, refusedIn(report), b.stderr)
	}
	b.well()
	return report
}

// undoes takes a run back and wants the host as it was.
func (b *bench) undoes(want string, run ...string) {
	b.t.Helper()
	if out, exit := b.run("docker", append([]string{"netcheck", "undo", "--yes"}, run...)...); exit != 0 {
		b.t.Errorf("undo: exit status %d: %s%s", exit, out, b.stderr)
	}
	b.settles(want)
}

// history returns the runs of the journal.
func (b *bench) history() remediate.History {
	b.t.Helper()
	out, exit := b.run("docker", "netcheck", "history", "--format", "json")
	var runs remediate.History
	if err := json.Unmarshal([]byte(out), &runs); err != nil || exit != 0 {
		b.t.Fatalf("history: exit status %d, %v: %s%s", exit, err, out, b.stderr)
	}
	return runs
}

const sysctlFile = "/etc/sysctl.d/99-hardening.conf"

// fileOf is a file with its mode and owner.
func (b *bench) fileOf(name string) string {
	return b.sh("stat -c '%a %u %g' " + name + "; cat " + name)
}

func fileSaysZero(b *bench) {
	b.sh("printf '# by order of the auditors\\nkernel.sysrq = 0\\n  net.ipv4.ip_forward=0 \\n\\nnet.ipv4.tcp_syncookies = 1' >" + sysctlFile + "; chown 7:9 " + sysctlFile + "; chmod 640 " + sysctlFile + "; " + hardened)
	defer b.sh("rm " + sysctlFile)
	broken, file := b.state(), b.fileOf(sysctlFile)

	out, exit := b.run("docker", "netcheck", "--fix", "--yes", "web")
	if exit != 0 {
		b.t.Fatalf("--fix: exit status %d\n%s%s", exit, out, b.stderr)
	}
	for _, want := range []string{"SET BY  " + sysctlFile + ":3", "until reboot, or for good with --persist", "until reboot: turn IPv4 forwarding on"} {
		if !strings.Contains(out, want) {
			b.t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	if got := b.fileOf(sysctlFile); got != file {
		b.t.Errorf("the file was changed without --persist:\n%s", diff(file, got))
	}
	b.undoes(broken)

	out, exit = b.run("docker", "netcheck", "--fix", "--yes", "--persist", "web")
	if exit != 0 || strings.Contains(out, "until reboot: ") {
		b.t.Errorf("--persist: exit status %d\n%s%s", exit, out, b.stderr)
	}
	if got, want := b.fileOf(sysctlFile), strings.Replace(file, "  net", "#   net", 1); got != want {
		b.t.Errorf("the file with --persist:\n%s", diff(want, got))
	}
	b.well()
	b.undoes(broken)
	if got := b.fileOf(sysctlFile); got != file {
		b.t.Errorf("the file after undo:\n%s", diff(file, got))
	}
	b.fixes()
}

// notHelped has somebody switch forwarding off again and again: that of one link, as the kernel does not
// order two who write the global one, which sets those of all links.
func notHelped(b *bench) {
	b.sh("sysctl -qw net.ipv4.conf.eth0.forwarding=0")
	broken := b.state()
	ctx, stop := context.WithTimeout(b.ctx, 30*time.Second)
	loop := b.host.Command(ctx, "sh", "-c", `echo; f=/proc/sys/net/ipv4/conf/eth0/forwarding
while :; do read -r v <$f; [ "$v" = 0 ] || { i=0; while [ $i -lt 300 ]; do i=$((i+1)); done; echo 0 >$f; }; done`)
	begun, err := loop.StdoutPipe()
	b.must(err)
	b.must(loop.Start())
	defer func() { stop(); loop.Wait(); b.fixes() }()
	if _, err := begun.Read(make([]byte, 1)); err != nil {
		b.t.Fatal(err)
	}
	// A reading may be quick enough to find the fix in place, and the other so quick that it is never seen.
	lucky := 0
	for _, format := range []string{"json", ""} {
		for {
			out, exit := b.run("docker", "netcheck", "--fix", "--yes", "--format", format, "web")
			if lucky < 25 && (exit == 0 || strings.Contains(b.stderr, "nothing was changed")) {
				lucky++
				continue
			}
			report := &checks.Report{}
			switch {
			case exit != 1 || !strings.Contains(b.stderr, "everything was taken back: the fix did not help"):
				b.t.Errorf("%s: exit status %d: %s%s", format, exit, out, b.stderr)
			case format == "" && strings.Count(out, "CAUSE   IPv4 forwarding is off") != 2:
				b.t.Errorf("both reports are not shown:\n%s", out)
			case format == "json":
				if err := json.Unmarshal([]byte(out), report); err != nil || report.Verdict != checks.Fail || report.Fix == nil || report.Fix.Changed ||
					report.Fix.Rechecked || len(report.Fix.Applied) > 0 || report.Fix.Why == "" || len(report.Fix.Tried) == 0 {
					b.t.Errorf("%v: %s", err, out)
				}
			}
			break
		}
	}
	stop()
	loop.Wait()
	b.sh("sysctl -qw net.ipv4.conf.eth0.forwarding=0")
	b.settles(broken)
	for _, run := range b.history() {
		if run.State == remediate.Unfinished {
			b.t.Errorf("run %s: %s", run.ID, run.State)
		}
	}
}

// A cause for which there is no fix: no policy is set for the sake of one container.
const (
	hopelessly = "nft 'add table bridge x; add chain bridge x o { type filter hook output priority 0; policy drop; }'"
	hopefully  = "nft delete table bridge x"
)

// halfAPlan breaks the host twice: once so that it can be put right, and once by a rule of somebody else.
func halfAPlan(b *bench) {
	b.sh(hardened + "; iptables -I DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP")
	broken := b.state()
	if _, exit := b.netcheck("--only", "path", "web"); exit != 1 { // it is shown all that the packet meets
		b.t.Errorf("--only path: exit status %d", exit)
	}
	report, exit := b.netcheck("--fix", "--yes", "web")
	if exit != 1 || report.Fix == nil || len(report.Fix.Refused) == 0 {
		b.t.Errorf("without --allow open: exit status %d, %s", exit, jsonOf(report.Fix))
	}
	if got := strings.TrimSpace(b.sh("sysctl -n net.ipv4.ip_forward")); got != "1" {
		b.t.Errorf("the good fix did not stay: ip_forward = %s", got)
	}
	b.undoes(broken)
	report = b.fixes("--allow", "open")
	b.undoes(broken, report.Fix.Run)

	// A cause without any fix: nothing is made, but what is asked for by name.
	b.sh("iptables -D DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP; " + hopelessly)
	hopeless := b.state()
	report, exit = b.netcheck("--fix", "--yes", "--port", "80/tcp", "web")
	if exit != 1 || report.Fix == nil || report.Fix.Changed || len(report.Fix.Refused) == 0 {
		b.t.Errorf("hopeless: exit status %d, %s", exit, jsonOf(report.Fix))
	}
	b.settles(hopeless)
	report, exit = b.netcheck("--fix", "--yes", "--only", "forwarding", "--port", "80/tcp", "web")
	if exit != 0 || report.Fix == nil || !report.Fix.Changed {
		b.t.Errorf("--only: exit status %d, %s", exit, jsonOf(report.Fix))
	}
	b.sh(hopefully)
	b.well()
}

// foreignRules has rules and policies of somebody else in the way, of each kind, in one or both directions.
func foreignRules(b *bench) {
	// What also stops the replies to all that the host sends is opened for the port alone.
	port := []string{"--port", "80/tcp"}
	for _, c := range []struct {
		add, remove string
		options     []string
	}{
		{"iptables -I DOCKER-USER -j DROP", "iptables -D DOCKER-USER -j DROP", nil},
		{"iptables-legacy -P FORWARD DROP", "iptables-legacy -P FORWARD ACCEPT", nil},
		{"nft 'add table inet x; add chain inet x forward { type filter hook forward priority 0; policy drop; }'", "nft delete table inet x", nil},
		{`nft 'add table inet x; add chain inet x forward { type filter hook forward priority 0; }; add rule inet x forward tcp dport 22 accept; add rule inet x forward iifname "eth0" counter drop'`, "nft delete table inet x", nil},
		{"iptables -t raw -A PREROUTING -p tcp -j DROP", "iptables -t raw -D PREROUTING -p tcp -j DROP", port},
		{"nft 'add table ip x; add chain ip x pre { type filter hook prerouting priority -150; policy drop; }'", "nft delete table ip x", port},
		{`nft 'add table netdev x; add chain netdev x i { type filter hook ingress device eth0 priority 0; }; add rule netdev x i udp dport 53 accept; add rule netdev x i ip protocol tcp counter drop; add rule netdev x i counter accept'`, "nft delete table netdev x", port},
	} {
		b.sh(c.add)
		broken := b.state()
		if report, exit := b.netcheck(append(c.options, "--fix", "--yes", "web")...); exit != 1 || report.Fix == nil || report.Fix.Changed || len(report.Fix.Refused) == 0 {
			b.t.Errorf("%s: without --allow open: exit status %d, %s", c.add, exit, jsonOf(report.Fix))
		}
		report, exit := b.netcheck(append(c.options, "--fix", "--yes", "--allow", "open", "web")...)
		if exit != 0 || report.Fix == nil || !report.Fix.Changed {
			b.t.Errorf("%s: exit status %d, %s\n%s%s", c.add, exit, refusedIn(report), b.stderr, b.text(nil))
		} else {
			b.well()
			b.undoes(broken)
		}
		b.sh(c.remove)
	}
}

// interrupted presses Ctrl-C at some points of a fix, as a terminal does for docker and for the plugin alone.
func interrupted(b *bench) {
	b.sh(flushAll)
	broken := b.state()
	began := time.Now()
	if out, exit := b.run("docker", "netcheck", "--fix", "--yes", "web"); exit != 0 {
		b.t.Fatalf("exit status %d: %s%s", exit, out, b.stderr)
	}
	whole := time.Since(began)
	b.undoes(broken)
	said := 0
	for i := range 8 {
		args := []string{"docker", "netcheck"}
		if i%2 == 1 {
			args = []string{lab.PluginPath}
		}
		out, exit := b.run("timeout", append([]string{"--preserve-status", "-s", "INT", fmt.Sprintf("%.3f", whole.Seconds()*float64(i+1)/9)}, append(args, "--fix", "--yes", "web")...)...)
		switch {
		case strings.Contains(b.stderr, "interrupted: "):
			said++
			if exit != 130 {
				b.t.Errorf("interrupted: exit status %d: %s", exit, b.stderr)
			}
		case exit == 0:
			b.undoes(broken)
		}
		b.settles(broken) // also where docker was interrupted before there was a plugin
		if b.t.Failed() {
			b.t.Fatalf("exit status %d: %s%s", exit, out, b.stderr)
		}
	}
	if said == 0 {
		b.t.Error("none of them was interrupted")
	}
	b.fixes()
}

// killed kills the program at random points of a fix; undo then restores everything.
func killed(b *bench) {
	b.sh(flushAll)
	broken := b.state()
	start := time.Now()
	b.run(lab.PluginPath, "--fix", "--yes", "web")
	whole := time.Since(start)
	b.undoes(broken)
	random := rand.New(rand.NewPCG(5, 12))
	cut := 0
	for range 6 {
		after := whole/5 + time.Duration(random.Int64N(int64(whole)*4/5))
		b.run("timeout", "-s", "KILL", fmt.Sprintf("%.3f", after.Seconds()), lab.PluginPath, "--fix", "--yes", "web")
		runs := b.history()
		state := runs[len(runs)-1].State
		switch state {
		case remediate.Unfinished:
			cut++
			// 0: it was cut off behind its last change, and nothing is left to fix.
			if _, exit := b.run("docker", "netcheck", "--fix", "--yes", "web"); exit != 0 && (exit != 125 || !strings.Contains(b.stderr, "undo it first")) {
				b.t.Errorf("--fix after a run that was cut off: exit status %d", exit)
			}
			fallthrough
		case remediate.Applied:
			if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 0 {
				b.t.Fatalf("undo after %v, a run that is %s: exit status %d: %s%s", after, state, exit, out, b.stderr)
			}
		}
		b.settles(broken)
		if b.t.Failed() {
			b.t.Fatalf("killed after %v: %s", after, state)
		}
	}
	b.t.Logf("%d of 6 were cut off in the middle", cut)
	b.fixes()
}

// twoAtOnce runs --fix twice side by side.
func twoAtOnce(b *bench) {
	programmed := ownRules(b.state())
	for range 2 {
		b.sh(flushAll)
		type end struct {
			out  string
			exit int
		}
		ends := make(chan end, 2)
		for range 2 {
			go func() {
				cmd := b.host.Command(b.ctx, "docker", "netcheck", "--fix", "--yes", "--format", "json", "web")
				out, _ := cmd.Output()
				ends <- end{string(out), cmd.ProcessState.ExitCode()}
			}()
		}
		changed := 0
		for range 2 {
			end := <-ends
			report := &checks.Report{}
			if err := json.Unmarshal([]byte(end.out), report); err != nil {
				b.t.Fatalf("exit status %d: %v: %s", end.exit, err, end.out)
			}
			if report.Fix != nil && report.Fix.Changed {
				changed++
			}
			if end.exit != 0 && (end.exit != 1 || report.Fix == nil || report.Fix.Why == "") {
				b.t.Errorf("exit status %d: %s", end.exit, jsonOf(report.Fix))
			}
		}
		if changed != 1 {
			b.t.Errorf("%d of them changed the host", changed)
		}
		if got := ownRules(b.state()); got != programmed {
			b.t.Errorf("a rule is lost or doubled:\n%s", diff(programmed, got))
		}
		b.well()
	}
}

// whileContainersStart fixes while the engine programs rules of its own.
func whileContainersStart(b *bench) {
	for i := range 2 {
		b.sh("iptables -t nat -F; iptables -F; iptables -P FORWARD DROP")
		ctx, stop := context.WithTimeout(b.ctx, time.Minute)
		loop := b.host.Command(ctx, "sh", "-c", fmt.Sprintf("for n in 1 2 3; do docker run -d --name c%d$n -p 9%d0$n:80 bb:1 sleep 999 || exit; done", i, i))
		b.must(loop.Start())
		for range 4 { // what changes meanwhile is refused, and tried again as an operator would
			if report, exit := b.netcheck("--fix", "--yes", "web"); exit == 0 && (report.Fix == nil || !report.Fix.Changed) {
				break
			}
		}
		if err := loop.Wait(); err != nil {
			b.t.Errorf("the engine could not start a container: %v", err)
		}
		stop()
		b.netcheck("--fix", "--yes", "web")
		lines := map[string]int{}
		table := ""
		for line := range strings.Lines(b.sh("iptables-save")) {
			if strings.HasPrefix(line, "*") {
				table = line
			}
			if strings.HasPrefix(line, "-A") {
				lines[table+line]++
			}
		}
		for line, n := range lines {
			if n > 1 {
				b.t.Errorf("%d times: %s", n, line)
			}
		}
		b.well()
		if report, exit := b.netcheck("--all"); exit != 0 {
			for _, target := range report.Targets {
				if target.Status == checks.Fail && target.Cause.Check != "listening" {
					b.t.Errorf("%s: %s", checks.Name(target.Target), jsonOf(target.Cause))
				}
			}
		}
	}
	b.sh("docker rm -f $(docker ps -aq --filter name=^c) >/dev/null")
}

func notRoot(b *bench) {
	b.sh(hardened)
	broken := b.state()
	out, exit := b.run("env", "HOME=/tmp", "setpriv", "--reuid=65534", "--regid=65534", "--groups="+b.group("docker"), "docker", "netcheck", "--agent", "never", "--fix", "--yes", "web")
	if exit != 125 && exit != 1 || !strings.Contains(b.stderr, "nothing was changed") || !strings.Contains(b.stderr, "permission denied") && !strings.Contains(b.stderr, "root") {
		b.t.Errorf("exit status %d: %s%s", exit, out, b.stderr)
	}
	b.settles(broken)
	b.fixes()
}

func readOnlySysctls(b *bench) {
	b.sh(hardened)
	broken := b.state()
	b.sh("mount -o bind,ro /proc/sys /proc/sys")
	report, exit := b.netcheck("--fix", "--yes", "web")
	if exit != 1 || report.Fix == nil || report.Fix.Changed || !strings.Contains(report.Fix.Why, "read-only") {
		b.t.Errorf("exit status %d: %s%s", exit, jsonOf(report.Fix), b.stderr)
	}
	b.sh("umount /proc/sys")
	b.settles(broken)
	b.fixes()
}

func legacyLocked(b *bench) {
	b.sh("iptables-legacy -I FORWARD -i eth0 -p tcp --dport 80 -j DROP")
	broken := b.state()
	ctx, stop := context.WithTimeout(b.ctx, time.Minute)
	defer stop()
	holder := b.host.Command(ctx, "flock", "/run/xtables.lock", "sh", "-c", "echo; sleep 60")
	held, err := holder.StdoutPipe()
	b.must(err)
	b.must(holder.Start())
	if _, err := held.Read(make([]byte, 1)); err != nil {
		b.t.Fatal(err)
	}
	report, exit := b.netcheck("--fix", "--yes", "--allow", "open", "--port", "80/tcp", "web")
	if exit == 0 || report.Fix != nil && report.Fix.Changed {
		b.t.Errorf("exit status %d: %s%s", exit, jsonOf(report.Fix), b.stderr)
	}
	b.t.Logf("exit status %d: %s", exit, b.stderr)
	stop()
	holder.Wait()
	b.settles(broken)
	b.fixes("--allow", "open", "--port", "80/tcp")
	b.undoes(broken)
	b.sh("iptables-legacy -D FORWARD -i eth0 -p tcp --dport 80 -j DROP")
}

// olderRuns undoes a run behind which another stands.
func olderRuns(b *bench) {
	b.sh(hardened)
	broken := b.state()
	first := b.fixes().Fix.Run
	b.sh(`iptables -I DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP`)
	second := b.fixes("--allow", "open").Fix.Run
	b.sh(hardened)
	third := b.fixes().Fix.Run
	if out, exit := b.run("docker", "netcheck", "undo", "--yes", first); exit != 1 || !strings.Contains(b.stderr, "run "+third) || !strings.Contains(b.stderr, "ip_forward") {
		b.t.Errorf("undo of a run that a later one overlaps: exit status %d: %s%s", exit, out, b.stderr)
	}
	// The run between them overlaps with neither.
	if out, exit := b.run("docker", "netcheck", "undo", "--yes", second); exit != 0 {
		b.t.Errorf("undo of an older run: exit status %d: %s%s", exit, out, b.stderr)
	}
	b.sh(`iptables -D DOCKER-USER -i eth0 -p tcp --dport 80 -j DROP`)
	for _, run := range []string{third, first} {
		if out, exit := b.run("docker", "netcheck", "undo", "--yes", run); exit != 0 {
			b.t.Errorf("undo %s: exit status %d: %s%s", run, exit, out, b.stderr)
		}
	}
	b.settles(broken)
	if out, exit := b.run("docker", "netcheck", "undo", "--yes", first); exit != 1 || !strings.Contains(b.stderr, "undone already") {
		b.t.Errorf("undo twice: exit status %d: %s%s", exit, out, b.stderr)
	}
	b.fixes()
	table, _ := b.run("docker", "netcheck", "history")
	for _, run := range b.history() {
		if !strings.Contains(table, run.ID) || len(run.Titles) == 0 {
			b.t.Errorf("run %s is not in the table:\n%s", run.ID, table)
		}
	}
	if report, exit := b.netcheck("--live", "web"); exit != 0 {
		b.t.Logf("--live: exit status %d, %s", exit, jsonOf(report.Targets[0].Live))
	}
	if out, _ := b.run("docker", "netcheck", "history"); strings.Contains(out, "live probe") {
		b.t.Errorf("a live probe that is over stands in the table:\n%s", out)
	}
}

func otherContainer(b *bench) {
	b.inject(`nsenter -t $WEBPID -n ip route del default`)
	b.fixes()
	b.sh("docker restart -t 0 web >/dev/null")
	now := b.state()
	if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 1 || !strings.Contains(b.stderr, "not undone") {
		b.t.Errorf("exit status %d: %s%s", exit, out, b.stderr)
	}
	b.settles(now)
}

func otherEngine(b *bench) {
	b.sh(flushAll)
	b.fixes()
	b.must(b.host.RestartDockerd(b.ctx))
	b.sh("docker start web >/dev/null")
	now := b.state()
	if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 1 || !strings.Contains(b.stderr, "engine: was") {
		b.t.Errorf("exit status %d: %s%s", exit, out, b.stderr)
	}
	b.settles(now)
}
