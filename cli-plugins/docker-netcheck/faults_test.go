package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	udiff "github.com/aymanbagabas/go-udiff"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A fault is one way to break a healthy host, and what netcheck has to say of it.
type fault struct {
	name    string
	suites  []string    // where it can be made; default bookworm and forky
	options lab.Options // of the host
	run     []string    // docker run options of web; default -p 80:80
	command []string    // of web; default a web server on port 80
	inject  string      // shell script in the host; $WEBPID, $WEBIP and $VETH are set
	args    []string    // of netcheck; default web

	way    string // what fails: "in" from the far client, "out" from the container; "" neither
	status checks.Status
	check  string // of the cause of the target in that direction
	object string // of the cause: a regular expression, for all of it
	fixed  bool   // --fix --yes puts it right
	allow  string // --allow that the fix needs
}

const hardened = `sysctl -qw net.ipv4.ip_forward=0`

var faults = []fault{
	{name: "forwarding-off", inject: hardened, options: lab.Options{Firewalld: true},
		way: "in", check: "forwarding", object: `sysctl net\.ipv4\.ip_forward`, fixed: true},
	{name: "forwarding-off-out", inject: hardened,
		way: "out", check: "forwarding", object: `sysctl net\.ipv4\.ip_forward`, fixed: true},
	{name: "forwarding-off-uplink", inject: `sysctl -qw net.ipv4.conf.eth0.forwarding=0`,
		way: "in", check: "forwarding", object: `sysctl net\.ipv4\.conf\.eth0\.forwarding`, fixed: true},
	{name: "forwarding-off-bridge", inject: `sysctl -qw net.ipv4.conf.docker0.forwarding=0`,
		way: "in", check: "forwarding", object: `sysctl net\.ipv4\.conf\.docker0\.forwarding`, fixed: true},
	{name: "bridge-down", inject: `ip link set docker0 down`,
		way: "in", check: "bridge", object: `link docker0`, fixed: true},
	{name: "veth-down", inject: `ip link set $VETH down`,
		way: "in", check: "veth", object: `link veth\w+`, fixed: true},
	{name: "veth-nomaster", inject: `ip link set $VETH nomaster`,
		way: "in", check: "veth", object: `link veth\w+`, fixed: true},
	{name: "interface-down", inject: `nsenter -t $WEBPID -n ip link set eth0 down`,
		way: "in", check: "namespace", object: `link eth0 in container web`, fixed: true},
	{name: "paused", inject: `docker pause web`,
		check: "running", object: `container web`},
	{name: "published-loopback", run: []string{"-p", "127.0.0.1:80:80"}, args: []string{"--client", lab.FarAddr, "web"},
		way: "in", check: "published", object: `container web`},
	{name: "wrong-container-port", run: []string{"-p", "80:81"},
		way: "in", check: "listening", object: `socket \S+:81 .*in container web|socket \S+:81 in container web`},
	{name: "listens-loopback", command: []string{"httpd", "-f", "-p", "127.0.0.1:80", "-h", "/www"},
		way: "in", check: "listening", object: `socket 127\.0\.0\.1:80 httpd in container web`},
	{name: "nat-flushed-noproxy", options: lab.Options{Daemon: map[string]any{"userland-proxy": false}}, inject: `iptables -t nat -F`,
		way: "in", check: "dnat", object: `iptables nat \S+: missing .*`, fixed: true},
	{name: "nat-flushed-proxy", inject: `iptables -t nat -F`,
		way: "out", check: "masquerade", object: `iptables nat POSTROUTING: missing .* -j MASQUERADE`, fixed: true},
	{name: "filter-flushed", inject: `iptables -F`,
		way: "in", check: "accept", object: `iptables filter \S+: missing .*`, fixed: true},
	{name: "dnat-stale", options: lab.Options{Daemon: map[string]any{"userland-proxy": false}},
		inject: `n=$(iptables -t nat -S DOCKER | grep -- '-A' | grep -n 'dport 80 ' | cut -d: -f1)
rule=$(iptables -t nat -S DOCKER $n | sed "s/^-A DOCKER //; s/$WEBIP:80/172.17.0.99:80/")
iptables -t nat -R DOCKER $n $rule`,
		way: "in", check: "dnat", object: `iptables nat DOCKER \d+: .*--to-destination 172\.17\.0\.99:80`, fixed: true},
	{name: "zone-moved", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=public --change-interface=docker0`,
		way: "out", check: "firewalld", object: `firewalld zone docker`, fixed: true},
	{name: "accepts-gone", inject: `iptables -P FORWARD DROP
for c in DOCKER-FORWARD DOCKER-CT DOCKER-BRIDGE; do iptables -F $c 2>/dev/null || true; done
iptables -S FORWARD | grep -E -- '-o docker0|-i docker0' | sed 's/^-A/-D/' | while read -r r; do iptables $r; done`,
		way: "in", check: "accept", object: `iptables filter \S+: missing .*`, fixed: true},
}

// buildPlugin builds the plugin once a test process.
func buildPlugin(t testing.TB) string {
	t.Helper()
	path := t.TempDir() + "/docker-netcheck"
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func TestFaults(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	for _, f := range faults {
		suites := f.suites
		if suites == nil {
			suites = []string{lab.Bookworm, lab.Forky}
		}
		for _, suite := range suites {
			t.Run(f.name+"/"+suite, func(t *testing.T) {
				t.Parallel()
				f.test(t, suite, path)
			})
		}
	}
}

func (f fault) test(t *testing.T, suite, path string) {
	f.options.Suite = suite
	b := newBench(t, f.options, path)
	run := f.run
	if run == nil {
		run = []string{"-p", "80:80"}
	}
	b.web(run, f.command)
	if f.inject != "" {
		if f.way != "" {
			if got := b.probe(f.way); got != "ok" {
				t.Fatalf("before the fault, %s: %s", f.way, got)
			}
		}
		b.inject(f.inject)
	}
	if f.way != "" {
		if got := b.probe(f.way); got == "ok" {
			t.Fatalf("the fault does nothing: %s is ok", f.way)
		}
	}

	args := f.args
	if args == nil {
		args = []string{"web"}
	}
	broken := b.state()
	report, exit := b.netcheck(args...)
	if after := b.state(); after != broken {
		t.Errorf("asking changed the host:\n%s", diff(broken, after))
	}
	b.expect(report, exit, f)
	if t.Failed() || !f.fixed {
		return
	}

	fix := []string{"--fix", "--yes"}
	if f.allow != "" {
		fix = append(fix, "--allow", f.allow)
	}
	report, exit = b.netcheck(append(fix, args...)...)
	if exit != 0 || report.Fix == nil || !report.Fix.Changed || !report.Fix.Rechecked {
		t.Fatalf("--fix: exit status %d, %s\n%s", exit, jsonOf(report.Fix), b.stderr)
	}
	if got := b.probe(f.way); got != "ok" {
		t.Errorf("after the fix, %s: %s", f.way, got)
	}
	if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 0 {
		t.Errorf("undo: exit status %d: %s%s", exit, out, b.stderr)
	}
	b.settles(broken)
}

// settles waits until the host's state is what it was: links tell each other of a lost carrier up to a
// second late.
func (b *bench) settles(want string) {
	b.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	got := b.state()
	for got != want && time.Now().Before(deadline) {
		got = b.state()
	}
	if got != want {
		b.t.Errorf("undo left the host changed:\n%s", diff(want, got))
	}
}

// expect compares a report with what the fault should have brought.
func (b *bench) expect(report *checks.Report, exit int, f fault) {
	b.t.Helper()
	want, wantExit := f.status, map[checks.Status]int{checks.Fail: 1, checks.Unknown: 2}[f.status]
	if want == "" {
		want, wantExit = checks.Fail, 1
	}
	if exit != wantExit {
		b.t.Errorf("exit status %d, want %d", exit, wantExit)
	}
	direction := netstate.In
	if f.way == "out" {
		direction = netstate.Out
	}
	object := regexp.MustCompile(`^(?:` + f.object + `)$`)
	for _, target := range report.Targets {
		if target.Direction != direction || target.Family != netstate.IPv4 {
			continue
		}
		if target.Status != want || target.Cause == nil || target.Cause.Check != f.check || !object.MatchString(target.Cause.Object) {
			b.t.Errorf("%s: %s, cause %s; want %s by %s: %s", checks.Name(target.Target), target.Status, jsonOf(target.Cause), want, f.check, f.object)
		}
		if len(target.Causes) > 1 {
			b.t.Errorf("%s: more than one cause: %s", checks.Name(target.Target), jsonOf(target.Causes))
		}
		if b.t.Failed() {
			b.t.Logf("report: %s", b.text())
		}
		return
	}
	b.t.Errorf("no target in direction %s: %s\n%s", direction, jsonOf(report), b.stderr)
}

// A bench is a lab host with the plugin, and what a test does with it.
type bench struct {
	t      testing.TB
	ctx    context.Context
	host   *lab.Host
	stderr string // of the last run
	plugin string // its path outside of the host
}

func newBench(t testing.TB, options lab.Options, path string) *bench {
	t.Helper()
	ctx := context.Background()
	b := &bench{t: t, ctx: ctx, host: lab.New(t, options)}
	b.must(b.host.Install(ctx, path, lab.PluginPath))
	_, err := b.host.Clients[0].Serve(lab.ClientAddr+":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, lab.Hello) }))
	b.must(err)
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// web runs the container that is asked about.
func (b *bench) web(options, command []string) {
	b.t.Helper()
	if command == nil {
		b.must(b.host.Web(b.ctx, "web", options...))
		return
	}
	args := append(append([]string{}, options...), lab.Image)
	b.must(b.host.RunContainer(b.ctx, "web", append(args, command...)...))
}

// inject breaks the host.
func (b *bench) inject(script string) {
	b.t.Helper()
	_, err := b.host.Sh(b.ctx, `WEBPID=$(docker inspect -f '{{.State.Pid}}' web)
WEBIP=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web)
VETH=$(ip -o link show type veth | sed -n 's/^[0-9]*: \(veth[0-9a-f]*\)@.*/\1/p' | head -n1)
`+script)
	b.must(err)
}

// probe tries the way and says what became of it.
func (b *bench) probe(way string) string {
	b.t.Helper()
	if way == "out" {
		ns, err := b.host.Container(b.ctx, "web")
		b.must(err)
		_, err = ns.Get(b.ctx, "http://"+lab.ClientAddr+":8080/")
		return lab.Outcome(err)
	}
	_, err := b.host.Far(false).Get(b.ctx, "http://"+lab.HostAddr+"/")
	return lab.Outcome(err)
}

func (b *bench) state() string {
	b.t.Helper()
	state, err := b.host.State(b.ctx, "web")
	b.must(err)
	return state
}

// run runs a command in the host and returns its output and exit status.
func (b *bench) run(name string, args ...string) (string, int) {
	b.t.Helper()
	cmd := b.host.Command(b.ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	b.stderr = stderr.String()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// netcheck runs docker netcheck --format json and reads its report.
func (b *bench) netcheck(args ...string) (*checks.Report, int) {
	b.t.Helper()
	out, exit := b.run("docker", append([]string{"netcheck", "--format", "json"}, args...)...)
	report := &checks.Report{}
	if err := json.Unmarshal([]byte(out), report); err != nil {
		b.t.Fatalf("docker netcheck %s: exit status %d: %v\n%s%s", strings.Join(args, " "), exit, err, out, b.stderr)
	}
	return report, exit
}

// text is what a person would see.
func (b *bench) text() string {
	out, _ := b.run("docker", "netcheck", "-v", "web")
	return out + b.stderr
}

func jsonOf(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// diff shows what changed between two states.
func diff(before, after string) string { return udiff.Unified("before", "after", before, after) }
