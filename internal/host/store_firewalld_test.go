//go:build linux

package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// firewalldHost returns a host on which firewalld runs and no engine, what a store knows it by, and a shell there.
func firewalldHost(t *testing.T, suite string) (h *lab.Host, m machine, sh func(line string) string) {
	t.Helper()
	h = lab.New(t, lab.Options{Suite: suite, Firewalld: true, NoDockerd: true})
	return h, machine{h.Path("/")}, func(line string) string {
		t.Helper()
		out, err := h.Sh(context.Background(), line)
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return out
	}
}

func TestZoneStore(t *testing.T) {
	for _, suite := range lab.Suites() {
		if suite != lab.Bookworm && os.Getenv("NETCHECK_TEST_ALL") == "" {
			continue
		}
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			h, m, sh := firewalldHost(t, suite)
			sh("ip link add docker0 type bridge; ip link add br-1 type bridge")
			// firewalld makes a zone's chains when a link first comes into it, and keeps them.
			sh("firewall-cmd --zone=trusted --add-interface=none; firewall-cmd --zone=trusted --remove-interface=none")
			state := func() string {
				t.Helper()
				return sh("firewall-cmd --list-all-zones; firewall-cmd --permanent --list-all-zones; nft list ruleset") + tree(t, m.path("etc/firewalld"))
			}
			for _, test := range []struct {
				name  string
				setup string
				steps []remediate.Step
			}{
				{"into a zone", "", []remediate.Step{
					remediate.Add("firewalld-zone", "docker0", "trusted"),
					remediate.Add("firewalld-zone", "br-1", "trusted"),
				}},
				{"to another zone", "firewall-cmd --zone=public --add-interface=docker0", []remediate.Step{
					remediate.Set("firewalld-zone", "docker0", "public", "trusted")}},
				{"out of a zone", "firewall-cmd --zone=public --change-interface=docker0", []remediate.Step{
					remediate.Remove("firewalld-zone", "docker0", "public")}},
				{"permanently", "firewall-cmd --zone=public --change-interface=docker0", []remediate.Step{
					remediate.Add("firewalld-zone-permanent", "docker0", "trusted")}},
				{"permanently to another zone", "firewall-cmd --permanent --zone=public --add-interface=docker0", []remediate.Step{
					remediate.Set("firewalld-zone", "docker0", "public", "trusted"),
					remediate.Set("firewalld-zone-permanent", "docker0", "public", "trusted")}},
				{"a source", "firewall-cmd --zone=drop --add-source=172.17.0.0/16; firewall-cmd --permanent --zone=drop --add-source=172.17.0.0/16", []remediate.Step{
					remediate.Remove("firewalld-source", "172.17.0.0/16", "drop"),
					remediate.Remove("firewalld-source-permanent", "172.17.0.0/16", "drop"),
					remediate.Add("firewalld-source", "172.18.0.0/16", "trusted")}},
			} {
				t.Run(test.name, func(t *testing.T) {
					sh(test.setup)
					m.roundTrip(t, test.steps, state, func() {
						for _, step := range test.steps {
							flag := ""
							if strings.HasSuffix(step.Kind, "permanent") {
								flag = " --permanent"
							}
							what := "interface"
							if strings.HasPrefix(step.Kind, "firewalld-source") {
								what = "source"
							}
							zone, _ := h.Sh(ctx, "firewall-cmd"+flag+" --get-zone-of-"+what+"="+step.Name)
							if zone = strings.TrimSpace(zone); step.New != nil && zone != *step.New {
								t.Errorf("%s is in zone %q", step.Name, zone)
							}
						}
					})
				})
			}
			before := state()
			for _, step := range []remediate.Step{
				remediate.Set("firewalld-zone", "docker0", "work", "trusted"),
				remediate.Add("firewalld-zone", "none", "nowhere"),
				remediate.Add("firewalld-zone-permanent", "none", "nowhere"),
				remediate.Add("firewalld-zone-permanent", "none", "../x"),
			} {
				journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
				_, err := journal.Apply(ctx, &remediate.Plan{Steps: []remediate.Step{step}}, m.stores(), m.facts(nil))
				if err == nil {
					t.Errorf("%s to %s: no error", step.Object(), *step.New)
				}
				t.Log(err)
			}
			if err := os.Remove(m.path("etc/firewalld/zones/../x.xml")); err == nil {
				t.Error("a file was made outside of zones")
			}
			if diff := cmp.Diff(before, state()); diff != "" {
				t.Errorf("a refused step changed:\n%s", diff)
			}
			sh("firewall-cmd --zone=public --change-interface=docker0; firewall-cmd --permanent --zone=public --change-interface=docker0")
			m.brokenAtEach(t, h, remediate.Set("firewalld-zone", "docker0", "public", "trusted"))
			m.brokenAtEach(t, h, remediate.Set("firewalld-zone-permanent", "docker0", "public", "trusted"))
		})
	}
}
