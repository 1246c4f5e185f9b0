//go:build linux

package checks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// TestForwardingAtBoot says when a host whose engine does not switch forwarding on is warned of its files.
func TestForwardingAtBoot(t *testing.T) {
	const off = "net.ipv4.ip_forward = 0\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"off", map[string]string{"/etc/sysctl.d/10-x.conf": off}, "10-x.conf"},
		{"off in sysctl.conf", map[string]string{"/etc/sysctl.conf": off}, "sysctl.conf"},
		{"off by its other name", map[string]string{"/etc/sysctl.d/10-x.conf": "net.ipv4.conf.all.forwarding=0\n"}, "10-x.conf"},
		{"on before", map[string]string{"/etc/sysctl.d/10-x.conf": off, "/etc/sysctl.d/01-y.conf": "net.ipv4.ip_forward=1\n"}, "10-x.conf"},
		{"on by its other name", map[string]string{"/etc/sysctl.d/10-x.conf": off, "/etc/sysctl.d/99-y.conf": "net.ipv4.conf.all.forwarding=1\n"}, ""},
		{"on by a glob", map[string]string{"/etc/sysctl.d/10-x.conf": off, "/etc/sysctl.d/99-y.conf": "net.ipv4.conf.*.forwarding=1\n"}, ""},
		{"off by a glob", map[string]string{"/etc/sysctl.d/10-x.conf": "net.ipv4.conf.*.forwarding=0\n"}, "10-x.conf"},
		{"a glob of others", map[string]string{"/etc/sysctl.d/10-x.conf": off, "/etc/sysctl.d/99-y.conf": "net.ipv4.conf.eth*.forwarding=1\n"}, "10-x.conf"},
		{"on by ufw", map[string]string{"/etc/sysctl.d/10-x.conf": off, "/etc/ufw/sysctl.conf": "net/ipv4/ip_forward=1\n"}, ""},
		{"nothing of ufw's", map[string]string{"/etc/sysctl.d/10-x.conf": off, "/etc/ufw/sysctl.conf": "#net/ipv4/ip_forward=1\n"}, "10-x.conf"},
	} {
		s := recorded(t, "29.7.2-nftables-noproxy")
		s.Files = c.files
		said := ""
		for _, j := range judgeRecorded(t, s).Targets {
			for _, r := range j.Results {
				for _, f := range r.Findings {
					if r.Check == "forwarding" && f.Warning {
						said = f.Problem
						if f.Fix == nil && f.Advice == "" || f.Fix != nil && len(f.Fix.Persist) == 0 {
							t.Errorf("%s: is told nothing to do: %+v", c.name, f)
						}
					}
				}
			}
		}
		if (said != "") != (c.want != "") || !strings.Contains(said, c.want) {
			t.Errorf("%s: %q, want one of %q", c.name, said, c.want)
		}
	}
}

// TestSetByUFW names the file that a sysctl's value comes from, whether or not ufw is on.
func TestSetByUFW(t *testing.T) {
	s := recorded(t, "29.7.2-nftables-noproxy")
	s.Files = map[string]string{"/etc/sysctl.d/10-x.conf": "net.ipv4.ip_forward=0", "/etc/ufw/sysctl.conf": "net/ipv4/ip_forward=1"}
	for now, want := range map[string]string{"0": "/etc/sysctl.d/10-x.conf:1", "1": "/etc/ufw/sysctl.conf:1"} {
		s.Host.Sysctls["net.ipv4.ip_forward"] = now
		if got := setBy(s, "net.ipv4.ip_forward"); got != want {
			t.Errorf("now %s: %q, want %q", now, got, want)
		}
	}
}

// TestPersistInOneFile has two fixes of which each corrects a line of the same file.
func TestPersistInOneFile(t *testing.T) {
	const networkd, sysctls = "/etc/systemd/networkd.conf", "/etc/sysctl.d/99.conf"
	h := NewHost(&netstate.Snapshot{Parts: netstate.All, Engine: &netstate.EngineState{}, Files: map[string]string{
		"/etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "",
		networkd: "[Network]\nIPv4Forwarding=no\nIPv6Forwarding=no\n",
		sysctls:  "net.ipv4.conf.eth0.forwarding=0\nnet.ipv4.conf.docker0.forwarding=0\n",
	}})
	for _, c := range []struct{ file, one, other, want string }{
		{networkd, "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "[Network]\n# IPv4Forwarding=no\n# IPv6Forwarding=no\n"},
		{sysctls, "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.docker0.forwarding",
			"# net.ipv4.conf.eth0.forwarding=0\n# net.ipv4.conf.docker0.forwarding=0\n"},
		{sysctls, "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.eth0.forwarding", "# net.ipv4.conf.eth0.forwarding=0\nnet.ipv4.conf.docker0.forwarding=0\n"},
	} {
		var fixes []*remediate.Fix
		for _, name := range []string{c.one, c.other} {
			fixes = append(fixes, &remediate.Fix{Title: name, Persist: offInFiles(h, name)})
		}
		alone := *fixes[0].Persist[0].New
		plan, err := remediate.NewPlan(joined(fixes), true)
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff([]remediate.Step{remediate.Set("file", c.file, h.Files[c.file], c.want)}, plan.Steps); diff != "" {
			t.Errorf("%s:\n%s", c.file, diff)
		}
		if *fixes[0].Persist[0].New != alone {
			t.Error("the finding's own fix was changed")
		}
	}
	var fixes []*remediate.Fix
	for _, text := range []string{"a=1", "a=2"} {
		fixes = append(fixes, &remediate.Fix{Title: text, Persist: []remediate.Step{remediate.Set("file", sysctls, "a=0", text)}})
	}
	if plan, err := remediate.NewPlan(joined(fixes), true); err == nil {
		t.Errorf("two fixes disagree about a line: %s", plan.Diff())
	}
}
