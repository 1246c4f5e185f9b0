//go:build linux

package packet

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types"
	dockercontainer "github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// The differential test: rulesets, routes and sysctls are made up around packets, the packets are sent
// through this kernel, and each must do what the walk says of a snapshot that host.Collect read.
//
// PACKET_DIFF_RECORD=testdata/recorded.json.gz PACKET_DIFF_ROUNDS=280 makes the recordings anew.
// PACKET_DIFF_SECONDS=600 goes on for that long, PACKET_DIFF_SEED takes another
// seed, PACKET_DIFF_ROUNDS that many rulesets; PACKET_DIFF_OUTLIVING=1 only those that older connections meet;
// PACKET_DIFF_SWITCHED=85 so many of a hundred with bridges that do not forward as they should.
const (
	differChild  = "PACKET_DIFF_CHILD"
	differRounds = 120
	differSeed   = 1
)

func TestAgreesWithTheKernel(t *testing.T) {
	if os.Getenv(differChild) != "" {
		differ(t)
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	for _, tool := range []string{"ip", "nft", "iptables-nft-restore", "iptables-legacy-restore", "nsenter", "ipset"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	// The test's own namespace is the host: another process, in a new one.
	cmd := exec.Command(os.Args[0], "-test.run=^TestAgreesWithTheKernel$", "-test.v", "-test.timeout=2h")
	cmd.Env = append(os.Environ(), differChild+"=1", "XTABLES_LOCKFILE="+t.TempDir()+"/lock")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		if text := strings.TrimSpace(lines.Text()); !strings.HasPrefix(text, "===") && !strings.HasPrefix(text, "---") {
			t.Log(lines.Text())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func number(t testing.TB, name string, byDefault int) int {
	text := os.Getenv(name)
	if text == "" {
		return byDefault
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// A tally counts what was compared.
type tally struct {
	rulesets, refused, packets, older, arrived, lost, undecided, routes int
}

func differ(t *testing.T) {
	w := newWorld(t)
	seed := number(t, "PACKET_DIFF_SEED", differSeed)
	rounds := number(t, "PACKET_DIFF_ROUNDS", differRounds)
	until := time.Now().Add(time.Duration(number(t, "PACKET_DIFF_SECONDS", 0)) * time.Second)
	sum := tally{}
	if path := os.Getenv("PACKET_DIFF_RECORD"); path != "" {
		w.record = newRecorder(t, path)
		defer w.record.close(t)
	}
	id := uint32(1)
	real := captures(t)
	outliving := os.Getenv("PACKET_DIFF_OUTLIVING") != ""
	for round := 0; round < rounds || time.Now().Before(until); round++ {
		g := &generator{Rand: rand.New(rand.NewPCG(uint64(seed), uint64(round))), switched: number(t, "PACKET_DIFF_SWITCHED", 20)}
		var setting *setting
		switch {
		case outliving || round%5 == 4:
			setting = g.outliving(&id)
			if outliving && round < 25 {
				setting.unlegacy() // those tables stay, and with them nat
			}
		case round%4 == 3:
			setting = g.captured(real[round/4%len(real)], &id)
		default:
			setting = g.setting(&id)
		}
		if !w.compare(t, fmt.Sprintf("seed %d round %d", seed, round), setting, &sum) && t.Failed() {
			return
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d packets through %d rulesets (%d were refused by the kernel or its tools): %d arrived, %d were lost, %d could not be told before; of %d conversations an older connection decided; %d questions about routes",
		sum.packets, sum.rulesets, sum.refused, sum.arrived, sum.lost, sum.undecided, sum.older, sum.routes)
}

// A setting is one state of the host and the conversations that are tried on it.
type setting struct {
	from     string   // the capture that it was made from; "": none
	sysctls  []string // "net.ipv4.ip_forward=0"
	ip       []string // arguments of ip
	legacy   [2]string
	nftables [2]string // for iptables-nft-restore
	native   string
	inner    string // of the sandbox, for nft
	ipsets   string // for ipset restore
	bridge   string // for bridge
	tries    []try
	lines    [][]string

	before  *setting // the host was in this one, when
	earlier []try    // these were sent
}

// A try is a first packet from somewhere. Its answer and a packet that follows go where it gets to.
type try struct {
	from  string
	fails bool // the answer is an ICMP error
	turns int  // no more packets than these; 0: all three
	shot
}

func (s *setting) String() string {
	var b strings.Builder
	if s.from != "" {
		b.WriteString("what " + s.from + " made, changed in one place\n")
	}
	for _, line := range s.sysctls {
		b.WriteString("sysctl " + line + "\n")
	}
	for _, line := range s.ip {
		b.WriteString("ip " + line + "\n")
	}
	for i, text := range s.texts() {
		text := *text
		if text != "" {
			b.WriteString([]string{"iptables-legacy", "ip6tables-legacy", "iptables", "ip6tables", "nft", "nft in the sandbox", "ipset", "bridge"}[i] + "\n")
		}
		for _, line := range strings.SplitAfter(text, "\n") {
			if s.lines == nil || removable(line) || strings.Contains(line, "DROP") || strings.Contains(line, "hook") || strings.Contains(line, "chain") || strings.Contains(line, "table") || strings.HasPrefix(line, "*") {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

// apply brings the host into the setting, from wherever it is.
func (w *world) apply(s *setting) error {
	for _, family := range []string{"4", "6"} {
		for range 20 {
			if run("", "ip", "-"+family, "rule", "del", "pref", "1000") != nil {
				break
			}
		}
	}
	run("", "ip", "route", "flush", "table", "100")
	run("", "ip", "-6", "route", "flush", "table", "100")
	run("", "ip", "nexthop", "flush")
	for _, b := range boxes {
		if err := run("", "ip", "link", "set", b.port, "type", "bridge_slave", "hairpin", "off", "isolated", "off"); err != nil {
			return err
		}
	}
	if w.switched {
		if err := run(plainBridges(), "bridge", "-batch", "-"); err != nil {
			return err
		}
		w.switched = false
	}
	for _, dst := range []string{"203.0.113.9", "172.17.0.2", "10.9.9.9"} {
		run("", "ip", "route", "flush", "exact", dst)
	}
	if err := run("flush ruleset\n"+quiet+quietDevices, "nft", "-f", "-"); err != nil {
		return err
	}
	if s.ipsets != "" {
		if err := run(s.ipsets, "ipset", "restore"); err != nil {
			return err
		}
	}
	const empty = "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n*mangle\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n" +
		"*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n"
	for i, program := range []string{"iptables-legacy-restore", "ip6tables-legacy-restore"} {
		if w.dirty[i] || s.legacy[i] != "" {
			if err := run(empty+s.legacy[i], program); err != nil {
				return err
			}
			w.dirty[i] = true
		}
	}
	for i, program := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		if s.nftables[i] != "" {
			if err := run(s.nftables[i], program); err != nil {
				return err
			}
		}
	}
	if s.native != "" {
		if err := run(s.native, "nft", "-f", "-"); err != nil {
			return err
		}
	}
	if s.inner != "" || w.furnished {
		if err := run("flush ruleset\n"+quiet+s.inner, "nsenter", "-t", strconv.Itoa(w.pids["sandbox"]), "-n", "nft", "-f", "-"); err != nil {
			return err
		}
		w.furnished = s.inner != ""
	}
	for _, line := range slices.Concat(plainSysctls, s.sysctls) {
		name, value, _ := strings.Cut(line, "=")
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			return err
		}
	}
	if s.bridge != "" {
		w.switched = true
		if err := run(s.bridge, "bridge", "-batch", "-"); err != nil {
			return err
		}
	}
	// Routes before the rules by which their gateways would be looked for.
	for _, line := range slices.SortedStableFunc(slices.Values(s.ip), func(a, b string) int { return strings.Compare(kindOf(a), kindOf(b)) }) {
		if err := run("", "ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

func kindOf(line string) string { return strings.Fields(strings.TrimPrefix(line, "-6 "))[0] }

// plainSysctls is where each setting starts.
var plainSysctls = []string{"net.ipv4.ip_forward=0", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
	"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0", "net.ipv4.conf.eth1.rp_filter=0", "net.ipv4.conf.br0.rp_filter=0",
	"net.ipv4.conf.all.route_localnet=0", "net.ipv4.conf.eth0.route_localnet=0", "net.ipv4.conf.br0.route_localnet=0",
	"net.ipv4.conf.all.accept_local=0", "net.ipv4.conf.eth0.accept_local=0", "net.ipv4.conf.br0.accept_local=0",
	"net.ipv4.conf.all.src_valid_mark=0", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0", "net.ipv4.conf.br0.send_redirects=0",
	"net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0", "net.ipv6.conf.eth0.forwarding=1", "net.ipv6.conf.br0.forwarding=1"}

// compare brings the host into the setting, sends everything, and holds it against the walk.
func (w *world) compare(t *testing.T, name string, s *setting, sum *tally) bool {
	if err := w.enter(t, s); err != nil {
		sum.refused++
		if os.Getenv("PACKET_DIFF_VERBOSE") != "" {
			t.Logf("%s: refused: %v\n%s", name, err, s)
		}
		return true
	}
	sum.rulesets++
	snapshot, err := host.Collect(context.Background(), host.Options{Docker: engine{w.pids}, Containers: []string{webID, peerID, otherID}, Parts: Needs})
	must(t, err)
	x := New(snapshot)
	x.prepare()
	if sum.routes += w.askRoutes(t, name, x, s); t.Failed() {
		return false
	}
	recorded := recording{Setting: s.String(), Snapshot: snapshot}
	for _, try := range s.tries {
		flows := w.ready(t, s)
		seen := w.play(t, try)
		recorded.Tries = append(recorded.Tries, recordTry(try, seen, flows))
		if s.before != nil {
			x = New(withFlows(snapshot, flows))
			x.prepare()
		}
		ways := x.ways(try)
		if x.resumes(try) {
			sum.older++
		}
		sum.packets += 1 + strings.Count(seen, "|")
		if len(ways) > 1 {
			sum.undecided++
		}
		if strings.HasPrefix(seen, "lost") {
			sum.lost++
		} else {
			sum.arrived++
		}
		if !agrees(ways, seen) {
			t.Logf("%s: %s from %s\n  kernel: %s\n  walk:   %s", name, &try.skb, try.from, seen, strings.Join(ways, "\n          "))
			small := w.shrink(t, s, try)
			if small != s {
				x, ways, seen = w.again(t, small)
				try = small.tries[0]
			}
			kept := (&recording{Setting: small.String(), Snapshot: x.snap, Tries: []recordedTry{recordTry(try, seen, x.snap.Host.Flows)}}).keep(t, name)
			t.Errorf("%s: kept in %s: %s from %s\n  kernel: %s\n  walk:   %s\n%s\n%s", name, kept, &try.skb, try.from, seen, strings.Join(ways, "\n          "), small, x.story(try))
			return false
		}
	}
	if w.record != nil {
		w.record.add(t, recorded)
	}
	return true
}

// again tries a setting of one try once more.
func (w *world) again(t *testing.T, s *setting) (x *Index, ways []string, seen string) {
	if w.enter(t, s) != nil {
		return nil, nil, ""
	}
	snapshot, err := host.Collect(context.Background(), host.Options{Docker: engine{w.pids}, Containers: []string{webID, peerID, otherID}, Parts: Needs})
	must(t, err)
	snapshot.Host.Flows = w.ready(t, s)
	x = New(snapshot)
	x.prepare()
	return x, x.ways(s.tries[0]), w.play(t, s.tries[0])
}

// shrink takes away whatever the disagreement about one try does not need.
func (w *world) shrink(t *testing.T, s *setting, one try) *setting {
	small := *s
	small.tries = []try{one}
	differs := func(s *setting) bool {
		x, ways, seen := w.again(t, s)
		return x != nil && !agrees(ways, seen)
	}
	if !differs(&small) {
		t.Log("by itself the packet goes as it should: something is left of those before it")
		return s
	}
	// Half of the lines at once, then a quarter, down to single ones.
	for _, part := range small.parts() {
		for n := len(*part); n > 0; n /= 2 {
			for at := 0; at < len(*part); {
				all := *part
				to := min(at+n, len(all))
				kept := slices.DeleteFunc(slices.Clone(all[at:to]), removable)
				*part = slices.Concat(all[:at], kept, all[to:])
				small.join()
				if len(*part) == len(all) || !differs(&small) {
					*part = all
					small.join()
					at = to
				} else {
					at += len(kept)
				}
			}
		}
	}
	return &small
}

// parts returns what the setting is made of, line by line. join puts it together again.
func (s *setting) parts() []*[]string {
	if s.lines == nil {
		s.lines = make([][]string, len(s.texts()))
		for i, text := range s.texts() {
			s.lines[i] = strings.SplitAfter(*text, "\n")
		}
	}
	all := []*[]string{&s.sysctls, &s.ip}
	for i := range s.lines {
		all = append(all, &s.lines[i])
	}
	return all
}

// texts returns what programs read.
func (s *setting) texts() []*string {
	return []*string{&s.legacy[0], &s.legacy[1], &s.nftables[0], &s.nftables[1], &s.native, &s.inner, &s.ipsets, &s.bridge}
}

func (s *setting) join() {
	for i, text := range s.texts() {
		*text = strings.Join(s.lines[i], "")
	}
}

// removable says whether a line can go without the others losing their sense.
func removable(line string) bool {
	line = strings.TrimSpace(line)
	switch {
	case line == "", line == "}", line == "COMMIT", line[0] == '*', line[0] == ':', strings.HasPrefix(line, "table"), strings.HasPrefix(line, "chain"), strings.HasPrefix(line, "create"), strings.HasPrefix(line, "flush"):
		return false
	case strings.HasPrefix(line, "type "):
		return false
	}
	return true
}

// play sends the try's packet, then an answer from where it got to, then one more; it returns what was seen
// of each.
func (w *world) play(t *testing.T, one try) string {
	var story []string
	shot := one.shot
	from := one.from
	for turn := range 3 {
		if one.turns == turn && turn > 0 {
			break
		}
		w.hear()
		w.decisions(&shot)
		err := w.fire(from, &shot)
		if err != nil && strings.Contains(err.Error(), "bind") {
			t.Fatal(err)
		}
		must(t, w.settle())
		decided := w.decisions(&shot).String()
		var places []string
		var last sighting
		for _, s := range w.hear() {
			if s.id&0xffff == shot.id&0xffff {
				if text := s.String(); !slices.Contains(places, text) {
					places = append(places, text)
				}
				last = s
			}
		}
		if len(places) == 0 || err != nil {
			story = append(story, "lost "+decided)
			break
		}
		slices.Sort(places)
		story = append(story, strings.Join(places, " and ")+" "+decided)
		if turn == 0 {
			// The answer to what was seen, from where it was seen.
			shot.skb = *one.answerTo(last)
			shot.replyDir = true
			from = last.place
			if from[0] == 'c' && from != one.from && one.from[0] == 'c' {
				break // it went from one client's link to the other: that is far enough
			}
		} else {
			shot.skb = *follow(&one.skb)
			from = one.from
		}
	}
	return strings.Join(story, " | ")
}

// answerTo returns the first packet back for what was seen: an answer, or an error of whom it is for or of
// a router on the way.
func (t try) answerTo(s sighting) *skb {
	if t.fails {
		p := &skb{family: netstate.FamilyOf(s.src), tuple: tuple{src: s.dst, dst: s.src, proto: protoICMP}, icmpType: 3, icmpCode: ownError, ttl: 64, dscp: 0, uid: 0, about: &s.tuple}
		if p.family == netstate.IPv6 {
			p.proto, p.icmpType, p.icmpCode = protoICMPv6, 1, ownError6
		}
		if s.place[0] == 'c' && t.id%2 == 0 {
			p.src = addrs(p.family, "203.0.113.77", "2001:db8:f::77")
		}
		if t.id%5 == 0 {
			p.dst = addrs(p.family, "172.17.0.3", "fd00::3") // whom it does not concern
		}
		p.length = len((&shot{skb: *p, id: t.id}).ip())
		return p
	}
	p := &skb{family: netstate.FamilyOf(s.src), tuple: s.tuple.reverse(), ttl: 64, uid: 0}
	switch s.proto {
	case protoTCP:
		p.flags = tcpSYN | tcpACK
	case protoICMPv6:
		p.icmpType = 129
	}
	p.length = len((&shot{skb: *p, id: t.id}).ip())
	return p
}

// follow returns the packet after the first.
func follow(first *skb) *skb {
	p := *first
	if p.proto == protoTCP {
		p.flags = tcpACK
	}
	return &p
}

// ways returns what the walk says of a try, in play's words: one text for each possible way.
func (x *Index) ways(one try) []string { return x.told(one, nil) }

// told does the same and has every decision told, of all ways.
func (x *Index) told(one try, also func(*netns, *base, *rule, code, *skb)) []string {
	var all []string
	var choices []bool
	for len(all) < 10000 {
		w := &walker{x: x, trace: &Trace{}, choices: choices, conns: map[*netns][]*conn{}}
		if text := w.tell(one, also); !slices.Contains(all, text) {
			all = append(all, text)
		}
		choices = w.choices[:w.asked]
		for len(choices) > 0 && choices[len(choices)-1] {
			choices = choices[:len(choices)-1]
		}
		if len(choices) == 0 {
			break
		}
		choices[len(choices)-1] = true
	}
	return all
}

// tell walks a try.
func (w *walker) tell(one try, also func(*netns, *base, *rule, code, *skb)) string {
	var story []string
	p := one.skb
	from := one.from
	for turn := range 3 {
		w.depth, w.trace.Stops = 0, nil
		sent := p
		var decided decisions
		w.listen(&decided, also)
		e := w.launch(from, &sent)
		if w.lostIt() || e.packet == nil {
			story = append(story, "lost "+decided.String())
			break
		}
		seen := sighting{tuple: e.packet.tuple, about: e.packet.about}
		switch {
		case e.left != nil:
			// What has no permanent neighbour waits for an answer that nobody gives.
			if slices.ContainsFunc(w.x.host.state.Neighs, func(n netstate.Neigh) bool {
				return n.Link == e.left.Name && n.Addr == e.packet.gateway && n.State == "permanent"
			}) {
				seen.place = map[string]string{"eth0": "c0", "eth1": "c1"}[e.left.Name]
			}
		case e.ns != nil:
			seen.place = placeOf(e.ns.name)
		}
		if seen.place == "" {
			story = append(story, "lost "+decided.String())
			break
		}
		story = append(story, seen.String()+" "+decided.String())
		if turn == 0 {
			p = *one.answerTo(seen)
			from = seen.place
			if from[0] == 'c' && from != one.from && one.from[0] == 'c' {
				break
			}
		} else {
			p = *follow(&one.skb)
			from = one.from
		}
	}
	return strings.Join(story, " | ")
}

func (w *walker) launch(from string, p *skb) end {
	host := w.x.host
	switch from {
	case "c0":
		return w.arrive(host.link("eth0"), p)
	case "c1":
		return w.arrive(host.link("eth1"), p)
	case "host":
		return w.send(host, p)
	}
	return w.send(w.x.sandboxes[boxes[slices.IndexFunc(boxes, func(b box) bool { return b.place == from })].id], p)
}

// placeOf is the test's name for the namespace of a container; "" is the host's.
func placeOf(name string) string {
	switch name {
	case "":
		return "host"
	case "web":
		return "sandbox"
	}
	return name
}

// story describes the first way of a try step by step.
func (x *Index) story(one try) string {
	w := &walker{x: x, trace: &Trace{}, conns: map[*netns][]*conn{}}
	w.tell(one, nil)
	return describe(w.trace)
}

const (
	webID     = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	peerID    = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	otherID   = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
	networkID = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" // with its bridge's name behind: 64 signs
)

// engine is an engine with the boxes as its containers, each in the namespace of a process.
type engine struct{ pids map[string]int }

func (engine) Ping(context.Context) (types.Ping, error) { return types.Ping{APIVersion: "1.51"}, nil }
func (engine) Info(context.Context) (system.Info, error) {
	return system.Info{ServerVersion: "28.5.2"}, nil
}
func (engine) DaemonHost() string    { return "unix:///nonexistent/docker.sock" }
func (engine) ClientVersion() string { return "1.51" }
func (engine) ContainerList(context.Context, dockercontainer.ListOptions) ([]dockercontainer.Summary, error) {
	return nil, nil
}
func (engine) NetworkList(context.Context, network.ListOptions) ([]network.Summary, error) {
	return nil, nil
}

func networkOf(bridge string) string { return networkID + "0" + bridge[2:] }

func (e engine) ContainerInspect(_ context.Context, id string) (dockercontainer.InspectResponse, error) {
	b := boxes[slices.IndexFunc(boxes, func(b box) bool { return b.id == id })]
	return dockercontainer.InspectResponse{
		ContainerJSONBase: &dockercontainer.ContainerJSONBase{ID: b.id, Name: "/" + b.name, State: &dockercontainer.State{Status: "running", Running: true, Pid: e.pids[b.place]},
			HostConfig: &dockercontainer.HostConfig{NetworkMode: "net"}},
		Config: &dockercontainer.Config{},
		NetworkSettings: &dockercontainer.NetworkSettings{Networks: map[string]*network.EndpointSettings{b.bridge: {NetworkID: networkOf(b.bridge), MacAddress: b.mac,
			IPAddress: b.v4, IPPrefixLen: 16, Gateway: b.gateway4, GlobalIPv6Address: b.v6, GlobalIPv6PrefixLen: 64, IPv6Gateway: b.gateway6}}},
	}, nil
}

func (engine) NetworkInspect(_ context.Context, id string, _ network.InspectOptions) (network.Inspect, error) {
	bridge := "br" + id[len(id)-1:]
	return network.Inspect{ID: id, Name: bridge, Driver: "bridge", Options: map[string]string{"com.docker.network.bridge.name": bridge}}, nil
}
