package probe

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// String shows the connection as a person reads it: what was sent and met, then the copies and the rules
// on its way with the time since it began, what the kernel dropped, and what could not be seen.
func (o *Observation) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s\n", o.Flow, o.outcome())
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, c := range o.Copies {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", since(o.Started, c.Time), c.Hop, at(c.Link, c.Where), printable(c.Text))
	}
	w.Flush()
	for _, hop := range o.ruleHops() {
		fmt.Fprintf(&text, "rules at %s\n", hop)
		shown := map[string]bool{} // a packet that was sent again meets the same rules
		for _, r := range o.Rules {
			if line := fmt.Sprintf("  %s: %s\n", printable(r.Object), printable(r.Did())); r.Hop == hop && !shown[line] {
				text.WriteString(line)
				shown[line] = true
			}
		}
	}
	for _, line := range o.dropLines() {
		text.WriteString(line)
	}
	if f := o.Conntrack; f != nil {
		fmt.Fprintf(&text, "conntrack %s → %s, reply %s → %s %s\n", f.Original.Src, f.Original.Dst, f.Reply.Src, f.Reply.Dst, f.State)
	}
	if other := o.otherWay(); other != "" {
		fmt.Fprintf(&text, "the reply leaves by %s\n", printable(other))
	}
	for _, what := range []What{Copies, Rules, Drops, Conntrack} {
		if why := o.Missing[what]; why != "" {
			fmt.Fprintf(&text, "%s: %s\n", what, printable(why))
		}
	}
	return text.String()
}

// ruleHops returns the hops of the rules, in order of the way.
func (o *Observation) ruleHops() []packet.Hop {
	var hops []packet.Hop
	for _, r := range o.Rules {
		if !slices.Contains(hops, r.Hop) {
			hops = append(hops, r.Hop)
		}
	}
	ways := o.ways()
	slices.SortStableFunc(hops, func(a, b packet.Hop) int {
		return slices.Index(ways, a) - slices.Index(ways, b)
	})
	return hops
}

// dropLines shows equal drops, of packets that were sent again, once.
func (o *Observation) dropLines() []string {
	var lines []string
	times := map[string]int{}
	for _, d := range o.Drops {
		if d.resets() {
			continue
		}
		line := fmt.Sprintf("dropped at %s: %s", at(d.Link, d.Where), printable(d.Did()))
		if times[line]++; times[line] == 1 {
			lines = append(lines, line)
		}
	}
	for i, line := range lines {
		if n := times[line]; n > 1 {
			lines[i] += fmt.Sprintf(", %d times", n)
		}
		lines[i] += "\n"
	}
	return lines
}

// at names a link in its namespace.
func at(link, where string) string {
	if where == "host" || where == "" {
		return printable(link)
	}
	return printable(link + " in " + where)
}

// since is a time after the beginning, as "+0.041 ms".
func since(start, t time.Time) string {
	return fmt.Sprintf("+%.3f ms", float64(t.Sub(start))/float64(time.Millisecond))
}

// printable replaces what a terminal would act upon.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '.'
		}
		return r
	}, s)
}
