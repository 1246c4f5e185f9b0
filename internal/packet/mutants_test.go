//go:build linux

package packet

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The gate: each of these bugs, put into the walk, must be caught by what a kernel did (recordings). They
// are put into a copy of the sources at build time, all at once, and switched on one by one.
//
// In a mutant's text, BUG stands for "this bug is on".
var mutants = []struct{ what, file, old, new string }{
	// netfilter's order and verdicts
	{"nat chains are ordered among themselves the wrong way round", "hook.go", "cmp.Compare(a.priority, b.priority),", "cmp.Compare(a.priority, b.priority)*sign(BUG),"},
	{"an accept ends the whole hook", "hook.go", "\t\tw.runBase(n, hop, b, p)\n\t\tif b.kind == \"route\"", "\t\tif code := w.runBase(n, hop, b, p); BUG && code == accept && w.accepted {\n\t\t\tw.accepted = false\n\t\t\tbreak\n\t\t}\n\t\tif b.kind == \"route\""},
	{"nat chains behind the one that binds are asked too", "hook.go", "w.runBase(n, hop, b, p) == bound {", "w.runBase(n, hop, b, p) == bound && !(BUG) {"},
	{"nat chains see every packet", "hook.go", "if !*done && p.state == ctNew {", "if (!*done || BUG) && (p.state == ctNew || BUG) {"},
	{"replies are not translated back", "hook.go", "way := ct.reply\n\tif p.replyDir {", "way := ct.reply\n\tif BUG && p.replyDir {\n\t\treturn\n\t}\n\tif p.replyDir {"},
	{"nat runs before mangle", "hook.go", "if !translated && before > natPriority(hook) {", "if !translated && before > natPriority(hook)-100*one(BUG) {"},
	{"connection tracking runs before raw", "hook.go", "if !tracked && before > priorityConntrack {", "if !tracked && before > priorityConntrack-1000*one(BUG) {"},
	{"a policy of drop is not seen", "hook.go", "if b.policy == \"DROP\" || b.policy == \"drop\" {", "if !(BUG) && (b.policy == \"DROP\" || b.policy == \"drop\") {"},
	{"return in a base chain accepts", "hook.go", "at = frame{chain: &chain{}} // to the policy", "if BUG {\n\t\t\t\t\treturn accept\n\t\t\t\t}\n\t\t\t\tat = frame{chain: &chain{}} // to the policy"},
	{"goto comes back", "hook.go", "if v.code == jump {\n\t\t\t\tstack", "if v.code == jump || BUG {\n\t\t\t\tstack"},
	{"jump does not come back", "hook.go", "stack = append(stack, at)", "if !(BUG) {\n\t\t\t\t\tstack = append(stack, at)\n\t\t\t\t}"},
	{"a mark set in output does not change the route", "hook.go", "if b.kind == \"route\" && (p.mark", "if !(BUG) && b.kind == \"route\" && (p.mark"},
	{"a mark set by any chain of output changes the route", "hook.go", "b.kind == \"route\" && (p.mark != mark", "(b.kind == \"route\" || BUG) && (p.mark != mark"},
	// connection tracking
	{"an answer that comes first is new", "walker.go", "case tcpSYN, tcpACK:\n\t\t\treturn true\n\t\t}\n\t\treturn false", "case tcpSYN, tcpACK:\n\t\t\treturn true\n\t\t}\n\t\treturn BUG"},
	{"an acknowledgement without an answer is new", "walker.go", "p.flags == tcpACK && !ct.answered &&", "p.flags == tcpACK && !ct.answered && !(BUG) &&"},
	{"what goes on is still new", "walker.go", "case ct.answered:\n\t\t\tp.state", "case ct.answered && !(BUG):\n\t\t\tp.state"},
	{"no connection is older than the walk", "flows.go", "if t.sport == anyPort ||", "if BUG || t.sport == anyPort ||"},
	{"an older connection is translated anew", "nat.go", "func (w *walker) bindDst(q *skb, addr netip.Addr, at port) verdict {\n\tif q.ct == nil || q.ct.flow != nil {", "func (w *walker) bindDst(q *skb, addr netip.Addr, at port) verdict {\n\tif q.ct == nil || q.ct.flow != nil && !(BUG) {"},
	{"nat chains are not asked of an older connection that none has translated", "hook.go", "if b.kind == \"nat\" && w.runBase", "if b.kind == \"nat\" && !(BUG && ct.flow != nil) && w.runBase"},
	{"an older connection is translated where no nat chain is left", "hook.go", "|| !n.nats[ipFamily(p.family)] {", "|| !n.nats[ipFamily(p.family)] && !(BUG) {"},
	{"every older connection was answered", "flows.go", "answered: f.Status&ipsSeenReply != 0,", "answered: f.Status&ipsSeenReply != 0 || BUG,"},
	{"a source port that is taken is kept", "flows.go", "if w.taken(n, ct) ||", "if w.taken(n, ct) && !(BUG) ||"},
	{"what would have an older connection's replies passes", "flows.go", "|| !w.taken(n, p.ct) {", "|| !w.taken(n, p.ct) || BUG {"},
	{"the other end of an older connection may begin anew", "flows.go", "return true, p.replyDir && !closing", "return true, !(BUG) && p.replyDir && !closing"},
	{"a masqueraded connection may leave by another link", "flows.go", "held.Name == p.out.Name || !w.may() {", "held.Name == p.out.Name || BUG || !w.may() {"},
	{"what rules keep from tracking is tracked", "walker.go", "p.state == ctUntracked || !n.tracks", "p.state == ctUntracked && !(BUG) || !n.tracks"},
	{"a mark crosses into another namespace", "bridge.go", "p.ct, p.state, p.replyDir, p.mark, p.zone = nil, 0, false, 0, 0", "p.ct, p.state, p.replyDir, p.mark, p.zone = nil, 0, false, p.mark*uint32(one(BUG)), 0"},
	{"connections are tracked where nothing asks for it", "walker.go", "|| !n.tracks(p.family) {", "|| !(BUG) && !n.tracks(p.family) {"},
	{"an ICMP error is invalid", "walker.go", "p.ct, p.replyDir, p.state = ct, reply, ctRelated", "p.ct, p.replyDir, p.state = ct, reply, ctRelated\n\t\t\tif BUG {\n\t\t\t\tp.ct, p.state = nil, ctInvalid\n\t\t\t}"},
	{"an ICMP error is established", "walker.go", "if way.dst == p.dst { //", "if way.dst == p.dst && BUG {\n\t\t\tp.ct, p.replyDir, p.state = ct, reply, ctEstablished\n\t\t\treturn\n\t\t}\n\t\tif way.dst == p.dst { //"},
	{"an ICMP error is related whoever it is for", "walker.go", "if way.dst == p.dst { //", "if way.dst == p.dst || BUG { //"},
	{"an ICMP error is not translated", "hook.go", "if dst != p.replyDir && !ct.dnat ||", "if BUG || dst != p.replyDir && !ct.dnat ||"},
	{"what an ICMP error quotes is not translated", "hook.go", "p.about = &about", "if !(BUG) {\n\t\tp.about = &about\n\t}"},
	// bridges and links
	{"a bridge port has no egress hook", "bridge.go", "w.device(host, to, hookEgress, p)", "if !(BUG) {\n\t\tw.device(host, to, hookEgress, p)\n\t}"},
	{"a bridge itself has no ingress hook", "bridge.go", "w.device(host, bridge, hookIngress, p)", "if !(BUG) {\n\t\tw.device(host, bridge, hookIngress, p)\n\t}"},
	{"br_netfilter comes behind the bridge's own rules", "bridge.go", "if midst != nil && (b.priority > at.last", "if midst != nil && !(BUG) && (b.priority > at.last"},
	{"what is bridged says at postrouting where it came in", "bridge.go", "p.in, p.hook = nil, hookPostrouting", "if !(BUG) {\n\t\t\tp.in = nil\n\t\t}\n\t\tp.hook = hookPostrouting"},
	{"a bridge's forwarding table is not looked at", "switch.go", "e := w.x.host.forwardingEntry(bridge, mac, vlan)\n\tswitch {", "e := w.x.host.forwardingEntry(bridge, mac, vlan)\n\tif BUG {\n\t\te = nil\n\t}\n\tswitch {"},
	{"a static entry stays where it is", "switch.go", "return e.State != \"permanent\" && !e.Sticky", "return e.State != \"permanent\" && !(BUG) && !e.Sticky"},
	{"what is unknown is flooded to every port", "switch.go", "!to.Port.Flood &&", "!to.Port.Flood && !(BUG) &&"},
	{"an entry of the bridge's own is its port's", "switch.go", "(e.State != \"permanent\" || from == nil)", "(e.State != \"permanent\" || from == nil || BUG)"},
	{"a locked port takes every frame", "switch.go", "!from.Port.Locked {", "!from.Port.Locked || BUG {"},
	{"isolated ports reach each other", "bridge.go", "from.Port.Isolated && to.Port.Isolated {", "from.Port.Isolated && to.Port.Isolated && !(BUG) {"},
	{"hairpin is always on", "bridge.go", "from.Port != nil && !from.Port.Hairpin {", "from.Port != nil && !from.Port.Hairpin && !(BUG) {"},
	// routing
	{"::1 may come in after translation", "route.go", "if loopback(p.dst) && !dev.Loopback {", "if loopback(p.dst) && !dev.Loopback && !(BUG) {"},
	{"what output reroutes is lost only behind its filter", "hook.go", "if hook == hookOutput && p.dst != before.dst {", "if hook == hookOutput && p.dst != before.dst && BUG {\n\t\twas := w.trace.Stops\n\t\tw.reroute(n, p)\n\t\tw.trace.Stops = was\n\t} else if hook == hookOutput && p.dst != before.dst {"},
	{"rp_filter of the link alone counts", "netns.go", "return max(all, own)", "if BUG {\n\t\treturn own\n\t}\n\treturn max(all, own)"},
	{"a loose rp_filter is strict", "route.go", "if mode == 1 {", "if mode == 1 || BUG && mode > 0 {"},
	{"a strict rp_filter is loose", "route.go", "if mode == 1", "if mode == 1 && !(BUG)"},
	{"IPv6 forwards per link", "route.go", "all, known := n.conf(family, \"all\", \"forwarding\")", "scope := \"all\"\n\t\tif BUG {\n\t\t\tscope = dev.Name\n\t\t}\n\t\tall, known := n.conf(family, scope, \"forwarding\")"},
	{"IPv4 forwards by the global switch alone", "route.go", "own, known := n.conf(family, dev.Name, \"forwarding\")\n\tif !known {", "own, known := n.conf(family, dev.Name, \"forwarding\")\n\tif !known || BUG {"},
	{"forwarding is not asked for", "route.go", "w.forwarding(n, dev, p)\n\tout := d.out", "if !(BUG) {\n\t\tw.forwarding(n, dev, p)\n\t}\n\tout := d.out"},
	{"route_localnet counts for all links only", "netns.go", "all, _ := n.conf(family, \"all\", name)\n\town, _ := n.conf(family, dev, name)\n\treturn all > 0 || own > 0\n}\n\n// larger", "all, _ := n.conf(family, \"all\", name)\n\town, _ := n.conf(family, dev, name)\n\treturn all > 0 || own > 0 && !(BUG)\n}\n\n// larger"},
	{"a source that is the host's own may come in", "route.go", "if n.has(p.src) && !dev.Loopback {", "if !(BUG) && n.has(p.src) && !dev.Loopback {"},
	{"src_valid_mark is always on", "route.go", "if n.either(netstate.IPv4, dev.Name, \"src_valid_mark\") {", "if BUG || n.either(netstate.IPv4, dev.Name, \"src_valid_mark\") {"},
	{"the mask of a rule's mark is not used", "fib.go", "(q.mark^r.Mark)&r.Mask == 0", "(q.mark^r.Mark)&(r.Mask|-uint32(one(BUG))) == 0"},
	{"not in a rule is not seen", "fib.go", "return is.invert(r.Not)", "return is.invert(r.Not && !(BUG))"},
	{"suppress_prefixlength spares the length itself", "fib.go", "d.route.Dst.Bits() <= *n {", "d.route.Dst.Bits() <= *n-one(BUG) {"},
	{"a packet that starts here matches no iif", "fib.go", "name := \"lo\"", "name := \"lo\"\n\t\tif BUG {\n\t\t\tname = \"\"\n\t\t}"},
	{"the shortest prefix wins", "fib.go", "slices.SortFunc(t.bits, func(a, b int) int { return b - a })", "slices.SortFunc(t.bits, func(a, b int) int { return (b - a) * sign(BUG) })"},
	{"a throw route stops the packet", "fib.go", "if d.forbidden == \"throw\" {", "if d.forbidden == \"throw\" && !(BUG) {"},
	{"a blackhole is passed over", "fib.go", "d.forbidden = route.Type\n\t\treturn d, true", "d.forbidden = route.Type\n\t\tif BUG {\n\t\t\treturn decision{}, false\n\t\t}\n\t\treturn d, true"},
	{"rules are not looked at", "fib.go", "if f.standard && f.family == netstate.IPv4 {", "if BUG || f.standard && f.family == netstate.IPv4 {"},
	{"translation in output does not change the route", "hook.go", "if hook == hookOutput && p.dst != before.dst {", "if hook == hookOutput && p.dst != before.dst && !(BUG) {"},
	{"loopback addresses may leave", "route.go", "!n.either(netstate.IPv4, d.out.Name, \"route_localnet\") {", "!(BUG) && !n.either(netstate.IPv4, d.out.Name, \"route_localnet\") {"},
	// iptables
	{"an untracked packet is new", "matchct.go", "state := q.state\n\t\tif state == 0 {", "state := q.state\n\t\tif BUG && state == ctUntracked {\n\t\t\tstate = ctNew\n\t\t}\n\t\tif state == 0 {"},
	{"DNAT is no state", "matchct.go", "dnat && q.ct.dnat)", "dnat && q.ct.dnat && !(BUG))"},
	{"the mask of --tcp-flags is not used", "match.go", "q.flags&mask == comp", "q.flags&(mask|uint8(255*one(BUG))) == comp"},
	{"a port range lacks its end", "skb.go", "return answerOf(lo <= p && p <= hi)", "return answerOf(lo <= p && p <= hi-port(one(BUG && hi > lo)))"},
	{"multiport --ports looks at destinations alone", "match.go", "case \"--port\", \"--ports\":\n\t\tsource, dest = true, true", "case \"--port\", \"--ports\":\n\t\tsource, dest = !(BUG), true"},
	{"eth+ is eth", "hook.go", "return len(name) >= n-1 && name[:n-1] == pattern[:n-1]", "return len(name) >= n-1 && name[:n-1] == pattern[:n-1] && !(BUG && len(name) > n-1)"},
	{"! before an address is not seen", "match.go", "return answerOf(prefix.Contains(addr) != negated)", "return answerOf(prefix.Contains(addr) != (negated && !(BUG)))"},
	{"MARK keeps no bit", "nat.go", "q.mark = q.mark&^mask ^ value", "q.mark = q.mark&^(mask|-uint32(one(BUG))) ^ value"},
	{"CONNMARK does not restore", "nat.go", "q.mark = q.mark&^nfmask ^ q.ct.mark&ctmask", "q.mark = q.mark&^nfmask ^ q.ct.mark&ctmask*uint32(1-one(BUG))"},
	{"masquerade takes an address of host scope", "netns.go", "if a.Scope == \"host\" || global", "if a.Scope == \"host\" && !(BUG) || global"},
	{"redirect in output goes to the link's address", "nat.go", "if q.in != nil && q.hook != hookOutput {", "if BUG && q.in == nil && q.out != nil && len(q.out.ns.addrs(q.out.Name, q.family)) > 0 {\n\t\taddr = q.out.ns.addrs(q.out.Name, q.family)[0].Prefix.Addr()\n\t}\n\tif q.in != nil && q.hook != hookOutput {"},
	{"a range of addresses lacks its end", "match.go", "addr.Compare(hi) <= 0) != negated)", "addr.Compare(hi) <= -one(BUG)) != negated)"},
	{"rpfilter --loose is strict", "matchfib.go", "if loose || d.out == q.in {", "if loose && !(BUG) || d.out == q.in {"},
	{"rpfilter --accept-local takes any of the host's own", "matchfib.go", "if d.local() && (!acceptLocal ||", "if BUG && d.local() && acceptLocal {\n\t\treturn true\n\t}\n\tif d.local() && (!acceptLocal ||"},
	// nf_tables
	{"< is <=", "nftcompare.go", "return c < 0\n", "return c < one(BUG)\n"},
	{"a range in a set has its end twice", "nftset.go", "bytes.Compare(s.starts[i].Key, key) > 0 })\n\t\tif i > 0", "bytes.Compare(s.starts[i].Key, key) > 0 })\n\t\tif BUG && i > 0 && s.starts[i-1].IntervalEnd && bytes.Equal(s.starts[i-1].Key, key) {\n\t\t\ti--\n\t\t}\n\t\tif i > 0"},
	{"!= @set is == @set", "nftset.go", "(found != nil) != e.Invert", "(found != nil) != (e.Invert && !(BUG))"},
	{"fib does not ask for the link", "nftfib.go", "if dev == nil || d.out == dev {", "if dev == nil || d.out == dev || BUG {"},
	{"dnat of another family binds", "nftnat.go", "if e.Family != ipFamily(m.p.family) && e.Family != \"inet\" {", "if BUG && e.Family != ipFamily(m.p.family) {\n\t\t\treturn ended, verdict{code: dropIt}\n\t\t}\n\t\tif e.Family != ipFamily(m.p.family) && e.Family != \"inet\" {"},
	{"a mark is not set", "nftmeta.go", "m.p.mark = m.table.order.Uint32(data)", "if BUG {\n\t\t\treturn next, verdict{}\n\t\t}\n\t\tm.p.mark = m.table.order.Uint32(data)"},
	{"what is bridged after translation is routed", "bridge.go", "if calls && p.dst != was.dst {", "if calls && p.dst != was.dst && BUG {\n\t\treturn w.up(bridge, port, p, was)\n\t}\n\tif calls && p.dst != was.dst {"},
	{"a prefix is compared by its first byte", "nftcompare.go", "mask, xor := byteAt(e.Mask, i), byteAt(e.Xor, i)", "mask, xor := byteAt(e.Mask, i), byteAt(e.Xor, i)\n\t\t\tif BUG && i > 0 && len(data) > 2 {\n\t\t\t\tmask = 0\n\t\t\t}"},
}

