//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aymanbagabas/go-udiff"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// With this in its environment the test binary starts a host, says so, and
// waits to be killed.
const killMe = "NETCHECK_LAB_TEST_KILL_ME"

func TestMain(m *testing.M) {
	if os.Getenv(killMe) == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	h, err := lab.Start(ctx, lab.Options{})
	if err == nil {
		err = h.Web(ctx, "web")
	}
	fmt.Println(h.PID(), err)
	select {}
}

// ipv6 is a daemon.json for containers with IPv6, on any engine.
var ipv6 = map[string]any{
	"ipv6": true, "ip6tables": true, "experimental": true, "fixed-cidr-v6": "fd00:d0c:e::/64",
}

func TestHost(t *testing.T) {
	t.Parallel()
	lab.Need(t)
	engines := map[string]string{lab.Bookworm: "20.10.", lab.Trixie: "26.1.", lab.Forky: "28.5."}
	for _, suite := range lab.Suites() {
		t.Run(suite, func(t *testing.T) {
			if _, err := lab.Root(t.Context(), suite); err != nil {
				t.Fatal(err)
			}
			t.Parallel()
			begin := time.Now()
			h := lab.New(t, lab.Options{Suite: suite, Firewalld: true, IPv6: true, Daemon: ipv6, Clients: 2})
			t.Logf("started in %v", time.Since(begin))
			ctx := t.Context()

			version := must(h.Docker(ctx, "version", "--format", "{{.Server.Version}}"))(t)
			if !strings.HasPrefix(version, engines[suite]) {
				t.Errorf("engine is %s, want %s", version, engines[suite])
			}
			if zone := must(h.Run(ctx, "firewall-cmd", "--get-zone-of-interface=docker0"))(t); zone != "docker\n" {
				t.Errorf("docker0 is in the zone %q", zone)
			}
			// As on a fresh machine: the engine found forwarding off.
			if policy := must(h.Run(ctx, "iptables", "-S", "FORWARD"))(t); !strings.HasPrefix(policy, "-P FORWARD DROP\n") {
				t.Errorf("FORWARD has %q", policy)
			}

			if err := h.Web(ctx, "web", "-p", "80:80", "-p", "53:53/udp"); err != nil {
				t.Fatal(err)
			}
			web := must(h.Container(ctx, "web"))(t)
			must(web.Echo("0.0.0.0:53"))(t)
			t.Run("in", func(t *testing.T) {
				for _, client := range h.Clients {
					get(t, client.Netns, lab.HostAddr, lab.Hello)
					get(t, client.Netns, lab.HostAddr6, lab.Hello)
					if answer, err := client.Exchange(ctx, lab.HostAddr+":53", "ping"); answer != "ping" {
						t.Errorf("%s: udp: %q, %v", client.Addr, answer, err)
					}
				}
				get(t, h.Far(false), lab.HostAddr, lab.Hello)
				get(t, h.Far(true), lab.HostAddr6, lab.Hello)
				get(t, h.Netns, lab.HostAddr, lab.Hello)
				get(t, h.Netns, "127.0.0.1", lab.Hello)
				get(t, web, "127.0.0.1", lab.Hello)
				if out := must(h.Run(ctx, "curl", "-s", "http://127.0.0.1/big"))(t); len(out) != lab.BigSize {
					t.Errorf("big has %d bytes", len(out))
				}
				err := h.Clients[0].Connect(ctx, lab.HostAddr+":81")
				if s := lab.Outcome(err); s != "refused" && s != "unreachable" { // zone public rejects
					t.Errorf("closed port: %s", s)
				}
			})
			t.Run("out", func(t *testing.T) {
				// The server tells the client's address: the host's, after masquerading.
				must(h.Clients[0].Serve("0.0.0.0:80", nil))(t)
				must(h.Clients[0].Serve("[::]:8080", nil))(t)
				get(t, web, lab.ClientAddr, lab.HostAddr+"\n")
				get(t, web, lab.FarAddr, lab.HostAddr+"\n")
				get(t, web, "["+lab.ClientAddr6+"]:8080", lab.HostAddr6+"\n")
				out := must(h.Docker(ctx, "exec", "web", "wget", "-qO-", "http://"+lab.ClientAddr))(t)
				if out != lab.HostAddr+"\n" {
					t.Errorf("wget: %q", out)
				}
			})
			t.Run("state", func(t *testing.T) { state(t, h, suite) })
		})
	}
}

