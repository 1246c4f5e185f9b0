//go:build linux

package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// rootless calls the engine that u runs without root.
var rootless = way{"rootless", func(b *bench, args ...string) *exec.Cmd {
	return b.host.Command(b.ctx, "setpriv", append([]string{"--reuid=u", "--regid=u", "--init-groups", "--inh-caps=-all", "env", "HOME=/home/u",
		"DOCKER_HOST=unix:///run/user/1000/docker.sock", "docker"}, args...)...)
}}

// insideKit runs a script as root of RootlessKit's namespaces.
const insideKit = `nsenter -t $(cat /run/user/1000/dockerd-rootless/child_pid) -U -n -m -S 0 -G 0 sh -ec `

// TestRootless judges what is in RootlessKit's namespace of an engine without root, and says what is not.
func TestRootless(t *testing.T) {
	lab.Need(t)
	b := newBench(t, lab.Options{Suite: lab.Forky, NoDockerd: true}, buildPlugin(t))
	b.addUser()
	// The device is root's alone in /dev, which is the machine's.
	_, err := b.host.Sh(b.ctx, `install -d -m 700 -o u -g u /run/user/1000
echo u:100000:65536 | tee -a /etc/subuid >>/etc/subgid
mknod -m 666 /opt/tun c 10 200
mount --bind /opt/tun /dev/net/tun`)
	b.must(err)
	engine := b.host.Command(b.ctx, "setpriv", "--reuid=u", "--regid=u", "--init-groups", "--inh-caps=-all", "env", "HOME=/home/u", "XDG_RUNTIME_DIR=/run/user/1000",
		"sh", "-c", "exec /usr/share/docker.io/contrib/dockerd-rootless.sh >/tmp/rootless.log 2>&1")
	b.must(engine.Start())
	t.Cleanup(func() { engine.Cancel(); engine.Wait() })
	for deadline := time.Now().Add(30 * time.Second); rootless.docker(b, "version").Run() != nil; {
		if time.Now().After(deadline) {
			log, _ := b.host.Sh(b.ctx, "tail -n 20 /tmp/rootless.log")
			t.Fatalf("no rootless engine: %s", log)
		}
	}
	_, err = b.host.Sh(b.ctx, `mkdir -p /tmp/image/bin /tmp/image/www
cp /usr/bin/busybox /tmp/image/bin/httpd
echo hello >/tmp/image/www/index.html
tar -C /tmp/image -cf /tmp/image.tar .`)
	b.must(err)
	for _, args := range [][]string{
		{"import", "/tmp/image.tar", lab.Image},
		{"run", "-d", "--name", "web", "-p", "8080:80", lab.Image, "httpd", "-f", "-p", "80", "-h", "/www"},
	} {
		out, err := rootless.docker(b, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %s: %v: %s", args[0], err, out)
		}
	}
	client := func() string {
		_, err := b.host.Far(false).Get(b.ctx, "http://"+lab.HostAddr+":8080/")
		return lab.Outcome(err)
	}
	for deadline := time.Now().Add(10 * time.Second); client() != "ok"; { // the web server may not listen yet
		if time.Now().After(deadline) {
			t.Fatalf("the client: %s", client())
		}
	}

	// Which legacy tables there are, the kernel does not tell somebody who is root in a user namespace only.
	r, exit := b.report(rootless, "web")
	if exit != exitUnknown {
		t.Errorf("exit status %d, want %d", exit, exitUnknown)
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "port driver (builtin), slirp4netns and the host's own firewall are not") {
		t.Errorf("it is not said what was not judged: %q", notes)
	}
	for _, target := range r.Targets {
		for _, result := range target.Results {
			if result.Check == checks.Engine.Name && result.Status != checks.Pass {
				t.Errorf("%s: engine: %s %s", checks.Name(target.Target), result.Status, result.Reason)
			}
		}
		if target.Direction == netstate.In && target.From != netstate.FromLocalhost {
			t.Errorf("%s: from %s: the port driver connects from within", checks.Name(target.Target), target.From)
		}
	}

	for _, f := range []struct{ inject, undo, object, direction string }{
		{"ip link set docker0 down", "ip link set docker0 up", "link docker0", netstate.In},
		{"iptables -I DOCKER-USER -i docker0 -j DROP", "iptables -D DOCKER-USER -i docker0 -j DROP", "iptables filter DOCKER-USER 1: -i docker0 -j DROP", netstate.Out},
	} {
		_, err := b.host.Sh(b.ctx, insideKit+"'"+f.inject+"'")
		b.must(err)
		if got := client(); got == "ok" && f.direction == netstate.In {
			t.Errorf("%s does nothing", f.inject)
		}
		r, exit := b.report(rootless, "web")
		for _, target := range r.Targets {
			if target.Direction == f.direction && target.Family == netstate.IPv4 && (exit != exitFault || target.Cause == nil || target.Cause.Object != f.object) {
				t.Errorf("%s: exit status %d, cause %s", f.inject, exit, jsonOf(target.Cause))
			}
		}
		// The journal's place belongs to the machine's root.
		out, exit, stderr := b.by(rootless, "--fix", "--yes", "--allow", "open", "web")
		if exit != exitError || !strings.Contains(stderr, "nothing was changed: journal: mkdir /var/lib/docker-netcheck: permission denied") {
			t.Errorf("--fix: exit status %d: %s%s", exit, out, stderr)
		}
		_, err = b.host.Sh(b.ctx, insideKit+"'"+f.undo+"'")
		b.must(err)
	}
	if left, err := rootless.docker(b, "ps", "-aq", "--filter", "label=docker-netcheck.agent").Output(); err != nil || len(left) > 0 {
		t.Errorf("left: %s, %v", left, err)
	}
}
