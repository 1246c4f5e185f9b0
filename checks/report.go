package checks

import (
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// ReportSchema names the document that --format json prints.
const ReportSchema = "netcheck.report/v1"

// A Report is what netcheck says of one snapshot.
type Report struct {
	Schema  string          `json:"schema"`
	Verdict Status          `json:"verdict"` // the worst of the targets'
	Read    time.Time       `json:"read"`
	Engine  ReportEngine    `json:"engine"`
	Targets []Judgement     `json:"targets"`
	Notes   []string        `json:"notes,omitempty"` // what is worth knowing and belongs to no target
	Plan    *remediate.Plan `json:"plan"`
	Fix     *FixOutcome     `json:"fix,omitempty"`
	Before  []Judgement     `json:"before"` // the targets before a fix
}

// ReportEngine says which engine was asked.
type ReportEngine struct {
	Version string `json:"version"`
	API     string `json:"api"`
	Backend string `json:"backend"` // iptables, iptables+firewalld, nftables, nftables+firewalld, none or unknown
	Context string `json:"context"`
}

// A Judgement is what was found of one target.
type Judgement struct {
	netstate.Target
	Status  Status   `json:"status"`
	Reason  string   `json:"reason,omitempty"` // why nothing gets through and that is no fault: the container was made so
	Cause   *Cause   `json:"cause"`            // the first of Causes; null unless the target fails or warns
	Causes  []Cause  `json:"causes"`
	Results []Result `json:"results"`
	Live    *Live    `json:"live,omitempty"`
}

// Live is what one real connection said of a prediction.
type Live struct {
	Result string `json:"result"` // proved, contradicted or unproved
	Last   string `json:"last"`   // the last place where the packet was seen
	Why    string `json:"why"`

	// Not lists what the connection did not traverse, beside everything beyond this host.
	Not []string `json:"not_traversed,omitempty"`
}

// Contradicted is the Live result where prediction and connection disagree.
const Contradicted = "contradicted"

// Weigh takes into account what live connections said: where one contradicts the prediction, the target
// is unknown, whatever was predicted.
func (r *Report) Weigh() {
	r.Verdict = Pass
	for i := range r.Targets {
		j := &r.Targets[i]
		if j.Live != nil && j.Live.Result == Contradicted {
			j.Status = Unknown
		}
		r.Verdict = r.Verdict.Worse(j.Status)
	}
}

// FixOutcome is what --fix did.
type FixOutcome struct {
	Run       string           `json:"run"` // for undo; "" if nothing was made
	Applied   []remediate.Step `json:"applied"`
	Changed   bool             `json:"changed"`
	Refused   []Refusal        `json:"refused"`
	Rechecked bool             `json:"rechecked"`       // reading and judging again found what was to be fixed gone
	Proved    bool             `json:"proved"`          // a live connection showed it
	Why       string           `json:"why,omitempty"`   // why nothing was made, or all that can be was taken back
	Tried     []Judgement      `json:"tried,omitempty"` // the targets as they were with a fix that was taken back
}

// A Refusal is a fix that was not made.
type Refusal struct {
	Fix string `json:"fix"`
	Why string `json:"why"`
}

// Judge judges all targets of a host by the checks of the suite.
func Judge(suite []*Check, h *Host, targets []netstate.Target) *Report {
	s := h.Snapshot
	report := &Report{
		Schema: ReportSchema, Verdict: Pass, Read: s.Read,
		Engine:  ReportEngine{Backend: Backend(s)},
		Targets: []Judgement{}, Before: []Judgement{},
	}
	if s.Engine != nil {
		report.Engine.Version, report.Engine.API, report.Engine.Context = s.Engine.Version, s.Engine.API, s.Engine.Context
	}
	for _, t := range targets {
		judgement := judge(suite, h, t)
		report.Targets = append(report.Targets, judgement)
		report.Verdict = report.Verdict.Worse(judgement.Status)
	}
	return report
}

func judge(suite []*Check, h *Host, t netstate.Target) Judgement {
	results := Run(suite, h, t)
	j := Judgement{Target: t, Status: StatusOf(results), Reason: asMade(h, t), Causes: []Cause{}, Results: results}
	if j.Status == Fail || j.Status == Warn {
		j.Causes = Causes(results)
	}
	if len(j.Causes) > 0 {
		j.Cause = &j.Causes[0]
	}
	return j
}

// Backend returns what programs the host's firewall for the engine: iptables, iptables+firewalld,
// nftables, nftables+firewalld, none or unknown.
//
// Source: /info FirewallBackend.Driver, which API 1.49 has. Before 29 engines know iptables alone, and go
// through firewalld when it is there.
func Backend(s *netstate.Snapshot) string {
	switch e := s.Engine; {
	case e == nil:
		return "unknown"
	case e.Config.Iptables != nil && !*e.Config.Iptables:
		return "none"
	case e.Driver != "":
		return e.Driver
	case e.AtLeast(29, 0, 0):
		return "unknown"
	case s.Why(netstate.Key{Part: netstate.Firewalld}) != "":
		return "unknown"
	case s.Firewalld != nil:
		return "iptables+firewalld"
	}
	return "iptables"
}