// state checks that a state is stable, notices changes, and forgets them when
// they are undone.
func state(t *testing.T, h *lab.Host, suite string) {
	ctx := t.Context()
	begin := time.Now()
	before := must(h.State(ctx, "web"))(t)
	t.Logf("first in %v", time.Since(begin))
	begin = time.Now()
	get(t, h.Clients[0].Netns, lab.HostAddr, lab.Hello)
	if again := must(h.State(ctx, "web"))(t); again != before {
		t.Errorf("nothing changed:\n%s", diff(before, again))
	}
	t.Logf("second in %v", time.Since(begin))
	inWeb := fmt.Sprintf("nsenter -n -t %d ", must(h.ContainerPID(ctx, "web"))(t))
	if suite != lab.Forky {
		return // what follows takes seconds, and does not differ much
	}
	for _, change := range [][2]string{
		{"iptables -I FORWARD -s 192.0.2.1 -j DROP", "iptables -D FORWARD 1"},
		{"iptables-legacy -t nat -N x", ""},
		{"nft add table inet x; nft add chain inet x y", "nft delete table inet x"},
		{"sysctl -w net.ipv4.conf.docker0.rp_filter=1", "sysctl -w net.ipv4.conf.docker0.rp_filter=0"},
		{"ip rule add from 192.0.2.1 table 9", "ip rule del from 192.0.2.1 table 9"},
		{"ip route add 192.0.2.0/24 dev eth0 table 9", "ip route flush table 9"},
		{"ipset create x hash:ip", "ipset destroy x"},
		{"tc qdisc add dev eth0 clsact", "tc qdisc del dev eth0 clsact"},
		{"firewall-cmd --zone=docker --remove-interface=docker0", "firewall-cmd --zone=docker --add-interface=docker0"},
		{inWeb + "ip route add 192.0.2.0/24 dev eth0", inWeb + "ip route del 192.0.2.0/24"},
	} {
		must(h.Sh(ctx, change[0]))(t)
		if after := must(h.State(ctx, "web"))(t); after == before {
			t.Errorf("%s: not seen", change[0])
		} else if change[1] == "" {
			before = after
		}
		must(h.Sh(ctx, change[1]))(t)
	}
	if after := must(h.State(ctx, "web"))(t); after != before {
		t.Errorf("all was undone:\n%s", diff(before, after))
	}
}

