package checks_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// FuzzDecode says that whatever is read can be judged, redacted, saved and read again: no document ends the
// program, or keeps it busy.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(hostile()["healthy"]))
	f.Add([]byte(`{"sChema":"netcheck.snapshot/v1","pArts":"engine","containers":[{"id":"0","published":[{"port":"1"}]}]}`))
	f.Fuzz(useful)
}

// useful reads a document and does all that can be done with one.
func useful(t *testing.T, data []byte) {
	s, err := netstate.Decode(bytes.NewReader(data))
	if err != nil {
		return
	}
	judgeAll(t, s)
	var first, second bytes.Buffer
	if err := s.Encode(&first); err != nil {
		t.Fatal(err)
	}
	saved := bytes.Clone(first.Bytes())
	back, err := netstate.Decode(&first)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	if err := back.Encode(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(saved, second.Bytes()) {
		t.Error("saved twice, it is not the same")
	}
	redacted := s.Redact()
	if !reflect.DeepEqual(redacted, s.Redact()) {
		t.Error("redacted twice, it is not the same")
	}
	if err := redacted.Validate(); err != nil {
		t.Errorf("redacted, it is not valid: %v", err)
	}
	judgeAll(t, redacted)
}

// FuzzEdits does the same with documents that are sound but for a few edits, which are decoded far more often
// than random bytes.
func FuzzEdits(f *testing.F) {
	documents := seeds(f)
	for i := range documents {
		f.Add(uint8(i), []byte{0, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, document uint8, edits []byte) {
		useful(t, edited(t, documents[int(document)%len(documents)], edits))
	})
}

// TestEdits is FuzzEdits for a moment.
func TestEdits(t *testing.T) {
	documents := seeds(t)
	random := rand.New(rand.NewPCG(1, 1))
	for range 400 {
		document, edits := random.IntN(len(documents)), make([]byte, 4*(1+random.IntN(4)))
		for i := range edits {
			edits[i] = byte(random.Uint32())
		}
		text := edited(t, documents[document], edits)
		if !t.Run("", func(t *testing.T) { useful(t, text) }) {
			t.Fatalf("%s", text)
		}
	}
}

// seeds returns documents to be edited.
func seeds(t testing.TB) [][]byte {
	all := [][]byte{small(t, fixture.Cases()[4]), small(t, fixture.Cases()[len(fixture.Cases())-1])}
	documents := hostile()
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		if name != "doubt at every turn" && name != "nft chains doubled" { // they take long
			all = append(all, []byte(documents[name]))
		}
	}
	return all
}

// A place is a value in a document, and how to put another one there.
type place struct {
	value any
	set   func(any)
}

// places returns all values of a document in a fixed order.
func places(v any, set func(any)) []place {
	all := []place{{v, set}}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all = append(all, places(v[name], func(to any) { v[name] = to })...)
		}
	case []any:
		for i := range v {
			all = append(all, places(v[i], func(to any) { v[i] = to })...)
		}
	}
	return all
}

// strange are values that nobody expects.
var strange = []any{nil, json.Number("0"), json.Number("1"), json.Number("2"), json.Number("3"), json.Number("16"), json.Number("255"), json.Number("65535"),
	json.Number("2147483647"), json.Number("4294967295"), json.Number("18446744073709551615"), json.Number("-1"), true, false, "", "a", "eth0", "docker0", "0.0.0.0", "::", "0.0.0.0/0", "::/0",
	"172.17.0.2", "172.17.0.2/32", "8.8.8.8", "2a01:4f8::1/64", "::ffff:172.17.0.2", "ipv6", "ipv4", "udp", "drop", "-j A", "-m set --match-set a src,dst -j DROP",
	"-m statistic --mode nth --every 2 -j DROP", "-s 8.8.8.0/24 -j MARK --set-xmark 0x1/0x1", "-j DNAT --to-destination 8.8.8.8-8.8.9.9:1-2", "container:a", "host", "none", "macvlan", "ffffffff", []any{}, map[string]any{}}

