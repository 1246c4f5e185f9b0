package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// A cause is a reason why a container is not reached that people meet, the most frequent ones first: its
// cases in the lab, or where there is none, what becomes of it.
type rootCause struct {
	name  string
	cases string // names of faults or decoys, separated by spaces
	note  string
}

var rootCauses = []rootCause{
	{"app-listens-loopback", "app-listens-loopback", ""},
	{"not-published", "not-published", ""},
	{"ctr-localhost-is-self", "ctr-localhost-is-self", ""},
	{"wrong-container-port", "wrong-container-port", ""},
	{"host-port-taken", "host-port-taken", ""},
	{"port-allocated-other-container", "port-allocated-other-container", ""},
	{"cloud-security-group", "", "not on this host: all checks pass, and the report says what to look at before the host"},
	{"host-service-unreachable-from-ctr", "host-service-loopback", "with --to the host's address; whether the container resolves host.docker.internal is not read"},
	{"published-loopback-only", "published-loopback-only", ""},
	{"input-blocks-containers", "input-blocks-containers", ""},
	{"forward-rules-flushed", "forward-rules-flushed filter-flushed accepts-gone", ""},
	{"ip-forward-off", "ip-forward-off ip-forward-off-out ip-forward-off-host daemon-ip-forward-false", ""},
	{"dns-upstream-unreachable", "dns-blocked", "the way to the servers is judged, not what they answer"},
	{"subnet-overlap", "subnet-overlap-client", ""},
	{"ctr-not-running", "ctr-exited", ""},
	{"address-pool-exhausted", "", "no container comes into being: docker's own error says it"},
	{"app-slow-start", "app-slow-start", "`--wait` judges again until it listens"},
	{"default-bridge-no-names", "", "by design: `explain dns` says it; which name a client asks for is not known"},
	{"cross-network-isolation", "cross-network-isolation", ""},
	{"fw-bridge-not-in-docker-zone", "fw-bridge-in-public-zone fw-bridge-no-zone fw-bridge-in-drop-zone", ""},
	{"desktop-or-vm-host", "", "check engine: unknown, as the host that was read is not the engine's"},
	{"ctr-uses-host-port", "ctr-uses-host-port", ""},
	{"nat-rules-flushed", "nat-flushed-noproxy nat-flushed-proxy nft-flush-ruleset", ""},
	{"nft-foreign-forward-drop", "nft-inet-forward-drop nft-inet-forward-drop-est", ""},
	{"firewall-loaded-after-docker", "filter-flushed nat-flushed-proxy", "what it leaves is judged, not the order of services"},
	{"legacy-and-nft-mixed", "legacy-forward-drop", ""},
	{"docker-user-drop", "docker-user-drop docker-user-reject-client", ""},
	{"docker-user-allowlist-kills-egress", "docker-user-allowlist", ""},
	{"forward-rule-before-docker", "forward-rule-before-docker uplink-dropped-host", "a rule that depends on a rate gives unknown"},
	{"path-mtu-smaller", "path-mtu-smaller", "sizes beyond this host are not known"},
	{"bridge-lost-its-ip", "bridge-no-ip bridge-no-ip-out", ""},
	{"networkd-nm-takeover", "default-route-hijacked-veth bridge-no-ip veth-detached", "by what it did"},
	{"masquerade-missing", "masquerade-missing snat-wrong-address daemon-ip-masq-false", ""},
	{"vpn-route-covers-bridge", "vpn-route-covers-bridge", ""},
	{"vpn-killswitch", "vpn-killswitch", ""},
	{"localhost-is-ipv6", "", "a binding to 127.0.0.1 is judged as IPv4: what localhost means to a client is not known"},
	{"netns-donor-gone", "netns-donor-gone netns-donor-restarted", ""},
	{"swarm-ingress-blocked", "", "not judged: Swarm's ingress and overlay networks are left in peace"},
	{"multi-net-gateway", "multi-net-bound-address", ""},
	{"dnat-stale-ip", "dnat-stale-ip dnat-altered", ""},
	{"host-image-reject-rules", "host-image-reject-rules", ""},
	{"daemon-iptables-false", "iptables-false-out iptables-false-noproxy", ""},
	{"fw-started-or-reloaded-unseen", "fw-started-after", ""},
	{"ipv6-forwarding-vs-ra", "ipv6-no-default-route", "by the route that is gone"},
	{"ipv6-container-path", "ipv6-proxy-input-drop ipv6-net-forward-drop ipv6-forwarding-off", ""},
	{"fw-direct-first-use-flushes", "fw-direct-first-use-flushes", ""},
	{"udp-stale-conntrack", "udp-stale-conntrack", ""},
	{"host-network-ignores-p", "host-network-ignores-p", ""},
	{"network-internal", "network-internal", ""},
	{"userland-proxy-off", "noproxy-route-localnet-off noproxy-hairpin-off", ""},
	{"direct-access-blocked-28", "", "clients of a container's own address are no target: publish the port"},
	{"rootless-limits", "", "check engine: unknown, as its namespaces were not read"},
	{"iptables-kernel-modules-missing", "", "a module is of the whole machine: tables that cannot be read give unknown"},
	{"host-ip-not-assigned", "host-ip-not-assigned published-on-gone-host-ip", ""},
	{"secondary-ports-unpublished", "secondary-ports-unpublished", "with --port; what a program tells its clients is not read"},
	{"invalid-packets-reset", "", "depends on packets, not on the host's state"},
	{"nft-backend-29-foreign-drop", "", "as forward-rules-flushed: the policy is named by the walk; on recordings, no engine 29 is in the lab"},
	{"nft-backend-29-docker-user-ignored", "", "rules in a chain that is not reached stop nothing, so nothing is said; forwarding is check forwarding"},
	{"live-restore-dockerd-dead", "", "no engine answers: exit status 125 says so"},
	{"fw-strict-forward-ports", "fw-strict-forward-ports", ""},
	{"fw-docker-zone-altered", "fw-docker-zone-target fw-ctr-subnet-source-zone", ""},
	{"fw-panic", "fw-panic", ""},
	{"fw-uplink-zone-proxy-only", "fw-uplink-zone-proxy-only", ""},
	{"iface-forwarding-off", "iface-forwarding-off-uplink iface-forwarding-off-bridge", ""},
	{"rp-filter-strict", "rp-filter-strict", ""},
	{"policy-rule-captures-bridge", "policy-rule-captures-bridge", ""},
	{"blackhole-or-prohibit", "blackhole-route prohibit-rule client-blackholed", ""},
	{"host-no-default-route", "host-no-default-route", ""},
	{"uplink-down", "uplink-down published-on-gone-host-ip", ""},
	{"dnat-shadowed-kube-cni", "dnat-shadowed-kube", ""},
	{"dnat-missing", "dnat-missing-noproxy dnat-missing-proxy", ""},
	{"snat-port-range-blocked", "", "not on this host"},
	{"conntrack-table-full", "", "check conntrack, tested on values: the table's size is the whole machine's"},
	{"conntrack-insert-failed", "", "a race: the kernel's counters are not read"},
	{"early-hook-drop", "mangle-drop nft-prerouting-raw-drop nft-netdev-ingress-drop", "tc filters and XDP give unknown"},
	{"nft-table-incompatible", "nft-incompatible-table", "no fault by itself: rules are read from the kernel"},
	{"second-dockerd", "bridge-deleted", "by what it did"},
	{"macvlan-host-isolation", "macvlan-publishes-nothing", ""},
	{"gateway-mode-routed", "gateway-mode-routed", "by design: judged a failure only for a client that was named"},
	{"icc-false", "icc-false", ""},
	{"bridge-family-filter", "nft-bridge-drop bridge-port-isolated bridge-port-disabled", ""},
	{"veth-detached", "veth-detached", ""},
	{"link-down", "veth-down bridge-down ctr-eth0-down", ""},
	{"bridge-missing", "bridge-deleted", ""},
	{"bridge-route-missing", "bridge-route-missing", ""},
	{"neigh-table-overflow", "", "its limits are the whole machine's and are not read"},
	{"fw-stopped-flushes", "nat-flushed-proxy filter-flushed", "by what it did"},
	{"ctr-no-default-route", "ctr-no-default-route ctr-wrong-gateway", ""},
	{"ctr-own-firewall", "ctr-own-firewall", ""},
	{"ctr-ip-lost-or-duplicate", "ctr-no-ip ctr-ip-duplicate", ""},
	{"dns-embedded-broken", "dns-embedded-broken", ""},
	{"docker-proxy-broken", "docker-proxy-killed docker-proxy-stale", ""},
	{"ephemeral-port-collision", "ephemeral-port-collision", ""},
	{"ephemeral-host-port-changed", "ephemeral-host-port", "no fault by itself: the report names the port of now"},
	{"proto-mismatch", "proto-mismatch", ""},
	{"ctr-paused-or-hung", "ctr-paused", "a program that hangs is not seen: the kernel answers for it"},
	{"network-none", "network-none", ""},
	{"imds-hop-limit", "", "not on this host"},
	{"http-proxy-env", "", "the environment of containers is not read"},
	{"checksum-offload", "", "of the network card and the hypervisor"},
	{"tc-netem-throttle", "tc-throttle", ""},
	{"xtables-lock", "xtables-lock-held", "no fault by itself"},
	{"selinux-apparmor", "", "not read"},
	{"lxc-nested-limits", "", "by what it leaves: forwarding, missing rules"},
}