// switches is the source that turns bugs on, and tries them all.
const switches = `package packet

var mutant int

func one(bug bool) int {
	if bug {
		return 1
	}
	return 0
}

func sign(bug bool) int { return 1 - 2*one(bug) }
`

const trial = `package packet

import (
	"fmt"
	"testing"
)

func TestMutants(t *testing.T) {
	all := readRecordings(t)
	for mutant = 0; mutant <= %d; mutant++ {
		caught := false
		for i := 0; i < len(all) && !caught; i++ {
			caught = all[i].disagreement() != ""
		}
		if !caught {
			fmt.Println("not caught:", mutant)
		}
	}
}
`

func TestEveryBugIsCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the package once more")
	}
	dir := t.TempDir()
	here, err := os.Getwd()
	must(t, err)
	sources := map[string]string{}
	for i, m := range mutants {
		text, ok := sources[m.file]
		if !ok {
			data, err := os.ReadFile(m.file)
			must(t, err)
			text = string(data)
		}
		// Bugs may stand in each other's place: each is looked for in the source as it is, then replaced.
		if n := strings.Count(text, m.old); n != 1 {
			t.Fatalf("%s: %q stands in %s %d times", m.what, m.old, m.file, n)
		}
		sources[m.file] = strings.Replace(text, m.old, strings.ReplaceAll(m.new, "BUG", fmt.Sprintf("mutant == %d", i+1)), 1)
	}
	sources["walker.go"] = strings.Replace(sources["walker.go"], "type walker struct {\n", "type walker struct {\n\taccepted bool\n", 1)
	sources["hook.go"] = strings.Replace(sources["hook.go"], "case accept, stolen:\n", "case accept, stolen:\n\t\t\tw.accepted = true\n", 1)
	sources["mutant.go"] = switches
	sources["mutant_test.go"] = fmt.Sprintf(trial, len(mutants))
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range sources {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o644))
		overlay.Replace[filepath.Join(here, name)] = path
	}
	data, err := json.Marshal(overlay)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), data, 0o644))
	out, err := exec.Command("go", "test", "-overlay", filepath.Join(dir, "overlay.json"), "-count=1", "-run=^TestMutants$", "-v", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	missed := map[int]bool{}
	for line := range strings.Lines(string(out)) {
		var n int
		if _, err := fmt.Sscanf(line, "not caught: %d", &n); err == nil {
			missed[n] = true
		}
	}
	if !missed[0] {
		t.Fatal("without any bug the walk already disagrees")
	}
	for i, m := range mutants {
		if missed[i+1] {
			t.Errorf("%d: not caught: %s", i+1, m.what)
		}
	}
	t.Logf("%d bugs, %d caught", len(mutants), len(mutants)+1-len(missed))
}
