package remediate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// PlanSchema names the document format of a Plan.
const PlanSchema = "netcheck.plan/v1"

// What a plan document may hold at most, so that reading a hostile one ends.
const (
	maxPlanBytes = 16 << 20
	maxPlanSteps = 10_000
)

// A Plan is what will be done, in order.
type Plan struct {
	Titles   []string // of the fixes that it makes
	Steps    []Step
	Opens    bool // one of the fixes does (see [Fix])
	Disrupts bool
}

type planJSON struct {
	Schema   string   `json:"schema"`
	Titles   []string `json:"titles"`
	Opens    bool     `json:"opens"`
	Disrupts bool     `json:"disrupts"`
	Steps    []Step   `json:"steps"`
	Diff     string   `json:"diff"`
}

// MarshalJSON writes schema, titles, opens, disrupts, steps and the diff.
func (p Plan) MarshalJSON() ([]byte, error) {
	return plainJSON(planJSON{PlanSchema, orEmpty(p.Titles), p.Opens, p.Disrupts, orEmpty(p.Steps), p.Diff()})
}

// ParsePlan reads a plan document, which may come from anywhere. A document whose diff does not tell
// what its steps do is refused: somebody may have reviewed the diff.
func ParsePlan(data []byte) (*Plan, error) {
	if len(data) > maxPlanBytes {
		return nil, fmt.Errorf("plan: has %d bytes, at most %d are read", len(data), maxPlanBytes)
	}
	var doc planJSON
	if err := strictJSON(data, &doc); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	plan := &Plan{doc.Titles, doc.Steps, doc.Opens, doc.Disrupts}
	first := slices.IndexFunc(doc.Steps, func(s Step) bool { return s.OneWay })
	switch {
	case doc.Schema != PlanSchema:
		return nil, fmt.Errorf("plan: its schema is %q, this netcheck reads %q", doc.Schema, PlanSchema)
	case len(doc.Steps) > maxPlanSteps:
		return nil, fmt.Errorf("plan: has %d steps, at most %d are read", len(doc.Steps), maxPlanSteps)
	case first >= 0 && !doc.Disrupts:
		return nil, errors.New("plan: has a step that cannot be taken back, and does not say that it disrupts")
	case first >= 0 && slices.ContainsFunc(doc.Steps[first:], func(s Step) bool { return !s.OneWay }):
		return nil, errors.New("plan: has a step that cannot be taken back before one that may be refused")
	case doc.Diff != plan.Diff():
		return nil, errors.New("plan: its diff is not what its steps do")
	}
	return plan, nil
}

// UnmarshalJSON is ParsePlan.
func (p *Plan) UnmarshalJSON(data []byte) error {
	plan, err := ParsePlan(data)
	if err == nil {
		*p = *plan
	}
	return err
}

// NewPlan puts the steps of the fixes one behind the other, those of Persist behind all others if they
// are wanted, and one-way steps last. A step that is there twice is made once; two that want different
// things of one object are an error.
func NewPlan(fixes []*Fix, persist bool) (*Plan, error) {
	plan := &Plan{}
	var kept []Step
	for _, fix := range fixes {
		if len(fix.Steps) == 0 && !persist {
			continue // it helps at the next boot alone
		}
		plan.Opens = plan.Opens || fix.Opens
		plan.Disrupts = plan.Disrupts || fix.Disrupts
		if !slices.Contains(plan.Titles, fix.Title) {
			plan.Titles = append(plan.Titles, fix.Title)
		}
		if err := plan.add(fix.Steps); err != nil {
			return nil, err
		}
		if persist {
			kept = append(kept, fix.Persist...)
		}
	}
	if err := plan.add(kept); err != nil {
		return nil, err
	}
	slices.SortStableFunc(plan.Steps, func(a, b Step) int {
		switch {
		case a.OneWay == b.OneWay:
			return 0
		case b.OneWay:
			return -1
		}
		return 1
	})
	return plan, nil
}

