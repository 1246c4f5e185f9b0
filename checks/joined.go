package checks

import (
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// joined returns the fixes as they go together: one step puts all rules into a place of a chain that fixes
// have for it, and takes the rule behind that place out if one of them does.
func joined(fixes []*remediate.Fix) []*remediate.Fix {
	type place struct{ kind, name, old string } // old: the two neighbours
	inserted, taken := map[place][]string{}, map[place]string{}
	each := func(fix *remediate.Fix, f func(i int, at place, inserted []string, behind string)) {
		for i, step := range fix.Steps {
			if step.Kind != "iptables" && step.Kind != "nft" || step.Old == nil || step.New == nil {
				continue
			}
			old, new := strings.Split(*step.Old, "\n"), strings.Split(*step.New, "\n")
			switch {
			case len(old) == 2 && len(new) > 2 && new[0] == old[0] && new[len(new)-1] == old[1]:
				f(i, place{step.Kind, step.Name, *step.Old}, new[1:len(new)-1], "")
			case len(old) == 3 && len(new) == 2 && new[0] == old[0] && new[1] == old[2]:
				f(i, place{step.Kind, step.Name, strings.Join(old[:2], "\n")}, nil, old[2])
			}
		}
	}
	for _, fix := range fixes {
		each(fix, func(_ int, at place, rules []string, behind string) {
			for _, rule := range rules {
				if !fix.Opens || !slices.Contains(inserted[at], rule) {
					inserted[at] = append(inserted[at], rule)
				}
			}
			if behind != "" {
				taken[at] = behind
			}
		})
	}
	var all []*remediate.Fix
	for _, fix := range fixes {
		one := *fix
		one.Steps = slices.Clone(fix.Steps)
		each(fix, func(i int, at place, _ []string, _ string) {
			before, last, _ := strings.Cut(at.old, "\n")
			old := at.old
			if behind := taken[at]; behind != "" {
				old, last = old+"\n"+behind, behind
			}
			text := strings.Join(slices.Concat([]string{before}, inserted[at], []string{last}), "\n")
			one.Steps[i].Old, one.Steps[i].New = &old, &text
		})
		all = append(all, &one)
	}
	return all
}