// edited makes an edit of each four bytes: what is done, to which value (of two bytes), with what.
func edited(t testing.TB, text []byte, edits []byte) []byte {
	var document any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		t.Fatal(err)
	}
	for len(edits) >= 4 {
		do, at, with := edits[0], int(binary.BigEndian.Uint16(edits[1:])), int(edits[3])
		edits = edits[4:]
		all := places(document, func(to any) { document = to })
		to := all[at%len(all)]
		switch list, isList := to.value.([]any); {
		case do%4 == 0 && isList && len(list) > 0: // without one
			to.set(slices.Delete(slices.Clone(list), with%len(list), with%len(list)+1))
		case do%4 == 1 && isList && len(list) > 0: // with one twice
			to.set(append(slices.Clone(list), copied(list[with%len(list)])))
		case do%4 == 2: // as another of its kind
			var same []any
			for _, other := range all {
				if reflect.TypeOf(other.value) == reflect.TypeOf(to.value) {
					same = append(same, other.value)
				}
			}
			to.set(copied(same[(with*len(same)/256+int(do)/4)%len(same)]))
		default:
			var same []any
			for _, other := range strange {
				if do == 3 || reflect.TypeOf(other) == reflect.TypeOf(to.value) {
					same = append(same, other)
				}
			}
			if len(same) > 0 {
				to.set(copied(same[with%len(same)]))
			}
		}
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// copied returns a value that shares nothing, so that none comes to lie in itself.
func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		to := make(map[string]any, len(v))
		for name, member := range v {
			to[name] = copied(member)
		}
		return to
	case []any:
		to := make([]any, len(v))
		for i := range v {
			to[i] = copied(v[i])
		}
		return to
	}
	return v
}

// judgeAll judges every container, from everywhere.
func judgeAll(t testing.TB, s *netstate.Snapshot) {
	s.Asked = nil
	for i, c := range s.Containers {
		if i < 4 {
			s.Asked = append(s.Asked, c.ID)
		}
	}
	for _, from := range []string{"", netstate.FromHost, netstate.FromLocalhost} {
		targets, _, err := checks.Targets(s, checks.Ask{From: from})
		if err != nil {
			t.Fatal(err)
		}
		judged(t, s, targets)
	}
	for _, c := range s.Containers[:min(2, len(s.Containers))] {
		targets, _, err := checks.Targets(s, checks.Ask{ToName: c.ID})
		if err == nil {
			judged(t, s, targets)
		}
	}
	if any, _ := checks.Hypothetical(s); any != nil {
		targets, _, err := checks.Targets(any, checks.Ask{})
		if err != nil {
			t.Fatal(err)
		}
		judged(t, any, targets)
	}
}

// judged judges a few targets, and does with the report what is done with one.
func judged(t testing.TB, s *netstate.Snapshot, targets []netstate.Target) {
	host := checks.NewHost(s)
	report := checks.Judge(checks.Suite, host, targets[:min(8, len(targets))])
	checks.LeftOvers(host, report)
	fixes, _ := report.Fixes(checks.Consent{Open: true, Disrupt: true, Partial: true})
	for _, fix := range fixes {
		if len(fix.Steps)+len(fix.Persist) == 0 {
			t.Errorf("the fix %q does nothing", fix.Title)
		}
	}
	if plan, err := remediate.NewPlan(fixes, true); err == nil {
		plan.Diff()
		report.Fleeting(plan)
	}
}

