//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// A way is how somebody who is not root on the engine's host calls docker netcheck for it.
type way struct {
	name string
	// docker returns the command `docker ARG…` of that person, or one like it.
	docker func(b *bench, args ...string) *exec.Cmd
}

const tlsAddr = "tcp://" + lab.HostAddr + ":2376"

var ways = []way{
	{"user", func(b *bench, args ...string) *exec.Cmd {
		return b.host.Command(b.ctx, "setpriv", append([]string{"--reuid=u", "--regid=u", "--init-groups", "--inh-caps=-all", "env", "HOME=/home/u", "docker"}, args...)...)
	}},
	// Docker contexts of another host.
	{"ssh", func(b *bench, args ...string) *exec.Cmd {
		return b.elsewhere.Command(b.ctx, "docker", append([]string{"--context", "ssh"}, args...)...)
	}},
	{"tls", func(b *bench, args ...string) *exec.Cmd {
		return b.elsewhere.Command(b.ctx, "docker", append([]string{"--context", "tls"}, args...)...)
	}},
	// Root, with the engine's socket in a path, but outside of its network and PID namespace.
	{"outside", func(b *bench, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(b.ctx, b.plugin, args[1:]...) // docker netcheck …
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + b.t.TempDir(), "DOCKER_HOST=" + b.host.EngineAddr()}
		return cmd
	}},
}

// newWays starts a host that all ways lead to, and another one that two of them come from: an administrator's,
// with contexts for the engine of the first.
func newWays(t *testing.T, options lab.Options, path string) *bench {
	t.Helper()
	b := newReachable(t, options, path)
	// Its own host has an address that leads to the engine's, as by a tunnel: they share no segment.
	b.elsewhere = lab.New(t, lab.Options{Suite: lab.Trixie, NoDockerd: true})
	b.must(b.elsewhere.Install(b.ctx, path, lab.PluginPath))
	for _, port := range []string{":22", ":2376"} {
		relay(b, b.elsewhere, lab.HostAddr+port, b.host.Clients[0].Netns, lab.HostAddr+port)
	}
	for _, name := range []string{"/etc/docker/ca.pem", "/etc/docker/client.pem", "/etc/docker/client-key.pem", "/root/.ssh/id_ed25519"} {
		text, err := b.host.Sh(b.ctx, "cat "+name)
		b.must(err)
		b.must(b.elsewhere.WriteFile(b.ctx, name, text))
	}
	_, err := b.elsewhere.Sh(b.ctx, "chmod 600 /root/.ssh/id_ed25519\n"+sshConfig+`
docker context create ssh --docker host=ssh://u@`+lab.HostAddr+`
docker context create tls --docker host=`+tlsAddr+`,ca=/etc/docker/ca.pem,cert=/etc/docker/client.pem,key=/etc/docker/client-key.pem`)
	b.must(err)
	return b
}

// sshConfig makes ssh ask nothing.
const sshConfig = `printf 'StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n' >/root/.ssh/config`

// newReachable starts a host whose engine can be reached over ssh and over TCP with TLS.
func newReachable(t *testing.T, options lab.Options, path string) *bench {
	t.Helper()
	options.NoDockerd = true
	b := newBench(t, options, path)
	b.plugin = path
	for name, text := range certificates(t) {
		b.must(b.host.WriteFile(b.ctx, "/etc/docker/"+name, text))
	}
	b.must(b.host.StartDockerd(b.ctx, "-H", "unix:///var/run/docker.sock", "-H", tlsAddr, "--tlsverify",
		"--tlscacert=/etc/docker/ca.pem", "--tlscert=/etc/docker/server.pem", "--tlskey=/etc/docker/server-key.pem"))
	b.addUser()
	if options.Firewalld {
		_, err := b.host.Sh(b.ctx, "firewall-cmd -q --add-port=2376/tcp")
		b.must(err)
	}
	_, err := b.host.Sh(b.ctx, `mkdir -p /run/sshd /root/.ssh /home/u/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /home/u/.ssh/authorized_keys
`+sshConfig+`
/usr/sbin/sshd`)
	b.must(err)
	return b
}

