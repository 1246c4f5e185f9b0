//go:build linux

package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestFlushNftables breaks the tables of an engine with the nftables backend, of which NETCHECK_DOCKERD29 is
// the path: the fix brings back what the engine had programmed, undo what was broken, and the engine goes on
// with either.
func TestFlushNftables(t *testing.T) {
	lab.Need(t)
	dockerd := os.Getenv("NETCHECK_DOCKERD29")
	if dockerd == "" {
		t.Skip("NETCHECK_DOCKERD29 is not set: Debian has no engine 29; its recorded tables are judged by package checks")
	}
	path := buildPlugin(t)
	for _, proxy := range []bool{true, false} {
		t.Run(map[bool]string{true: "with docker-proxy", false: "without docker-proxy"}[proxy], func(t *testing.T) {
			b := newBench(t, lab.Options{Suite: lab.Forky, IPv6: true, Dockerd: dockerd, Daemon: map[string]any{"firewall-backend": "nftables", "userland-proxy": proxy},
				Sysctls: map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.ipv6.conf.default.forwarding": "1"}}, path)
			b.must(b.host.ImportImage(b.ctx))
			b.sh(`docker network create --ipv6 --subnet fd00:aa::/64 dual; docker network create --internal inside; docker network create other
docker run -d --name other --network other -p 8081:80 bb:1 sleep 9999; docker run -d --name hidden --network inside bb:1 sleep 9999`)
			ports := []string{"--network", "dual", "-p", "80:80"}
			if proxy { // without, engine 29.7.2 cannot publish one port twice
				ports = append(ports, "-p", "127.0.0.1:82:80")
			}
			b.web(ports, []string{"httpd", "-f", "-p", "[::]:80", "-h", "/www"})
			b.lasts()
			programmed := b.tables()
			for _, c := range []struct{ name, script string }{
				{"ruleset", "nft flush ruleset"},
				{"a table", "nft delete table ip docker-bridges"},
				{"all chains", "nft flush table ip docker-bridges; nft flush table ip6 docker-bridges"},
				{"maps", "for f in ip ip6; do for m in filter-forward-in filter-forward-out nat-postrouting-in nat-postrouting-out; do nft flush map $f docker-bridges $m-jumps; done; done"},
				{"hooks", "for c in nat-PREROUTING raw-PREROUTING filter-FORWARD; do nft flush chain ip docker-bridges $c; nft delete chain ip docker-bridges $c; done; nft add chain ip docker-bridges nat-PREROUTING"},
				{"dormant", "nft 'add table ip docker-bridges { flags dormant; }'"},
				{"partial resurrection", "nft flush ruleset; docker run -d --name late -p 8083:80 bb:1 sleep 9999"},
			} {
				t.Run(c.name, func(t *testing.T) {
					b := b.in(t)
					b.sh(c.script)
					defer b.sh("docker rm -f late >/dev/null 2>&1 || true")
					broken := b.tables()
					failed := b.probe("in")
					report, exit := b.netcheck("--fix", "--yes", "web")
					if exit != 0 || report.Fix == nil || !report.Fix.Changed {
						t.Fatalf("--fix: exit status %d, %s\n%s%s", exit, refusedIn(report), b.stderr, b.text(nil))
					}
					now := b.tables()
					if c.name == "partial resurrection" {
						b.sh("docker rm -f late >/dev/null")
						now = b.tables()
					}
					if now != programmed {
						t.Errorf("not what the engine had programmed:\n%s", diff(programmed, now))
					}
					for _, way := range []string{"in", "in6"} {
						if got := b.probe(way); got != "ok" {
							t.Errorf("%s: %s", way, got)
						}
					}
					t.Logf("before: %s; %d steps", failed, len(report.Fix.Applied))
					if c.name == "partial resurrection" {
						return // the engine has changed the tables since
					}
					if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 0 {
						t.Fatalf("undo: exit status %d: %s%s", exit, out, b.stderr)
					}
					if now := b.tables(); now != broken {
						t.Errorf("undo left:\n%s", diff(broken, now))
					}
					if report, exit := b.netcheck("--fix", "--yes", "web"); exit != 0 {
						t.Errorf("--fix after undo: exit status %d, %s\n%s", exit, refusedIn(report), b.stderr)
					}
					if report, exit := b.netcheck("--fix", "--yes", "web"); exit != 0 || report.Fix != nil && report.Fix.Changed {
						t.Errorf("--fix twice: exit status %d, %s", exit, jsonOf(report.Fix))
					}
					// The engine changes what was put back as though it had made it.
					b.sh("docker run -d --name late --network dual -p 8083:80 bb:1 sleep 9999; docker rm -f late >/dev/null")
					if now := b.tables(); now != programmed {
						t.Errorf("a container came and went, and left:\n%s", diff(programmed, now))
					}
					if strings.Contains(b.host.Log("dockerd", 1000), "reloading table") {
						t.Error("the engine had to load its table again")
					}
				})
			}
			t.Run("while containers start", func(t *testing.T) {
				b := b.in(t)
				b.sh("nft flush ruleset")
				loop := b.host.Command(b.ctx, "sh", "-c", "for n in 1 2 3 4; do docker run -d --name c$n -p 909$n:80 bb:1 sleep 999 || exit; done")
				b.must(loop.Start())
				for range 4 {
					b.netcheck("--fix", "--yes", "web")
				}
				if err := loop.Wait(); err != nil {
					t.Errorf("the engine could not start a container: %v", err)
				}
				b.netcheck("--fix", "--yes", "--all")
				b.well()
				b.sh("docker rm -f c1 c2 c3 c4 >/dev/null")
				if now := b.tables(); now != programmed {
					t.Errorf("not what the engine had programmed:\n%s", diff(programmed, now))
				}
			})
		})
	}
}

// lasts has a file say 0 that this engine does not contradict: --persist has it say 1, for the next boot.
func (b *bench) lasts() {
	b.t.Helper()
	b.must(b.host.WriteFile(b.ctx, sysctlFile, "net.ipv4.ip_forward = 0\n"))
	if report, exit := b.netcheck("--fix", "--yes", "web"); exit != 0 || report.Verdict != checks.Warn || report.Fix == nil || report.Fix.Changed {
		b.t.Errorf("without --persist: exit status %d, %s, %s", exit, report.Verdict, jsonOf(report.Fix))
	}
	b.fixes("--persist")
	b.sh("sysctl -q --system")
	b.well()
	if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 0 {
		b.t.Errorf("undo: exit status %d: %s%s", exit, out, b.stderr)
	}
	if got := b.sh("cat " + sysctlFile); got != "net.ipv4.ip_forward = 0\n" {
		b.t.Errorf("undo left %q", got)
	}
	b.sh("rm " + sysctlFile)
}

// tables returns the rules of nf_tables without counters, in an order that does not depend on when they
// were made, line by line with the chain that they are in.
func (b *bench) tables() string {
	b.t.Helper()
	var lines []string
	table, inside := "", ""
	for line := range strings.Lines(b.sh("nft -s list ruleset")) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "table "):
			table, inside = line, ""
		case strings.HasPrefix(line, "chain "), strings.HasPrefix(line, "map "):
			inside = line
		}
		for element := range strings.SplitSeq(strings.TrimPrefix(line, "elements = { "), ", ") {
			if element = strings.Trim(element, " ,}"); element != "" {
				lines = append(lines, table+" "+inside+" "+element)
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
