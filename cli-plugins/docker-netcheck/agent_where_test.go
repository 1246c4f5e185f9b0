//go:build linux

package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestWhere has two hosts: a healthy one, where root calls, and a broken one, whose engine is meant. The
// healthy one must never be judged in place of the other.
func TestWhere(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	here, there := newReachable(t, lab.Options{Suite: lab.Bookworm}, path), newReachable(t, lab.Options{Suite: lab.Forky}, path)
	for _, b := range []*bench{here, there} {
		b.web([]string{"-p", "80:80"}, nil)
	}
	there.inject(`iptables -I DOCKER-USER -p tcp --dport 80 -j DROP`)
	want, _ := there.judgedBy(asRoot, "web")
	wantSaved := there.saved(asRoot, there)
	if got := there.saved(ways[0], there); got != wantSaved {
		t.Errorf("by a plain user, a snapshot says something else:\n%s", diff(wantSaved, got))
	}

	// What the two hosts have between them: here's :2222 is there's sshd, here's :2376 there's engine.
	for from, to := range map[string]string{":2222": ":22", ":2377": ":2376"} {
		relay(here, here.host, lab.HostAddr+from, there.host.Netns, lab.HostAddr+to)
	}
	key, err := here.host.Sh(here.ctx, "cat /root/.ssh/id_ed25519.pub")
	here.must(err)
	there.must(there.host.WriteFile(there.ctx, "/home/u/.ssh/authorized_keys", key))
	for name, text := range map[string]string{"ca.pem": "", "client.pem": "", "client-key.pem": ""} {
		text, err = there.host.Sh(there.ctx, "cat /etc/docker/"+name)
		there.must(err)
		here.must(here.host.WriteFile(here.ctx, "/root/there/"+name, text))
	}
	// A socket here that leads there.
	_, err = here.host.Sh(here.ctx, "ssh -fNT -L /run/there.sock:/var/run/docker.sock -p 2222 u@"+lab.HostAddr)
	here.must(err)

	docker := func(options ...string) way {
		return way{strings.Join(options, " "), func(b *bench, args ...string) *exec.Cmd {
			return b.host.Command(b.ctx, "docker", append(options, args...)...)
		}}
	}
	for _, w := range []way{
		docker("-H", "ssh://u@"+lab.HostAddr+":2222"),
		docker("-H", "tcp://"+lab.HostAddr+":2377", "--tlsverify", "--tlscacert=/root/there/ca.pem", "--tlscert=/root/there/client.pem", "--tlskey=/root/there/client-key.pem"),
		docker("-H", "unix:///run/there.sock"),
	} {
		t.Run(w.name, func(t *testing.T) {
			if got, exit := here.judgedBy(w, "web"); got != want || exit != 1 {
				t.Errorf("exit status %d:\n%s", exit, diff(want, got))
			}
			if got := here.saved(w, there); got != wantSaved {
				t.Errorf("a snapshot says something else:\n%s", diff(wantSaved, got))
			}
			// Without a helper the host is not known: that is said, and nothing is judged by it.
			out, exit, stderr := here.by(w, "--agent", "never", "web")
			if exit != 2 || !strings.Contains(out, "UNKNOWN") {
				t.Errorf("--agent never: exit status %d\n%s%s", exit, out, stderr)
			}
			if out, exit, _ := here.by(w, "--agent", "never", "undo", "--yes"); exit == 0 {
				t.Errorf("--agent never undo: exit status %d: %s", exit, out)
			}
		})
	}
	if left := append(here.helpers(), there.helpers()...); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
	if images, _ := here.host.Docker(here.ctx, "images", "-q", "docker-netcheck-agent"); images != "" {
		t.Errorf("the engine here got an image: %s", images)
	}

	// Root in a container that has the host's network and PID namespace and the engine's socket, but
	// another root directory.
	t.Run("container", func(t *testing.T) {
		out, exit := here.run("docker", "run", "--rm", "--network", "host", "--pid", "host", "--cap-add", "SYS_PTRACE", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN",
			"-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", lab.PluginPath+":/docker-netcheck", lab.Image,
			"/docker-netcheck", "--format", "json", "web")
		if exit != 0 || !strings.Contains(here.stderr, "helper container") {
			t.Errorf("exit status %d: %s%s", exit, out, here.stderr)
		}
	})
	t.Run("without TLS", func(t *testing.T) {
		out, exit, stderr := here.by(docker("-H", "tcp://"+lab.HostAddr+":2376"), "web")
		if exit != exitError || out != "" || !strings.Contains(stderr, "Client sent an HTTP request to an HTTPS server") {
			t.Errorf("exit status %d: %s%s", exit, out, stderr)
		}
	})
	// Where we are root on the engine's own host there is no helper.
	t.Run("local", func(t *testing.T) {
		for _, w := range []way{asRoot, docker("-H", "tcp://"+lab.HostAddr+":2376", "--tlsverify",
			"--tlscacert=/etc/docker/ca.pem", "--tlscert=/etc/docker/client.pem", "--tlskey=/etc/docker/client-key.pem")} {
			if _, exit, stderr := here.by(w, "web"); exit != 0 || stderr != "" {
				t.Errorf("%s: exit status %d: %s", w.name, exit, stderr)
			}
		}
	})
}