// addUser makes the user u, who may use docker and is not root.
func (b *bench) addUser() {
	b.t.Helper()
	_, err := b.host.Sh(b.ctx, `echo u:x:1000:1000::/home/u:/bin/sh >>/etc/passwd
echo 'u:*:20000:0:99999:7:::' >>/etc/shadow
echo u:x:1000: >>/etc/group
sed -i 's/^docker:.*/&u/' /etc/group
install -d -o u -g u /home/u`)
	b.must(err)
}

// certificates are those of an authority, a server and a client, as PEM by file name.
func certificates(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "client"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			IsCA: i == 0, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.ParseIP(lab.HostAddr)},
		}
		if i == 0 {
			authority, authorityKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, authorityKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		files[name+".pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		files[name+"-key.pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	}
	return files
}

// by runs docker netcheck on a way and returns its output, exit status and what it said besides.
func (b *bench) by(w way, args ...string) (stdout string, exit int, stderr string) {
	b.t.Helper()
	cmd := w.docker(b, append([]string{"netcheck"}, args...)...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		b.t.Fatalf("%s: %v", w.name, err)
	}
	return string(out), cmd.ProcessState.ExitCode(), complaint.String()
}

// report is by with a report.
func (b *bench) report(w way, args ...string) (*checks.Report, int) {
	b.t.Helper()
	out, exit, stderr := b.by(w, append([]string{"--format", "json"}, args...)...)
	r := &checks.Report{}
	if err := json.Unmarshal([]byte(out), r); err != nil {
		b.t.Fatalf("%s: exit status %d: %v\n%s%s", w.name, exit, err, out, stderr)
	}
	return r, exit
}

// judgedBy is report, as text that is the same for the same judgement: without times, the number of a run and
// the context's name.
func (b *bench) judgedBy(w way, args ...string) (report string, exit int) {
	b.t.Helper()
	r, exit := b.report(w, args...)
	if want := map[string]string{"ssh": "ssh", "tls": "tls"}[w.name]; want != "" && r.Engine.Context != want {
		b.t.Errorf("%s: context %q", w.name, r.Engine.Context)
	}
	r.Read, r.Engine.Context = time.Time{}, ""
	if r.Fix != nil {
		r.Fix.Run = ""
	}
	text, err := json.MarshalIndent(r, "", " ")
	b.must(err)
	return string(text), exit
}

// asRoot is the way that all others are compared with.
var asRoot = way{"root", func(b *bench, args ...string) *exec.Cmd { return b.host.Command(b.ctx, "docker", args...) }}

// becomes waits until the host is in that state, and returns the one that it is in. The kernel takes its
// time to say that a link has lost or found its carrier.
func (b *bench) becomes(want string) string {
	b.t.Helper()
	now := b.state()
	for deadline := time.Now().Add(5 * time.Second); now != want && time.Now().Before(deadline); {
		now = b.state()
	}
	return now
}

// calm is the state once it has not changed for longer than the kernel delays what it says of a carrier.
func (b *bench) calm() string {
	b.t.Helper()
	now := b.state()
	for since := time.Now(); time.Since(since) < 1500*time.Millisecond; {
		if next := b.state(); next != now {
			now, since = next, time.Now()
		}
	}
	return now
}

// helpers lists the helper containers that the engine has.
func (b *bench) helpers() []string {
	b.t.Helper()
	out, err := b.host.Docker(b.ctx, "ps", "-a", "--filter", "label=docker-netcheck.agent", "--format", "{{.Names}} {{.Status}}")
	b.must(err)
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
}

