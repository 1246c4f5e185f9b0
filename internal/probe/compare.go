package probe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// The results of a comparison.
const (
	Proved       = "proved"       // the walk and the packet agree
	Contradicted = "contradicted" // they do not: the walk is wrong, or the host has changed since it was read
	Unproved     = "unproved"     // the packet does not tell
)

// A Verdict sets a live connection beside the walk. Its JSON is the "live" of a report's target.
type Verdict struct {
	Result string `json:"result"`         // Proved, Contradicted or Unproved
	Last   string `json:"last,omitempty"` // the furthest place at which the connection was seen: "accept", "reply bridge"
	Why    string `json:"why"`            // one line; of a contradiction both sides
	// Not lists what the packet did not traverse; nil where it was not a probe from outside.
	Not []string `json:"not_traversed,omitempty"`
}

// Refusal returns the verdict where no probe was made: err is NewRequest's or Observe's.
func Refusal(err error) Verdict {
	return Verdict{Result: Unproved, Why: strings.TrimPrefix(err.Error(), ErrRefused.Error()+": ")}
}

// notTraversed is what a packet that enters at the uplink's network layer never meets.
var notTraversed = []string{"the network card and its offloads", "native XDP", "GRO", "hooks of a bridge's or bond's ports", "what lies beyond the uplink"}

// Compare says whether the packet did what the walk had said. It is a pure function.
func Compare(trace *packet.Trace, o *Observation) Verdict {
	v := Verdict{Last: string(o.furthest())}
	if o.Uplink != "" {
		v.Not = notTraversed
	}
	stop := certain(trace)
	switch {
	case o.Flow.Proto == "icmp" && trace.Target.Port.Proto != "":
		v.Result, v.Why = Unproved, "an ICMP echo was sent ("+o.outcome()+"), which takes another way than "+trace.Target.Port.String()
	case o.Outcome.Well() && stop != nil && !stop.Hop.IsReply() && slices.Contains(elsewhere, stop.Kind) &&
		(stop.Kind == packet.NoNamespace || slices.Contains(o.Watched, packet.Container)) && !o.Saw(packet.Container):
		v.Result, v.Why = Proved, fmt.Sprintf("something else answered (%s), and the container did not get it, as the walk says: %s: %s", o.Answer, stop.Object, stop.Why)
	case o.Outcome.Well() && stop != nil:
		v.Result, v.Why = Contradicted, fmt.Sprintf("the walk stops at %s (%s), but a connection was made: %s", stop.Object, stop.Why, o.Answer)
	case o.Outcome.Well() && trace.Verdict == packet.May:
		v.Result, v.Why = Unproved, "this one packet was answered ("+o.Answer+"), but it depends: "+doubt(trace)
	case o.Outcome.Well() && o.Flow.Proto == "tcp" && afterwards(trace) != nil:
		v.Result, v.Why = o.follows(afterwards(trace))
	case o.Outcome.Well():
		v.Result, v.Why = o.way(trace)
	case trace.Verdict == packet.May, stop == nil && uncertain(trace):
		v.Result, v.Why = Unproved, o.ended()+"; the walk could not tell: "+doubt(trace)
	case stop == nil:
		v.Result, v.Why = o.silent()
	default:
		v.Result, v.Why = o.agrees(trace, stop)
	}
	return v
}

// certain returns the first stop of the walk that is certain, and that a first packet meets.
func certain(trace *packet.Trace) *packet.Stop {
	for i := range trace.Stops {
		if s := &trace.Stops[i]; s.Verdict.Stops() && !s.Later {
			return s
		}
	}
	return nil
}

// uncertain says whether a first packet, or its reply, may be stopped.
func uncertain(trace *packet.Trace) bool {
	return slices.ContainsFunc(trace.Stops, func(s packet.Stop) bool { return s.Verdict == packet.May && !s.Later })
}

// afterwards returns the first stop of the walk that is certain, and that packets after the first meet.
func afterwards(trace *packet.Trace) *packet.Stop {
	for i := range trace.Stops {
		if s := &trace.Stops[i]; s.Verdict.Stops() && s.Later {
			return s
		}
	}
	return nil
}

// doubt is what the walk could not tell.
func doubt(trace *packet.Trace) string {
	for _, s := range trace.Stops {
		if s.Verdict == packet.May {
			return s.Object + ": " + s.Why
		}
	}
	return "the ways that are possible end differently"
}

// furthest returns the furthest hop that was seen, on the way back if the packet got that far.
func (o *Observation) furthest() packet.Hop {
	if back := o.last(true); back != "" {
		return back
	}
	return o.last(false)
}

