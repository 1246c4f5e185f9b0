//go:build linux

package main

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// Faults of the container, its ports, its namespace and its links.
var containerFaults = []fault{
	{name: "app-listens-loopback", command: []string{"httpd", "-f", "-p", "127.0.0.1:80", "-h", "/www"},
		way: "in", check: "listening", object: `socket 127\.0\.0\.1:80 httpd in container web`},
	{name: "not-published", run: []string{}, args: []string{"--port", "80", "web"},
		way: "in", check: "published", object: `container web`},
	{name: "ctr-localhost-is-self", more: peerOf + `docker exec -d peer httpd -f -p 127.0.0.1:8081 -h /www`, inject: `docker exec peer killall httpd; docker exec -d web httpd -f -p 8081 -h /www`,
		args: []string{"--to", "127.0.0.1:8081", "peer"}, probe: `nsenter -t $(docker inspect -f '{{.State.Pid}}' peer) -n curl -sf -m2 -o /dev/null http://127.0.0.1:8081/`,
		way: "out", check: "listening", object: `socket 127\.0\.0\.1:8081 in container peer`},
	{name: "wrong-container-port", run: []string{"-p", "80:8080"},
		way: "in", check: "listening", object: `socket \S+:8080 in container web`},
	{name: "host-port-taken", inject: `docker rm -f web >/dev/null
setsid python3 -m http.server 80 --directory /proc/self/fdinfo >/dev/null 2>&1 </dev/null &
for i in $(seq 40); do ss -ltnH | grep -q :80 && break; sleep .05; done
docker run -d --name web -p 80:80 bb:1 httpd -f -p 80 -h /www || true`,
		check: "published", object: `socket 0\.0\.0\.0:80 python3[.\d]*`},
	{name: "port-allocated-other-container", inject: `docker rm -f web >/dev/null
docker run -d --name other -p 80:80 bb:1 httpd -f -p 80 -h /www
docker run -d --name web -p 80:80 bb:1 httpd -f -p 80 -h /www || true`,
		check: "published", object: `container other`},
	{name: "host-service-loopback", more: fmt.Sprintf(serve, "127.0.0.1"), args: toBridge,
		way: "gateway", check: "listening", object: `socket 127\.0\.0\.1:9000( python3[.\d]*)?`},
	{name: "published-loopback-only", run: []string{"-p", "127.0.0.1:80:80"}, args: afar,
		way: "in", check: "published", object: `container web`},
	{name: "ctr-exited", inject: `docker kill web`,
		way: "in", check: "running", object: `container web`},
	{name: "ctr-paused", inject: `docker pause web`,
		way: "in", check: "running", object: `container web`, fixed: true, allow: "open"},
	{name: "app-slow-start", command: []string{"sh", "-c", "sleep 60; exec httpd -f -p 80 -h /www"},
		way: "in", check: "listening", object: `socket \S+:80 in container web`},
	{name: "ctr-uses-host-port", run: []string{"-p", "15432:80"}, more: peerOf + `docker exec -d web httpd -f -p 15432 -h /www`, inject: `docker exec web sh -c 'kill $(pidof httpd | tr " " "\n" | grep -vx 1)'`,
		args: []string{"--to", "web:15432", "peer"}, probe: `nsenter -t $(docker inspect -f '{{.State.Pid}}' peer) -n curl -sf -m2 -o /dev/null http://$WEBIP:15432/`,
		way: "peer", check: "listening", object: `socket \S+:15432 in container web`},
	{name: "netns-donor-gone", setup: `docker run -d --name donor -p 80:80 bb:1 sleep 9999`, run: []string{"--network", "container:donor"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"},
		inject: `docker rm -f donor; docker run -d --name donor -p 80:80 bb:1 sleep 9999`,
		way:    "out", check: "namespace", object: `container web`},
	{name: "netns-donor-restarted", setup: `docker run -d --name donor -p 80:80 bb:1 sleep 9999`, run: []string{"--network", "container:donor"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"},
		inject: `docker restart -t0 donor`, way: "in", check: "namespace", object: `container web`, fixed: true, allow: "disrupt"},
	{name: "multi-net-bound-address", command: []string{"httpd", "-f", "-p", "172.17.0.2:80", "-h", "/www"}, inject: `docker network create aab; docker network connect aab web`, suites: []string{lab.Bookworm, lab.Trixie},
		way: "in", check: "listening", object: `socket 172\.17\.0\.2:80 httpd in container web`},
	{name: "host-network-ignores-p", run: []string{"--network", "host", "-p", "80:8000"}, command: []string{"httpd", "-f", "-p", "8000", "-h", "/www"},
		way: "in", check: "published", object: `container web`},
	{name: "network-internal", setup: `docker network create --internal int`, run: []string{"--network", "int", "-p", "80:80"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"},
		way: "in", check: "published", object: `container web`},
	{name: "network-none", run: []string{"--network", "none", "-p", "80:80"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"},
		way: "in", check: "published", object: `container web`},
	{name: "macvlan-publishes-nothing", setup: macvlan,
		run: []string{"--network", "mv", "--ip", "198.51.100.130", "-p", "80:80"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"},
		way: "in", check: "published", object: `container web`},
	{name: "gateway-mode-routed", suites: []string{lab.Forky}, setup: `docker network create -o com.docker.network.bridge.gateway_mode_ipv4=routed rt`, run: []string{"--network", "rt", "-p", "80:80"},
		args: afar, way: "in", check: "published", object: `container web`},
	{name: "host-ip-not-assigned", inject: `docker rm -f web; docker run -d --name web -p 198.51.100.99:80:80 bb:1 httpd -f -p 80 -h /www || true`,
		check: "published", object: `addr 198\.51\.100\.99`},
	{name: "published-on-gone-host-ip", run: []string{"-p", "198.51.100.15:80:80"}, inject: `ip addr add 198.51.100.16/24 dev eth0; ip addr del 198.51.100.15/24 dev eth0; ip addr add 198.51.100.16/24 dev eth0 || true; ip route replace default via 198.51.100.2`,
		way: "in", check: "published", object: `addr 198\.51\.100\.15`},
	{name: "secondary-ports-unpublished", more: `docker exec -d web httpd -f -p 21100 -h /www`, args: []string{"--port", "21100", "web"},
		check: "published", object: `container web`},
	{name: "proto-mismatch", run: []string{"-p", "80:80/udp"},
		way: "in", check: "listening", object: `socket \S+:80 in container web`},
	{name: "ephemeral-port-collision", inject: `docker rm -f web
setsid python3 -c "import socket,time;s=socket.socket();s.bind(('198.51.100.15',33000));s.connect(('198.51.100.2',8080));time.sleep(99)" </dev/null >/dev/null 2>&1 &
for i in $(seq 40); do ss -tnH | grep -q :33000 && break; sleep .05; done
docker run -d --name web -p 33000:80 bb:1 httpd -f -p 80 -h /www || true`,
		check: "published", object: `socket 198\.51\.100\.15:33000( python3[.\d]*)?`},

	{name: "veth-down", inject: `ip link set $VETH down`,
		way: "in", check: "veth", object: `link veth\w+`, fixed: true},
	{name: "veth-detached", inject: `ip link set $VETH nomaster`,
		way: "in", check: "veth", object: `link veth\w+`, fixed: true},
	{name: "veth-deleted", inject: `ip link del $VETH`,
		way: "in", check: "namespace", object: `link eth0 in container (web|side)`, fixed: true, allow: "disrupt"},
	{name: "veth-deleted-shared", more: `docker run -d --name side --network container:web bb:1 sleep 9999`, inject: `ip link del $VETH`, args: []string{"side"},
		way: "in", check: "namespace", object: `link eth0 in container (web|side)`, fixed: true, allow: "disrupt"},
	{name: "tc-throttle", inject: `tc qdisc add dev eth0 root tbf rate 8kbit burst 1600 latency 50ms`,
		way: "big", status: checks.Warn, check: "mtu", object: `link eth0`},
	{name: "tc-throttle-veth", inject: `tc qdisc add dev $VETH root tbf rate 8kbit burst 1600 latency 50ms`, // slows what is sent to the container, which is little
		status: checks.Warn, check: "mtu", object: `link veth\w+`},
	{name: "veth-mtu-smaller", inject: `ip link set $VETH mtu 1200`,
		status: checks.Warn, check: "mtu", object: `link veth\w+`, fixed: true},
	{name: "ctr-eth0-down", inject: `nsenter -t $WEBPID -n ip link set eth0 down`,
		way: "in", check: "namespace", object: `link eth0 in container web`, fixed: true},
	{name: "ctr-no-default-route", inject: `nsenter -t $WEBPID -n ip route del default`,
		way: "in", check: "namespace", object: `route to .*: none in container web`, fixed: true},
	{name: "ctr-wrong-gateway", inject: `nsenter -t $WEBPID -n ip route replace default via 172.17.0.254`,
		way: "in", check: "namespace", object: `route default via 172\.17\.0\.254 .*in container web`, fixed: true, allow: "open"},
	{name: "ctr-blackhole", inject: `nsenter -t $WEBPID -n ip route add blackhole 198.51.100.0/24`, args: toClient,
		way: "out", check: "namespace", object: `route blackhole 198\.51\.100\.0/24 in container web`, fixed: true, allow: "open"},
	{name: "ctr-prohibit-rule", inject: `nsenter -t $WEBPID -n ip rule add from 172.17.0.0/16 prohibit prio 100`,
		way: "in", check: "namespace", object: `rule 100: from 172\.17\.0\.0/16 prohibit in container web`, fixed: true, allow: "open"},
	{name: "ctr-neigh-permanent", inject: `nsenter -t $WEBPID -n ip neigh replace 172.17.0.1 lladdr 02:42:ac:11:00:99 nud permanent dev eth0`,
		way: "in", check: "namespace", object: `neigh 172\.17\.0\.1 dev eth0 in container web`, fixed: true, allow: "open"},
	{name: "ctr-own-firewall", inject: `nsenter -t $WEBPID -n sh -c 'iptables -P INPUT DROP; iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'`,
		way: "in", check: "path", object: `iptables filter INPUT policy DROP in container web`},
	{name: "ctr-no-ip", inject: `nsenter -t $WEBPID -n ip addr flush dev eth0`,
		way: "in", check: "namespace", object: `link eth0 in container web`, fixed: true},
	{name: "ctr-ip-duplicate", more: peerOf, inject: `nsenter -t $(docker inspect -f '{{.State.Pid}}' peer) -n ip addr add $WEBIP/16 dev eth0; docker exec peer ping -c1 -W1 -I $WEBIP 172.17.0.1 || true; nsenter -t $(docker inspect -f '{{.State.Pid}}' peer) -n ip addr del $(docker inspect -f '{{.NetworkSettings.IPAddress}}' peer)/16 dev eth0; ip neigh replace $WEBIP dev docker0 lladdr $(docker inspect -f '{{.NetworkSettings.MacAddress}}' peer) nud permanent`,
		args: []string{"web"}, way: "in", check: "route", object: `neigh 172\.17\.0\.2 dev docker0`},
	{name: "ctr-ip-twice", more: peerOf, inject: `nsenter -t $(docker inspect -f '{{.State.Pid}}' peer) -n ip addr add $WEBIP/16 dev eth0; ip neigh replace $WEBIP dev docker0 lladdr $(docker inspect -f '{{.NetworkSettings.Networks.bridge.MacAddress}}' web) nud reachable`,
		args:   []string{"web", "peer"}, // the host knows web's for now
		status: checks.Warn, check: "namespace", object: `addr 172\.17\.0\.2/16 dev eth0 in container peer`},
	{name: "dns-embedded-broken", setup: `docker network create app`, run: []string{"--network", "app", "-p", "80:80"}, inject: `nsenter -t $WEBPID -n iptables -t nat -F; nsenter -t $WEBPID -n nft flush ruleset`,
		probe: resolves, way: "dns", check: "dns", object: `.*in container web`, fixed: true},
	{name: "dns-blocked", setup: `docker network create app`, run: []string{"--network", "app", "--dns", lab.FarAddr, "-p", "80:80"}, inject: `iptables -I FORWARD -p udp --dport 53 -j DROP`,
		probe: resolves, way: "dns", check: "dns", object: `iptables filter FORWARD 1: .*--dport 53 -j DROP`},
	{name: "dns-daemon-blocked", options: lab.Options{Daemon: map[string]any{"dns": []string{lab.FarAddr}}}, setup: `docker network create app`, run: []string{"--network", "app", "-p", "80:80"}, inject: `iptables -I FORWARD -p udp --dport 53 -j DROP`,
		probe: resolves, way: "dns", check: "dns", object: `iptables filter FORWARD 1: .*--dport 53 -j DROP`},
	{name: "dns-host-server-blocked", suites: []string{lab.Bookworm, lab.Trixie}, setup: `docker network create app`, run: []string{"--network", "app", "-p", "80:80"}, inject: `iptables -I FORWARD -p udp --dport 53 -j DROP`,
		probe: resolves, way: "dns", check: "dns", object: `iptables filter FORWARD 1: .*--dport 53 -j DROP`},
	{name: "dns-own-resolv-conf", inject: `docker exec web sh -c 'echo nameserver 192.0.2.53 >/etc/resolv.conf'; ip route add blackhole 192.0.2.0/24`,
		probe: resolves, way: "dns", check: "dns", object: `route blackhole 192\.0\.2\.0/24.*`},
	{name: "network-internal-out", setup: `docker network create --internal int`, run: []string{"--network", "int"}, args: toClient,
		way: "out", check: "namespace", object: `container web`},
	{name: "network-none-out", run: []string{"--network", "none"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"}, args: toClient,
		way: "out", check: "namespace", object: `container web`},
}
