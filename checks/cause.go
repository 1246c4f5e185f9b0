package checks

import "slices"

// A Cause is the first failing finding of a target that follows from no other; of a target that only
// warns, its first warning.
type Cause struct {
	Check   string `json:"check"`
	Object  string `json:"object"`
	Problem string `json:"problem"`

	Finding *Finding `json:"-"`
}

// Causes returns the independent causes of a target's status, the first one met first: its failures if
// it fails, else its warnings.
func Causes(results []Result) []Cause {
	wanted := (*Finding).Failure
	if StatusOf(results) != Fail {
		wanted = func(f *Finding) bool { return f.Warning }
	}
	var causes []Cause
	for i := range results {
		for j := range results[i].Findings {
			if finding := &results[i].Findings[j]; finding.Follows == "" && wanted(finding) {
				causes = append(causes, Cause{results[i].Check, finding.Object, finding.Problem, finding})
			}
		}
	}
	return causes
}

// follow marks each finding that is only the consequence of another one: it names the same object as an
// earlier finding, or one that the other accounts for, or it cannot but be so while the other is.
func follow(results []Result) {
	type failure struct {
		check   string
		finding *Finding
	}
	var failures []failure
	explained := map[string]string{} // an object and the check that named or explained it first
	claimed := map[string]string{}   // those that were explained, not named
	for i := range results {
		for j := range results[i].Findings {
			f := &results[i].Findings[j]
			if f.Follows = explained[f.Object]; f.Follows == "" {
				f.Follows = accounted(f.explains, claimed)
			}
			if f.Follows != "" || !f.Failure() {
				continue
			}
			failures = append(failures, failure{results[i].Check, f})
			for _, object := range f.explains {
				if _, ok := claimed[object]; !ok {
					claimed[object] = results[i].Check
				}
			}
			for _, object := range append([]string{f.Object}, f.explains...) {
				if _, ok := explained[object]; !ok && object != "" {
					explained[object] = results[i].Check
				}
			}
		}
	}
	for i, f := range failures {
		for k, other := range failures {
			switch {
			case i == k || other.finding.Follows != "":
			case slices.Contains(other.finding.explains, f.finding.Object),
				f.finding.stop != nil && other.finding.stop != nil && consequence(f.finding.stop, other.finding.stop):
				f.finding.Follows = other.check
			}
		}
	}
}

// accounted returns the check whose findings explain all of the objects, or "".
func accounted(objects []string, claimed map[string]string) string {
	by := ""
	for _, object := range objects {
		if by = claimed[object]; by == "" {
			return ""
		}
	}
	return by
}
