package checks

import (
	"slices"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// says is a check that finds what it is told to.
func says(name string, needs netstate.Part, requires []*Check, findings ...Finding) *Check {
	return &Check{Name: name, Needs: needs, Requires: requires, Run: func(*Host, netstate.Target) []Finding { return findings }}
}

func host(missing ...netstate.Key) *Host {
	s := &netstate.Snapshot{Parts: netstate.All}
	for _, key := range missing {
		s.Lacks(key, "not read")
	}
	return NewHost(s)
}

var target = netstate.Target{Container: "web", ID: "0123", Direction: netstate.In, Family: netstate.IPv4}

func statuses(results []Result) []Status {
	var all []Status
	for _, r := range results {
		all = append(all, r.Status)
	}
	return all
}

func TestRunDecidesStatus(t *testing.T) {
	well := says("well", netstate.Links, nil)
	for _, c := range []struct {
		name    string
		check   *Check
		missing []netstate.Key
		want    Status
	}{
		{"nothing found", well, nil, Pass},
		{"a failure", says("x", 0, nil, Finding{Problem: "p"}), nil, Fail},
		{"a warning", says("x", 0, nil, Finding{Warning: true}), nil, Warn},
		{"a note", says("x", 0, nil, Finding{Note: true, Problem: "by design"}), nil, Pass},
		{"unsure", says("x", 0, nil, Finding{Unknown: true}), nil, Unknown},
		{"a failure beats unsure", says("x", 0, nil, Finding{Unknown: true}, Finding{}), nil, Fail},
		{"unsure beats a warning", says("x", 0, nil, Finding{Warning: true}, Finding{Unknown: true}), nil, Unknown},
		{"a need was not read", well, []netstate.Key{{Part: netstate.Links}}, Unknown},
		{"another part was not read", well, []netstate.Key{{Part: netstate.Routes}}, Pass},
		{"another container was not read", well, []netstate.Key{{Part: netstate.Links, Container: "4567"}}, Pass},
		{"the other family's rules were not read", says("x", netstate.Iptables, nil), []netstate.Key{{Part: netstate.Iptables, Family: netstate.IPv6}}, Pass},
		{"this family's rules were not read", says("x", netstate.Iptables, nil), []netstate.Key{{Part: netstate.Iptables, Family: netstate.IPv4, Variant: "legacy"}}, Unknown},
		{"the container's own links were not read", &Check{Inside: netstate.Links, Run: well.Run}, []netstate.Key{{Part: netstate.Links, Container: "0123"}}, Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			results := Run([]*Check{c.check}, host(c.missing...), target)
			if results[0].Status != c.want {
				t.Errorf("%s (%s), want %s", results[0].Status, results[0].Reason, c.want)
			}
			if (c.want == Unknown) != (results[0].Reason != "") && c.name != "a note" && c.name != "unsure" && c.name != "unsure beats a warning" {
				t.Errorf("reason %q with status %s", results[0].Reason, c.want)
			}
		})
	}
}

func TestRunSkipsWhatRequiresAFailure(t *testing.T) {
	for first, want := range map[Status]Status{Fail: Skip, Unknown: Skip, Warn: Fail, Pass: Fail} {
		finding := map[Status][]Finding{Fail: {{}}, Unknown: {{Unknown: true}}, Warn: {{Warning: true}}}[first]
		a := says("a", 0, nil, finding...)
		b := says("b", 0, []*Check{a}, Finding{})
		c := says("c", 0, []*Check{b}, Finding{})
		got := statuses(Run([]*Check{a, b, c}, host(), target))
		wantAll := []Status{first, want, Skip}
		if !slices.Equal(got, wantAll) {
			t.Errorf("got %v, want %v", got, wantAll)
		}
		if got := statuses(Run([]*Check{b}, host(), target)); got[0] != Fail {
			t.Errorf("a requirement that was left out is taken for granted: got %v", got)
		}
	}
}

func TestConsequencesAreNoCauses(t *testing.T) {
	a := says("a", 0, nil, Finding{Problem: "first", Object: "sysctl x", explains: []string{"rule y"}})
	b := says("b", 0, nil, Finding{Problem: "same", Object: "sysctl x"}, Finding{Problem: "explained", Object: "rule y"}, Finding{Problem: "second", Object: "link z"})
	results := Run([]*Check{a, b}, host(), target)
	var problems []string
	for _, cause := range Causes(results) {
		problems = append(problems, cause.Check+": "+cause.Problem)
	}
	if want := []string{"a: first", "b: second"}; !slices.Equal(problems, want) {
		t.Errorf("causes %v, want %v", problems, want)
	}
	if got := results[1].Findings[0].Follows; got != "a" {
		t.Errorf("follows %q, want a", got)
	}
}

func TestAFixThatCannotHelpIsNotMade(t *testing.T) {
	fix := func(name string, opens bool) *remediate.Fix {
		return &remediate.Fix{Title: name, Opens: opens, Steps: []remediate.Step{remediate.Set("sysctl", name, "0", "1")}}
	}
	titles := func(fixes []*remediate.Fix) (titles []string) {
		for _, f := range fixes {
			titles = append(titles, f.Title)
		}
		return titles
	}
	report := func(findings ...Finding) *Report {
		results := Run([]*Check{says("a", 0, nil, findings...)}, host(), target)
		return &Report{Targets: []Judgement{{Target: target, Status: StatusOf(results), Causes: Causes(results), Results: results}}}
	}
	fixable, unfixable := Finding{Object: "x", Fix: fix("x", false)}, Finding{Object: "y"}
	for _, c := range []struct {
		name    string
		report  *Report
		consent Consent
		fixes   []string
		refused int
	}{
		{"a cause with a fix", report(fixable), Consent{}, []string{"x"}, 0},
		{"and one without", report(fixable, unfixable), Consent{}, nil, 1},
		{"which --only allows", report(fixable, unfixable), Consent{Partial: true}, []string{"x"}, 0},
		{"one that opens", report(fixable, Finding{Object: "z", Fix: fix("z", true)}), Consent{}, []string{"x"}, 1},
		{"which --allow open allows", report(fixable, Finding{Object: "z", Fix: fix("z", true)}), Consent{Open: true}, []string{"x", "z"}, 0},
		{"a warning", report(Finding{Object: "x", Warning: true, Fix: fix("x", false)}), Consent{}, []string{"x"}, 0},
	} {
		fixes, refused := c.report.Fixes(c.consent)
		if got := titles(fixes); !slices.Equal(got, c.fixes) || len(refused) != c.refused {
			t.Errorf("%s: fixes %v, want %v; refused %v, want %d", c.name, got, c.fixes, refused, c.refused)
		}
	}
}
