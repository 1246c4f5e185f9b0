package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// The three jobs of Docker's rules, by the place where they stand: in the iptables backend's tables, or
// in the chains of the nftables backend's one table.
func isDNAT(table, chain string) bool {
	return table == "nat" && chain != "POSTROUTING" ||
		table == "docker-bridges" && strings.HasPrefix(chain, "nat-") && !strings.HasPrefix(chain, "nat-POSTROUTING") && !strings.HasPrefix(chain, "nat-postrouting")
}

func isMasquerade(table, chain string) bool {
	return table == "nat" && chain == "POSTROUTING" ||
		table == "docker-bridges" && (strings.HasPrefix(chain, "nat-POSTROUTING") || strings.HasPrefix(chain, "nat-postrouting"))
}

func isAccept(table, chain string) bool {
	return table == "filter" || table == "raw" || table == "docker-bridges" && (strings.HasPrefix(chain, "filter-") || strings.HasPrefix(chain, "raw-"))
}

// differences returns how the rules that the target's traffic needs differ from what the engine
// programmed, for one of the jobs.
func (h *Host) differences(t netstate.Target, job func(table, chain string) bool) []dockerd.Difference {
	var found []dockerd.Difference
	for _, d := range h.Program().Hits(h.whole.snapshot, h.compared(), t) {
		if job(d.Table, d.Chain) || d.Kind == dockerd.Dormant && job("docker-bridges", "filter-FORWARD") {
			found = append(found, d)
		}
	}
	return found
}

// unjudged is the finding where nothing can be said about Docker's rules of the target's family, which
// the target's packets pass.
func (h *Host) unjudged(t netstate.Target) []Finding {
	why := h.Program().Unjudged(t.Family)
	if trace := h.Walk(t); why == "" || trace.Via != "forward" && trace.Verdict == packet.Pass {
		return nil
	}
	return []Finding{{Unknown: true, Object: "engine", Problem: "Docker's rules cannot be judged: " + why}}
}

// maxEvidence is how many rules a finding quotes.
const maxEvidence = 10

// rulesFinding makes one finding of the differences: they have one cause, somebody who changed the
// table, and one remedy. It fails if the walk shows that the packet is stopped by what they leave
// undone, which explained tells, and warns if the packet gets through in some other way.
func (h *Host) rulesFinding(t netstate.Target, at packet.Hop, differences []dockerd.Difference, explained func(packet.Stop) bool) Finding {
	first := &differences[0]
	finding := Finding{Object: first.Object(), At: at, Warning: true}
	for i := range differences {
		if i == maxEvidence {
			finding.Evidence = append(finding.Evidence, fmt.Sprintf("and %d more", len(differences)-i))
			break
		}
		finding.Evidence = append(finding.Evidence, differences[i].String())
	}
	trace := h.Walk(t)
	for _, stop := range trace.Stops {
		if !explained(stop) {
			continue
		}
		finding.explains = append(finding.explains, stop.Object)
		if stop.Verdict.Stops() {
			finding.Warning = false
			finding.At = stop.Hop
		}
	}
	what := "missing"
	if !slices.ContainsFunc(differences, func(d dockerd.Difference) bool {
		return d.Kind == dockerd.MissingRule || d.Kind == dockerd.MissingChain
	}) {
		what = "altered or out of order"
	}
	rules := "a rule of Docker's is"
	if len(differences) > 1 {
		rules = fmt.Sprintf("%d rules of Docker's are", len(differences))
	}
	finding.Problem = rules + " " + what
	if first.Kind == dockerd.Altered {
		finding.Problem = "a rule of Docker's does something else"
	}
	if first.Kind == dockerd.Shadowed || first.Kind == dockerd.Misplaced {
		finding.Problem = fmt.Sprintf("a rule of Docker's stands behind rule %d: %s", first.AgainstNumber, first.Against)
		if place := strings.Fields(first.Object()); first.AgainstNumber > 0 && len(place) > 3 {
			finding.explains = append(finding.explains, finding.Object)
			finding.Object = fmt.Sprintf("%s %d: %s", strings.Join(place[:3], " "), first.AgainstNumber, first.Against)
		}
	}
	if finding.Warning {
		switch trace.Via {
		case "docker-proxy":
			finding.Problem += ": docker-proxy alone serves the port, slowly and with the wrong source address"
		default:
			finding.Problem += ": the traffic gets through without"
		}
	}
	finding.remedy(h, h.rulesFix(t.Family))
	return finding
}
