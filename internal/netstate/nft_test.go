package netstate

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rule makes a rule of expressions written as JSON.
func nftRule(t testing.TB, exprs string) *NftRule {
	t.Helper()
	var r NftRule
	if err := json.Unmarshal([]byte(`{"handle":7,"exprs":[`+exprs+`]}`), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// TestNftWords has what the recordings have not: words that take a kernel or a program of another kind, and what nft
// has no words for. Everything else is compared with nft itself (nftwire.TestText).
func TestNftWords(t *testing.T) {
	for _, test := range []struct{ family, exprs, want string }{
		{"ip", `{"queue":{"num":5}}`, "queue to 5"},
		{"ip", `{"queue":{"num":1,"total":3,"bypass":true,"fanout":true}}`, "queue flags bypass,fanout to 1-3"},
		{"ip", `{"flow_offload":{"table":"fast"}}`, "flow add @fast"},
		{"ip", `{"meta":{"key":"ibrname","dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"62723000"}}`, `meta ibrname "br0"`},
		{"ip", `{"socket":{"key":"cgroupv2","level":2,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"0500000000000000"}}`, "socket cgroupv2 level 2 5"},
		{"ip", `{"meta":{"key":"hour","dreg":16}},{"range":{"op":"==","sreg":16,"from":"80700000","to":"8a700000"}}`, `meta hour "08:00 UTC"-"08:00:10 UTC"`},
		{"ip", `{"last":{"used":true,"msecs":61000}}`, "last"},
		{"bridge", `{"reject":{"type":"icmpx","code":1}}`, "reject"},
		{"ip", `{"immediate":{"dreg":1,"verdict":{"code":"queue","queue":3}}}`, "queue to 3"},
		{"ip", `{"match":{"match":"addrtype","rev":1}},{"target":{"target":"DNAT","rev":2}}`, `xt match "addrtype" xt target "DNAT"`},
		// Not known, or not in nft's words: as it is, and nothing left out.
		{"ip", `{"opaque":{"expr":"quantum","raw":"0102"}},{"immediate":{"dreg":1,"verdict":{"code":"drop"}}}`, `[ opaque {"expr":"quantum","raw":"0102"} ] drop`},
		{"ip", `{"meta":{"key":"mark","dreg":16}},{"immediate":{"dreg":1,"verdict":{"code":"drop"}}}`, `drop [ meta {"key":"mark","dreg":16} ]`},
		{"ip", `{"cmp":{"op":"==","sreg":16,"data":"00000001"}}`, `[ cmp {"op":"==","sreg":16,"data":"00000001"} ]`},
		{"ip", `{"lookup":{"set":"gone","sreg":16}}`, `[ lookup {"set":"gone","sreg":16} ]`},
		{"ip", `{"tunnel":{"key":"id","mode":"rx","dreg":16}}`, `[ tunnel {"key":"id","mode":"rx","dreg":16} ]`},
		// Without a word of the family in it, a field has no name.
		{"inet", `{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"c0000201"}}`, "@nh,96,32 0xc0000201"},
		{"inet", `{"meta":{"key":"nfproto","dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"02"}},{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"c0000201"}}`, "ip saddr 192.0.2.1"},
		{"inet", `{"reject":{"type":"icmp","code":3}}`, `[ reject {"type":"icmp","code":3} ]`},
	} {
		table := &NftTable{Family: test.family, Name: "t"}
		if got := (NftPrinter{}).Rule(table, nftRule(t, test.exprs)); got != test.want {
			t.Errorf("%s %s:\n%s, want\n%s", test.family, test.exprs, got, test.want)
		}
	}
}

func TestNftObject(t *testing.T) {
	table := &NftTable{Family: "inet", Name: "mine"}
	r := nftRule(t, `{"counter":{"packets":5,"bytes":100}},{"immediate":{"dreg":1,"verdict":{"code":"drop"}}}`)
	r.Comment = "hers"
	n := Namespace{Nft: &Ruleset{}, Links: []Link{{Index: 1, Name: "lo"}}}
	if got, want := n.NftPrinter().Object(table, "input", r), `nft inet mine input handle 7: counter drop comment "hers"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestNftJSON says that a list that holds no expressions is refused, not read in part. (One of a later version becomes an
// NftOpaque: TestLaterFields.)
func TestNftJSON(t *testing.T) {
	var r Ruleset
	for _, exprs := range []string{`[{}]`, `[{"cmp":{"op":5}}]`, `[{"cmp":{},"meta":{}}]`, `[{"cmp":{"data":"xy"}}]`} {
		text := `{"tables":[{"chains":[{"rules":[{"exprs":` + exprs + `}]}]}]}`
		if err := json.Unmarshal([]byte(text), &r); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	in := Ruleset{Generation: 5, Tables: []NftTable{{Family: "ip", Name: "t", Chains: []NftChain{{Name: "c", Rules: []NftRule{
		*nftRule(t, `{"hash":{"type":"symhash","mod":2,"seed":0,"dreg":16}},{"notrack":{}},{"log":{"group":0}},{"dynset":{"op":"add","set":"s","key":16,"exprs":[{"counter":{"packets":0,"bytes":1}}]}}`)}}}}}}
	text, err := json.Marshal(&in)
	if err != nil {
		t.Fatal(err)
	}
	var out Ruleset
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
}

// TestCoveredFalse has texts that do not say what the rule does. The pairs that do, and that iptables made, are
// nftwire.TestCovered's.
func TestCoveredFalse(t *testing.T) {
	const (
		saddr = `{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},`
		proto = `{"meta":{"key":"l4proto","dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"06"}},`
		dport = `{"payload":{"base":"transport","offset":2,"len":2,"dreg":16}},`
		drop  = `{"immediate":{"dreg":1,"verdict":{"code":"drop"}}}`
	)
	for _, test := range []struct{ text, exprs string }{
		{"-j DROP", saddr + `{"cmp":{"op":"==","sreg":16,"data":"c0000201"}},` + drop},
		// 1.8.9 saves `ip saddr 192.0.2.1-192.0.2.9 drop` so.
		{"-s 192.0.2.9/32 -j DROP", saddr + `{"cmp":{"op":">=","sreg":16,"data":"c0000201"}},{"cmp":{"op":"<=","sreg":16,"data":"c0000209"}},` + drop},
		{"-s 192.0.2.2/32 -j DROP", saddr + `{"cmp":{"op":"==","sreg":16,"data":"c0000201"}},` + drop},
		{"! -s 192.0.2.1/32 -j DROP", saddr + `{"cmp":{"op":"==","sreg":16,"data":"c0000201"}},` + drop},
		{"-d 192.0.2.1/32 -j DROP", saddr + `{"cmp":{"op":"==","sreg":16,"data":"c0000201"}},` + drop},
		{"-s 192.0.2.1/32 -j ACCEPT", saddr + `{"cmp":{"op":"==","sreg":16,"data":"c0000201"}},` + drop},
		{"-s 192.0.2.1/32 -i eth0 -j DROP", saddr + `{"cmp":{"op":"==","sreg":16,"data":"c0000201"}},` + drop},
		{"-s 192.0.2.0/24 -j DROP", saddr + `{"bitwise":{"op":"mask-xor","sreg":16,"dreg":16,"len":4,"mask":"ffff0000","xor":"00000000"}},{"cmp":{"op":"==","sreg":16,"data":"c0000200"}},` + drop},
		{"-s 192.0.2.0/24 -j DROP", saddr + `{"bitwise":{"op":"mask-xor","sreg":16,"dreg":16,"len":4,"mask":"ffffff00","xor":"00000001"}},{"cmp":{"op":"==","sreg":16,"data":"c0000200"}},` + drop},
		{"-p tcp -m tcp --dport 80 -j DROP", proto + dport + `{"cmp":{"op":"==","sreg":16,"data":"0051"}},` + drop},
		{"-p tcp -m tcp --dport 80:90 -j DROP", proto + dport + `{"cmp":{"op":"==","sreg":16,"data":"0050"}},` + drop},
		{"-p tcp -m tcp --dport 80 -j DROP", proto + drop},
		{"-p udp -j DROP", proto + drop},
		{"-j DROP", `{"opaque":{"expr":"quantum"}},` + drop},
		{"-j web", `{"immediate":{"dreg":1,"verdict":{"code":"goto","chain":"web"}}}`},
		{"-j DROP", `{"match":{"match":"addrtype","rev":1}},` + drop},
		{"-m addrtype --dst-type LOCAL -j DROP", drop},
		{`-m addrtype [unsupported revision] -j DROP`, `{"match":{"match":"addrtype","rev":9}},` + drop},
		{`-m "addrtype -j DROP`, drop},
		{"", drop},
		{"-j DROP", ""},
	} {
		if Covered(test.text, nftRule(t, strings.TrimSuffix(test.exprs, ","))) {
			t.Errorf("%q covers %s", test.text, test.exprs)
		}
	}
}

// FuzzNftText prints whatever document there is.
func FuzzNftText(f *testing.F) {
	f.Add([]byte(`{"tables":[{"family":"inet","chains":[{"rules":[{"exprs":[{"meta":{"key":"l4proto","dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"06"}},{"payload":{"base":"transport","offset":2,"len":2,"dreg":16}},{"bitwise":{"op":"mask-xor","sreg":16,"dreg":16,"len":2,"mask":"ff00","xor":"0001"}},{"range":{"op":"!=","sreg":16,"from":"0001","to":"0009"}}]}]}]}]}`))
	f.Add([]byte(`{"tables":[{"family":"ip","sets":[{"name":"a","anonymous":true,"interval":true,"map":true,"key_type":7,"key_len":4,"data_type":459,"data_len":16,"elements":[{"key":"0a000000","data":"0a0000010050000000000000"},{"key":"0b000000","interval_end":true},{"catch_all":true,"verdict":{"code":"jump","chain":"b"}}]}],"chains":[{"name":"b","bound":true,"rules":[{"exprs":[{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"lookup":{"set":"a","sreg":16,"dreg":16}},{"nat":{"type":"dnat","family":"ip","addr_min":16,"port_min":20,"flags":["netmap"]}},{"immediate":{"dreg":1,"verdict":{"code":"jump","chain":"b"}}}]}]}]}]}`))
	f.Add([]byte(`{"tables":[{"family":"ip","chains":[{"rules":[{"exprs":[{"payload":{"base":"network","offset":0,"len":2,"dreg":16}},{"bitwise":{"op":"mask-xor","sreg":16,"dreg":16,"len":2,"mask":"ff03","xor":"00a0"}},{"payload":{"base":"network","offset":0,"len":2,"sreg":16}},{"ct":{"key":"label","dreg":32}},{"cmp":{"op":"==","sreg":32,"data":"01"}},{"exthdr":{"op":"tcp","type":2,"offset":2,"len":2,"dreg":16}},{"byteorder":{"op":"hton","sreg":16,"dreg":16,"len":4,"size":4}}]}]}]}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		var r Ruleset
		if json.Unmarshal(document, &r) != nil {
			return
		}
		p := NftPrinter{Counters: true}
		for i := range r.Tables {
			for j := range r.Tables[i].Sets {
				p.Elements(&r.Tables[i], &r.Tables[i].Sets[j])
			}
			for _, c := range r.Tables[i].Chains {
				for k := range c.Rules {
					p.Rule(&r.Tables[i], &c.Rules[k])
					Covered("-s 10.0.0.0/8 -p tcp -m tcp --tcp-flags SYN,ACK SYN -m mark --mark 0x1/0xff -j "+c.Name, &c.Rules[k])
				}
			}
		}
	})
}
