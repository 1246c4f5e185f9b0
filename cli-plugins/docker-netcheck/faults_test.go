//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
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

// suitesOf returns where a case is tried: everywhere with NETCHECK_TEST_ALL=1, else in one of its suites, by
// rotation.
func suitesOf(allowed []string, number int) []string {
	if allowed == nil {
		allowed = lab.Suites()
	}
	if os.Getenv("NETCHECK_TEST_ALL") != "" {
		return allowed
	}
	return allowed[number%len(allowed) : number%len(allowed)+1]
}

func TestFaults(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	ran := newResults(t)
	for i, f := range allFaults() {
		for _, suite := range suitesOf(f.suites, i) {
			t.Run(f.name+"/"+suite, func(t *testing.T) {
				t.Parallel()
				ran.note(t, f.name, suite, func() string { return f.test(t, suite, path) })
			})
		}
	}
}

// host starts a host with web and breaks it.
func (f fault) host(t *testing.T, suite, path string) *bench {
	t.Helper()
	b := f.bench(t, suite, path)
	if f.more != "" {
		b.inject(f.more)
	}
	if f.inject != "" || f.start != nil {
		if f.way != "" {
			if got := b.works(f); got != "ok" {
				t.Fatalf("before the fault, %s: %s", f.way, got)
			}
		}
		if f.start != nil {
			b.must(f.start(b.host, b.ctx))
		}
		b.inject(f.inject)
	}
	if f.way != "" {
		if got := b.try(f); got == "ok" {
			t.Fatalf("the fault does nothing: %s is ok", f.way)
		}
	}
	return b
}

// test breaks a host, and returns the object that netcheck names.
func (f fault) test(t *testing.T, suite, path string) string {
	b := f.host(t, suite, path)
	args := f.args
	if args == nil {
		args = []string{"web"}
	}
	broken := b.state()
	if strings.Contains(f.inject, "docker ") {
		broken = b.calm() // the engine may not be done
	}
	report, exit := b.netcheck(args...)
	if after := b.state(); after != broken {
		t.Errorf("asking changed the host:\n%s", diff(broken, after))
	}
	object := b.expect(report, exit, f)
	if t.Failed() {
		return object
	}
	if !f.fixed {
		b.follow(report, f)
		return object
	}

	fix := []string{"--fix", "--yes"}
	if f.allow == "disrupt" {
		report, exit = b.netcheck(append(fix, args...)...)
		if exit == 0 || report.Fix == nil || report.Fix.Changed || len(report.Fix.Refused) == 0 {
			t.Errorf("--fix without --allow disrupt: exit status %d, %s", exit, jsonOf(report.Fix))
		}
		b.settles(broken)
	}
	if f.allow != "" {
		fix = append(fix, "--allow", f.allow)
	}
	report, exit = b.netcheck(append(fix, args...)...)
	if exit != 0 || report.Fix == nil || !report.Fix.Changed || !report.Fix.Rechecked {
		t.Fatalf("--fix: exit status %d, %s\n%s", exit, jsonOf(report.Fix), b.stderr)
	}
	if got := b.works(f); got != "ok" { // a carrier may be a second late
		t.Errorf("after the fix, %s: %s", f.way, got)
	}
	out, exit := b.run("docker", "netcheck", "undo", "--yes")
	if f.allow == "disrupt" {
		if exit != 1 || !strings.Contains(b.stderr, "cannot be taken back") {
			t.Errorf("undo of a restart: exit status %d: %s%s", exit, out, b.stderr)
		}
		return object
	}
	if exit != 0 {
		t.Errorf("undo: exit status %d: %s%s", exit, out, b.stderr)
	}
	b.settles(broken)
	return object
}

// passes finds the command in an advice that lets packets pass.
var passes = regexp.MustCompile(`pass(?: until then)?: ((?:nsenter|nft|ip6?tables)\b[^;]*)`)

