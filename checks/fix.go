package checks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Consent is what the user agreed to beforehand.
type Consent struct {
	Open    bool // fixes that open what somebody may have closed on purpose
	Disrupt bool // fixes that interrupt traffic or restart something
	Partial bool // fixes that help, although the target will not pass
}

// Fixes returns the fixes of what is wrong with the targets, each once, and those that are not made.
// A target that cannot pass, because one of its causes has no fix, is left alone whole: half a repair
// helps nobody.
func (r *Report) Fixes(consent Consent) (fixes []*remediate.Fix, refused []Refusal) {
	refuse := func(fix *remediate.Fix, why string) {
		refusal := Refusal{fix.Title, why}
		if !slices.Contains(refused, refusal) {
			refused = append(refused, refusal)
		}
	}
	var chosen []string
	hopeless := map[*remediate.Fix]string{}
	for i := range r.Targets {
		target := &r.Targets[i]
		remains := slices.IndexFunc(target.Causes, func(c Cause) bool { return c.Finding.Fix == nil && c.Finding.Failure() })
		for _, finding := range target.fixable() {
			if remains >= 0 && finding.Failure() && !consent.Partial {
				hopeless[finding.Fix] = fmt.Sprintf("%s would not pass: %s, for which there is no fix", Name(target.Target), target.Causes[remains].Problem)
				continue
			}
			key := fixKey(finding.Fix)
			if slices.Contains(chosen, key) {
				continue
			}
			switch {
			case finding.Fix.Opens && !consent.Open:
				refuse(finding.Fix, "it opens what may be closed on purpose: add --allow open")
			case finding.Fix.Disrupts && !consent.Disrupt:
				refuse(finding.Fix, "it interrupts traffic: add --allow disrupt")
			default:
				chosen = append(chosen, key)
				fixes = append(fixes, finding.Fix)
			}
		}
	}
	for i := range r.Targets {
		for _, finding := range r.Targets[i].fixable() {
			if why, ok := hopeless[finding.Fix]; ok && !slices.Contains(chosen, fixKey(finding.Fix)) {
				refuse(finding.Fix, why)
			}
		}
	}
	return joined(fixes), refused
}

// fixable returns the findings of a target that are no consequence of others and have a fix.
func (j *Judgement) fixable() []*Finding {
	var findings []*Finding
	for i := range j.Results {
		for k := range j.Results[i].Findings {
			if f := &j.Results[i].Findings[k]; f.Fix != nil && f.Follows == "" && !f.Unknown {
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// Lasts says how long a fix stays without its Persist, if it has steps besides.
func Lasts(fix *remediate.Fix) string {
	kinds := func(all ...string) bool {
		return !slices.ContainsFunc(fix.Steps, func(s remediate.Step) bool { return !slices.Contains(all, s.Kind) })
	}
	switch {
	case slices.ContainsFunc(fix.Steps, func(s remediate.Step) bool { return s.OneWay }):
		return "no undo takes it back"
	case len(fix.Steps) > 0 && !slices.ContainsFunc(fix.Steps, func(s remediate.Step) bool { return !strings.Contains(s.Name, " in container ") }):
		return "until the container starts again, which makes all of it anew"
	case kinds("file", "container", "firewalld-zone-permanent", "firewalld-source-permanent", "firewalld-policy-permanent"):
		return "for good"
	case !fix.Opens && kinds("iptables", "nft"):
		return "until the engine starts again, which makes the same itself"
	case kinds("firewalld-source", "firewalld-policy"):
		return "until firewalld is reloaded"
	}
	return "until reboot"
}

// Fleeting returns the titles of the fixes in a plan that a reboot undoes at the latest, but that could last.
func (r *Report) Fleeting(plan *remediate.Plan) []string {
	var titles []string
	for i := range r.Targets {
		for _, finding := range r.Targets[i].fixable() {
			fix := finding.Fix
			made := slices.Contains(plan.Titles, fix.Title) && !slices.Contains(titles, fix.Title)
			kept := len(fix.Persist) > 0 && !slices.ContainsFunc(fix.Persist, func(s remediate.Step) bool {
				return !slices.ContainsFunc(plan.Steps, func(p remediate.Step) bool { return p.Kind == s.Kind && p.Name == s.Name })
			})
			if lasts := Lasts(fix); made && !kept && (lasts == "until reboot" || lasts == "until firewalld is reloaded") {
				titles = append(titles, fix.Title)
			}
		}
	}
	return titles
}

// fixKey tells fixes apart by what they do.
func fixKey(fix *remediate.Fix) string {
	var key strings.Builder
	for _, step := range slices.Concat(fix.Steps, fix.Persist) {
		fmt.Fprintf(&key, "%s\x00%s\x00%s\x00", step.Kind, step.Name, step.Guards[remediate.GuardNetns])
		for _, value := range []*string{step.Old, step.New} {
			if value != nil {
				key.WriteString(*value)
			}
			key.WriteByte(0)
		}
	}
	return key.String()
}

// ErrNotHelped means that a plan was made and did not do what it was made for.
var ErrNotHelped = errors.New("the fix did not help")

// Helped compares the reports before and after a plan: what was to be fixed has to be gone, and no target
// that did not fail before may fail now.
func Helped(before, after *Report, plan *remediate.Plan) error {
	if len(plan.Steps) == 0 {
		return nil
	}
	for i := range after.Targets {
		now := &after.Targets[i]
		then := before.target(now.Target)
		if now.Status == Fail && (then == nil || then.Status != Fail) {
			return fmt.Errorf("%w: %s fails now and did not before: %s", ErrNotHelped, Name(now.Target), now.Cause.Problem)
		}
		for _, finding := range now.fixable() {
			if slices.Contains(plan.Titles, finding.Fix.Title) {
				return fmt.Errorf("%w: %s: %s: is still so", ErrNotHelped, finding.Object, finding.Problem)
			}
		}
	}
	return nil
}

// target returns the judgement of the same target, or nil.
func (r *Report) target(t netstate.Target) *Judgement {
	for i := range r.Targets {
		if r.Targets[i].Target == t {
			return &r.Targets[i]
		}
	}
	return nil
}