// saved takes a snapshot, and has it judged elsewhere.
func (b *bench) saved(w way, at *bench) string {
	b.t.Helper()
	document, exit, stderr := b.by(w, "snapshot", "web")
	if exit != 0 {
		b.t.Fatalf("%s: snapshot: exit status %d: %s", w.name, exit, stderr)
	}
	b.must(at.host.WriteFile(b.ctx, "/tmp/snapshot.json", document))
	text, exit := at.judgedBy(asRoot, "--from", "/tmp/snapshot.json", "web")
	if exit != exitFault {
		b.t.Errorf("%s: snapshot: exit status %d", w.name, exit)
	}
	return text
}

// relay makes connections to an address of a host end at an address that is reached from somewhere else.
func relay(b *bench, host *lab.Host, from string, beyond *lab.Netns, to string) {
	b.t.Helper()
	l, err := host.Listen(from)
	b.must(err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				d, err := beyond.Dial(b.ctx, "tcp", to)
				if err != nil {
					return
				}
				defer d.Close()
				go func() {
					io.Copy(d, c)
					d.(*net.TCPConn).CloseWrite()
				}()
				io.Copy(c, d)
			}()
		}
	}()
}

// TestRefused runs where the helper cannot be had: that is netcheck's own error, with its cause.
func TestRefused(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	user := ways[0]
	var forbidden atomic.Pointer[string]
	start := func(t *testing.T, prepare func(b *bench), args ...string) *bench {
		b := newBench(t, lab.Options{NoDockerd: true}, path)
		b.addUser()
		prepare(b)
		b.must(b.host.StartDockerd(b.ctx, args...))
		b.web([]string{"-p", "80:80"}, nil)
		return b
	}
	expect := func(b *bench, words string, args ...string) {
		b.t.Helper()
		out, exit, stderr := b.by(user, append(args, "web")...)
		if exit != exitError || out != "" || !strings.Contains(stderr, words) {
			b.t.Errorf("exit status %d, want %d and %q:\n%s%s", exit, exitError, words, out, stderr)
		}
		if left := b.helpers(); len(left) > 0 {
			b.t.Errorf("left: %s", left)
		}
	}
	t.Run("authorization", func(t *testing.T) {
		t.Parallel()
		b := start(t, func(b *bench) {
			_, err := b.host.Sh(b.ctx, "mkdir -p /run/docker/plugins")
			b.must(err)
			l, err := net.Listen("unix", b.host.Path("/run/docker/plugins/no.sock"))
			b.must(err)
			t.Cleanup(func() { l.Close() })
			go http.Serve(l, policy(&forbidden))
		}, "--authorization-plugin=no", "--selinux-enabled") // which does nothing on this kernel but to allow labels
		for _, text := range []string{"/images/create?", `"NetworkMode":"host"`, `"PidMode":"host"`, `"Source":"/"`, `SYS_ADMIN"`} {
			forbidden.Store(&text)
			expect(b, "authorization denied by plugin no: here is no "+text)
		}
		// The helper is not privileged.
		text := `"Privileged":true`
		forbidden.Store(&text)
		if out, exit, stderr := b.by(user, "web"); exit != 0 {
			t.Errorf("without privileged containers: exit status %d: %s%s", exit, out, stderr)
		}
	})
	t.Run("seccomp", func(t *testing.T) {
		t.Parallel()
		b := start(t, func(b *bench) {
			b.must(b.host.WriteFile(b.ctx, "/etc/docker/strict.json",
				`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]}`))
		}, "--seccomp-profile=/etc/docker/strict.json")
		expect(b, "the engine's seccomp profile or a security module of the host forbids it: enter the host's root: operation not permitted")
	})
	t.Run("TCP", func(t *testing.T) {
		t.Parallel()
		b := start(t, func(*bench) {}, "-H", "unix:///var/run/docker.sock", "-H", "tcp://"+lab.HostAddr+":2375", "--tls=false")
		plain := way{"TCP", func(b *bench, args ...string) *exec.Cmd {
			return b.host.Clients[0].Command(b.ctx, "docker", append([]string{"-H", "tcp://" + lab.HostAddr + ":2375"}, args...)...)
		}}
		want, _ := b.judgedBy(asRoot, "web")
		if got, exit := b.judgedBy(plain, "web"); got != want || exit != 0 {
			t.Errorf("exit status %d:\n%s", exit, diff(want, got))
		}
	})
	t.Run("disk", func(t *testing.T) {
		t.Parallel()
		b := start(t, func(b *bench) {
			_, err := b.host.Sh(b.ctx, "mount -t tmpfs -o size=16m tmpfs /var/lib/docker")
			b.must(err)
		})
		expect(b, "no space left on device")
	})
	t.Run("image", func(t *testing.T) {
		t.Parallel()
		b := start(t, func(*bench) {})
		expect(b, "--agent-image nobody/has:it: the engine does not have it", "--agent-image", "nobody/has:it")
		expect(b, "netcheck-agent-serve", "--agent-image", lab.Image)
	})
}

