//go:build linux

package main

import (
	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// Faults of docker-proxy, of connection tracking and of sizes.
var otherFaults = []fault{
	{name: "path-mtu-smaller", inject: `ip link set eth0 mtu 1300; iptables -I OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP`,
		way: "big", status: checks.Warn, check: "mtu", object: `iptables filter OUTPUT 1: .*`},
	{name: "docker-proxy-killed", inject: `kill $(pidof docker-proxy); for i in $(seq 40); do ss -ltnH | grep -q :80 || break; sleep .05; done`, args: []string{"--client", "localhost", "web"},
		way: "localhost", check: "published", object: `engine docker-proxy`, fixed: true, allow: "disrupt"},
	{name: "docker-proxy-stale", inject: `docker rm -f web; setsid $(command -v docker-proxy || echo /usr/libexec/docker/docker-proxy) -proto tcp -host-ip 0.0.0.0 -host-port 80 -container-ip 172.17.0.9 -container-port 80 >/dev/null 2>&1 3>/dev/null </dev/null &
sleep .5; docker run -d --name web -p 80:80 bb:1 httpd -f -p 80 -h /www || true`,
		suites: []string{lab.Bookworm, lab.Forky}, way: "in", check: "published", object: `socket 0\.0\.0\.0:80 docker-proxy`},
	{name: "udp-stale-conntrack", run: []string{"-p", "5353:5353/udp"}, more: `setsid nsenter -t $WEBPID -n python3 -c "import socket,time;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('0.0.0.0',5353));time.sleep(99)" </dev/null >/dev/null 2>&1 &
for i in $(seq 40); do nsenter -t $WEBPID -n ss -lunH | grep -q :5353 && break; sleep .05; done`, inject: `apt list --installed 2>/dev/null | grep -q '^conntrack/' && conntrack -I -p udp -s 203.0.113.9 -d 198.51.100.15 --sport 40000 --dport 5353 -r 198.51.100.15 -q 203.0.113.9 --reply-port-src 5353 --reply-port-dst 40000 -t 600 || true`,
		status: checks.Warn, check: "conntrack", object: `flow udp 203\.0\.113\.9:40000 → 198\.51\.100\.15:5353`},
}
