package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// rulesFix is the fix that brings all of Docker's own rules of a family back, those that the target does
// not need included: who flushed a table took the isolation of networks with it. The engine finds what is
// put back and does not make it twice: of the iptables backend it looks for each rule, and of the nftables
// backend it fills a chain that it changes anew, as a whole and by name.
func (h *Host) rulesFix(family netstate.Family) *remediate.Fix {
	var mine []dockerd.Difference
	dormant, chains := false, false
	for _, d := range h.compared() {
		if d.Family == family {
			mine = append(mine, d)
			dormant = dormant || d.Kind == dockerd.Dormant
			chains = chains || d.Kind == dockerd.MissingChain || d.Kind == dockerd.Unhooked
		}
	}
	if dormant && chains {
		return nil // the kernel does not wake a table and make chains in it at once
	}
	steps, opens := h.rewritten(h.Program().Restore(h.whole.snapshot, mine))
	if len(steps) == 0 {
		return nil
	}
	for i := range steps {
		steps[i] = h.guarded(steps[i])
	}
	return &remediate.Fix{
		Title: fmt.Sprintf("bring Docker's own %s rules back", strings.Replace(family.String(), "ip", "IP", 1)),
		Steps: steps,
		Opens: opens,
	}
}

// guarded binds a step to this start of the engine: after another one its rules are others.
func (h *Host) guarded(step remediate.Step) remediate.Step {
	if e := h.whole.snapshot.Engine; e != nil && e.PID != 0 {
		return step.Guarded(remediate.GuardEngine, fmt.Sprintf("%d@%s", e.PID, e.Started))
	}
	return step
}

// remedy sets the fix that brings rules back, or says what to do where there is none.
func (f *Finding) remedy(h *Host, fix *remediate.Fix) {
	if f.Fix = fix; fix == nil {
		f.Advice = restartEngine(h) + ": it makes its rules anew"
	}
}

// shields are the rules that stop packets.
var shields = []dockerd.Purpose{dockerd.Isolation, dockerd.DefaultDrop, dockerd.RawDrop}

// unshielded warns of rules that are missing with which the engine keeps others away from the target's
// container: traffic gets through without them, and so does what nobody published.
func (h *Host) unshielded(t netstate.Target) []Finding {
	c := h.Container(t.ID)
	if t.Direction != netstate.In || c == nil {
		return nil
	}
	finding := Finding{At: packet.Accept, Warning: true, Problem: "rules of Docker's that keep others away from the container are missing"}
	for _, d := range h.compared() {
		if d.Family != t.Family || d.Kind != dockerd.MissingRule || !slices.Contains(shields, d.Rule.Why) ||
			d.Rule.Container != c.ID && !slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return e.NetworkID == d.Rule.Network }) {
			continue
		}
		if finding.Object == "" {
			finding.Object = d.Object()
		}
		if len(finding.Evidence) < maxEvidence {
			finding.Evidence = append(finding.Evidence, d.String())
		}
	}
	if finding.Object == "" {
		return nil
	}
	finding.remedy(h, h.rulesFix(t.Family))
	return []Finding{finding}
}
