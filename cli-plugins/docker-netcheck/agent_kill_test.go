package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// TestKilled kills runs with a helper at random: their client or, where a plan may be in the middle, the
// helper. Nothing may be left of them but an image and a journal that tells what became of each plan.
func TestKilled(t *testing.T) {
	lab.Need(t)
	b := newWays(t, lab.Options{}, buildPlugin(t))
	b.web([]string{"-p", "80:80"}, nil)
	b.inject(hardened)
	broken := b.calm()
	user := ways[0]
	if _, exit, stderr := b.by(user, "web"); exit != 1 { // imports the image as well
		t.Fatalf("exit status %d: %s", exit, stderr)
	}
	begun := time.Now()
	b.by(user, "--fix", "--yes", "web")
	usual := time.Since(begun)
	b.by(user, "undo", "--yes")

	const seed = 7
	chance := rand.New(rand.NewPCG(seed, seed))
	signals := []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT}
	seen, ended := 1, map[string]int{}
	runs := 100
	if os.Getenv("NETCHECK_TEST_ALL") == "" {
		runs = 24
	}
	for i := range runs {
		args := []string{"netcheck", "web"}
		if i%2 == 1 {
			args = []string{"netcheck", "--fix", "--yes", "web"}
		}
		cmd := user.docker(b, args...)
		// The command itself, not nsenter before it: that is in another session.
		cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
		b.must(cmd.Start())
		after := time.Duration(chance.Int64N(int64(usual)))
		helperToo := i%4 == 3
		time.AfterFunc(after, func() {
			if helperToo {
				b.host.Docker(b.ctx, "kill", "-s", "KILL", strings.Join(names(b.helpers()), " "))
			} else {
				unix.Kill(-cmd.Process.Pid, signals[i%len(signals)])
			}
		})
		cmd.Wait()
		b.nobody(i)
		// What was made is in the journal, and is taken back.
		out, _, stderr := b.by(asRoot, "history", "--format", "json")
		var history remediate.History
		if err := json.Unmarshal([]byte(out), &history); err != nil {
			t.Fatalf("run %d: history: %v\n%s%s", i, err, out, stderr)
		}
		state := "no plan"
		if len(history) > seen {
			state = history[len(history)-1].State
			seen = len(history)
		}
		ended[state]++
		if state == remediate.Unfinished && !helperToo {
			t.Errorf("run %d: half-made: %s", i, out)
		}
		if state == remediate.Applied || state == remediate.Unfinished {
			if _, exit, stderr := b.by(user, "undo", "--yes"); exit != 0 {
				t.Fatalf("run %d: %s: undo: %s", i, state, stderr)
			}
		}
		if now := b.becomes(broken); now != broken {
			t.Fatalf("run %d: %s:\n%s", i, state, diff(broken, now))
		}
	}
	t.Logf("seed %d: %v", seed, ended)
}

// nobody waits until no helper container is left.
func (b *bench) nobody(run int) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		left := b.helpers()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("run %d: left: %s", run, left)
		}
	}
}

func names(lines []string) []string {
	var all []string
	for _, line := range lines {
		name, _, _ := strings.Cut(line, " ")
		all = append(all, name)
	}
	return all
}
