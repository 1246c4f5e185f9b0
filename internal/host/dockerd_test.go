//go:build linux

package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/google/go-cmp/cmp"
)

// process writes the /proc files of a process below a root directory.
func process(t *testing.T, root, pid string, arguments []string, environment string) {
	t.Helper()
	for name, content := range map[string]string{
		"comm": filepath.Base(arguments[0]) + "\n", "cmdline": strings.Join(arguments, "\x00") + "\x00", "environ": environment,
		"stat": pid + " (a) b) S 1 " + strings.Repeat("0 ", 17) + "4711 0\n",
	} {
		write(t, filepath.Join(root, "proc", pid, name), content)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Each setting comes from the best source that has it.
func TestReadConfig(t *testing.T) {
	yes, no := true, false
	for _, test := range []struct {
		name      string
		arguments []string
		env       string
		json      string
		proxies   []netstate.Proxy
		hairpin   bool
		version   string
		want      func(*netstate.EngineConfig)
		from      map[string]string // beside the defaults
	}{
		{name: "defaults", version: "28.5.2", want: func(*netstate.EngineConfig) {}},
		{name: "defaults of an old engine", version: "26.1.5+dfsg1", want: func(c *netstate.EngineConfig) { c.Ip6tables = &no }},
		{
			name: "arguments", version: "29.0.0",
			arguments: []string{"--iptables=false", "--ip", "192.0.2.1", "-b", "br0", "--icc", "--firewall-backend=nftables", "--label", "--ip6tables=false"},
			want: func(c *netstate.EngineConfig) {
				c.Iptables, c.IP, c.Bridge, c.FirewallBackend = &no, "192.0.2.1", "br0", "nftables"
				c.Ip6tables = &no
			},
			from: map[string]string{"iptables": "dockerd argument", "ip": "dockerd argument", "bridge": "dockerd argument", "icc": "dockerd argument",
				"firewall_backend": "dockerd argument", "ip6tables": "dockerd argument"},
		},
		{
			name: "file", version: "28.5.2",
			json: `{"userland-proxy": false, "ip-forward": false, "registry-mirrors": ["https://secret@example.com"], "bridge-accept-fwmark": "0x1/0x3"}`,
			want: func(c *netstate.EngineConfig) {
				c.UserlandProxy, c.IPForward, c.BridgeAcceptFwmark = &no, &no, "0x1/0x3"
			},
			from: map[string]string{"userland_proxy": "daemon.json", "ip_forward": "daemon.json", "bridge_accept_fwmark": "daemon.json"},
		},
		{
			name: "file of another name", version: "28.5.2", arguments: []string{"--config-file", "/etc/docker/other.json"}, json: `{"icc": false}`,
			want: func(*netstate.EngineConfig) {},
		},
		{
			name: "proxies show more than the file", version: "28.5.2", json: `{"userland-proxy": false}`, proxies: []netstate.Proxy{{PID: 9, Parent: 77}},
			want: func(*netstate.EngineConfig) {}, from: map[string]string{"userland_proxy": "docker-proxy processes"},
		},
		{
			name: "an orphan is no evidence", version: "28.5.2", proxies: []netstate.Proxy{{PID: 9}},
			want: func(*netstate.EngineConfig) {},
		},
		{
			name: "hairpin mode", version: "28.5.2", hairpin: true,
			want: func(c *netstate.EngineConfig) { c.UserlandProxy = &no }, from: map[string]string{"userland_proxy": "hairpin mode"},
		},
		{
			name: "environment", version: "28.5.2", env: "A=b\x00DOCKER_INSECURE_NO_IPTABLES_RAW=1\x00",
			want: func(c *netstate.EngineConfig) { c.NoIptablesRaw = &yes },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := machine{root: t.TempDir()}
			process(t, m.root, "77", append([]string{"/usr/sbin/dockerd"}, test.arguments...), test.env)
			if test.json != "" {
				write(t, m.path("etc/docker/daemon.json"), test.json)
			}
			e := &netstate.EngineState{Version: test.version, PID: 77}
			if err := m.readConfig(e, test.proxies, test.hairpin); err != nil {
				t.Fatal(err)
			}
			want := netstate.EngineConfig{Iptables: &yes, Ip6tables: &yes, UserlandProxy: &yes, IPForward: &yes, IPForwardNoDrop: &no, IPMasq: &yes,
				ICC: &yes, AllowDirectRouting: &no, NoIptablesRaw: &no, FirewallBackend: "iptables"}
			test.want(&want)
			want.From = map[string]string{"no_iptables_raw": "dockerd environment"}
			for _, name := range []string{"iptables", "ip6tables", "userland_proxy", "ip_forward", "ip_forward_no_drop", "ip_masq", "icc",
				"allow_direct_routing", "firewall_backend"} {
				want.From[name] = "default"
			}
			for name, from := range test.from {
				want.From[name] = from
			}
			if diff := cmp.Diff(want, e.Config); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A default is no answer where something that could say otherwise was not read.
func TestReadConfigUnread(t *testing.T) {
	for _, prepare := range map[string]func(*testing.T, machine){
		"file is not JSON":    func(t *testing.T, m machine) { write(t, m.path("etc/docker/daemon.json"), "{") },
		"file is a directory": func(t *testing.T, m machine) { write(t, m.path("etc/docker/daemon.json/x"), "") },
		"no arguments":        func(t *testing.T, m machine) { os.Remove(m.path("proc/77/cmdline")) },
	} {
		m := machine{root: t.TempDir()}
		process(t, m.root, "77", []string{"dockerd", "--icc=false"}, "")
		prepare(t, m)
		e := &netstate.EngineState{Version: "28.5.2", PID: 77}
		if err := m.readConfig(e, nil, false); err == nil || e.Config.Iptables != nil {
			t.Errorf("%v, iptables %v", err, e.Config.Iptables)
		}
	}
	if err := (machine{root: t.TempDir()}).readConfig(&netstate.EngineState{}, nil, false); err == nil {
		t.Error("no process, no error")
	}
}

func TestParseProxy(t *testing.T) {
	for text, want := range map[string]string{
		"docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 192.0.2.2 -container-port 80":                           "tcp 0.0.0.0:8080 192.0.2.2:80",
		"/usr/libexec/docker/docker-proxy -proto udp -host-ip :: -host-port 53 -container-ip fd00::2 -container-port 53 -use-listen-fd": "udp [::]:53 [fd00::2]:53",
		"docker-proxy -proto tcp -host-ip x -host-port 8080 -container-ip 192.0.2.2 -container-port 80":                                 "",
		"docker-proxy": "",
	} {
		proxy, ok := parseProxy(strings.Fields(text))
		got := ""
		if ok {
			got = proxy.Proto + " " + proxy.Host.String() + " " + proxy.Container.String()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// A process's name may hold anything, its start is found behind it.
func TestStarted(t *testing.T) {
	m := machine{root: t.TempDir()}
	process(t, m.root, "77", []string{"dockerd"}, "")
	if got := m.started(77); got != "4711" {
		t.Errorf("%q", got)
	}
	if got := m.started(78); got != "" {
		t.Errorf("of nobody: %q", got)
	}
}

func TestSameHost(t *testing.T) {
	for address, want := range map[string]bool{
		"unix:///var/run/docker.sock": true, "tcp://127.0.0.1:2375": true, "tcp://[::1]:2376": true, "tcp://localhost:2375": true,
		"tcp://192.0.2.1:2376": false, "http://docker.example.com": false, "ssh://me@host": false, "npipe:////./pipe/docker_engine": false,
	} {
		if got := sameHost(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
