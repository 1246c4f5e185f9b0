//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

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
			b.must(b.host.RunContainer(b.ctx, "udp", "-p", "9:9/udp", lab.Image))
			inside, err := b.host.Container(b.ctx, "udp")
			b.must(err)
			_, err = inside.ListenPacket("0.0.0.0:9")
			b.must(err)
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
			b.capturesSlowly(ways[1])
			b.captureUnread(ways[0])
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

// flooded starts a capture of a container's datagrams, and sends them. Nobody has read of it yet.
func (b *bench) flooded(w way, datagrams int) (*exec.Cmd, *bufio.Reader) {
	b.t.Helper()
	cmd := w.docker(b, "netcheck", "capture", "--port", "9/udp", "--count", fmt.Sprint(4*datagrams), "udp")
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	b.must(err)
	notes, err := cmd.StderrPipe()
	b.must(err)
	b.must(cmd.Start())
	lines := bufio.NewScanner(notes)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "capturing") {
	}
	client, err := b.host.Far(false).Dial(b.ctx, "udp", lab.HostAddr+":9")
	b.must(err)
	defer client.Close()
	for range datagrams {
		client.Write(make([]byte, 1000))
	}
	return cmd, bufio.NewReader(out)
}

// capturesSlowly captures more than the pipes between kernel and reader hold while the reader does not read:
// nothing of it is lost.
func (b *bench) capturesSlowly(w way) {
	b.t.Helper()
	const datagrams = 1500 // 9 MB on the way here, 0.5 MB as lines
	cmd, out := b.flooded(w, datagrams)
	lines, err := io.ReadAll(out)
	b.must(err)
	packets, table, _ := strings.Cut(string(lines), "HOP")
	err = cmd.Wait()
	if seen := strings.Count(packets, "\n"); err != nil || seen != 4*datagrams || strings.Count(table, fmt.Sprint(" ", datagrams, " ")) != 4 || strings.Contains(table, "lost") {
		b.t.Errorf("%s: %v: %d lines of %d datagrams at 4 hops%s", w.name, err, seen, datagrams, table)
	}
}

// captureUnread ends a capture whose reader never reads: neither it nor its helper stays.
func (b *bench) captureUnread(w way) {
	b.t.Helper()
	cmd, _ := b.flooded(w, 5000)
	unix.Kill(-cmd.Process.Pid, unix.SIGINT)
	cmd.Wait()
	for deadline := time.Now().Add(20 * time.Second); len(b.helpers()) > 0; {
		if time.Now().After(deadline) {
			b.t.Errorf("%s: a reader that does not read: left: %s", w.name, b.helpers())
			return
		}
	}
}
