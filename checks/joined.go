package checks

import (
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// joined returns the fixes as they go together: rules that are put into the same place of a chain are put
// there by one step, and none before a rule that is taken out.
func joined(fixes []*remediate.Fix) []*remediate.Fix {
	type place struct{ kind, name, old string }
	rules, taken := map[place][]string{}, map[place]bool{}
	each := func(fix *remediate.Fix, f func(i int, at place, inserted []string)) {
		for i, step := range fix.Steps {
			if step.Kind != "iptables" && step.Kind != "nft" || step.Old == nil || step.New == nil {
				continue
			}
			old, new := strings.Split(*step.Old, "\n"), strings.Split(*step.New, "\n")
			switch {
			case len(old) == 2 && len(new) > 2 && new[0] == old[0] && new[len(new)-1] == old[1]:
				f(i, place{step.Kind, step.Name, *step.Old}, new[1:len(new)-1])
			case len(old) == 3 && len(new) == 2 && new[0] == old[0] && new[1] == old[2]:
				taken[place{step.Kind, step.Name, strings.Join(old[:2], "\n")}] = true
			}
		}
	}
	for _, fix := range fixes {
		each(fix, func(_ int, at place, inserted []string) {
			for _, rule := range inserted {
				if !fix.Opens || !slices.Contains(rules[at], rule) {
					rules[at] = append(rules[at], rule)
				}
			}
		})
	}
	var all []*remediate.Fix
	for _, fix := range fixes {
		one, needed := *fix, true
		one.Steps = slices.Clone(fix.Steps)
		each(fix, func(i int, at place, _ []string) {
			neighbours := strings.Split(at.old, "\n")
			text := strings.Join(slices.Concat(neighbours[:1], rules[at], neighbours[1:]), "\n")
			one.Steps[i].New = &text
			needed = needed && !(taken[at] && fix.Opens && len(fix.Steps) == 1)
		})
		if needed {
			all = append(all, &one)
		}
	}
	return all
}