// small returns a captured host with one container.
func small(t testing.TB, name string) []byte {
	s := public(t, name)
	s.Containers = s.Containers[:1]
	s.Proxies, s.Missing = nil, nil
	s.Host.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"}
	s.Host.Sockets = s.Host.Sockets[:min(3, len(s.Host.Sockets))]
	s.Sandboxes = map[string]*netstate.Namespace{s.Containers[0].ID: {ID: "net:[1]", Links: []netstate.Link{{Index: 1, Name: "lo", Up: true}}}}
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// hostile are documents that Decode reads and that run in circles.
func hostile() map[string]string {
	begin := `{"schema":"netcheck.snapshot/v1","read":"2026-11-20T03:12:07Z","parts":"engine+links+routes+sysctls+sockets+iptables+nftables+firewalld+conntrack+traffic+files",
		"engine":{"version":"28.5.2","api":"1.51","local":true,"config":{}},
		"containers":[{"id":"a","name":"web","status":"running","running":true,"network_mode":"bridge","sandbox_id":"s",
			"published":[{"port":"80/tcp","host":"0.0.0.0","host_port":80},{"port":"80/tcp","host":"::","host_port":80}],
			"endpoints":[{"network":"bridge","network_id":"n","ipv4":"172.17.0.2/16","gateway4":"172.17.0.1","ipv6":"fd00::2/64","gateway6":"fd00::1"}]}],
		"networks":[{"id":"n","name":"bridge","driver":"bridge","scope":"local","ipv4":true,"ipv6":true,"options":{"com.docker.network.bridge.name":"docker0"},
			"subnets":[{"prefix":"172.17.0.0/16","gateway":"172.17.0.1"},{"prefix":"fd00::/64","gateway":"fd00::1"}],"members":[{"id":"a","name":"web","ipv4":"172.17.0.2/16"}]}],`
	links := `"links":[{"index":1,"name":"lo","up":true,"loopback":true},{"index":2,"name":"eth0","up":true,"carrier":true,"mtu":1500},
		{"index":3,"name":"docker0","kind":"bridge","up":true,"carrier":true,"mtu":1500,"bridge":{}},{"index":4,"name":"veth0","kind":"veth","up":true,"carrier":true,"master":3,"peer":2,"peer_ns":0,"port":{"state":"forwarding"}}],
		"addrs":[{"link":"eth0","prefix":"198.51.100.15/24"},{"link":"docker0","prefix":"172.17.0.1/16"}],
		"sysctls":{"net.ipv4.ip_forward":"1","net.ipv4.conf.all.forwarding":"1","net.ipv4.conf.eth0.forwarding":"1","net.ipv4.conf.docker0.forwarding":"1"}`
	routes := `"routes":[{"family":"ipv4","table":254,"type":"unicast","dst":"0.0.0.0/0","hops":[{"dev":"eth0","gateway":"198.51.100.2"}]},
		{"family":"ipv4","table":254,"type":"unicast","dst":"172.17.0.0/16","hops":[{"dev":"docker0"}]},{"family":"ipv4","table":255,"type":"local","dst":"198.51.100.15/32","hops":[{"dev":"eth0"}]}]`
	host := func(more string) string {
		return begin + `"host":{"id":"net:[2]",` + links + `,` + routes + more + `},"sandboxes":{"a":{"id":"net:[1]","nsid":0,
			"links":[{"index":2,"name":"eth0","kind":"veth","up":true,"carrier":true,"peer":4}],"addrs":[{"link":"eth0","prefix":"172.17.0.2/16"}],
			"routes":[{"family":"ipv4","table":254,"type":"unicast","dst":"0.0.0.0/0","hops":[{"dev":"eth0","gateway":"172.17.0.1"}]},
				{"family":"ipv4","table":255,"type":"local","dst":"172.17.0.2/32","hops":[{"dev":"eth0"}]}],
			"sockets":[{"proto":"tcp","state":"listen","local":"0.0.0.0:80"}]}}}`
	}
	chains := func(rules ...string) string {
		return host(`,"iptables":[{"family":"ipv4","variant":"legacy","tables":[{"name":"filter","chains":[{"name":"FORWARD","policy":"DROP","rules":[{"text":"-j A"}]},
			{"name":"A","rules":[` + rules[0] + `]},{"name":"B","rules":[` + rules[1] + `]}]}]}]`)
	}
	text := func(rule string, times int) string {
		return strings.TrimSuffix(strings.Repeat(`{"text":"`+rule+`"},`, times), ",")
	}
	nft := func(more string) string {
		return host(`,"nft":{"generation":1,"tables":[{"family":"ip","name":"t",` + more + `}]}`)
	}
	forward := `"hook":{"type":"filter","name":"forward","priority":0,"policy":"accept"}`
	jump := func(chain string) string {
		return `{"exprs":[{"immediate":{"dreg":1,"verdict":{"code":"jump","chain":"` + chain + `"}}}]}`
	}
	var deep strings.Builder
	for i := range 200 {
		deep.WriteString(`,{"name":"c` + strings.Repeat("x", i) + `","rules":[` + strings.Repeat(jump("c"+strings.Repeat("x", i+1))+",", 3) + jump("c"+strings.Repeat("x", i+1)) + `]}`)
	}
	return map[string]string{
		"healthy":                  host(""),
		"chain that calls itself":  chains(text("-j A", 1), text("-j A", 1)),
		"chains in a circle":       chains(text("-j B", 3), text("-j A", 3)),
		"goto in a circle":         chains(text("-g B", 1), text("-g A", 1)),
		"doubt at every turn":      chains(text("-m statistic --mode random --probability 0.5 -j B", 64), text("-m statistic --mode random --probability 0.5 -j A", 64)),
		"nft chains in a circle":   nft(`"chains":[{"name":"f",` + forward + `,"rules":[` + jump("a") + `]},{"name":"a","rules":[` + jump("b") + `,` + jump("b") + `]},{"name":"b","rules":[` + jump("a") + `,` + jump("a") + `]}]`),
		"nft chains doubled":       nft(`"chains":[{"name":"f",` + forward + `,"rules":[` + jump("c") + `]}` + deep.String() + `]`),
		"chain bound to itself":    nft(`"chains":[{"name":"f",` + forward + `,"bound":true,"rules":[` + jump("f") + `]}]`),
		"vmap to itself":           nft(`"sets":[{"name":"m","map":true,"verdicts":true,"key_type":7,"key_len":4,"elements":[{"catch_all":true,"verdict":{"code":"jump","chain":"f"}}]}],"chains":[{"name":"f",` + forward + `,"rules":[{"exprs":[{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"lookup":{"set":"m","sreg":16,"dreg":1}}]}]}]`),
		"nexthops in a circle":     host(`,"nexthops":[{"id":1,"group":[2]},{"id":2,"group":[1,1,1,2]}],"rules":[{"family":"ipv4","priority":0,"action":"table","table":255},{"family":"ipv4","priority":1,"action":"goto","goto":2},{"family":"ipv4","priority":2,"action":"table","table":254}]`),
		"sets in a circle":         host(`,"ipsets":[{"name":"a","type":"list:set","entries":["b","a"]},{"name":"b","type":"list:set","entries":["a","a"]}],"iptables":[{"family":"ipv4","variant":"nft","tables":[{"name":"filter","chains":[{"name":"FORWARD","policy":"ACCEPT","rules":[{"text":"-m set --match-set a src -j DROP"}]}]}]}]`),
		"dnat to itself":           host(`,"iptables":[{"family":"ipv4","variant":"nft","tables":[{"name":"nat","chains":[{"name":"PREROUTING","policy":"ACCEPT","rules":[{"text":"-p tcp -m tcp --dport 80 -j DNAT --to-destination 198.51.100.15:80"}]}]}]}]`),
		"proxies in a circle":      strings.Replace(host(""), `"host":{`, `"proxies":[{"pid":5,"proto":"tcp","host":"0.0.0.0:80","container":"198.51.100.15:80"}],"host":{`, 1),
		"networks of each other":   strings.Replace(host(""), `"network_mode":"bridge"`, `"network_mode":"container:a"`, 1),
		"parents of each other":    host(`,"qdiscs":[{"link":"eth0","kind":"x","parent":"root"}]`),
		"a bridge in its own port": strings.Replace(host(""), `"kind":"veth","up":true,"carrier":true,"master":3,"peer":2`, `"kind":"vlan","vlan":5,"up":true,"carrier":true,"peer":4`, 1),
	}
}

// TestHostileDocumentsEnd is FuzzDecode's circles, each of which has to be readable.
func TestHostileDocumentsEnd(t *testing.T) {
	for name, text := range hostile() {
		t.Run(name, func(t *testing.T) {
			s, err := netstate.Decode(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			judgeAll(t, s)
			judgeAll(t, s.Redact())
		})
	}
}
