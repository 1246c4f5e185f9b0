package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/docker/cli/cli/streams"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// The rules of the text, for whoever reads it at three in the morning:
//   - the first line of a target says what and how it is; its cause is the next;
//   - a mark says it without colour, colour only repeats it; NO_COLOR and files get none;
//   - what a host says is shown verbatim, but for control characters, which are escaped;
//   - nothing else goes to stdout: prompts, progress and notes go to stderr.

// marks show a status.
var marks = map[checks.Status]string{
	checks.Pass: "✓", checks.Warn: "!", checks.Unknown: "?", checks.Fail: "✗", checks.Skip: "·",
}

// colours of the marks: SGR parameters.
var colours = map[checks.Status]string{
	checks.Pass: "32", checks.Warn: "33", checks.Unknown: "35", checks.Fail: "31", checks.Skip: "2",
}

// A printer writes text for people.
type printer struct {
	out     io.Writer
	colour  bool
	width   int // 0: lines are not shortened
	verbose bool
}

func newPrinter(out *streams.Out, o *checkOptions) *printer {
	p := &printer{out: out, verbose: o.verbose, colour: out.IsTerminal() && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if _, width := out.GetTtySize(); out.IsTerminal() && !o.noTrunc {
		p.width = int(width)
	}
	return p
}

// line writes a line, shortened to the terminal's width.
func (p *printer) line(format string, args ...any) {
	fmt.Fprintln(p.out, shortened(fmt.Sprintf(format, args...), p.width))
}

// shortened returns the beginning of a line that has more than width characters, unless that is no width at all.
// Colours take no room, and end with the line.
func shortened(text string, width int) string {
	if width <= 10 {
		return text
	}
	at, cut, coloured := 0, 0, false // cut: where the last character stands that has room
	for i := 0; i < len(text); {
		if end := strings.IndexByte(text[i:], 'm'); end > 0 && strings.HasPrefix(text[i:], "\x1b[") {
			coloured = true
			i += end + 1
			continue
		}
		if at++; at == width {
			cut = i
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		i += size
	}
	switch {
	case at <= width:
		return text
	case coloured:
		return text[:cut] + "…\x1b[0m"
	}
	return text[:cut] + "…"
}

func (p *printer) paint(sgr, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

func (p *printer) mark(s checks.Status) string { return p.paint(colours[s], marks[s]) }

// clean escapes what a terminal would obey: names and comments on a host are anybody's.
func clean(text string) string {
	if !strings.ContainsFunc(text, hostile) && utf8.ValidString(text) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, text[i])
		case hostile(r) && r < 0x100:
			fmt.Fprintf(&out, `\x%02x`, r)
		case hostile(r):
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
		i += size
	}
	return out.String()
}

// hostile says whether a character is one that a terminal obeys instead of showing, or that turns the
// direction of writing.
func hostile(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
}

// report prints all targets. Those that share their causes with an earlier one are told in a line.
func (p *printer) report(r *checks.Report, h *checks.Host) {
	told := map[string]string{}
	for i := range r.Targets {
		j := &r.Targets[i]
		if i > 0 && (j.Status != checks.Pass || r.Targets[i-1].Status != checks.Pass || p.verbose) {
			fmt.Fprintln(p.out)
		}
		var objects []string
		for _, cause := range j.Causes {
			objects = append(objects, cause.Check+" "+cause.Object)
		}
		key := strings.Join(objects, "\n")
		if first, ok := told[key]; ok && key != "" && !p.verbose {
			p.line("%s %s: for the same cause as %s", p.mark(j.Status), p.who(j, h), first)
			continue
		}
		told[key] = clean(checks.Name(j.Target))
		p.judgement(j, r, h)
	}
	for _, note := range r.Notes {
		p.line("  %s", clean(note))
	}
	if r.Verdict == checks.Pass || r.Verdict == checks.Warn {
		p.well(r)
	}
}

// judgement prints one target.
func (p *printer) judgement(j *checks.Judgement, r *checks.Report, h *checks.Host) {
	p.line("%s %s", p.mark(j.Status), p.who(j, h))
	if j.Reason != "" {
		p.field("BY DESIGN", clean(j.Reason))
	}
	for i, cause := range j.Causes {
		label := "CAUSE"
		switch {
		case j.Status == checks.Warn:
			label = "WARN"
		case len(j.Causes) > 1:
			label = fmt.Sprintf("CAUSE%d", i+1)
		}
		p.cause(label, cause)
	}
	if len(j.Causes) > 1 && j.Status == checks.Fail {
		p.field("", "independent of each other: fixing one is not enough")
	}
	p.unknowns(j)
	if j.Live != nil {
		p.field("LIVE", j.Live.Result+": "+clean(j.Live.Why))
	}
	if j.Status != checks.Pass {
		unknown := 0
		for _, result := range j.Results {
			if result.Status == checks.Unknown {
				unknown++
			}
		}
		p.field("", fmt.Sprintf("%s, read %s, %d checks, %d unknown", liveWord(j.Live), r.Read.Local().Format("15:04:05"), len(j.Results), unknown))
		p.line("  %s", p.way(j, h))
	}
	if p.verbose {
		for _, result := range j.Results {
			reason := ""
			if result.Reason != "" {
				reason = " (" + clean(result.Reason) + ")"
			}
			p.line("  %s %-11s %s%s", p.mark(result.Status), result.Check, result.Title, reason)
			for _, finding := range result.Findings {
				if finding.Follows != "" {
					p.line("      %s: follows from %s", clean(finding.Problem), finding.Follows)
				}
			}
		}
	}
}

// liveWord says on what a judgement rests.
func liveWord(live *checks.Live) string {
	if live == nil {
		return "predicted"
	}
	return live.Result
}

// cause prints a cause with what belongs to it.
func (p *printer) cause(label string, cause checks.Cause) {
	f := cause.Finding
	p.field(label, p.paint("1", clean(cause.Problem))+": "+clean(cause.Object))
	for _, evidence := range f.Evidence {
		if evidence == cause.Object {
			continue // said already
		}
		p.line("          %s", p.paint("2", clean(evidence)))
	}
	if f.Hits != "" {
		p.field("HITS", clean(f.Hits))
	}
	if f.SetBy != "" {
		p.field("SET BY", clean(f.SetBy))
	}
	switch {
	case f.Fix != nil:
		text := clean(f.Fix.Title) + "; "
		switch {
		case f.Fix.Disrupts:
			text += "it interrupts traffic: needs --allow disrupt"
		case f.Fix.Opens:
			text += "it opens what may be closed on purpose: needs --allow open"
		default:
			text += "interrupts nothing"
		}
		switch {
		case len(f.Fix.Steps) == 0:
			text += "; with --persist"
		case len(f.Fix.Persist) > 0:
			text += "; " + checks.Lasts(f.Fix) + ", or for good with --persist"
		default:
			text += "; " + checks.Lasts(f.Fix)
		}
		p.field("FIX", text)
		if f.Advice != "" {
			p.field("", clean(f.Advice))
		}
	case f.Advice != "":
		p.field("DO", clean(f.Advice))
	}
}

func (p *printer) field(label, text string) { p.line("  %-7s %s", label, text) }

// unknowns prints why something could not be judged, each reason once.
func (p *printer) unknowns(j *checks.Judgement) {
	byReason := map[string][]string{}
	var reasons []string
	for _, result := range j.Results {
		if result.Status != checks.Unknown {
			continue
		}
		if _, seen := byReason[result.Reason]; !seen {
			reasons = append(reasons, result.Reason)
		}
		byReason[result.Reason] = append(byReason[result.Reason], result.Check)
	}
	for _, reason := range reasons {
		p.field("UNKNOWN", fmt.Sprintf("%s: %s", strings.Join(byReason[reason], ", "), clean(reason)))
	}
}

// who says who talks to whom, and what of it was assumed.
func (p *printer) who(j *checks.Judgement, h *checks.Host) string {
	t := j.Target
	assumed := ""
	if t.Assumed {
		assumed = " (assumed)"
	}
	switch t.Direction {
	case netstate.In:
		from := t.From
		if t.From == netstate.FromOutside {
			from = "client " + t.Client.String() + assumed
			if t.SPort != 0 {
				from = "client " + netip.AddrPortFrom(t.Client, t.SPort).String()
			}
		}
		to := t.Container
		if t.Host.IsValid() {
			to = t.Host.String() + " → " + destination(t, h)
		}
		return fmt.Sprintf("%s   %s → %s", p.paint("1", clean(checks.Name(t))), from, clean(to))
	default:
		to := t.To.Addr().String() + assumed
		if t.To.Port() != 0 {
			to = t.To.String() + assumed
		}
		return fmt.Sprintf("%s   %s → %s", p.paint("1", clean(checks.Name(t))), clean(t.Container), to)
	}
}

// destination is the container's own address and port, as far as it has one.
func destination(t netstate.Target, h *checks.Host) string {
	if c := h.Container(t.ID); c != nil {
		for i := range c.Endpoints {
			if addr := c.Endpoints[i].Addr(t.Family); addr.IsValid() {
				return fmt.Sprintf("%s:%d", addr, t.Port.Number)
			}
		}
	}
	return fmt.Sprintf("%s:%d", t.Container, t.Port.Number)
}

// wayIn, wayOut and wayProxy are the places that the line shows even where nothing there had a say.
var (
	wayIn    = []packet.Hop{packet.Uplink, packet.DNAT, packet.Route, packet.Accept, packet.Bridge, packet.Veth, packet.Socket}
	wayOut   = []packet.Hop{packet.Container, packet.Veth, packet.Bridge, packet.Route, packet.Accept, packet.Masquerade, packet.Uplink}
	wayProxy = []packet.Hop{packet.Uplink, packet.DNAT, packet.Route, packet.Accept, packet.Socket, packet.Bridge, packet.Veth}
)

// way is the packet's way on one line, with a cross at each place that stops it: what lies behind the
// first cross was not reached. The way back is told only where it ends by itself.
func (p *printer) way(j *checks.Judgement, h *checks.Host) string {
	trace := h.Walk(j.Target)
	hops := wayIn
	switch {
	case j.Direction != netstate.In:
		hops = wayOut
	case trace.Via == "docker-proxy":
		hops = wayProxy
	}
	hops = slices.Clone(hops)
	crosses := map[packet.Hop]checks.Status{}
	var back []packet.Hop
	for _, result := range j.Results {
		for i := range result.Findings {
			f := &result.Findings[i]
			if f.Follows != "" || f.At == "" || !f.Failure() && !f.Unknown {
				continue
			}
			if f.Failure() {
				crosses[f.At] = checks.Fail
			} else if crosses[f.At] == "" {
				crosses[f.At] = checks.Unknown
			}
			switch {
			case f.At.IsReply() && !slices.Contains(back, f.At):
				back = append(back, f.At)
			case !f.At.IsReply() && !slices.Contains(hops, f.At):
				hops = insertHop(hops, f.At)
			}
		}
	}
	label := func(hop packet.Hop) string {
		switch hop.Place() {
		case packet.Uplink:
			if trace.Uplink != "" {
				return clean(trace.Uplink)
			}
		case packet.Socket:
			switch {
			case trace.Via == "docker-proxy" && hops[len(hops)-1] == packet.Veth:
				return "docker-proxy"
			case j.Port.Number != 0:
				return fmt.Sprintf("%s:%d", clean(j.Container), j.Port.Number)
			}
		case packet.Container:
			return clean(j.Container)
		}
		return string(hop.Place())
	}
	var words []string
	reached := true
	for _, hop := range hops {
		mark := p.mark(checks.Skip)
		switch {
		case crosses[hop] != "":
			mark = p.mark(crosses[hop])
			reached = reached && crosses[hop] != checks.Fail
		case reached:
			mark = p.mark(checks.Pass)
		}
		words = append(words, label(hop)+" "+mark)
	}
	for i, hop := range back {
		if i == 0 {
			words = append(words, "back:")
		}
		words = append(words, label(hop)+" "+p.mark(crosses[hop]))
	}
	return strings.Join(words, "  ")
}

// insertHop puts a hop where the way in has it.
func insertHop(hops []packet.Hop, hop packet.Hop) []packet.Hop {
	place := slices.Index(packet.Hops, hop)
	for i := range hops {
		if slices.Index(packet.Hops, hops[i]) > place {
			return slices.Insert(hops, i, hop)
		}
	}
	return append(hops, hop)
}

// well says what a clean report means, and where to look next.
func (p *printer) well(r *checks.Report) {
	if !slices.ContainsFunc(r.Targets, func(j checks.Judgement) bool { return j.Reason == "" }) {
		return
	}
	p.line("nothing on this host stops it. Not seen from here: the network card, the switch, a cloud's firewall, the client's own network.")
	if slices.ContainsFunc(r.Targets, func(j checks.Judgement) bool { return j.From == netstate.FromOutside }) {
		p.line("If a client still fails: let it try while `tcpdump -ni any port PORT` runs here. No packet: look before this host. Packets and answers: look at the client.")
	}
}