// way compares the way of a connection that was made.
func (o *Observation) way(trace *packet.Trace) (result, why string) {
	reached := "the socket answered: " + o.Answer
	if other := o.otherWay(); other != "" {
		return Unproved, reached + ", but the reply leaves by " + other + ", not by " + o.Uplink + ": whether it gets to the client is not to be seen here"
	}
	if o.Target.Direction == netstate.Out {
		return Proved, "it left by " + o.Uplink + " and an answer came back in: " + o.Answer + ", made here in the destination's stead"
	}
	inside := o.Saw(packet.Container) || o.masqueraded()
	watched := slices.Contains(o.Watched, packet.Container)
	switch {
	case trace.Via == "forward" && watched && !inside:
		return Contradicted, "the walk forwards the packet to the container, but something on the host answered (" + o.Answer + "): no packet of the client was seen in the container"
	case trace.Via == "docker-proxy" && inside:
		return Contradicted, "the walk ends at docker-proxy, but the client's own packets were seen in the container"
	case trace.Via == "docker-proxy":
		reached = "docker-proxy answered (" + o.Answer + "): what it reaches behind is not proved"
	}
	return Proved, reached
}

// masqueraded says whether rules gave the client another address or port on its way in: then it may be
// unknown how the container saw it.
func (o *Observation) masqueraded() bool {
	if o.Uplink == "" || o.Conntrack == nil || o.Flow.Proto == "icmp" {
		return false
	}
	return o.Conntrack.Reply.Dst != o.Conntrack.Original.Src
}

// follows judges a handshake behind whose first packets the walk has a stop.
func (o *Observation) follows(stop *packet.Stop) (result, why string) {
	for _, r := range o.Rules {
		if r.ends() && r.Object == stop.Object && o.met(r) {
			return Proved, "the first packet was answered (" + o.Answer + "), and then " + r.Object + " dropped what followed"
		}
	}
	return Unproved, "the first packet was answered (" + o.Answer + "); that what follows is stopped, as the walk says, was not seen: " + stop.Object + ": " + stop.Why
}

// otherWay returns the links by which replies left, where they are not the one that the packet came by.
func (o *Observation) otherWay() string {
	return strings.Join(slices.DeleteFunc(slices.Clone(o.ReplyBy), func(link string) bool { return link == o.Uplink }), ", ")
}

// lastCopy returns the last copy that was taken, or nil.
func (o *Observation) lastCopy() *Copy {
	if len(o.Copies) == 0 {
		return nil
	}
	return &o.Copies[len(o.Copies)-1]
}

// silent judges a packet that the walk lets through and nobody answered.
func (o *Observation) silent() (result, why string) {
	if last := o.lastCopy(); o.Target.Direction == netstate.Out && last != nil && last.Hop == packet.Uplink {
		return Unproved, "it left the host as " + last.Text + ", which is not from an address of " + o.Uplink + ": who answers that, is not to be seen here"
	}
	reached := o.Saw(packet.Container) && o.last(true) == "" && len(o.dropped()) == 0
	switch {
	case o.Flow.Proto == "udp" && o.Outcome == Silent && reached:
		return Proved, "the datagram reached the container; that nothing came back says nothing of a UDP server"
	case o.Outcome == Silent && reached:
		return Contradicted, "the walk lets it through, and the packet reached the container, but the container did not answer"
	}
	return Contradicted, "the walk lets it through, but " + o.ended()
}

// agrees judges a packet that was stopped, as the walk had said.
func (o *Observation) agrees(trace *packet.Trace, stop *packet.Stop) (result, why string) {
	said := fmt.Sprintf("%s: %s", stop.Object, stop.Why)
	for _, r := range o.Rules {
		if r.ends() && r.Object == stop.Object && o.met(r) {
			return Proved, fmt.Sprintf("%s dropped the packet%s", r.Object, o.reason(r.Hop))
		}
	}
	at := o.stoppedAt()
	other := slices.IndexFunc(o.Rules, func(r Rule) bool { return r.ends() && o.met(r) })
	switch {
	case at == "":
		return Unproved, fmt.Sprintf("there was %s, but where it was lost was not seen; the walk says: %s", o.outcome(), said)
	case slices.Contains(elsewhere, stop.Kind) && stop.Hop.IsReply() && !o.Saw(packet.Uplink.Reply()) && !o.before(at, stop.Hop):
		return Proved, o.ended() + ", and no reply left by the uplink, as the walk says: " + said
	case slices.Contains(elsewhere, stop.Kind) && !o.Saw(packet.Container) && !o.before(at, stop.Hop):
		return Proved, o.ended() + ", and the container did not get it, as the walk says: " + said
	case other >= 0 && o.Rules[other].Counted > 0 && !visits(trace, o.Rules[other]):
		return Unproved, o.ended() + ", a rule of a chain that the walk does not come to; it says: " + said
	case other >= 0: // the walk passed that rule
	case stop.Kind == packet.Neighbour && !o.before(at, stop.Hop): // for somebody else: a bridge floods it, and who gets it drops it
		return Proved, o.ended() + ", as the walk says: " + said
	case at != stop.Hop && !o.near(at, stop.Hop, trace.Via == "docker-proxy" || trace.Via == "local"):
	case slices.ContainsFunc(o.Rules, func(r Rule) bool { return r.ends() && r.Object == stop.Object }):
		return Unproved, o.ended() + "; the walk says: " + said
	default:
		return Proved, o.ended() + o.goesWith(stop.Hop) + ", as the walk says: " + said
	}
	return Contradicted, fmt.Sprintf("the walk stops at %s (%s), but %s", stop.Hop, said, o.ended())
}

