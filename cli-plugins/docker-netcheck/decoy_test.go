//go:build linux

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// Decoys look wrong and are not: the way works, and netcheck has nothing to say against it.
var decoys = []fault{
	{name: "policy-drop", way: "in", inject: `iptables -P FORWARD DROP`},
	{name: "rp-filter-symmetric", way: "in", inject: `sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1`},
	{name: "docker-user-return", way: "in", inject: `iptables -A DOCKER-USER -j RETURN`},
	{name: "idle-bridge", way: "in", more: `docker network create idle`},
	{name: "uplink-mtu-smaller", way: "in", inject: `ip link set eth0 mtu 1300`},
	{name: "bridge-mtu-smaller", way: "in", inject: `ip link set docker0 mtu 1400; ip link set $VETH mtu 1400; nsenter -t $WEBPID -n ip link set eth0 mtu 1400`},
	{name: "container-lo-down", way: "in", inject: `nsenter -t $WEBPID -n ip link set lo down`},
	{name: "input-closed-for-others", way: "in", inject: `iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`},
	{name: "client-in-drop-zone", way: "in", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=drop --add-source=203.0.113.0/24`},
	{name: "uplink-in-block-zone", way: "in", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=block --change-interface=eth0`},
	{name: "rich-rule-drop", way: "in", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=public --add-rich-rule='rule family=ipv4 source address=203.0.113.0/24 port port=80 protocol=tcp drop'`},
	{name: "firewalld-forward-port", way: "in", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=public --add-forward-port=port=80:proto=tcp:toport=81`},
	{name: "no-intra-zone-forward", way: "in", options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --zone=docker --remove-forward`},
	{name: "no-docker-forwarding", way: "in", suites: []string{lab.Forky}, options: lab.Options{Firewalld: true}, inject: `firewall-cmd -q --policy docker-forwarding --remove-egress-zone docker`},
	{name: "xtables-lock-held", way: "in", inject: `setsid flock /run/xtables.lock sleep 20 >/dev/null 2>&1 </dev/null &`},
	{name: "nft-incompatible-table", way: "in", inject: `nft 'add chain ip filter INPUT { type filter hook input priority 0; }'; nft 'add rule ip filter INPUT tcp dport { 22, 443 } ct state vmap { established : accept }'`, status: checks.Unknown}, // iptables cannot list Docker's own rules either
	{name: "no-proxy", way: "in", options: lab.Options{Daemon: noProxy}, inject: `true`},
	{name: "multi-net", way: "in", inject: `docker network create aab; docker network connect aab web`},
	{name: "dnat-missing", way: "in", inject: `iptables -t nat -D DOCKER $(iptables -t nat -S DOCKER | grep -- '-A' | grep -n 'dport 80 ' | cut -d: -f1)`, status: checks.Warn},
	{name: "prerouting-jump-missing", way: "in", inject: `iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER`, status: checks.Warn},
	{name: "legacy-tables-empty", way: "in", inject: `iptables-legacy -L >/dev/null`},
	{name: "other-port-dropped", way: "in", inject: `iptables -I DOCKER-USER -i eth0 -p tcp --dport 81 -j DROP; nft 'add table inet fw; add chain inet fw forward { type filter hook forward priority 0; }; add rule inet fw forward tcp dport 81 ct direction original drop'`},
	{name: "blackhole-elsewhere", way: "in", inject: `ip route add blackhole 10.0.0.0/8; ip rule add from 10.9.0.0/16 prohibit prio 100`},
	{name: "private-ranges-blackholed", way: "in", inject: `ip route add unreachable 192.168.0.0/16 metric 9999`},
	{name: "ephemeral-host-port", way: "", run: []string{"-P", "--expose", "80"}},
	{name: "published-loopback", way: "localhost", run: []string{"-p", "127.0.0.1:80:80"}, inject: `true`},
	{name: "donor", way: "in", setup: `docker run -d --name donor -p 80:80 bb:1 sleep 9999`, run: []string{"--network", "container:donor"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"}, inject: `true`},
	{name: "dns-host-server-not-asked", way: "dns", probe: resolves, inject: `docker exec web sh -c 'echo nameserver 203.0.113.9 >/etc/resolv.conf'; iptables -I FORWARD -d 198.51.100.2 -p udp --dport 53 -j DROP`},
	{name: "dns-asked-from-host", way: "dns", probe: resolves, suites: []string{lab.Forky}, setup: `docker network create app`, run: []string{"--network", "app", "-p", "80:80"}, inject: `iptables -I FORWARD -p udp --dport 53 -j DROP`}, // engine 28 asks the host's servers as the host
	{name: "macvlan-out", way: "out", setup: macvlan, run: []string{"--network", "mv", "--ip", "198.51.100.130"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"}},
	{name: "host-network-out", way: "out", run: []string{"--network", "host"}, command: []string{"httpd", "-f", "-p", "80", "-h", "/www"}},
	{name: "left-over-rules", way: "in", note: `left over, and stops nothing that was judged: iptables nat DOCKER \d+: .*172\.17\.0\.99:81 is for an address that no container has`,
		inject: `iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 81 -j DNAT --to-destination 172.17.0.99:81`},
	{name: "user-network-dns", way: "in", setup: `docker network create app`, run: []string{"--network", "app", "-p", "80:80"}, inject: `true`},
}

func TestDecoys(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	ran := newResults(t)
	for i, f := range decoys {
		for _, suite := range suitesOf(f.suites, i) {
			t.Run(f.name+"/"+suite, func(t *testing.T) {
				t.Parallel()
				ran.note(t, f.name, suite, func() string { return f.decoy(t, suite, path) })
			})
		}
	}
}

// decoy makes a host look wrong, and returns "": there is nothing to name.
func (f fault) decoy(t *testing.T, suite, path string) string {
	b := f.bench(t, suite, path)
	b.inject(f.more + "\n" + f.inject)
	if f.way != "" {
		if got := b.works(f); got != "ok" {
			t.Fatalf("it is no decoy: %s: %s", f.way, got)
		}
	}
	report, exit := b.netcheck("web")
	want := f.status
	if want == "" {
		want = checks.Pass
	}
	if exit != map[checks.Status]int{checks.Unknown: 2}[want] || report.Verdict != want {
		t.Errorf("exit status %d, %s, want %s\n%s", exit, report.Verdict, want, b.text(nil))
	}
	if f.note != "" && !regexp.MustCompile(f.note).MatchString(strings.Join(report.Notes, "\n")) {
		t.Errorf("notes %q, want %s", report.Notes, f.note)
	}
	return ""
}
