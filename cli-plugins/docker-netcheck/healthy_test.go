//go:build linux

package main

import (
	"fmt"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// A healthy host is one combination of what hosts differ in: nothing is wrong with it.
type healthy struct {
	suite     string
	firewalld bool
	proxy     bool
	ipv6      bool
	network   string // one of networks
}

// networks are ways to run web: docker run's options, what makes its network before it, and what follows.
var networks = map[string]struct {
	setup   string
	run     []string
	command []string
	then    string
}{
	"default":  {run: []string{"-p", "80:80"}},
	"user":     {setup: `docker network create app`, run: []string{"--network", "app", "-p", "80:80"}},
	"internal": {setup: `docker network create --internal int`, run: []string{"--network", "int"}},
	"host":     {run: []string{"--network", "host"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"}},
	"none":     {run: []string{"--network", "none"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"}},
	"two":      {setup: `docker network create app; docker network create other`, run: []string{"--network", "app", "-p", "80:80"}, then: `docker network connect other web`},
	"dual":     {setup: `docker network create --ipv6 --subnet fd00:aa::/64 n6`, run: []string{"--network", "n6", "-p", "80:80"}, command: []string{"httpd", "-f", "-p", "[::]:80", "-h", "/www"}},
}

// pairs is a set of hosts in which every two choices occur together; all is every combination.
func healthyHosts(all bool) []healthy {
	var every []healthy
	for _, suite := range lab.Suites() {
		for _, network := range []string{"default", "user", "internal", "host", "none", "two", "dual"} {
			for bits := range 8 {
				every = append(every, healthy{suite, bits&1 != 0, bits&2 != 0, bits&4 != 0, network})
			}
		}
	}
	if all {
		return every
	}
	seen := map[string]bool{}
	pairsOf := func(h healthy) (keys []string) {
		choices := []string{h.suite, fmt.Sprint("fw", h.firewalld), fmt.Sprint("proxy", h.proxy), fmt.Sprint("v6", h.ipv6), h.network}
		for i := range choices {
			for j := i + 1; j < len(choices); j++ {
				keys = append(keys, choices[i]+"+"+choices[j])
			}
		}
		return keys
	}
	var chosen []healthy
	for {
		best, gain := 0, 0
		for i, h := range every {
			n := 0
			for _, key := range pairsOf(h) {
				if !seen[key] {
					n++
				}
			}
			if n > gain {
				best, gain = i, n
			}
		}
		if gain == 0 {
			return chosen
		}
		for _, key := range pairsOf(every[best]) {
			seen[key] = true
		}
		chosen = append(chosen, every[best])
	}
}

func TestHealthy(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	hosts := healthyHosts(len(suitesOf([]string{"", ""}, 0)) > 1)
	t.Logf("%d healthy hosts", len(hosts))
	for _, h := range hosts {
		t.Run(fmt.Sprintf("%s/%s/firewalld=%t/proxy=%t/ipv6=%t", h.suite, h.network, h.firewalld, h.proxy, h.ipv6), func(t *testing.T) {
			t.Parallel()
			h.test(t, path)
		})
	}
}

func (h healthy) test(t *testing.T, path string) {
	n := networks[h.network]
	options := lab.Options{Firewalld: h.firewalld, IPv6: h.ipv6, Daemon: map[string]any{"userland-proxy": h.proxy}}
	if h.network == "dual" && !h.proxy && h.suite != lab.Forky {
		// Engines before 27 publish by IPv6 through docker-proxy alone, unless they are told to program ip6tables.
		options.Daemon["ip6tables"], options.Daemon["experimental"] = true, true
	}
	b := fault{options: options, setup: n.setup, run: n.run, command: n.command}.bench(t, h.suite, path)
	b.inject(n.then)
	if h.firewalld && (h.ipv6 || h.network == "host") {
		// Clients of the host's own ports, and IPv6 clients of an IPv4 container, who come to docker-proxy, have to be let in
		// by the zone.
		_, err := b.host.Sh(b.ctx, "firewall-cmd -q --add-port=80/tcp")
		b.must(err)
	}
	if h.network != "internal" && h.network != "none" {
		if got := b.works(fault{way: "in"}); got != "ok" {
			t.Fatalf("it is not healthy: %s", got)
		}
	}
	if h.network == "dual" && h.ipv6 {
		if got := b.works(fault{way: "in6"}); got != "ok" {
			t.Fatalf("it is not healthy by IPv6: %s", got)
		}
	}
	for _, args := range [][]string{{"web"}, {"--client", "host", "web"}, {"--client", "localhost", "web"}, {"--host"}} {
		report, exit := b.netcheck(args...)
		if exit != 0 || report.Verdict != checks.Pass {
			t.Errorf("%v: exit status %d, %s\n%s", args, exit, report.Verdict, b.text(args))
		}
	}
}

// TestManyContainers judges an engine with 50 containers and, of one more, 200 published ports: all well. In the
// ordinary run it is a tenth.
func TestManyContainers(t *testing.T) {
	lab.Need(t)
	containers, ports := 5, 20
	suites := suitesOf(nil, 2)
	if len(suites) > 1 {
		containers, ports = 50, 200
	}
	path := buildPlugin(t)
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			serve := fmt.Sprintf("for p in $(seq 20000 %d); do httpd -p $p -h /www; done; exec sleep 9999", 20000+ports-1)
			b := fault{options: lab.Options{Daemon: noProxy}, command: []string{"sh", "-c", serve},
				run: []string{"-p", fmt.Sprintf("20000-%d:20000-%[1]d", 20000+ports-1)}}.bench(t, suite, path)
			b.inject(fmt.Sprintf("for i in $(seq %d); do docker run -d --name c$i -p $((10000+i)):80 bb:1 httpd -f -p 80 -h /www; done", containers))
			b.inject(fmt.Sprintf("for i in $(seq 100); do nsenter -t $WEBPID -n ss -ltnH | grep -q :%d && break; sleep .1; done", 20000+ports-1))
			report, exit := b.netcheck("--all")
			if want := 2*containers + ports + 1; exit != 0 || report.Verdict != checks.Pass || len(report.Targets) != want {
				t.Errorf("exit status %d, %s, %d targets of %d\n%s", exit, report.Verdict, len(report.Targets), want, b.text([]string{"--all"}))
			}
		})
	}
}
