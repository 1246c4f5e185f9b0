//go:build linux

package main

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// newPolicy is a script that makes a policy of firewalld's, and its way to change it.
const newPolicy = `fc() { firewall-cmd -q --permanent "$@"; }; fc --new-policy fence; `

// reload is a script that reloads firewalld, and waits until the engine, which makes its rules anew then and says
// it to nobody, has made none for two seconds.
const reload = `firewall-cmd -q --reload; last=; still=0
for i in $(seq 100); do
	now=$(nft -sa list ruleset | cksum)
	if [ "$now" = "$last" ]; then still=$((still + 1)); else still=0; fi
	if [ $still = 10 ]; then break; fi
	last=$now; sleep 0.2
done
`

// Faults of netfilter, whoever made the rules.
var filterFaults = []fault{
	{name: "input-blocks-containers", more: fmt.Sprintf(serve, "0.0.0.0"), inject: `iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
		args: toBridge, way: "gateway", check: "path", object: `iptables filter INPUT policy DROP`, fixed: true, allow: "open"},
	{name: "forward-rules-flushed", inject: `iptables -F FORWARD; iptables -P FORWARD DROP`,
		way: "in", check: "accept", object: `iptables filter FORWARD: missing .*`, fixed: true},
	{name: "filter-flushed", inject: `iptables -F`,
		way: "in", check: "accept", object: `iptables filter \S+: missing .*`, fixed: true},
	{name: "accepts-gone", inject: `iptables -P FORWARD DROP
for c in DOCKER-FORWARD DOCKER-CT DOCKER-BRIDGE; do iptables -F $c 2>/dev/null || true; done
iptables -S FORWARD | grep -E -- '-o docker0|-i docker0' | sed 's/^-A/-D/' | while read -r r; do iptables $r; done`,
		way: "in", check: "accept", object: `iptables filter \S+: missing .*`, fixed: true},
	{name: "nat-flushed-noproxy", options: lab.Options{Daemon: noProxy}, inject: `iptables -t nat -F`,
		way: "in", check: "dnat", object: `iptables nat \S+: missing .*`, fixed: true},
	{name: "nat-flushed-proxy", inject: `iptables -t nat -F`,
		way: "out", check: "masquerade", object: `iptables nat POSTROUTING: missing .* -j MASQUERADE`, fixed: true},
	{name: "nft-flush-ruleset", inject: `nft flush ruleset`,
		way: "out", check: "masquerade", object: `iptables nat POSTROUTING: missing .* -j MASQUERADE`, fixed: true},
	{name: "nft-inet-forward-drop", inject: `nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }'`,
		way: "in", check: "path", object: `nft inet fw forward policy drop`, fixed: true, allow: "open"},
	{name: "nft-inet-forward-drop-est", inject: `nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; policy drop; }; add rule inet fw forward ct state established,related accept; add rule inet fw forward iifname "docker0" accept'`,
		way: "in", check: "path", object: `nft inet fw forward policy drop`, fixed: true, allow: "open"},
	{name: "vpn-killswitch", inject: `nft 'add table inet mullvad; add chain inet mullvad forward { type filter hook forward priority 0; policy drop; }; add rule inet mullvad forward oifname "wg0" accept'`,
		way: "out", check: "path", object: `nft inet mullvad forward policy drop`, fixed: true, allow: "open"},
	{name: "legacy-forward-drop", inject: `iptables-legacy -P FORWARD DROP`,
		way: "in", check: "path", object: `iptables-legacy filter FORWARD policy DROP`, fixed: true, allow: "open"},
	{name: "docker-user-drop", inject: `iptables -I DOCKER-USER -i eth0 -j DROP`,
		way: "in", check: "path", object: `iptables filter DOCKER-USER 1: -i eth0 -j DROP`, fixed: true, allow: "open"},
	{name: "docker-user-reject-client", inject: `iptables -I DOCKER-USER -s 198.51.100.2 -p tcp -j REJECT --reject-with tcp-reset`, args: nearby,
		way: "near", check: "path", object: `iptables filter DOCKER-USER 1: .*-j REJECT.*`, fixed: true, allow: "open"},
	{name: "docker-user-allowlist", inject: `iptables -I DOCKER-USER -i eth0 ! -s 203.0.113.0/24 -j DROP`, args: []string{"--to", "198.51.100.2:8080", "web"},
		way: "out", check: "path", object: `iptables filter DOCKER-USER 1: .*-j DROP`, fixed: true, allow: "open"},
	{name: "forward-rule-before-docker", inject: `iptables -I FORWARD 1 -o docker0 -m conntrack --ctstate NEW -j DROP`,
		way: "in", check: "path", object: `iptables filter FORWARD 1: .*-j DROP`, fixed: true, allow: "open"},
	{name: "host-image-reject-rules", inject: `iptables -I FORWARD 1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -I FORWARD 2 -i eth0 -j REJECT --reject-with icmp-host-prohibited`,
		way: "in", check: "path", object: `iptables filter FORWARD 2: -i eth0 -j REJECT .*`, fixed: true, allow: "open"},
	{name: "mangle-drop", inject: `iptables -t mangle -I PREROUTING -i eth0 -p tcp --dport 80 -j DROP`,
		way: "in", check: "path", object: `iptables mangle PREROUTING 1: .*-j DROP`, fixed: true, allow: "open"},
	{name: "nft-prerouting-raw-drop", inject: `nft 'add table inet fw; add chain inet fw pre { type filter hook prerouting priority -300; }; add rule inet fw pre iifname "eth0" tcp dport 80 drop'`,
		way: "in", check: "path", object: `nft inet fw pre handle \d+: iifname "eth0" tcp dport 80 drop`, fixed: true, allow: "open"},
	{name: "nft-netdev-ingress-drop", inject: `nft 'add table netdev fw; add chain netdev fw ing { type filter hook ingress device eth0 priority 0; }; add rule netdev fw ing tcp dport 80 drop'`,
		way: "in", check: "path", object: `nft netdev fw ing handle \d+: tcp dport 80 drop`, fixed: true, allow: "open"},
	{name: "nft-bridge-drop", more: peerOf, inject: `nft 'add table bridge nb; add chain bridge nb cf { type filter hook forward priority 0; policy drop; }'`, args: toWeb,
		way: "peer", check: "path", object: `nft bridge nb cf policy drop`},
	{name: "masquerade-missing", inject: `iptables -t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE`,
		way: "out", check: "masquerade", object: `iptables nat POSTROUTING: missing -s 172\.17\.0\.0/16 ! -o docker0 -j MASQUERADE`, fixed: true},
	{name: "snat-wrong-address", inject: `iptables -t nat -I POSTROUTING 1 -s 172.17.0.0/16 -o eth0 -j SNAT --to-source 198.51.100.77`,
		way: "out", check: "masquerade", object: `iptables nat POSTROUTING 1: .*-j SNAT --to-source 198\.51\.100\.77`},
	{name: "daemon-ip-masq-false", options: lab.Options{Daemon: map[string]any{"ip-masq": false}},
		way: "out", check: "masquerade", object: `engine option ip-masq`},
	{name: "dnat-altered", options: lab.Options{Daemon: noProxy},
		inject: `n=$(iptables -t nat -S DOCKER | grep -- '-A' | grep -n 'dport 80 ' | cut -d: -f1)
rule=$(iptables -t nat -S DOCKER $n | sed "s/^-A DOCKER //; s/$WEBIP:80/172.17.0.99:80/")
iptables -t nat -R DOCKER $n $rule`,
		way: "in", check: "dnat", object: `iptables nat DOCKER \d+: .*--to-destination 172\.17\.0\.99:80`, fixed: true},
	{name: "dnat-stale-ip", inject: `iptables -t nat -I DOCKER 1 ! -i docker0 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.99:80`,
		way: "in", check: "dnat", object: `iptables nat DOCKER 1: .*--to-destination 172\.17\.0\.99:80`},
	{name: "dnat-shadowed-kube", inject: `iptables -t nat -N KUBE-HP; iptables -t nat -A KUBE-HP -p tcp --dport 80 -j DNAT --to-destination 10.42.0.5:80; for c in PREROUTING OUTPUT; do iptables -t nat -I $c 1 -m addrtype --dst-type LOCAL -j KUBE-HP; done`,
		way: "in", check: "dnat", object: `iptables nat KUBE-HP 1: .*--to-destination 10\.42\.0\.5:80`},
	{name: "dnat-missing-noproxy", options: lab.Options{Daemon: noProxy}, inject: `iptables -t nat -D DOCKER $(iptables -t nat -S DOCKER | grep -- '-A' | grep -n 'dport 80 ' | cut -d: -f1)`,
		way: "in", check: "dnat", object: `iptables nat DOCKER: missing .*`, fixed: true},
	{name: "dnat-missing-proxy", inject: `iptables -t nat -D DOCKER $(iptables -t nat -S DOCKER | grep -- '-A' | grep -n 'dport 80 ' | cut -d: -f1)`,
		status: checks.Warn, check: "dnat", object: `iptables nat DOCKER: missing .*`},
	{name: "iptables-false-out", options: lab.Options{Daemon: map[string]any{"iptables": false, "ip-forward": true}},
		way: "out", check: "engine", object: `engine option iptables`},
	{name: "iptables-false-noproxy", options: lab.Options{Daemon: map[string]any{"iptables": false, "userland-proxy": false}},
		way: "in", check: "engine", object: `engine option iptables`},
	{name: "cross-network-isolation", setup: `docker network create app`, more: `docker run -d --name peer --network app bb:1 sleep 9999`, args: toWeb,
		way: "peer", check: "accept", object: `iptables (filter DOCKER\S*|raw PREROUTING) \d+: .*-j DROP`},
	{name: "icc-false", options: lab.Options{Daemon: map[string]any{"icc": false}}, more: peerOf, args: toWeb,
		way: "peer", check: "accept", object: `iptables filter \S+ \d+: -i docker0 -o docker0 -j DROP`},
	{name: "ipv6-proxy-input-drop", options: lab.Options{IPv6: true}, inject: `ip6tables -I INPUT -i eth0 -p tcp --dport 80 -j DROP`, args: afar6,
		way: "in6", check: "path", object: `ip6tables filter INPUT 1: .*-j DROP`, fixed: true, allow: "open"},
	{name: "ipv6-net-forward-drop", suites: []string{lab.Forky}, options: lab.Options{IPv6: true}, setup: `docker network create --ipv6 --subnet fd00:aa::/64 n6`, run: []string{"--network", "n6", "-p", "80:80"}, command: []string{"httpd", "-f", "-p", "[::]:80", "-h", "/www"},
		inject: `ip6tables -F FORWARD; ip6tables -P FORWARD DROP`, args: afar6,
		way: "in6", check: "accept", object: `ip6tables filter FORWARD: missing .*`, fixed: true},
	{name: "ipv6-forwarding-off", suites: []string{lab.Forky}, options: lab.Options{IPv6: true}, setup: `docker network create --ipv6 --subnet fd00:aa::/64 n6`, run: []string{"--network", "n6", "-p", "80:80"}, command: []string{"httpd", "-f", "-p", "[::]:80", "-h", "/www"},
		inject: `sysctl -qw net.ipv6.conf.all.forwarding=0`, args: afar6,
		way: "in6", check: "forwarding", object: `sysctl net\.ipv6\.conf\.all\.forwarding`, fixed: true},

	{name: "fw-bridge-in-public-zone", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=public --change-interface=docker0`,
		way: "out", check: "firewalld", object: `firewalld zone docker`, fixed: true},
	{name: "fw-bridge-no-zone", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=docker --remove-interface=docker0`,
		way: "out", check: "firewalld", object: `firewalld zone docker`, fixed: true},
	{name: "fw-bridge-in-drop-zone", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=drop --change-interface=docker0`,
		way: "out", check: "firewalld", object: `firewalld zone docker`, fixed: true, allow: "open"},
	{name: "fw-strict-forward-ports", suites: newer, options: lab.Options{Firewalld: true}, inject: `sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=yes/' /etc/firewalld/firewalld.conf; ` + reload,
		way: "in", check: "firewalld", object: `firewalld option StrictForwardPorts`},
	{name: "fw-docker-zone-target", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --permanent --zone=docker --set-target=default; ` + reload,
		way: "out", check: "firewalld", object: `firewalld zone docker`},
	{name: "fw-ctr-subnet-source-zone", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=block --add-source=172.17.0.0/16`,
		way: "out", check: "firewalld", object: `firewalld zone block`, fixed: true, allow: "open"},
	{name: "fw-policy-target", options: lab.Options{Firewalld: true}, inject: newPolicy + `fc --policy fence --set-target REJECT; fc --policy fence --add-ingress-zone docker; fc --policy fence --add-egress-zone ANY; ` + reload,
		way: "out", check: "firewalld", object: `firewalld policy fence`, fixed: true, allow: "open"},
	{name: "fw-policy-rich-rule", options: lab.Options{Firewalld: true}, setup: newPolicy + `fc --policy fence --add-ingress-zone docker; fc --policy fence --add-egress-zone ANY; ` + reload,
		inject: `firewall-cmd -q --policy fence --add-rich-rule 'rule family=ipv4 destination address=198.51.100.0/24 drop'`, args: toClient,
		way: "out", check: "firewalld", object: `firewalld policy fence`, fixed: true, allow: "open"},
	{name: "fw-policy-to-host", options: lab.Options{Firewalld: true}, more: fmt.Sprintf(serve, "172.17.0.1"), inject: newPolicy + `fc --policy fence --set-target DROP; fc --policy fence --add-ingress-zone docker; fc --policy fence --add-egress-zone HOST; ` + reload,
		args: toBridge, way: "gateway", check: "firewalld", object: `firewalld policy fence`, fixed: true, allow: "open"},
	{name: "fw-policy-docker-forwarding", suites: []string{lab.Forky}, options: lab.Options{Firewalld: true}, more: peerOf + `sysctl -qw net.bridge.bridge-nf-call-iptables=1`,
		inject: `firewall-cmd -q --permanent --policy docker-forwarding --set-target DROP; ` + reload, args: toWeb,
		way: "peer", check: "firewalld", object: `firewalld policy docker-forwarding`, fixed: true, allow: "open"},
	{name: "fw-panic", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --panic-on`,
		way: "in", check: "firewalld", object: `firewalld option panic`},
	{name: "fw-uplink-zone-proxy-only", options: lab.Options{Firewalld: true, IPv6: true}, more: `firewall-cmd -q --zone=trusted --change-interface=eth0`, inject: `firewall-cmd -q --zone=drop --change-interface=eth0`, args: afar6,
		way: "in6", check: "firewalld", object: `firewalld zone drop`},
	{name: "fw-started-after", suites: []string{lab.Forky}, start: (*lab.Host).StartFirewalld,
		way: "out", check: "firewalld", object: `firewalld zone docker`},
	{name: "fw-direct-first-use-flushes", suites: newer, options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --direct --add-rule ipv4 filter FORWARD 0 -p tcp --dport 9 -j DROP`,
		way: "in", check: "dnat", object: `iptables nat \S+: missing .*`, fixed: true},
}
