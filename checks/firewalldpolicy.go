package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// dockerPolicy is what engines from 27 on have firewalld let into the zone docker: from ANY, with the target
// ACCEPT. Source: libnetwork/iptables/firewalld.go of moby.
const dockerPolicy = "docker-forwarding"

// fenced returns what firewalld's policies stop, one finding for each, and the stops that are none of theirs.
func fenced(h *Host, t netstate.Target, stops []packet.Stop) (findings []Finding, rest []packet.Stop) {
	var names []string
	for _, stop := range stops {
		name := policyOfChain(stop.Chain)
		switch at := slices.Index(names, name); {
		case name == "":
			rest = append(rest, stop)
		case at < 0:
			names = append(names, name)
			findings = append(findings, policyStops(h, t, name, stop))
		default: // the other direction
			findings[at].explains = append(findings[at].explains, stop.Object)
			findings[at].Evidence = append(findings[at].Evidence, stop.Object)
		}
	}
	return findings, rest
}

// policyStops words that a policy stops the target's packets. A policy's target changes by a reload alone, so
// what helps now is a rule of the policy that goes before all others and lets this container's traffic pass.
func policyStops(h *Host, t netstate.Target, name string, stop packet.Stop) Finding {
	f := Finding{Object: "firewalld policy " + name, At: stop.Hop, explains: []string{stop.Object},
		Problem: fmt.Sprintf("firewalld's policy %s stops it", name)}
	at := slices.IndexFunc(h.Firewalld.Policies, func(p netstate.Policy) bool { return p.Name == name })
	if at >= 0 {
		p := &h.Firewalld.Policies[at]
		f.Problem += fmt.Sprintf(" between %s and %s", strings.Join(p.IngressZones, ", "), strings.Join(p.EgressZones, ", "))
		if p.Target != "" {
			f.Evidence = append(f.Evidence, "policy "+name+" target: "+p.Target)
		}
		for _, rule := range p.RichRules {
			f.Evidence = append(f.Evidence, "policy "+name+" "+rule)
		}
	}
	f.Evidence = append(f.Evidence, stop.Object)
	permanent := slices.IndexFunc(h.Firewalld.PermanentPolicies, func(p netstate.Policy) bool { return p.Name == name })
	f.Advice = "a rule of the policy " + name + " has to let this traffic pass: firewall-cmd --policy=" + arg(name) + " --add-rich-rule=RULE, and the same with --permanent"
	if flow, ok := flowOf(h, t, stop.Hop); ok {
		rule := "rich-rule " + flow.rich(t.Family)
		f.Fix = &remediate.Fix{Opens: true, Title: fmt.Sprintf("let the traffic of %s through firewalld's policy %s", Name(t), name),
			Steps: []remediate.Step{remediate.Add(policyKind, name+" "+rule, "-")}}
		if permanent >= 0 && name != dockerPolicy {
			f.Fix.Persist = []remediate.Step{remediate.Add(policyKind+"-permanent", name+" "+rule, "-")}
		}
		f.Advice = "the rule is about the container's address of now: docker run --ip has it keep that"
	}
	if name == dockerPolicy && permanent >= 0 {
		back := asEngineMadeIt(h.Firewalld.PermanentPolicies[permanent])
		if f.Problem += "; the engine made it to let everything pass"; f.Fix != nil {
			f.Fix.Persist = back
		}
	}
	return f
}

const policyKind = "firewalld-policy"

// asEngineMadeIt returns the steps that give a permanent docker-forwarding back what the engine made it of.
func asEngineMadeIt(p netstate.Policy) (steps []remediate.Step) {
	for _, member := range []struct {
		of         []string
		word, zone string
	}{{p.IngressZones, "ingress-zone", "ANY"}, {p.EgressZones, "egress-zone", dockerZone}} {
		if !slices.Contains(member.of, member.zone) {
			steps = append(steps, remediate.Add(policyKind+"-permanent", p.Name+" "+member.word+" "+member.zone, "-"))
		}
	}
	if p.Target != "ACCEPT" {
		steps = append(steps, remediate.Set(policyKind+"-permanent", p.Name+" target", p.Target, "ACCEPT"))
	}
	return steps
}

// policyOfChain returns the policy for which firewalld made the chain, or "": filter_FWD_policy_fence_deny of
// its nftables, FWD_policy_fence_deny of its iptables.
func policyOfChain(chain string) string {
	_, name, ok := strings.Cut(chain, "_policy_")
	if !ok {
		return ""
	}
	for _, step := range chainSteps[1:] {
		if policy, ok := strings.CutSuffix(name, step); ok {
			return policy
		}
	}
	return name
}

// rich returns the rule that lets the flow pass before all other rules, as firewalld writes it. Links are told
// by the policy's zones.
func (f flow) rich(family netstate.Family) string {
	rule := fmt.Sprintf(`rule priority="-32768" family=%q`, family)
	if f.from.IsValid() {
		rule += fmt.Sprintf(` source address="%s"`, f.from)
	}
	if f.to.IsValid() {
		rule += fmt.Sprintf(` destination address="%s"`, f.to)
	}
	switch {
	case f.toPort != 0:
		rule += fmt.Sprintf(` port port="%d" protocol=%q`, f.toPort, f.proto)
	case f.fromPort != 0:
		rule += fmt.Sprintf(` source-port port="%d" protocol=%q`, f.fromPort, f.proto)
	}
	return rule + " accept"
}