// TestEveryWay breaks hosts and compares what is said and done by root there and on every other way.
func TestEveryWay(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	for i, f := range []fault{
		{name: "forwarding-off", inject: hardened, options: lab.Options{Firewalld: true}},
		{name: "veth-down", inject: `ip link set $VETH down`},
		{name: "docker-user-drop", inject: `iptables -I DOCKER-USER -p tcp --dport 80 -j DROP`},
		{name: "listens-loopback", command: []string{"httpd", "-f", "-p", "127.0.0.1:80", "-h", "/www"}},
		{name: "interface-down", inject: `nsenter -t $WEBPID -n ip link set eth0 down`},
		{name: "zone-moved", inject: `firewall-cmd -q --zone=public --change-interface=docker0`, options: lab.Options{Firewalld: true}},
		{name: "nat-flushed", inject: `iptables -t nat -F`, options: lab.Options{Daemon: map[string]any{"userland-proxy": false}}},
		{name: "nft-drop", inject: `nft 'add table inet mine; add chain inet mine in { type filter hook forward priority 0; }; add rule inet mine in tcp dport 80 drop'`},
		{name: "route-blackhole", inject: `ip route add blackhole 172.17.0.2/32`},
		{name: "bridge-down", inject: `ip link set docker0 down`},
	} {
		for _, suite := range suitesOf(nil, i) {
			t.Run(f.name+"/"+suite, func(t *testing.T) {
				t.Parallel()
				f.options.Suite = suite
				everyWay(newWays(t, f.options, path), f)
			})
		}
	}
}

// everyWay breaks a host, and has it judged, repaired and taken back on every way.
func everyWay(b *bench, f fault) {
	b.web([]string{"-p", "80:80"}, f.command)
	if f.inject != "" {
		b.inject(f.inject)
	}
	broken, fixed := b.calm(), ""
	var report, repair string
	var exit, repaired int
	tried := 0
	for _, w := range append([]way{asRoot}, ways...) {
		tried++
		got, code := b.judgedBy(w, "web")
		if w.name == asRoot.name {
			report, exit = got, code
			if exit != 1 {
				b.t.Fatalf("the fault is not seen: exit status %d\n%s", exit, report)
			}
		}
		if got != report || code != exit {
			b.t.Errorf("%s: exit status %d, by root %d:\n%s", w.name, code, exit, diff(report, got))
		}
		if now := b.becomes(broken); now != broken {
			b.t.Fatalf("%s: asking changed the host:\n%s", w.name, diff(broken, now))
		}
		got, code = b.judgedBy(w, "--fix", "--yes", "--allow", "open", "web")
		if w.name == asRoot.name {
			repair, repaired, fixed = got, code, b.calm()
		}
		if got != repair || code != repaired {
			b.t.Errorf("%s: --fix: exit status %d, by root %d:\n%s", w.name, code, repaired, diff(repair, got))
		}
		if now := b.becomes(fixed); now != fixed {
			b.t.Errorf("%s: --fix does something else than root's:\n%s", w.name, diff(fixed, now))
		}
		if fixed == broken {
			continue
		}
		if f.name == "veth-down" { // one is enough
			if out, code, stderr := b.by(w, "undo"); code != 125 || !strings.Contains(out, "+down") || !strings.Contains(stderr, "no terminal") {
				b.t.Errorf("%s: undo without --yes: exit status %d: %s%s", w.name, code, out, stderr)
			}
		}
		if out, code, stderr := b.by(w, "undo", "--yes"); code != 0 {
			b.t.Errorf("%s: undo: exit status %d: %s%s", w.name, code, out, stderr)
		}
		if now := b.becomes(broken); now != broken {
			b.t.Fatalf("%s: undo left the host changed:\n%s", w.name, diff(broken, now))
		}
	}
	b.t.Logf("root's --fix: exit status %d, changed: %v", repaired, fixed != broken)
	var histories []string
	for _, w := range []way{asRoot, ways[0]} {
		out, code, stderr := b.by(w, "history", "--format", "json")
		if code != 0 || fixed != broken && strings.Count(out, `"state":"undone"`) != tried {
			b.t.Errorf("%s: history: exit status %d: %s%s", w.name, code, out, stderr)
		}
		histories = append(histories, out)
	}
	if histories[0] != histories[1] {
		b.t.Errorf("the histories differ:\n%s", diff(histories[0], histories[1]))
	}
	if left := b.helpers(); len(left) > 0 {
		b.t.Errorf("left: %s", left)
	}
}
