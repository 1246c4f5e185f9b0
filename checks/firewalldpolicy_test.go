package checks

import (
	"net/netip"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// TestPolicyOfChain says which policy a chain of firewalld's is of, whatever the policy's name ends in.
func TestPolicyOfChain(t *testing.T) {
	for chain, want := range map[string]string{
		"filter_FWD_policy_fence":                 "fence",
		"filter_FWD_policy_fence_deny":            "fence",
		"filter_IN_policy_docker-forwarding_post": "docker-forwarding",
		"FWD_policy_fence_allow":                  "fence",
		"filter_FWD_docker_deny":                  "",
		"filter_FORWARD_POLICIES_pre":             "",
		"filter_FORWARD":                          "",
	} {
		if got := policyOfChain(chain); got != want {
			t.Errorf("%s: %q, want %q", chain, got, want)
		}
	}
}

// TestPolicyAsEngineMadeIt gives docker-forwarding back what it lacks, and nothing else.
func TestPolicyAsEngineMadeIt(t *testing.T) {
	p := netstate.Policy{Name: dockerPolicy, Target: "ACCEPT", IngressZones: []string{"ANY"}, EgressZones: []string{"docker"}}
	if steps := asEngineMadeIt(p); len(steps) > 0 {
		t.Errorf("whole: %v", steps)
	}
	p = netstate.Policy{Name: dockerPolicy, Target: "DROP", IngressZones: []string{"public"}}
	want := []remediate.Step{
		remediate.Add("firewalld-policy-permanent", "docker-forwarding ingress-zone ANY", "-"),
		remediate.Add("firewalld-policy-permanent", "docker-forwarding egress-zone docker", "-"),
		remediate.Set("firewalld-policy-permanent", "docker-forwarding target", "DROP", "ACCEPT"),
	}
	if diff := cmp.Diff(want, asEngineMadeIt(p)); diff != "" {
		t.Error(diff)
	}
}

// TestRichRule writes rules as firewalld prints them: a rule that it prints otherwise would never be found again.
func TestRichRule(t *testing.T) {
	addr := netip.MustParseAddr("172.17.0.2")
	for want, f := range map[string]flow{
		`rule priority="-32768" family="ipv4" source address="172.17.0.2" accept`:                                      {from: addr, in: "docker0"},
		`rule priority="-32768" family="ipv4" destination address="172.17.0.2" port port="80" protocol="tcp" accept`:   {to: addr, toPort: 80, proto: "tcp"},
		`rule priority="-32768" family="ipv4" source address="172.17.0.2" source-port port="53" protocol="udp" accept`: {from: addr, fromPort: 53, proto: "udp"},
	} {
		if got := f.rich(netstate.IPv4); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