// follow does what a report advises, where that is a command that lets packets pass: then the way works.
func (b *bench) follow(report *checks.Report, f fault) {
	b.t.Helper()
	followed := false
	for i := range report.Targets {
		if remedy := remedyOf(&report.Targets[i]); remedy != nil && remedy.Fix == nil {
			if part := passes.FindStringSubmatch(remedy.Advice); part != nil {
				b.sh(part[1])
				followed = true
			}
		}
	}
	if followed && f.way != "" {
		if got := b.works(f); got != "ok" {
			b.t.Errorf("after what the report advises, %s: %s\n%s", f.way, got, b.text(f.args))
		}
	}
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

// directions says which target a way is.
var directions = map[string]string{"out": netstate.Out, "gateway": netstate.Out, "dns": netstate.Out, "peer": netstate.Peer}

// expect compares a report with what the fault should have brought, and returns the object of the cause.
func (b *bench) expect(report *checks.Report, exit int, f fault) string {
	b.t.Helper()
	want := f.status
	if want == "" {
		want = checks.Fail
	}
	if wantExit := map[checks.Status]int{checks.Fail: 1, checks.Unknown: 2}[want]; exit != wantExit {
		b.t.Errorf("exit status %d, want %d", exit, wantExit)
	}
	direction := directions[f.way]
	if direction == "" {
		direction = netstate.In
	}
	family := netstate.IPv4
	if f.options.IPv6 {
		family = netstate.IPv6
	}
	object := regexp.MustCompile(`^(?:` + f.object + `)$`)
	for _, target := range report.Targets {
		if target.Direction != direction || target.Family != family {
			continue
		}
		if target.Status != want || target.Cause == nil || target.Cause.Check != f.check || !object.MatchString(target.Cause.Object) {
			b.t.Errorf("%s: %s, cause %s; want %s by %s: %s", checks.Name(target.Target), target.Status, jsonOf(target.Cause), want, f.check, f.object)
		}
		if f := remedyOf(&target); f != nil && f.Fix == nil && f.Advice == "" {
			b.t.Errorf("%s: %s: what to do is not said", checks.Name(target.Target), f.Problem)
		}
		if len(target.Causes) > 1 {
			b.t.Errorf("%s: more than one cause: %s", checks.Name(target.Target), jsonOf(target.Causes))
		}
		if b.t.Failed() || target.Cause == nil {
			b.t.Logf("report: %s", b.text(f.args))
			return ""
		}
		return target.Cause.Object
	}
	b.t.Errorf("no target in direction %s: %s\n%s", direction, jsonOf(report), b.stderr)
	return ""
}

// remedyOf returns the finding that is a target's cause, nil if it has none.
func remedyOf(target *checks.Judgement) *checks.Finding {
	for i := range target.Results {
		for k := range target.Results[i].Findings {
			if f := &target.Results[i].Findings[k]; target.Cause != nil && target.Results[i].Check == target.Cause.Check && f.Problem == target.Cause.Problem {
				return f
			}
		}
	}
	return nil
}

// A bench is a lab host with the plugin, and what a test does with it.
type bench struct {
	t      testing.TB
	ctx    context.Context
	host   *lab.Host
	stderr string // of the last run
	plugin string // its path outside of the host

	elsewhere *lab.Host // see newWays
}

func newBench(t testing.TB, options lab.Options, path string) *bench {
	t.Helper()
	ctx := context.Background()
	b := &bench{t: t, ctx: ctx, host: lab.New(t, options)}
	b.must(b.host.Install(ctx, path, lab.PluginPath))
	_, err := b.host.Clients[0].Serve(lab.ClientAddr+":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, lab.Hello) }))
	b.must(err)
	for _, addr := range []string{lab.ClientAddr, lab.FarAddr} {
		b.must(answerNames(b.host.Clients[0], addr+":53"))
	}
	return b
}

// answerNames is a name server that has one IPv4 address for every name.
func answerNames(at *lab.Client, addr string) error {
	c, err := at.ListenPacket(addr)
	if err != nil {
		return err
	}
	go func() {
		query := make([]byte, 512)
		for {
			n, peer, err := c.ReadFrom(query)
			if err != nil {
				return // closed with its host
			}
			if n < 18 {
				continue
			}
			// RFC 1035: the query becomes the answer; flags 8180, no error; type A is 1.
			answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[12:n]...)
			if query[n-3] == 1 {
				answer[7] = 1
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
			}
			c.WriteTo(answer, peer)
		}
	}()
	return nil
}

// bench starts the case's host, with the container that is asked about.
func (f fault) bench(t testing.TB, suite, path string) *bench {
	t.Helper()
	f.options.Suite = suite
	b := newBench(t, f.options, path)
	if f.setup != "" {
		b.must(b.host.ImportImage(b.ctx))
		_, err := b.host.Sh(b.ctx, f.setup)
		b.must(err)
	}
	if f.run == nil {
		f.run = []string{"-p", "80:80"}
	}
	b.web(f.run, f.command)
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

// targetsOfScripts sets what scripts are about.
const targetsOfScripts = `WEBPID=$(docker inspect -f '{{.State.Pid}}' web)
WEBIP=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web)
VETH=$(ip -o link show type veth | sed -n 's/^[0-9]*: \(veth[0-9a-f]*\)@.*/\1/p' | head -n1)
`

// inject breaks the host.
func (b *bench) inject(script string) {
	b.t.Helper()
	_, err := b.host.Sh(b.ctx, targetsOfScripts+script)
	b.must(err)
}

// try tries the fault's own way.
func (b *bench) try(f fault) string {
	b.t.Helper()
	if f.probe == "" {
		return b.probe(f.way)
	}
	if _, err := b.host.Sh(b.ctx, targetsOfScripts+f.probe); err != nil {
		return err.Error()
	}
	return "ok"
}

// works tries until the way works: a program that was started a moment ago may not listen yet.
func (b *bench) works(f fault) string {
	b.t.Helper()
	got := b.try(f)
	for deadline := time.Now().Add(5 * time.Second); got != "ok" && time.Now().Before(deadline); {
		got = b.try(f)
	}
	return got
}

// probe tries a way and says what became of it.
func (b *bench) probe(way string) string {
	b.t.Helper()
	from, url := b.host.Far(false), "http://"+lab.HostAddr+"/"
	inside := func(name string) {
		ns, err := b.host.Container(b.ctx, name)
		b.must(err)
		from = ns
	}
	switch way {
	case "out":
		inside("web")
		url = "http://" + lab.ClientAddr + ":8080/"
	case "gateway": // a service of the host, by the bridge's address
		inside("web")
		url = "http://172.17.0.1:9000/"
	case "peer":
		addr, err := b.host.ContainerAddr(b.ctx, "web", "bridge")
		b.must(err)
		inside("peer")
		url = "http://" + addr + "/"
	case "big":
		url += "big"
	case "near":
		from = b.host.Clients[0].Netns
	case "in6":
		from, url = b.host.Far(true), "http://["+lab.HostAddr6+"]/"
	case "host":
		from = b.host.Netns
	case "localhost":
		from, url = b.host.Netns, "http://127.0.0.1/"
	}
	_, err := from.Get(b.ctx, url)
	return lab.Outcome(err)
}

func (b *bench) state() string {
	b.t.Helper()
	state, err := b.host.State(b.ctx, "web")
	if err != nil { // it does not run
		state, err = b.host.State(b.ctx)
	}
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
func (b *bench) text(args []string) string {
	if args == nil {
		args = []string{"web"}
	}
	out, _ := b.run("docker", append([]string{"netcheck", "-v"}, args...)...)
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
