package checks

import (
	"fmt"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
)

// mostLeftOvers is how many left-over rules are told one by one.
const mostLeftOvers = 5

// LeftOvers tells of rules of Docker's that nothing needs: for an address that no container has, or in the variant of
// iptables that the engine does not use. Where such a rule takes a target's packets, a check says so; the others
// stop nothing that was judged.
func LeftOvers(h *Host, report *Report) (notes []string) {
	named := map[string]bool{}
	for _, j := range report.Targets {
		for _, result := range j.Results {
			for _, f := range result.Findings {
				named[f.Object] = true
				for _, object := range append(slices.Clone(f.explains), f.Evidence...) {
					named[object] = true
				}
			}
		}
	}
	more := 0
	for _, d := range h.compared() {
		switch {
		case d.Kind != dockerd.Stale && d.Kind != dockerd.LeftOver || named[d.Object()] || named[d.String()]:
		case len(notes) == mostLeftOvers:
			more++
		default:
			notes = append(notes, "left over, and stops nothing that was judged: "+d.String())
		}
	}
	if more > 0 {
		notes = append(notes, fmt.Sprintf("and %d more rules are left over", more))
	}
	return notes
}
