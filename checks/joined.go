package checks

import (
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// joined returns the fixes as they go together: one step puts all rules into a place of a chain that fixes
// have for it, and takes the rule behind that place out if one of them does; one step changes all lines of a file.
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
	file := filesOf(fixes)
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
		one.Persist = slices.Clone(fix.Persist)
		for i, step := range one.Persist {
			one.Persist[i] = file(step)
		}
		all = append(all, &one)
	}
	return all
}

// filesOf returns what turns one fix's step about a file into that of all fixes about it. One that wants something
// else of a line than those before it stays as it is, and NewPlan refuses it.
func filesOf(fixes []*remediate.Fix) func(remediate.Step) remediate.Step {
	type read struct{ name, text string }
	made := map[read]string{}
	file := func(step remediate.Step) remediate.Step {
		if step.Kind != "file" || step.Old == nil || step.New == nil {
			return step
		}
		at := read{step.Name, *step.Old}
		have, ok := made[at]
		if !ok {
			have = *step.Old
		}
		if both, ok := bothLines(*step.Old, have, *step.New); ok {
			made[at], step.New = both, &both
		}
		return step
	}
	for _, fix := range fixes {
		for _, step := range fix.Persist {
			file(step)
		}
	}
	return file
}

// bothLines returns old with the lines changed that one or the other changed; false: they disagree about one, or are no
// changes line by line.
func bothLines(old, one, other string) (string, bool) {
	lines, a, b := strings.Split(old, "\n"), strings.Split(one, "\n"), strings.Split(other, "\n")
	if len(a) != len(lines) || len(b) != len(lines) {
		return "", false
	}
	for i, was := range lines {
		switch {
		case a[i] == was:
			lines[i] = b[i]
		case b[i] == was, b[i] == a[i]:
			lines[i] = a[i]
		default:
			return "", false
		}
	}
	return strings.Join(lines, "\n"), true
}