// policy is an authorisation plugin that refuses requests with a text in them.
// Source: docs.docker.com/engine/extend/plugins_authorization.
func policy(forbidden *atomic.Pointer[string]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/Plugin.Activate" {
			io.WriteString(w, `{"Implements":["authz"]}`)
			return
		}
		var q struct {
			RequestURI  string `json:"RequestUri"`
			RequestBody []byte
		}
		json.NewDecoder(r.Body).Decode(&q)
		text := forbidden.Load()
		no := text != nil && strings.Contains(q.RequestURI+string(q.RequestBody), *text)
		answer := map[string]any{"Allow": !no}
		if no {
			answer["Msg"] = "here is no " + *text
		}
		json.NewEncoder(w).Encode(answer)
	})
}

// TestRemapped has an engine whose containers get a user namespace: the helper must not.
func TestRemapped(t *testing.T) {
	lab.Need(t)
	b := newBench(t, lab.Options{NoDockerd: true}, buildPlugin(t))
	b.addUser()
	_, err := b.host.Sh(b.ctx, "echo u:100000:65536 | tee -a /etc/subuid >>/etc/subgid")
	b.must(err)
	b.must(b.host.StartDockerd(b.ctx, "--userns-remap=u"))
	b.web([]string{"-p", "80:80"}, nil)
	want, _ := b.judgedBy(asRoot, "web")
	if got, exit := b.judgedBy(ways[0], "web"); got != want || exit != 0 {
		t.Errorf("exit status %d:\n%s", exit, diff(want, got))
	}
}