func TestEngine(t *testing.T) {
	t.Parallel()
	h := lab.New(t, lab.Options{
		Daemon:  map[string]any{"live-restore": true, "userland-proxy": false},
		Sysctls: map[string]string{"net.ipv4.conf.eth0.rp_filter": "2"},
	})
	ctx := t.Context()
	if out := must(h.Run(ctx, "sysctl", "-n", "net.ipv4.conf.eth0.rp_filter"))(t); out != "2\n" {
		t.Errorf("rp_filter is %q", out)
	}
	if err := h.Web(ctx, "web", "-p", "80:80"); err != nil {
		t.Fatal(err)
	}
	client := h.Clients[0].Netns

	for name, restart := range map[string]func() error{
		"stop": func() error { return h.RestartDockerd(ctx, "--debug") },
		"kill": func() error { return errors.Join(h.KillDockerd(ctx), h.StartDockerd(ctx)) },
	} {
		if err := restart(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		get(t, client, lab.HostAddr, lab.Hello)
	}
	if err := h.StartDockerd(ctx); err == nil {
		t.Error("dockerd was started twice")
	}

	// Started after dockerd, firewalld is not seen by it.
	if err := errors.Join(h.StartFirewalld(ctx), h.StopFirewalld(ctx), h.StartFirewalld(ctx)); err != nil {
		t.Fatal(err)
	}
	if out, _ := h.Run(ctx, "firewall-cmd", "--get-zone-of-interface=docker0"); out != "" {
		t.Errorf("docker0 is in the zone %q", out)
	}

	if err := h.StopDockerd(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile(ctx, "/etc/docker/daemon.json", "{nonsense}"); err != nil {
		t.Fatal(err)
	}
	if err := h.StartDockerd(ctx); err == nil || !strings.Contains(err.Error(), "nonsense") && !strings.Contains(err.Error(), "invalid character") {
		t.Errorf("the error does not show dockerd's log: %v", err)
	}
}

// TestOtherDockerd runs an engine that is not the suite's.
func TestOtherDockerd(t *testing.T) {
	t.Parallel()
	lab.Need(t)
	other := must(lab.Root(t.Context(), lab.Trixie))(t)
	dir := t.TempDir()
	for _, name := range []string{"dockerd", "docker-proxy"} {
		data := must(os.ReadFile(filepath.Join(other, "usr/sbin", name)))(t)
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := lab.New(t, lab.Options{Suite: lab.Forky, Dockerd: filepath.Join(dir, "dockerd")})
	ctx := t.Context()
	if v := must(h.Docker(ctx, "version", "--format", "{{.Server.Version}}"))(t); !strings.HasPrefix(v, "26.1.") {
		t.Errorf("engine is %s", v)
	}
	if err := h.Web(ctx, "web", "-p", "80:80"); err != nil {
		t.Fatal(err)
	}
	get(t, h.Clients[0].Netns, lab.HostAddr, lab.Hello)
}

// TestApart has two hosts with the same addresses.
func TestApart(t *testing.T) {
	t.Parallel()
	a := lab.New(t, lab.Options{NoDockerd: true})
	b := lab.New(t, lab.Options{NoDockerd: true})
	must(a.Serve("0.0.0.0:80", nil))(t)
	get(t, a.Clients[0].Netns, lab.HostAddr, lab.ClientAddr+"\n")
	if s := lab.Outcome(b.Clients[0].Connect(t.Context(), lab.HostAddr+":80")); s != "refused" {
		t.Errorf("the other host's port: %s", s)
	}
	must(a.Run(t.Context(), "iptables", "-I", "INPUT", "-j", "DROP"))(t)
	if s := lab.Outcome(a.Clients[0].Connect(t.Context(), lab.HostAddr+":80")); s != "timeout" {
		t.Errorf("dropped: %s", s)
	}
	if out := must(b.Run(t.Context(), "iptables-save"))(t); out != "" {
		t.Errorf("the other host has got rules:\n%s", out)
	}
}

func TestCommand(t *testing.T) {
	h := lab.New(t, lab.Options{NoDockerd: true})
	ctx := t.Context()
	t.Setenv("DOCKER_HOST", "nowhere")
	if out := must(h.Sh(ctx, "echo $DOCKER_HOST $(hostname) $(cat /proc/1/comm); ls /sys/class/net"))(t); out != "docker-host tini-static\neth0\nlo\n" {
		t.Errorf("inside: %q", out)
	}
	if out := must(h.Clients[0].Run(ctx, "ip", "-br", "-4", "addr", "show", "eth0"))(t); !strings.Contains(out, lab.ClientAddr) {
		t.Errorf("client: %q", out)
	}
	_, err := h.Sh(ctx, "echo no >&2; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.HasSuffix(err.Error(), ": no") {
		t.Errorf("error: %v", err)
	}

	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := h.Sh(ctx, "sleep 1234; true"); err == nil {
		t.Error("a command outlived its context")
	}
	if out, err := h.Run(t.Context(), "pgrep", "-f", "sleep 1234"); err == nil {
		t.Errorf("left behind: %s", out)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho run\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// /var/run is an absolute link: it must not lead to the machine's /run.
	if err := h.Install(t.Context(), file, "/var/run/some/where/file"); err != nil {
		t.Fatal(err)
	}
	if out := must(h.Run(t.Context(), "/run/some/where/file"))(t); out != "run\n" {
		t.Errorf("installed: %q", out)
	}
}

func TestClose(t *testing.T) {
	lab.Need(t)
	before := machine(t)
	h, err := lab.Start(t.Context(), lab.Options{Firewalld: true, IPv6: true, Clients: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Web(t.Context(), "web", "-p", "80:80"); err != nil {
		t.Fatal(err)
	}
	must(h.Clients[0].Serve("0.0.0.0:80", nil))(t)
	pid := h.PID()
	if n := len(inside(t, pidns(pid))); n < 5 {
		t.Errorf("only %d processes inside", n)
	}
	ns := pidns(pid)
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second time: %v", err)
	}
	if left := inside(t, ns); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	if after := machine(t); after != before {
		t.Errorf("left on the machine:\n%s", diff(before, after))
	}
	if _, err := h.Run(t.Context(), "true"); err == nil {
		t.Error("a command ran in a closed host")
	}
	if err := h.Clients[0].Connect(t.Context(), lab.HostAddr+":80"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("client of a closed host: %v", err)
	}
}

// TestKilled kills the process that a host belongs to.
func TestKilled(t *testing.T) {
	lab.Need(t)
	before := machine(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killMe+"=1")
	cmd.Stderr = os.Stderr
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	var pid int
	if _, err := fmt.Sscanf(line, "%d <nil>", &pid); err != nil {
		t.Errorf("host: %q", line)
	}
	ns := pidns(pid)
	cmd.Process.Kill()
	cmd.Wait()
	for end := time.Now().Add(5 * time.Second); len(inside(t, ns)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("processes left: %v", inside(t, ns))
		}
	}
	// The cgroups go with the next host.
	lab.New(t, lab.Options{NoDockerd: true}).Close()
	if after := machine(t); after != before {
		t.Errorf("left on the machine:\n%s", diff(before, after))
	}
}

// machine is what a host might leave, and must not: mounts, links, open
// namespaces of this process, cgroups. Of other processes' hosts it sees none.
func machine(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	cache := must(lab.Cache())(t)
	for line := range strings.Lines(string(must(os.ReadFile("/proc/self/mountinfo"))(t))) {
		if strings.Contains(line, cache) {
			b.WriteString(line)
		}
	}
	for _, i := range must(net.Interfaces())(t) {
		if i.Name == "switch" || i.Name == "host" || strings.HasPrefix(i.Name, "client") {
			fmt.Fprintln(&b, "link", i.Name)
		}
	}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "net:") {
			fmt.Fprintln(&b, "namespace", to)
		}
	}
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/netcheck-lab-*")
	unified, _ := filepath.Glob("/sys/fs/cgroup/netcheck-lab-*")
	for _, dir := range append(cgroups, unified...) {
		var owner int
		fmt.Sscanf(filepath.Base(dir), "netcheck-lab-%d-", &owner)
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", owner)); err != nil || owner == os.Getpid() {
			fmt.Fprintln(&b, "cgroup", dir)
		}
	}
	return b.String()
}

// pidns names the PID namespace that a process is in.
func pidns(pid int) string {
	ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return ns
}

// inside are the processes in a PID namespace.
func inside(t *testing.T, ns string) (pids []string) {
	t.Helper()
	if ns == "" {
		t.Fatal("no namespace")
	}
	names, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, name := range names {
		if to, _ := os.Readlink(name); to == ns {
			pids = append(pids, name)
		}
	}
	return pids
}

func get(t *testing.T, n *lab.Netns, addr, body string) {
	t.Helper()
	if strings.Count(addr, ":") > 1 && addr[0] != '[' {
		addr = "[" + addr + "]"
	}
	if got, err := n.Get(t.Context(), "http://"+addr+"/"); got != body || err != nil {
		t.Errorf("get %s: %q, %s: %v", addr, got, lab.Outcome(err), err)
	}
}

// must is the value of a call that must succeed: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// diff shows two texts that differ.
func diff(before, after string) string { return udiff.Unified("before", "after", before, after) }
