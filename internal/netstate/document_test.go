package netstate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

func encode(t testing.TB, s *netstate.Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, name := range fixture.Cases() {
		t.Run(name, func(t *testing.T) {
			s, err := fixture.Case(name)
			if err != nil {
				t.Fatal(err)
			}
			checkRoundTrip(t, s)
		})
	}
}

func checkRoundTrip(t *testing.T, s *netstate.Snapshot) {
	t.Helper()
	text := encode(t, s)
	back, err := netstate.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, back) {
		t.Errorf("the document says something else:\n%s", difference("snapshot", reflect.ValueOf(*s), reflect.ValueOf(*back)))
	}
	if again := encode(t, back); !bytes.Equal(text, again) {
		t.Error("the same snapshot gives other bytes")
	}
}

// difference names the first place at which two values differ.
func difference(path string, a, b reflect.Value) string {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return ""
	}
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() {
				if d := difference(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i)); d != "" {
					return d
				}
			}
		}
	case reflect.Slice:
		for i := range min(a.Len(), b.Len()) {
			if d := difference(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i)); d != "" {
				return d
			}
		}
	case reflect.Pointer, reflect.Interface:
		if !a.IsNil() && !b.IsNil() {
			return difference(path, a.Elem(), b.Elem())
		}
	}
	return fmt.Sprintf("%s: %#v, want %#v", path, b, a)
}

// filled returns a value of that type in which every field has some value, so that none is forgotten by
// the document. Expressions are one of each.
func filled(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return reflect.ValueOf(netip.MustParseAddr("192.0.2.1"))
	case reflect.TypeFor[netip.Prefix]():
		return reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24"))
	case reflect.TypeFor[netip.AddrPort]():
		return reflect.ValueOf(netip.MustParseAddrPort("192.0.2.1:80"))
	case reflect.TypeFor[time.Time]():
		return reflect.ValueOf(time.Date(2026, 11, 20, 3, 12, 7, 500, time.UTC))
	case reflect.TypeFor[netstate.Part]():
		return reflect.ValueOf(netstate.Links | netstate.Routes)
	case reflect.TypeFor[netstate.Family]():
		return reflect.ValueOf(netstate.IPv4)
	case reflect.TypeFor[netstate.Port]():
		return reflect.ValueOf(netstate.Port{Number: 80, Proto: "tcp"})
	case reflect.TypeFor[netstate.NftReg]():
		return reflect.ValueOf(netstate.NftReg(16))
	case reflect.TypeFor[netstate.Hex]():
		return reflect.ValueOf(netstate.Hex{1, 2, 3, 4})
	case reflect.TypeFor[netstate.NftExprs]():
		return reflect.ValueOf(netstate.NftExprs{&netstate.NftCounter{Packets: 7}})
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32:
		v.SetInt(4)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(4)
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		v.Elem().Set(filled(t.Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(t, 1, 1))
		v.Index(0).Set(filled(t.Elem()))
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).Set(filled(t.Elem()))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(filled(t.Key()), filled(t.Elem()))
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).Tag.Get("json") != "-" {
				v.Field(i).Set(filled(t.Field(i).Type))
			}
		}
	}
	return v
}

// full returns a valid snapshot without an empty field.
func full() *netstate.Snapshot {
	s := filled(reflect.TypeFor[netstate.Snapshot]()).Interface().(netstate.Snapshot)
	s.Schema = netstate.Schema
	s.Containers[0].Endpoints[0].IPv6 = netip.MustParsePrefix("2001:db8::/64")
	s.Networks[0].Members[0].IPv6 = netip.MustParsePrefix("2001:db8::/64")
	for _, n := range []*netstate.Namespace{&s.Host, s.Sandboxes["x"]} {
		n.Links[0].Master = 0
		n.Iptables[0].Variant = "nft"
		n.Nft.Tables[0].Family = "ip"
		n.Rules[0].Goto = 5
		n.Nft.Tables[0].Chains[0].Rules[0].Exprs = netstate.EveryExpr(func(e netstate.NftExpr) {
			v := reflect.ValueOf(e).Elem()
			v.Set(filled(v.Type()))
		})
	}
	return &s
}

func TestEveryFieldSurvives(t *testing.T) { checkRoundTrip(t, full()) }

