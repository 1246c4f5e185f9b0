//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// TestFixFirewalld has an administrator's permanent zone against the engine's, and a firewalld that ends.
func TestFixFirewalld(t *testing.T) {
	lab.Need(t)
	b := newBench(t, lab.Options{Suite: lab.Forky, Firewalld: true}, buildPlugin(t))
	b.web([]string{"-p", "80:80"}, nil)
	b.sh("firewall-cmd -q --permanent --zone=docker --remove-interface=docker0 || true; firewall-cmd -q --permanent --zone=public --change-interface=docker0; firewall-cmd -q --zone=public --change-interface=docker0")
	broken := b.state()

	if report, exit := b.netcheck("--fix", "--yes", "--persist", "web"); exit != 1 || report.Fix == nil || report.Fix.Changed || len(report.Fix.Refused) == 0 {
		t.Errorf("somebody wrote that zone down, and it is changed without --allow open: exit status %d, %s", exit, jsonOf(report.Fix))
	}
	b.settles(broken)

	zone := func(options string) string {
		return strings.TrimSpace(b.sh("firewall-cmd --get-zone-of-interface=docker0 " + options + " || true"))
	}
	b.fixes("--allow", "open")
	if now, later := zone(""), zone("--permanent"); now != "docker" || later != "public" {
		t.Errorf("without --persist the zone is %s, at the next boot %s", now, later)
	}
	b.undoes(broken)
	b.fixes("--allow", "open", "--persist")
	if now, later := zone(""), zone("--permanent"); now != "docker" || later != "docker" {
		t.Errorf("with --persist the zone is %s, at the next boot %s", now, later)
	}
	b.undoes(broken)

	// A policy that rejects what the container sends: with --persist a reload does not bring that back.
	b.sh("firewall-cmd -q --permanent --zone=public --remove-interface=docker0; firewall-cmd -q --zone=docker --change-interface=docker0; " + newPolicy +
		`fc --policy fence --set-target REJECT; fc --policy fence --add-ingress-zone docker; fc --policy fence --add-egress-zone ANY; ` + reload)
	fenced := b.state()
	b.fixes("--allow", "open", "--persist")
	b.sh(reload)
	b.well()
	b.undoes(fenced)
	b.sh("firewall-cmd -q --permanent --delete-policy fence; " + reload + "firewall-cmd -q --zone=public --change-interface=docker0")
	broken = b.state()

	// A firewalld that lets nobody change it, as polkit and the bus's policy may have it.
	b.must(b.host.WriteFile(b.ctx, "/etc/dbus-1/system.d/deny.conf", `<busconfig><policy context="mandatory">
<deny send_destination="org.fedoraproject.FirewallD1" send_interface="org.fedoraproject.FirewallD1.zone" send_member="changeZoneOfInterface"/></policy></busconfig>`))
	b.sh("dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ReloadConfig")
	if report, exit := b.netcheck("--fix", "--yes", "--allow", "open", "web"); exit != 1 || report.Fix == nil || report.Fix.Changed ||
		!strings.Contains(report.Fix.Why, "firewalld zone of docker0: firewalld: ") || !strings.Contains(b.stderr, "nothing was changed") {
		t.Errorf("a firewalld that refuses: exit status %d, %s%s", exit, jsonOf(report.Fix), b.stderr)
	} else {
		t.Log(b.stderr)
	}
	b.settles(broken)
	b.sh("rm /etc/dbus-1/system.d/deny.conf; dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ReloadConfig")

	// A plan that firewalld cannot take any more.
	if _, exit := b.run("docker", "netcheck", "--plan", "/root/plan", "--allow", "open", "web"); exit != 1 {
		t.Errorf("--plan: exit status %d: %s", exit, b.stderr)
	}
	b.must(b.host.StopFirewalld(b.ctx))
	stopped := b.state()
	if out, exit := b.run("docker", "netcheck", "--apply", "/root/plan", "--yes", "--allow", "open"); exit != 1 || !strings.Contains(b.stderr, "nothing was changed: firewalld zone of docker0") {
		t.Errorf("--apply without firewalld: exit status %d: %s%s", exit, out, b.stderr)
	}
	b.settles(stopped)
}