// add puts steps behind those that are there.
func (p *Plan) add(steps []Step) error {
next:
	for _, step := range steps {
		var last *Step // the last step about the same thing
		for i := range p.Steps {
			have := &p.Steps[i]
			if have.key() != step.key() {
				continue
			}
			last = have
			if Equal(have.Old, step.Old) && Equal(have.New, step.New) {
				if err := have.merge(step); err != nil {
					return err
				}
				continue next
			}
		}
		// One chain takes many rules: each of its steps is about other lines.
		if last != nil && step.Kind != "iptables" && step.Kind != "nft" && !Equal(last.New, step.Old) {
			return fmt.Errorf("%s: one fix makes %s of %s, another makes %s of %s", step.Object(),
				brief(last.New), brief(last.Old), brief(step.New), brief(step.Old))
		}
		p.Steps = append(p.Steps, step)
	}
	return nil
}

// merge adds to s what twin, the same change, drags along and is guarded by.
func (s *Step) merge(twin Step) error {
	guards := maps.Clone(s.Guards)
	if guards == nil && twin.Guards != nil {
		guards = map[string]string{}
	}
	for guard, value := range twin.Guards {
		if have, ok := guards[guard]; ok && have != value {
			return fmt.Errorf("%s: one fix was made for %s %s, another for %s", s.Object(), guard, have, value)
		}
		guards[guard] = value
	}
	also := slices.Clone(s.Also)
next:
	for _, a := range twin.Also {
		for _, b := range also {
			if a.key() != b.key() {
				continue
			}
			if !Equal(a.Old, b.Old) || !Equal(a.New, b.New) {
				return fmt.Errorf("%s: two fixes disagree about %s, which changes along", s.Object(), a.Object())
			}
			continue next
		}
		also = append(also, a)
	}
	s.Guards, s.Also = guards, also
	return nil
}

// Diff shows what the plan does, in order, as a unified diff with the object of each step above it.
// Control characters are escaped. Empty: nothing.
func (p Plan) Diff() string {
	var out strings.Builder
	above := ""
	for _, step := range p.Steps {
		head, body := step.diff()
		if head != above {
			if out.Len() > 0 {
				out.WriteByte('\n')
			}
			out.WriteString(head)
			above = head
		}
		out.WriteString(body)
	}
	return out.String()
}

// Diff shows one step as [Plan.Diff] does.
func (s Step) Diff() string { return Plan{Steps: []Step{s}}.Diff() }

// diff returns the line or lines that name the thing, and what becomes of it.
func (s Step) diff() (head, body string) {
	if s.Kind == "file" {
		return escape(s.fileDiff()), ""
	}
	var out strings.Builder
	old, new := lines(s.Old), lines(s.New)
	before := 0
	for before < min(len(old), len(new)) && old[before] == new[before] {
		before++
	}
	after := 0
	for after < min(len(old), len(new))-before && old[len(old)-1-after] == new[len(new)-1-after] {
		after++
	}
	write := func(mark string, lines []string) {
		for _, line := range lines {
			out.WriteString(mark + line + "\n")
		}
	}
	write(" ", old[:before])
	write("-", old[before:len(old)-after])
	write("+", new[before:len(new)-after])
	write(" ", old[len(old)-after:])
	for _, also := range s.Also {
		if !Equal(also.Old, also.New) {
			fmt.Fprintf(&out, " along with it %s: %s becomes %s\n", also.Object(), brief(also.Old), brief(also.New))
		}
	}
	return escape(s.Object() + "\n"), escape(out.String())
}

func (s Step) fileDiff() string {
	from, to, old, new := "/dev/null", "/dev/null", "", ""
	if s.Old != nil {
		from, old = s.Name, *s.Old
	}
	if s.New != nil {
		to, new = s.Name, *s.New
	}
	return udiff.Unified(from, to, old, new)
}

// lines returns the lines of a value, none of one that is absent. A value that is there has one at least.
func lines(value *string) []string {
	if value == nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(*value, "\n"), "\n")
}

// escape makes control characters and bytes that are no UTF-8 visible; lines and tabs stay.
func escape(text string) string {
	var out strings.Builder
	for i, r := range text {
		switch {
		case r == '\n' || r == '\t':
			out.WriteRune(r)
		case r == '\uFFFD' && !strings.HasPrefix(text[i:], "\uFFFD"):
			fmt.Fprintf(&out, `\x%02x`, text[i])
		case r < ' ' || r >= 0x7f && r < 0xa0:
			fmt.Fprintf(&out, `\x%02x`, r)
		case r == '\u2028' || r == '\u2029' || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			fmt.Fprintf(&out, `\u%04x`, r) // would start a line or turn the direction of reading
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}