// visits says whether the walk comes to the rule's chain, and something there has a say.
func visits(trace *packet.Trace, r Rule) bool {
	before, _, _ := strings.Cut(r.Object, " "+r.Chain+" ")
	in := func(object string) bool { return strings.HasPrefix(object, before+" "+r.Chain+" ") }
	return slices.ContainsFunc(slices.Concat(trace.Request, trace.Reply), func(s packet.Step) bool { return in(s.Object) }) ||
		slices.ContainsFunc(trace.Stops, func(s packet.Stop) bool { return in(s.Object) })
}

// elsewhere are the kinds of stops at which a packet is not lost yet, but leaves its way.
var elsewhere = []packet.Kind{packet.Diverted, packet.WrongRoute, packet.NotPublished, packet.NoNamespace}

// before says whether a packet meets the one hop before the other.
func (o *Observation) before(a, b packet.Hop) bool {
	ways := o.ways()
	return slices.Index(ways, a) < slices.Index(ways, b)
}

// near says whether two hops cannot be told apart by what is seen: the packet got no further than the walk
// says, and between the two there is no place where it would have been seen. atHost says that something on
// the host answers in the container's stead.
func (o *Observation) near(seen, said packet.Hop, atHost bool) bool {
	way := o.ways()
	i, j := slices.Index(way, seen), slices.Index(way, said)
	if i > j {
		return false // it got further than the walk says
	}
	return !slices.ContainsFunc(way[i+1:j+1], func(passed packet.Hop) bool {
		switch passed.Place() {
		case packet.Bridge, packet.Veth, packet.Container:
			if atHost {
				return false
			}
		case packet.Uplink:
		default:
			return false
		}
		return passed != said && slices.Contains(o.Watched, passed.Place()) // it would have been seen there
	})
}

// stoppedAt returns the hop where the packet ended, as far as it was seen: where a rule or the kernel
// dropped it, or else the last where it was seen.
func (o *Observation) stoppedAt() packet.Hop {
	if drops := o.dropped(); len(drops) > 0 && drops[0].Hop != "" { // later ones are of what was sent again
		return drops[0].Hop
	}
	for _, r := range o.Rules {
		if r.ends() && o.met(r) {
			return r.Hop
		}
	}
	if there := o.last(false); there != "" && (o.Outcome == Refused || o.Outcome == Unreachable) {
		return there // what came back is the refusal
	}
	return o.furthest()
}

// dropped returns the drops on the flow's own way: not that of a reset, which nobody waits for.
func (o *Observation) dropped() []Drop {
	return slices.DeleteFunc(slices.Clone(o.Drops), func(d Drop) bool { return d.Unsure || d.resets() })
}

// resets says whether the packet was a reset.
func (d Drop) resets() bool { return strings.Contains(d.Text, "Flags [R") }

// reason is what the kernel said of a packet that a rule at that hop dropped, in brackets.
func (o *Observation) reason(hop packet.Hop) string {
	for _, d := range o.dropped() {
		return " (" + d.Did() + ")"
	}
	return o.goesWith(hop)
}

// goesWith is what the kernel said of a packet at that hop, in brackets, where it did not tell whose it was.
func (o *Observation) goesWith(hop packet.Hop) string {
	for _, d := range o.Drops {
		if d.Unsure && d.Hop == hop {
			return " (" + d.Did() + ")"
		}
	}
	return ""
}

// outcome words the outcome with what came.
func (o *Observation) outcome() string {
	if o.Answer == "" {
		return string(o.Outcome)
	}
	return string(o.Outcome) + " (" + o.Answer + ")"
}

// ended says how and where the packet ended, in one clause.
func (o *Observation) ended() string {
	for _, r := range o.Rules {
		if r.ends() && o.met(r) {
			return r.Object + " dropped it" + o.reason(r.Hop)
		}
	}
	text := "there was " + o.outcome()
	if o.Outcome != Silent {
		text = "it was " + o.outcome()
	}
	if drops := o.dropped(); len(drops) > 0 {
		d := drops[0]
		text += "; the kernel dropped it: " + d.Did()
		if d.inside() {
			text += " of " + d.Where
		}
	}
	if last := o.furthest(); last != "" {
		text += "; last seen at " + string(last)
	} else {
		text += "; it was seen nowhere"
	}
	for _, r := range o.Rules {
		if r.ends() { // it is not known to be met
			text += fmt.Sprintf("; %s: its counter rose by %d, by this packet or others'", r.Object, r.Counted)
		}
	}
	if len(o.Left) > 0 {
		text += "; it was about to leave the machine by " + strings.Join(o.Left, ", ")
	}
	return text
}
