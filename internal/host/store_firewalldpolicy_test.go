//go:build linux

package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

const (
	passes   = `rule priority="-32768" family="ipv4" source address="172.17.0.2" accept`
	passes81 = `rule priority="-32768" family="ipv4" source address="172.17.0.2" port port="81" protocol="tcp" accept`
)

// TestPolicyStore changes policies of a real firewalld, that of each suite.
func TestPolicyStore(t *testing.T) {
	for _, suite := range lab.Suites() {
		if suite != lab.Forky && os.Getenv("NETCHECK_TEST_ALL") == "" {
			continue
		}
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			h, m, sh := firewalldHost(t, suite)
			// One of firewalld's own, whose file is not in /etc, and one of somebody's, with both zones in use.
			sh(`set -e; ip link add docker0 type bridge
fc() { firewall-cmd -q "$@"; }
fc --permanent --zone=docker --add-interface=docker0 || { fc --permanent --new-zone=docker; fc --permanent --zone=docker --add-interface=docker0; }
fc --permanent --new-policy fence
fc --permanent --policy fence --set-target REJECT --add-ingress-zone docker --add-egress-zone ANY || {
fc --permanent --policy fence --set-target REJECT; fc --permanent --policy fence --add-ingress-zone docker; fc --permanent --policy fence --add-egress-zone ANY; }
fc --reload; fc --policy fence --add-rich-rule 'rule service name=ssh accept'`)
			state := func() string {
				t.Helper()
				return sh(`firewall-cmd --list-all-policies; nft list ruleset`) + tree(t, m.path("etc/firewalld"))
			}
			rule := remediate.Add("firewalld-policy", "fence rich-rule "+passes, "-")
			out := remediate.Remove("firewalld-policy", "fence ingress-zone docker", "-")
			later := remediate.Set("firewalld-policy-permanent", "fence target", "REJECT", "ACCEPT")
			for _, test := range []struct {
				name  string
				steps []remediate.Step
				holds string // what holds between apply and undo
			}{
				{"let pass", []remediate.Step{rule, remediate.Add("firewalld-policy", "fence rich-rule "+passes81, "-")},
					`firewall-cmd --policy fence --query-rich-rule '` + passes + `' && firewall-cmd --policy fence --query-rich-rule '` + passes81 + `' && nft list chain inet firewalld filter_FWD_policy_fence_pre | grep '172.17.0.2.*accept'`},
				{"a rule goes", []remediate.Step{remediate.Remove("firewalld-policy", `fence rich-rule rule service name="ssh" accept`, "-")},
					`! nft list chain inet firewalld filter_FWD_policy_fence_allow | grep ' 22 '`},
				{"a zone goes and another comes", []remediate.Step{remediate.Add("firewalld-policy", "fence ingress-zone work", "-"), out},
					`firewall-cmd --policy fence --list-ingress-zones | grep '^work$'`},
				{"out of use", []remediate.Step{remediate.Remove("firewalld-policy", "fence egress-zone ANY", "-")},
					`! firewall-cmd --get-active-policies | grep fence`},
				{"permanently", []remediate.Step{later, remediate.Add("firewalld-policy-permanent", "fence rich-rule "+passes, "-"),
					remediate.Remove("firewalld-policy-permanent", "fence egress-zone ANY", "-"), remediate.Add("firewalld-policy-permanent", "fence egress-zone public", "-")},
					`grep 'target="ACCEPT"' /etc/firewalld/policies/fence.xml && firewall-cmd --permanent --policy fence --query-rich-rule '` + passes + `' && firewall-cmd --permanent --policy fence --query-egress-zone public`},
				{"one of firewalld's own", []remediate.Step{remediate.Add("firewalld-policy-permanent", "allow-host-ipv6 rich-rule "+passes, "-")},
					`grep 172.17.0.2 /etc/firewalld/policies/allow-host-ipv6.xml`},
			} {
				if zones := strings.Contains(test.name, "zone") || test.name == "out of use"; zones && suite == lab.Bookworm {
					continue
				}
				t.Run(test.name, func(t *testing.T) {
					m.roundTrip(t, test.steps, state, func() {
						if out, err := h.Sh(ctx, test.holds); err != nil {
							t.Errorf("%s: %v\n%s", test.holds, err, out)
						}
					})
				})
			}

			before := state()
			for _, c := range []struct {
				step remediate.Step
				want error
			}{
				{remediate.Remove("firewalld-policy", "fence rich-rule "+passes, "other"), nil}, // gone already
				{remediate.Set("firewalld-policy", "fence rich-rule "+passes81, "other", "-"), remediate.ErrChanged},
				{remediate.Add("firewalld-policy", "fence rich-rule "+passes81, "x"), errAny},
				{remediate.Add("firewalld-policy-permanent", "fence rich-rule "+passes81, "x"), errAny},
				{remediate.Set("firewalld-policy-permanent", "fence target", "DROP", "ACCEPT"), remediate.ErrChanged},
				{remediate.Set("firewalld-policy-permanent", "fence target", "REJECT", "MAYBE"), errAny},
				{remediate.Set("firewalld-policy", "fence target", "REJECT", "ACCEPT"), errAny},
				{remediate.Add("firewalld-policy", "fence ingress-zone nowhere", "-"), errAny},
				{remediate.Add("firewalld-policy", "nobody ingress-zone ANY", "-"), errAny},
				{remediate.Add("firewalld-policy", "fence rich-rule nonsense", "-"), errAny},
				{remediate.Add("firewalld-policy-permanent", "../fence ingress-zone ANY", "-"), errAny},
				{remediate.Add("firewalld-policy-permanent", "fence ports 80", "-"), errAny},
			} {
				// The step before it is taken back with it.
				journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
				_, err := journal.Apply(ctx, &remediate.Plan{Steps: []remediate.Step{rule, c.step}}, m.stores(), m.facts(nil))
				switch {
				case c.want == nil && err == nil:
					if _, err := journal.Undo(ctx, "", m.stores(), m.facts(nil)); err != nil {
						t.Error(err)
					}
				case err == nil, c.want == nil, c.want != errAny && !errors.Is(err, c.want), !strings.Contains(err.Error(), c.step.Object()):
					t.Errorf("%s: %v", c.step.Object(), err)
				}
			}
			if diff := cmp.Diff(before, state()); diff != "" {
				t.Errorf("what was refused changed:\n%s", diff)
			}
			m.brokenAtEach(t, h, rule)
			m.brokenAtEach(t, h, later)

			steps := []remediate.Step{rule, out, later}
			if suite == lab.Bookworm {
				_, _, err := m.stores()[out.Kind].Look(ctx, out)
				if err == nil {
					t.Error("a zone can be taken out")
				}
				steps = slices.Delete(steps, 1, 2)
			}
			m.killedAtEach(t, steps, state)
		})
	}
}

var errAny = errors.New("any error")