// TestFaultsPage keeps docs/faults.md the same as the tables; -update writes it anew.
func TestFaultsPage(t *testing.T) {
	cases := map[string]fault{}
	for _, f := range allFaults() {
		if _, twice := cases[f.name]; twice {
			t.Errorf("two faults are called %s", f.name)
		}
		cases[f.name] = f
	}
	for _, f := range decoys {
		if _, twice := cases[f.name]; !twice {
			cases[f.name] = f
		}
	}
	used := map[string]bool{}
	var page bytes.Buffer
	page.WriteString("# Root causes and their checks\n\nGenerated from the cases that the tests make on real engines; do not edit.\n" +
		"Each case breaks a healthy host, shows that the connection fails, and expects the object to be named.\n" +
		"`make test` takes each on one engine by rotation, `NETCHECK_TEST_ALL=1 make test` on all that are ticked.\n\n" +
		"| cause | case | 20.10 | 26.1 | 28.5 | check | object (a pattern) | |\n|---|---|:-:|:-:|:-:|---|---|---|\n")
	cell := func(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
	for _, cause := range rootCauses {
		if cause.cases == "" {
			fmt.Fprintf(&page, "| %s | | | | | | | %s |\n", cause.name, cell(cause.note))
			continue
		}
		for i, name := range strings.Fields(cause.cases) {
			f, ok := cases[name]
			if !ok {
				t.Errorf("%s: there is no case %s", cause.name, name)
				continue
			}
			used[name] = true
			label, note := cause.name, cause.note
			if i > 0 {
				label, note = "", ""
			}
			fmt.Fprintf(&page, "| %s | %s |", label, name)
			for _, suite := range []string{lab.Bookworm, lab.Trixie, lab.Forky} {
				mark := " "
				for _, allowed := range suitesWhere(f) {
					if allowed == suite {
						mark = " ✓ "
					}
				}
				page.WriteString(mark + "|")
			}
			check, object := f.check, "`"+cell(f.object)+"`"
			if f.check == "" {
				check, object = "none: silent", ""
			} else if checks.Find(f.check) == nil {
				t.Errorf("%s: %s is no check", name, f.check)
			}
			fmt.Fprintf(&page, " %s | %s | %s |\n", check, object, cell(note))
		}
	}
	for _, f := range allFaults() {
		if !used[f.name] {
			t.Errorf("case %s belongs to no cause", f.name)
		}
	}
	const path = "../../docs/faults.md"
	if *update {
		if err := os.WriteFile(path, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, page.Bytes()) {
		t.Errorf("%s is stale: go test ./cli-plugins/docker-netcheck -run TestFaultsPage -update: %v", path, err)
	}
}

func suitesWhere(f fault) []string {
	if f.suites == nil {
		return lab.Suites()
	}
	return f.suites
}
