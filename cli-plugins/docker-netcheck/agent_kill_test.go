package main

import (
	"encoding/json"
	"math/rand/v2"
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
	begun := time.Now()
	if _, exit, stderr := b.by(user, "web"); exit != 1 { // imports the image as well
		t.Fatalf("exit status %d: %s", exit, stderr)
	}
	b.by(user, "web")
	usual := time.Since(begun)

	const seed = 7
	chance := rand.New(rand.NewPCG(seed, seed))
	signals := []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT}
	for i := range 100 {
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
		if now := b.becomes(broken); now == broken {
			continue
		}
		// Then it is in the journal, and is taken back.
		out, _, stderr := b.by(user, "history", "--format", "json")
		var runs remediate.History
		if err := json.Unmarshal([]byte(out), &runs); err != nil {
			t.Fatalf("run %d: history: %v\n%s%s", i, err, out, stderr)
		}
		last := runs[len(runs)-1]
		if last.State != remediate.Applied && !(helperToo && last.State == remediate.Unfinished) {
			t.Errorf("run %d: the host is changed and the journal says %s", i, last.State)
		}
		if _, exit, stderr := b.by(user, "undo", "--yes"); exit != 0 {
			t.Fatalf("run %d: undo: %s", i, stderr)
		}
		if now := b.becomes(broken); now != broken {
			t.Fatalf("run %d: %s:\n%s", i, last.State, diff(broken, now))
		}
	}
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
