// Package checks is what can be wrong between a client and a container.
//
// A check is a pure function of a netstate.Snapshot. Suite lists all of them in the order in which a
// packet meets trouble; Run judges one target by them and decides, in one place, what is unknown,
// what is skipped and what is merely the consequence of something else.
package checks

import (
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// A Check is one thing that has to be right. One file holds one check: its value, its words, its
// function.
type Check struct {
	Name  string // frozen once published: scripts rely on it
	Title string // true when all is well: "the kernel forwards packets"
	Doc   string // for explain: what is looked at, why it matters, what to do

	Needs    netstate.Part // of the host; the check is shown nothing else
	Inside   netstate.Part // of the container's own namespace
	Requires []*Check      // stand before it in Suite; if one did not pass, this one is skipped
	Run      func(*Host, netstate.Target) []Finding
}

// A Finding is one thing that is not as it should be, or that is worth saying.
//
// Without Warning, Unknown or Note it is a failure: the target's traffic does not get through.
type Finding struct {
	Problem  string         `json:"problem"`           // one sentence in the host's own words, no full stop
	Object   string         `json:"object"`            // the one thing that does it, named as docs/checks.md says
	At       packet.Hop     `json:"at"`                // where on the packet's way it bites; "" nowhere in particular
	Warning  bool           `json:"warning"`           // the traffic gets through, but slowly, by luck, wrongly or not for long
	Unknown  bool           `json:"unknown,omitempty"` // it could not be told
	Note     bool           `json:"note,omitempty"`    // as designed: no fault, but a reason to give
	Follows  string         `json:"follows"`           // set by Run: the check whose finding this is a consequence of
	Evidence []string       `json:"evidence"`          // verbatim from the host
	Hits     string         `json:"hits,omitempty"`    // whom else it hits, and whom it spares
	SetBy    string         `json:"set_by,omitempty"`  // file and line that makes it so, where it can be told
	Advice   string         `json:"advice"`            // exactly what to do, where there is no Fix or more than a Fix is needed
	Fix      *remediate.Fix `json:"fix"`

	explains []string     // objects of the walk's stops that this finding accounts for, beside Object
	stop     *packet.Stop // what the walk said, of a finding made from it
}

// Failure says whether the finding means that the traffic does not get through.
func (f *Finding) Failure() bool { return !f.Warning && !f.Unknown && !f.Note }

// A Status is the outcome of a check, a target or a report.
type Status string

// The statuses, from best to worst but for Skip, which says nothing either way.
const (
	Skip    Status = "skip"    // a requirement did not pass
	Pass    Status = "pass"    // nothing wrong
	Warn    Status = "warn"    // it works, but slowly, by luck, with the wrong source address, or not after a reboot
	Unknown Status = "unknown" // a need could not be read, or a rule is not understood
	Fail    Status = "fail"    // this target's traffic does not get through
)

var severity = []Status{Skip, Pass, Warn, Unknown, Fail}

// Worse returns the worse of two statuses.
func (s Status) Worse(other Status) Status {
	if slices.Index(severity, other) > slices.Index(severity, s) {
		return other
	}
	return s
}

// A Result is what one check said of one target.
type Result struct {
	Check    string    `json:"check"`
	Title    string    `json:"title"`
	Status   Status    `json:"status"`
	Reason   string    `json:"reason"` // why it was skipped, is unknown, or passes although it looks odd
	Findings []Finding `json:"findings"`
}

// Run judges one target by each check of the suite, in its order.
func Run(suite []*Check, h *Host, t netstate.Target) []Result {
	results := make([]Result, 0, len(suite))
	status := make(map[*Check]Status, len(suite))
	why := asMade(h, t)
	for _, check := range suite {
		if why != "" && check != Engine && check != Running {
			results = append(results, Result{Check: check.Name, Title: check.Title, Status: Skip, Reason: why, Findings: []Finding{}})
			continue
		}
		result := check.judge(h, t, status)
		status[check] = result.Status
		results = append(results, result)
	}
	follow(results)
	return results
}

// judge is the one place where unknown and skipped are decided.
func (c *Check) judge(h *Host, t netstate.Target, status map[*Check]Status) Result {
	result := Result{Check: c.Name, Title: c.Title, Status: Pass, Findings: []Finding{}}
	for _, required := range c.Requires {
		// A requirement that is not in this suite was left out on purpose and is taken for granted.
		if s, judged := status[required]; judged && s != Pass && s != Warn {
			result.Status, result.Reason = Skip, required.Name+" did not pass"
			return result
		}
	}
	if why := c.lacks(h.Snapshot, t); why != "" {
		result.Status, result.Reason = Unknown, why
		return result
	}
	for _, finding := range c.Run(h.only(c.Needs|c.Inside), t) {
		if finding.Evidence == nil {
			finding.Evidence = []string{}
		}
		finding.lasting(h.whole.snapshot)
		switch {
		case finding.Note:
			result.Reason = finding.Problem
			continue
		case finding.Unknown:
			result.Status, result.Reason = result.Status.Worse(Unknown), finding.Problem
		case finding.Warning:
			result.Status = result.Status.Worse(Warn)
		default:
			result.Status = Fail
		}
		result.Findings = append(result.Findings, finding)
	}
	return result
}

// lacks returns why something that the check needs could not be read, or "".
func (c *Check) lacks(s *netstate.Snapshot, t netstate.Target) string {
	if len(s.Missing) == 0 && (c.Needs|c.Inside)&^s.Parts == 0 {
		return ""
	}
	for _, part := range c.Needs.Each() {
		key := netstate.Key{Part: part}
		if part == netstate.Iptables {
			key.Family = t.Family // IPv6 tables that cannot be read say nothing about an IPv4 port
		}
		if why := s.Why(key); why != "" {
			return why
		}
	}
	for _, part := range c.Inside.Each() {
		if why := s.Why(netstate.Key{Part: part, Container: t.ID}); why != "" {
			return why
		}
	}
	return ""
}

// StatusOf returns the worst status of a target's results.
func StatusOf(results []Result) Status {
	worst := Pass
	for _, result := range results {
		worst = worst.Worse(result.Status)
	}
	return worst
}
