package main

import (
	"bufio"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestWatchEveryWay makes live connections and captures packets by a helper, as root does without.
func TestWatchEveryWay(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	for _, suite := range []string{lab.Bookworm, lab.Forky} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b := newWays(t, lab.Options{Suite: suite}, path)
			b.web([]string{"-p", "80:80"}, nil)
			for _, script := range []string{"", hardened} {
				b.inject(script)
				before := b.calm()
				want, wantExit := b.judgedBy(asRoot, "--live", "web")
				if !strings.Contains(want, `"result": "proved"`) {
					t.Errorf("nothing is proved by root: %s", want)
				}
				for _, w := range []way{ways[0], ways[2], ways[3]} {
					if got, exit := b.judgedBy(w, "--live", "web"); got != want || exit != wantExit {
						t.Errorf("%s: exit status %d, by root %d:\n%s", w.name, exit, wantExit, diff(want, got))
					}
				}
				if now := b.becomes(before); now != before {
					t.Errorf("the live connection left the host changed:\n%s", diff(before, now))
				}
			}
			b.inject("sysctl -qw net.ipv4.ip_forward=1")
			for _, w := range []way{ways[0], ways[3]} {
				b.captures(w)
			}
			if left := b.helpers(); len(left) > 0 {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// captures captures one request of a client, and ends by Ctrl-C.
func (b *bench) captures(w way) {
	b.t.Helper()
	cmd := w.docker(b, "netcheck", "capture", "--port", "80/tcp", "web")
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	notes, err := cmd.StderrPipe()
	b.must(err)
	var out strings.Builder
	cmd.Stdout = &out
	b.must(cmd.Start())
	lines := bufio.NewScanner(notes)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "capturing") {
	}
	if got := b.probe("in"); got != "ok" {
		b.t.Errorf("%s: the client: %s", w.name, got)
	}
	unix.Kill(-cmd.Process.Pid, unix.SIGINT)
	var rest strings.Builder
	for lines.Scan() {
		rest.WriteString(lines.Text() + "\n")
	}
	err = cmd.Wait()
	for _, hop := range []string{"uplink", "bridge", "veth", "container"} {
		if strings.Count(out.String(), " "+hop+" ") < 3 { // its handshake at least
			b.t.Errorf("%s: a request has more packets at %s: %v\n%s%s", w.name, hop, err, out.String(), rest.String())
			return
		}
	}
	if !strings.Contains(out.String(), "HOP") {
		b.t.Errorf("%s: no table: %v\n%s%s", w.name, err, out.String(), rest.String())
	}
}