func TestEmpty(t *testing.T) {
	checkRoundTrip(t, &netstate.Snapshot{Schema: netstate.Schema, Read: time.Unix(0, 0).UTC()})
}

// TestNoUTF8 has two links whose names JSON cannot hold, and a rule that names one of them.
func TestNoUTF8(t *testing.T) {
	s := full()
	s.Host.Links = []netstate.Link{{Index: 1, Name: "v\xff"}, {Index: 2, Name: "v\xfe"}, {Index: 3, Name: "v\uFFFD"}}
	s.Host.Iptables[0].Tables[0].Chains[0].Rules[0].Text = "-i v\xfe -j DROP"
	s.Host.Sysctls = map[string]string{"net.ipv4.conf.v\xfe.forwarding": "1"}
	back, err := netstate.Decode(bytes.NewReader(encode(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	if got := back.Host.Links[1].Name; got != `v\xfe` {
		t.Errorf("the link is called %q", got)
	}
	if got := back.Host.Links[2].Name; got != "v\uFFFD" {
		t.Errorf("the link is called %q", got)
	}
	if got := back.Host.Iptables[0].Tables[0].Chains[0].Rules[0].Text; got != `-i v\xfe -j DROP` {
		t.Errorf("the rule is %q", got)
	}
	if got := back.Host.Sysctls[`net.ipv4.conf.v\xfe.forwarding`]; got != "1" {
		t.Errorf("the sysctls are %q", back.Host.Sysctls)
	}
	if s.Host.Links[1].Name != "v\xfe" {
		t.Error("Encode changed the snapshot")
	}
}

func TestRefused(t *testing.T) {
	whole := string(encode(t, full()))
	change := func(old, new string) string {
		if !strings.Contains(whole, old) {
			t.Fatalf("the document has no %s", old)
		}
		return strings.Replace(whole, old, new, 1)
	}
	link := func(more string) string {
		return `{"schema":"netcheck.snapshot/v1","read":"2026-11-20T03:12:07Z","host":{"id":"","links":[{"index":1,"name":"lo"},` + more + `]}}`
	}
	nft := func(expr string) string {
		return `{"schema":"netcheck.snapshot/v1","host":{"nft":{"tables":[{"family":"ip","name":"t","chains":[{"name":"c","rules":[{"exprs":[` + expr + `]}]}]}]}}}`
	}
	for _, test := range []struct{ name, document, want string }{
		{"nothing", "", "is empty"},
		{"blank", " \n", "is empty"},
		{"no JSON", "Usage: docker netcheck", "is no JSON at byte 1: invalid character 'U' looking for beginning of value"},
		{"a list", "[]", "has no schema: it is no document of docker netcheck snapshot"},
		{"no schema", "{}", "has no schema: it is no document of docker netcheck snapshot"},
		{"a report", `{"schema":"netcheck.report/v1"}`, `has the schema "netcheck.report/v1", want "netcheck.snapshot/v1": it is no document of docker netcheck snapshot`},
		{"a later one", `{"schema":"netcheck.snapshot/v2"}`, `has the schema "netcheck.snapshot/v2", and this docker netcheck reads "netcheck.snapshot/v1": use the version that wrote it`},
		{"UTF-16", "\xff\xfe{\x00", "is UTF-16, as a shell that redirects writes it: write it with snapshot --output"},
		{"gzip", "\x1f\x8b\x08", "is compressed: unpack it with gunzip"},
		{"cut", whole[:1000], "is cut off: it ends at byte 1000"},
		{"two", whole + "{}", fmt.Sprintf("is no JSON at byte %d: invalid character '{' after top-level value", len(whole)+1)},
		{"deep", `{"schema":` + strings.Repeat("[", 100_000), "at byte 74 objects lie in each other more than 64 deep"},
		{"text for a number", link(`{"index":"2","name":"b"}`), `host.links[1].index is text, want a whole number of 64 bits`},
		{"a fraction", link(`{"index":2.5,"name":"b"}`), `host.links[1].index is the number 2.5, want a whole number of 64 bits`},
		{"a huge number", link(`{"index":1e999,"name":"b"}`), `host.links[1].index is the number 1e999, want a whole number of 64 bits`},
		{"too large", link(`{"index":2,"name":"b","table":4294967296}`), `host.links[1].table is the number 4294967296, want a whole number from 0 on of 32 bits`},
		{"an object for a list", `{"schema":"netcheck.snapshot/v1","host":{"links":{}}}`, `host.links is an object, want a list`},
		{"a list for an object", `{"schema":"netcheck.snapshot/v1","host":[]}`, `host is a list, want an object`},
		{"a wrong prefix", `{"schema":"netcheck.snapshot/v1","host":{"routes":[{"family":"ipv4","dst":"10.0.0.0/33"}]}}`,
			`host.routes[0].dst: netip.ParsePrefix("10.0.0.0/33"): prefix length out of range`},
		{"a wrong key", `{"schema":"netcheck.snapshot/v1","missing":{"weather///":"x"}}`, `missing["weather///"]: "weather" is no part of a snapshot`},
		{"a wrong family", `{"schema":"netcheck.snapshot/v1","host":{"routes":[{"family":"ipx"}]}}`, `host.routes[0].family: "ipx" is no address family`},
		{"a wrong port", `{"schema":"netcheck.snapshot/v1","containers":[{"exposed":["80/carrier pigeon"]}]}`,
			`containers[0].exposed[0]: "80/carrier pigeon" is no port: its protocol is none of tcp, udp, sctp`},
		{"a sandbox's", `{"schema":"netcheck.snapshot/v1","sandboxes":{"a\u001bb":{"links":[{"mtu":true}]}}}`,
			`sandboxes["a\x1bb"].links[0].mtu is true, want a whole number of 64 bits`},
		{"no sandbox", `{"schema":"netcheck.snapshot/v1","sandboxes":{"a":null}}`, `sandboxes["a"] is null`},
		{"in an expression", nft(`{"cmp":{"data":"xy"}}`), `host.nft.tables[0].chains[0].rules[0].exprs[0].cmp.data: encoding/hex: invalid byte: U+0078 'x'`},
		{"no expression", nft(`{"cmp":{},"meta":{}}`), `host.nft.tables[0].chains[0].rules[0].exprs[0]: an expression has one name, this has 2`},
		{"no register", nft(`{"cmp":{"op":"==","sreg":80}}`), `host.nft.tables[0].chains[0].rules[0].exprs[0]: cmp: register 80: there is none at that byte`},
		{"large load", nft(`{"payload":{"base":"network","len":4000000000}}`), `host.nft.tables[0].chains[0].rules[0].exprs[0]: payload: 4000000000 bytes, the registers have 64`},
		{"no index", link(`{"name":"b"}`), `host.links[1]: index is 0, want 1 to 2147483647`},
		{"no name", link(`{"index":2}`), `host.links[1]: has no name`},
		{"an index twice", link(`{"index":1,"name":"b"}`), `host.links[1]: has the same index as [0]: "1"`},
		{"a name twice", link(`{"index":2,"name":"lo"}`), `host.links[1]: has the same name as [0]: "lo"`},
		{"a negative size", link(`{"index":2,"name":"b","mtu":-1}`), `host.links[1]: mtu is -1, want 0 to 2147483647`},
		{"its own master", link(`{"index":2,"name":"b","master":2}`), `host.links: "b" is its own master, over others`},
		{"masters in a circle", link(`{"index":2,"name":"b","master":3},{"index":3,"name":"c","master":4},{"index":4,"name":"d","master":3}`),
			`host.links: "b" is its own master, over others`},
		{"rule that leads back", `{"schema":"netcheck.snapshot/v1","host":{"rules":[{"family":"ipv4","priority":5,"action":"goto","goto":5}]}}`,
			`host.rules[0]: goto 5 does not lead forward from 5`},
		{"no engine", `{"schema":"netcheck.snapshot/v1","parts":"engine+links"}`, `engine: there is none, although it was asked for and is not missing`},
		{"nobody asked", change(`"asked": [`+"\n  "+`"x"`, `"asked": ["nobody"`), `asked[0]: "nobody" is none of the containers`},
		{"no port", change(`"80/tcp"`, `""`), `containers[0]: a published port has no number`},
		{"foreign address", `{"schema":"netcheck.snapshot/v1","host":{"routes":[{"family":"ipv6","dst":"10.0.0.0/8"}]}}`,
			`host.routes[0]: dst: 10.0.0.0 is not of family ipv6`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := netstate.Decode(strings.NewReader(test.document))
			if err == nil {
				t.Fatal("no error")
			}
			if got := err.Error(); got != test.want {
				t.Errorf("the error is\n\t%s\nwant\n\t%s", got, test.want)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	_, err := netstate.Decode(strings.NewReader(`{"schema":"` + strings.Repeat("x", netstate.LargestDocument)))
	if err == nil || err.Error() != "is larger than 256 MiB" {
		t.Errorf("the error is %v", err)
	}
}

// TestLaterFields reads a document that a later netcheck wrote.
func TestLaterFields(t *testing.T) {
	s, err := netstate.Decode(strings.NewReader(`{"schema":"netcheck.snapshot/v1","weather":"fine","host":{
		"links":[{"index":1,"name":"lo","colour":{"deep":[1]}},{"index":2,"name":"b","colour":"x"}],
		"nft":{"tables":[{"family":"ip","name":"t","chains":[{"name":"c","rules":[{"exprs":[
			{"counter":{"packets":1}},{"oracle":{"sees":1}},{"cmp":{"op":"==","sreg":16,"mood":"good"}}]}]}]}]}},
		"sandboxes":{"a]b":{"x":1},"c":{"x":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"host.links[].colour", "sandboxes[].x", "weather"}; !reflect.DeepEqual(s.Ignored, want) {
		t.Errorf("ignored %q, want %q", s.Ignored, want)
	}
	got := s.Host.Nft.Tables[0].Chains[0].Rules[0].Exprs
	want := netstate.NftExprs{&netstate.NftCounter{Packets: 1}, &netstate.NftOpaque{Expr: "oracle"}, &netstate.NftOpaque{Expr: "cmp"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the expressions are %v", got)
	}
	if s.Host.Links[1].Name != "b" {
		t.Error("what is known was not read")
	}
}

// TestByteOrderMark is how some editors save a text.
func TestByteOrderMark(t *testing.T) {
	if _, err := netstate.Decode(strings.NewReader("\xef\xbb\xbf" + string(encode(t, full())))); err != nil {
		t.Error(err)
	}
}

// TestCutAnywhere cuts a document at every place: no part of one is read as a whole one.
func TestCutAnywhere(t *testing.T) {
	whole := bytes.TrimSpace(encode(t, full()))
	for n := 1; n < len(whole); n += 37 {
		if _, err := netstate.Decode(bytes.NewReader(whole[:n])); err == nil {
			t.Fatalf("cut at byte %d of %d, it is read", n, len(whole))
		} else if want := fmt.Sprintf("is cut off: it ends at byte %d", n); err.Error() != want {
			t.Fatalf("the error is %q, want %q", err, want)
		}
	}
}

// TestEveryPathIsNamed gives each field of a full document a wrong type, and wants the error to name it.
func TestEveryPathIsNamed(t *testing.T) {
	s := full()
	s.Sandboxes = nil
	var document any
	if err := json.Unmarshal(encode(t, s), &document); err != nil {
		t.Fatal(err)
	}
	var each func(path string, v any, set func(any))
	tried := 0
	each = func(path string, v any, set func(any)) {
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				at := path + "." + name
				if strings.HasSuffix(path, "s") && strings.Contains(path, "exprs[") {
					at = path + "." + strings.ReplaceAll(name, " ", "_")
				}
				each(at, member, func(to any) { v[name] = to })
			}
		case []any:
			for i, element := range v {
				each(fmt.Sprintf("%s[%d]", path, i), element, func(to any) { v[i] = to })
			}
			return
		}
		if path == "" || path == ".schema" {
			return
		}
		wrong := any([]any{[]any{}})
		set(wrong)
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		set(v)
		if _, err = netstate.Decode(bytes.NewReader(text)); err == nil {
			t.Errorf("%s may be a list of lists", path)
		} else if field := path[strings.LastIndex(path, ".")+1:]; !strings.Contains(strings.ReplaceAll(err.Error(), "_", " "), strings.ReplaceAll(field, "_", " ")) {
			t.Errorf("%s: the error is %q", path, err)
		}
		tried++
	}
	each("", document, nil)
	if tried < 300 {
		t.Errorf("only %d fields were tried", tried)
	}
}
