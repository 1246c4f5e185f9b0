//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestAtBoot has services load what keeps clients out: the report names their files and lines, and --persist corrects
// the one that can be corrected.
func TestAtBoot(t *testing.T) {
	lab.Need(t)
	b := newBench(t, lab.Options{Suite: lab.Trixie}, buildPlugin(t))
	b.web([]string{"-p", "80:80"}, nil)
	finding := func(check string) *checks.Finding {
		t.Helper()
		report, _ := b.netcheck("web")
		for i := range report.Targets {
			for _, r := range report.Targets[i].Results {
				for k := range r.Findings {
					if f := &r.Findings[k]; r.Check == check && f.Follows == "" {
						return f
					}
				}
			}
		}
		t.Fatalf("%s finds nothing: %s", check, b.text(nil))
		return nil
	}
	enable := func(service string) {
		b.sh("d=/etc/systemd/system/multi-user.target.wants; mkdir -p $d; ln -sf /lib/systemd/system/" + service + ".service $d/" + service + ".service")
	}

	// A rule that netfilter-persistent restores; it takes a restart's worth of Docker's rules along.
	b.sh("iptables -I FORWARD -i eth0 -p tcp -m tcp --dport 80 -j DROP; mkdir -p /etc/iptables; iptables-save >/etc/iptables/rules.v4")
	if f := finding("path"); f.SetBy != "" {
		t.Errorf("set by %s, which nothing loads", f.SetBy)
	}
	enable("netfilter-persistent")
	line := strings.TrimSpace(b.sh("grep -n -- '-A FORWARD -i eth0' /etc/iptables/rules.v4 | cut -d: -f1"))
	if f := finding("path"); f.SetBy != "/etc/iptables/rules.v4:"+line || !strings.Contains(f.Advice, "netfilter-persistent restores /etc/iptables/rules.v4") {
		t.Errorf("want line %s: %s", line, jsonOf(f))
	}
	if text := b.text(nil); !strings.Contains(text, "until reboot") || !strings.Contains(text, "SET BY  /etc/iptables/rules.v4:"+line) {
		t.Errorf("the text does not say it:\n%s", text)
	}
	b.sh("iptables -D FORWARD -i eth0 -p tcp -m tcp --dport 80 -j DROP; iptables -t nat -F; iptables -F; rm /etc/systemd/system/*.wants/*")

	// nftables.service flushes what Docker made.
	b.sh(`printf '#!/usr/sbin/nft -f\nflush ruleset\ntable inet fw {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n\t\ttcp dport 80 drop\n\t}\n}\n' >/etc/nftables.conf`)
	enable("nftables")
	if f := finding("accept"); !strings.Contains(f.Advice, "nftables takes such rules away whenever it starts: /etc/nftables.conf:2") {
		t.Error(jsonOf(f))
	}
	b.fixes()
	b.sh("sed -i /flush/d /etc/nftables.conf; nft -f /etc/nftables.conf")
	if f := finding("path"); f.SetBy != "/etc/nftables.conf:5" || !strings.Contains(f.Advice, "nftables restores /etc/nftables.conf") {
		t.Error(jsonOf(f))
	}
	b.sh("nft delete table inet fw; rm /etc/nftables.conf /etc/systemd/system/*.wants/*")
	b.well()

	// systemd-networkd switches forwarding off for the uplink: the line goes with --persist, and comes back.
	b.sh(`mkdir -p /etc/systemd/network; printf '[Match]\nName=eth*\n[Network]\nIPv4Forwarding=no\n' >/etc/systemd/network/10-up.network; sysctl -qw net.ipv4.conf.eth0.forwarding=0`)
	enable("systemd-networkd")
	if f := finding("forwarding"); f.SetBy != "/etc/systemd/network/10-up.network:4" || f.Fix == nil || len(f.Fix.Persist) != 1 {
		t.Error(jsonOf(f))
	}
	broken := b.state() + b.sh("cat /etc/systemd/network/*")
	b.fixes("--persist")
	if file := b.sh("cat /etc/systemd/network/*"); !strings.Contains(file, "\n# IPv4Forwarding=no\n") {
		t.Errorf("the file still says so:\n%s", file)
	}
	if out, exit := b.run("docker", "netcheck", "undo", "--yes"); exit != 0 {
		t.Errorf("undo: exit status %d: %s%s", exit, out, b.stderr)
	}
	if now := b.state() + b.sh("cat /etc/systemd/network/*"); now != broken {
		t.Errorf("undo left:\n%s", diff(broken, now))
	}
	// One that netplan wrote is not the administrator's to edit.
	b.sh("mkdir -p /run/systemd/network; mv /etc/systemd/network/10-up.network /run/systemd/network/10-netplan-eth0.network")
	if f := finding("forwarding"); len(f.Fix.Persist) != 0 || !strings.Contains(f.Advice, "/run/systemd/network/10-netplan-eth0.network") {
		t.Error(jsonOf(f))
	}
}
