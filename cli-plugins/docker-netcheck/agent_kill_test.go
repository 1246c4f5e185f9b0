//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/agent"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// manyFaults need a plan of several transactions, each of which has lines of its own in the journal.
const manyFaults = hardened + `
for veth in $(ip -o link show type veth | sed -n 's/^[0-9]*: \(veth[0-9a-f]*\)@.*/\1/p'); do ip link set $veth down; done
iptables -I DOCKER-USER -p tcp --dport 80 -j DROP
nft 'add table inet mine; add chain inet mine in { type filter hook forward priority 0; }; add rule inet mine in tcp dport 80 drop'`

var (
	fixAll = []string{"--fix", "--yes", "--allow", "open", "--all"}
	undo   = []string{"undo", "--yes"}
)

// kills say who is killed, and when. They come by turns.
var kills = []struct {
	args   []string
	signal unix.Signal
	middle bool // while a plan is in the middle, by the journal; else at any time
	helper bool // the helper; else the client
}{
	{args: []string{"web"}, signal: unix.SIGKILL},
	{args: fixAll, signal: unix.SIGKILL, middle: true},
	{args: fixAll, signal: unix.SIGTERM},
	{args: fixAll, signal: unix.SIGKILL, middle: true, helper: true},
	{args: fixAll, signal: unix.SIGKILL},
	{args: fixAll, signal: unix.SIGINT, middle: true},
	{args: undo, signal: unix.SIGKILL, middle: true},
	{args: fixAll, signal: unix.SIGTERM, middle: true, helper: true},
}

// TestKilled kills runs with a helper at random: the client or the helper, at any time or while a plan is in
// the middle. Nothing may be left of them but an image, and a journal that tells what became of each plan.
func TestKilled(t *testing.T) {
	lab.Need(t)
	b := newBench(t, lab.Options{}, buildPlugin(t))
	b.addUser()
	b.web([]string{"-p", "80:80"}, nil)
	b.must(b.host.Web(b.ctx, "other", "-p", "81:80"))
	b.inject(manyFaults)
	broken := b.calm()
	user := ways[0]
	if _, exit, stderr := b.by(user, "web"); exit != 1 { // imports the image as well
		t.Fatalf("exit status %d: %s", exit, stderr)
	}
	begun := time.Now()
	if out, exit, stderr := b.by(user, fixAll...); exit != 0 {
		t.Fatalf("--fix: exit status %d: %s%s", exit, out, stderr)
	}
	usual, steps := time.Since(begun), b.journalled()
	b.by(user, undo...)

	const seed = 7
	chance := rand.New(rand.NewPCG(seed, seed))
	runs := 100
	if os.Getenv("NETCHECK_TEST_ALL") == "" {
		runs = 24
	}
	middles, ended := 0, map[string]int{}
	for i := range runs {
		k := kills[i%len(kills)]
		what := fmt.Sprintf("run %d: %v", i, k)
		if k.args[0] == undo[0] {
			b.by(user, fixAll...)
		}
		runsBefore, lines := len(b.journal()), b.journalled()
		cmd := user.docker(b, append([]string{"netcheck"}, k.args...)...)
		// The command itself, not nsenter before it: that is in another session.
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		b.must(cmd.Start())
		done := make(chan struct{})
		go func() {
			cmd.Wait()
			close(done)
		}()
		killed := -cmd.Process.Pid
		inMiddle := false
		if !k.middle {
			timer := time.AfterFunc(time.Duration(chance.Int64N(int64(usual))), func() { unix.Kill(killed, k.signal) })
			<-done
			timer.Stop()
		} else if helper := b.stopAt(lines+1+chance.IntN(steps-1), done); helper != 0 {
			inMiddle = last(b.journal()).State == remediate.Unfinished
			if k.helper {
				killed = helper
			}
			unix.Kill(killed, k.signal)
			if killed != helper && k.signal == unix.SIGKILL {
				<-done
			}
			time.AfterFunc(time.Duration(chance.Int64N(int64(50*time.Millisecond))), func() { unix.Kill(helper, unix.SIGCONT) })
			<-done
		}
		b.nobody(what)

		history := b.journal()
		state, end := "no plan", ""
		if len(history) > runsBefore || k.args[0] == undo[0] {
			state = last(history).State
			end = state
		}
		if inMiddle {
			middles++
			state += ", killed in the middle"
		}
		ended[state]++
		if end == remediate.Unfinished && !(k.helper && k.signal == unix.SIGKILL) {
			t.Errorf("%s: half-made", what)
		}
		if inMiddle && (end == remediate.RolledBack || end == remediate.Unfinished) {
			if _, _, said := b.by(user, "web"); !strings.Contains(said, "run "+last(history).ID) {
				t.Errorf("%s: the next run does not say that it is %s: %s", what, end, said)
			}
		}
		if end == remediate.Applied || end == remediate.Unfinished {
			if _, exit, said := b.by(user, undo...); exit != 0 {
				t.Fatalf("%s: %s: undo: %s", what, state, said)
			}
		}
		if now := b.becomes(broken); now != broken {
			t.Fatalf("%s: %s:\n%s", what, state, diff(broken, now))
		}
	}
	t.Logf("seed %d: %d of %d were killed in the middle of a plan: %v", seed, middles, runs, ended)
	if middles < runs/4 {
		t.Errorf("only %d of %d were killed in the middle of a plan", middles, runs)
	}
}

// journal reads the host's journal.
func (b *bench) journal() remediate.History {
	b.t.Helper()
	runs, err := (&remediate.Journal{Dir: b.host.Path(remediate.JournalDir)}).Runs()
	b.must(err)
	return runs
}

func last(runs remediate.History) *remediate.Run { return &runs[len(runs)-1] }

// journalled counts the lines of the host's journal.
func (b *bench) journalled() int {
	files, _ := filepath.Glob(b.host.Path(remediate.JournalDir) + "/run-*")
	lines := 0
	for _, file := range files {
		data, _ := os.ReadFile(file)
		lines += bytes.Count(data, []byte("\n"))
	}
	return lines
}

// stopAt stops the helper that is at work on a plan, once the journal has that many lines, and returns its
// process; 0 if done is closed before.
func (b *bench) stopAt(lines int, done <-chan struct{}) (helper int) {
	for tick := time.Tick(200 * time.Microsecond); ; {
		select {
		case <-done:
			return 0
		case <-tick:
		}
		if helper == 0 {
			helper = b.changer()
		} else if b.journalled() >= lines {
			unix.Kill(helper, unix.SIGSTOP)
			return helper
		}
	}
}

// changer returns the process of the helper that may change the host, as the machine numbers it; 0: there is
// none.
func (b *bench) changer() int {
	namespace, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", b.host.PID()))
	programs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, program := range programs {
		words, _ := os.ReadFile(program)
		if !bytes.HasSuffix(words, []byte(agent.ServeArg+"\x00change\x00")) {
			continue
		}
		dir := filepath.Dir(program)
		if its, _ := os.Readlink(dir + "/ns/pid"); its == namespace {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// nobody waits until no helper container is left.
func (b *bench) nobody(what string) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := b.helpers()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: left: %s", what, left)
		}
	}
}
