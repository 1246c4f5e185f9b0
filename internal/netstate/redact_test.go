package netstate_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// TestRedactTexts has the texts of one host. Each line is one of several forms of the same thing.
func TestRedactTexts(t *testing.T) {
	s := &netstate.Snapshot{
		Engine: &netstate.EngineState{Name: "web3.acme.example", Context: "acme", Version: "1.2.3.4"},
		Host: netstate.Namespace{
			Links: []netstate.Link{{Index: 1, Name: "eth0", MAC: "52:54:00:aa:bb:cc"}, {Index: 2, Name: "docker0", Kind: "bridge", MAC: "02:42:ac:11:00:01"}},
			Addrs: []netstate.Addr{
				{Link: "eth0", Prefix: netip.MustParsePrefix("5.9.12.34/26")},
				{Link: "eth0", Prefix: netip.MustParsePrefix("2a01:4f8:1:2::7/64")},
				{Link: "eth0", Prefix: netip.MustParsePrefix("fe80::5054:ff:feaa:bbcc/64")},
				{Link: "docker0", Prefix: netip.MustParsePrefix("172.17.0.1/16")},
			},
		},
		Containers: []netstate.Container{{ID: "a", Name: "web"}},
		Files: map[string]string{
			"/etc/resolv.conf": "# by acme\nsearch acme.example corp\nnameserver 8.8.8.8\n",
			"/etc/sysctl.conf": "  # for 5.9.12.34\nnet.ipv4.ip_forward = 0\n",
		},
	}
	texts := []string{
		"-s 5.9.12.34/32 -j DROP", "-d 5.9.12.0/26 -j DROP", "--to-destination 5.9.12.34:8080", "-s 5.9.0.0/16 -j ACCEPT",
		"--src-range 8.8.8.8-8.8.8.20", "8.8.8.10", "10.0.0.0/8,tcp:80", "1.1.1.1,tcp:80", "tcp:1.1.1.1:53", "v1.1.1.1 of nginx:1.1.1.1",
		"-d 0.0.0.0/0", "--to-destination [2a01:4f8:1:2::7]:80", "-s 2A01:4F8:1::/48", "2a01:4f8:1:2::7%eth0",
		"192.168.0.1/255.255.0.0 1.1.1.1/255.255.255.0", "-m mac --mac-source 52:54:00:AA:BB:CC", "02:42:ac:11:00:02", "at 12:34:56 x::y std::1", "1.1.1.1.",
		"203.0.113.9", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2001:db8::1", "256.1.1.1 1.2.3", "1.1.1.1 and 1.1.1.1",
		"2002:c0a8::/32 2002:e000::/19 2002:101:101::1", "2000::/3",
	}
	s.Host.Ipsets = []netstate.Ipset{{Name: "s", Type: "hash:ip", Entries: texts}}
	got := s.Redact()
	want := []string{
		"-s 198.18.0.65/32 -j DROP", "-d 198.18.0.64/26 -j DROP", "--to-destination 198.18.0.65:8080", "-s 198.18.0.0/16 -j ACCEPT",
		"--src-range 198.19.0.1-198.19.0.3", "198.19.0.2", "10.0.0.0/8,tcp:80", "198.19.0.32,tcp:80", "tcp:198.19.0.32:53", "v1.1.1.1 of nginx:198.19.0.32",
		"-d 0.0.0.0/0", "--to-destination [2001:db8:1:1::1]:80", "-s 2001:db8:1::/48", "2001:db8:1:1::1%eth0",
		"192.168.0.1/255.255.0.0 198.19.0.32/255.255.255.0", "-m mac --mac-source 00:00:5E:00:53:00", "02:42:ac:11:00:02", "at 12:34:56 x::y std::1", "198.19.0.32.",
		"203.0.113.9", "::ffff:198.19.0.32", "64:ff9b::c613:20", "2001:db8::1", "256.1.1.1 1.2.3", "198.19.0.32 and 198.19.0.32",
		"2002:c0a8::/32 2002:e000::/19 2002:c613:20::1", "2000::/3",
	}
	for i, text := range got.Host.Ipsets[0].Entries {
		if text != want[i] {
			t.Errorf("%s\n\tbecame %s\n\twant   %s", texts[i], text, want[i])
		}
	}
	for _, pair := range [][2]any{
		{got.Engine.Name, "host"}, {got.Engine.Context, "context"}, {got.Engine.Version, "1.2.3.4"}, {got.Containers[0].Name, "web"},
		{got.Host.Addrs[0].Prefix.String(), "198.18.0.65/26"},
		{got.Host.Addrs[2].Prefix.String(), "fe80::200:5eff:fe00:5300/64"},
		{got.Host.Addrs[3].Prefix.String(), "172.17.0.1/16"},
		{got.Host.Links[0].MAC, "00:00:5e:00:53:00"}, {got.Host.Links[1].MAC, "02:42:ac:11:00:01"},
		{got.Files["/etc/sysctl.conf"], "#\nnet.ipv4.ip_forward = 0\n"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%v, want %v", pair[0], pair[1])
		}
	}
	if s.Host.Addrs[0].Prefix.String() != "5.9.12.34/26" || s.Host.Ipsets[0].Entries[0] != texts[0] || s.Files["/etc/sysctl.conf"][0] != ' ' {
		t.Error("the snapshot itself was changed")
	}
}

// TestRedactFiles leaves of files what is judged, in the same lines.
func TestRedactFiles(t *testing.T) {
	for name, text := range map[string][2]string{
		"/etc/nftables.conf": {
			"#!/usr/sbin/nft -f\nflush ruleset # because\ntable inet fw { # \"acme\n  chain c { ip saddr 5.9.12.34 drop comment \"no # 1\" # bob\n} }",
			"\nflush ruleset \ntable inet fw { \n  chain c { ip saddr 198.18.0.1 drop comment \"no # 1\" \n} }"},
		"/etc/systemd/network/10-up.network": {
			"# acme\n[Match]\nName=eth0\nHost = web3\n\n[Network]\n Domains=corp.acme.example\nAddress=5.9.12.34/26\nIPv4Forwarding = no\n" +
				"[DHCPv4]\nHostname=web3\nIPv6Forwarding=no\n[X-Acme]\nkey",
			"\n[Match]\nName=eth0\nHost=\n\n[Network]\n\n\nIPv4Forwarding = no\n[]\n\n\n[]\n"},
		"/etc/systemd/networkd.conf.d/a.conf": {"[Network]\nIPv6Forwarding=no\n[DHCPv4]\nDUIDRawData=00:52", "[Network]\nIPv6Forwarding=no\n[]\n"},
		"/etc/iptables/rules.v4":              {"# of acme\n*filter\n-A INPUT -m comment --comment \"x # y\" -j DROP", "#\n*filter\n-A INPUT -m comment --comment \"x # y\" -j DROP"},
		"/etc/resolv.conf":                    {"search acme.example corp\n; by acme", "search example.com example.com\n;"},
	} {
		redacted := (&netstate.Snapshot{Files: map[string]string{name: text[0]}}).Redact()
		if got := redacted.Files[name]; got != text[1] {
			t.Errorf("%s became\n%q, want\n%q", name, got, text[1])
		}
		if again := redacted.Redact().Files[name]; again != text[1] {
			t.Errorf("%s is changed once more: %q", name, again)
		}
	}
}

// wide says whether a prefix may be too wide to be replaced.
func wide(p netip.Prefix) bool { return p.Bits() < 12 || p.Addr().Is6() && p.Bits() < 24 }

// TestRedactKeepsRelations makes up prefixes and ranges, and compares what is in what before and after.
func TestRedactKeepsRelations(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		six := round%3 == 2
		s := &netstate.Snapshot{}
		var near [][]byte
		for range 4 + random.IntN(8) {
			b := make([]byte, 4)
			if six {
				b = make([]byte, 16)
			}
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			if six {
				b[0] = 0x20 | b[0]&0x1f
			}
			if len(near) > 0 && random.IntN(3) > 0 { // beside an earlier one
				old := near[random.IntN(len(near))]
				n := 1 + random.IntN(len(b)-1)
				copy(b[:n], old[:n])
			}
			near = append(near, b)
			addr, _ := netip.AddrFromSlice(b)
			bits := addr.BitLen()
			switch random.IntN(4) {
			case 0:
				bits = 1 + random.IntN(bits)
			case 1:
				bits -= random.IntN(12)
			}
			p := netip.PrefixFrom(addr, bits)
			if random.IntN(2) == 0 {
				p = p.Masked()
			}
			s.Host.Addrs = append(s.Host.Addrs, netstate.Addr{Link: "x", Prefix: p})
		}
		s.Host.Addrs = append(s.Host.Addrs, netstate.Addr{Link: "x", Prefix: netip.MustParsePrefix("192.168.1.7/24")},
			netstate.Addr{Link: "x", Prefix: netip.MustParsePrefix("198.18.0.1/24")}, netstate.Addr{Link: "x", Prefix: netip.MustParsePrefix("fd00::1/64")})
		roomy := !slices.ContainsFunc(s.Host.Addrs, func(a netstate.Addr) bool { return a.Prefix.Bits() < 12 })
		if round%5 == 0 && roomy { // as many a VPN has it
			for _, half := range []string{"0.0.0.0/1", "128.0.0.0/1"} {
				s.Host.Addrs = append(s.Host.Addrs, netstate.Addr{Link: "x", Prefix: netip.MustParsePrefix(half)})
			}
		}
		got := s.Redact()
		for i, a := range s.Host.Addrs {
			was, is := a.Prefix, got.Host.Addrs[i].Prefix
			if was.Bits() != is.Bits() {
				t.Fatalf("%s became %s", was, is)
			}
			for j, b := range s.Host.Addrs {
				other, otherIs := b.Prefix, got.Host.Addrs[j].Prefix
				if wide(was) && was.Bits() != 1 {
					continue // there may be no room on its side
				}
				if was.Masked().Contains(other.Addr()) != is.Masked().Contains(otherIs.Addr()) {
					t.Errorf("round %d: %s in %s is %v; %s in %s is not", round, other.Addr(), was.Masked(), was.Masked().Contains(other.Addr()), otherIs.Addr(), is.Masked())
				}
				if wide(was) || wide(other) {
					continue
				}
				if (was.Addr() == other.Addr()) != (is.Addr() == otherIs.Addr()) {
					t.Errorf("%s and %s became %s and %s", was, other, is, otherIs)
				}
				if was.Addr() == was.Masked().Addr() != (is.Addr() == is.Masked().Addr()) {
					t.Errorf("%s is the first of its network, %s is not", was, is)
				}
			}
		}
		if !reflect.DeepEqual(got, got.Redact()) {
			t.Error("what is redacted is changed once more")
		}
	}
}

// publicHost returns a captured host whose uplink is somebody's in the world.
func publicHost(t testing.TB, name string) *netstate.Snapshot {
	s, err := fixture.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(encode(t, s))
	for old, new := range map[string]string{"203.0.113.": "5.9.12.", "cb0071": "05090c", "2001:db8:": "2a01:4f8:", "20010db8": "2a0104f8"} {
		text = strings.ReplaceAll(text, old, new)
	}
	s, err = netstate.Decode(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRedactLeavesNoPublicAddress(t *testing.T) {
	for _, name := range fixture.Cases() {
		s := publicHost(t, name)
		before := string(encode(t, s))
		if !strings.Contains(before, "5.9.12.") {
			t.Fatalf("%s has no public address", name)
		}
		redacted := s.Redact()
		text := string(encode(t, redacted))
		for _, secret := range []string{"5.9.12.", "05090c", "2a01:4f8", "2a0104f8"} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s: %s is left: %s", name, secret, text[max(0, i-200):i+100])
			}
		}
		if !bytes.Equal([]byte(text), encode(t, s.Redact())) {
			t.Errorf("%s: it depends on more than the snapshot", name)
		}
		if err := redacted.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(redacted, redacted.Redact()) {
			t.Errorf("%s: what is redacted is changed once more", name)
		}
	}
}

func TestRedactNft(t *testing.T) {
	for _, test := range []struct{ family, exprs, want string }{
		{"ip", `{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"05090c22"}}`, "c6120001"},
		{"ip", `{"payload":{"base":"network","offset":16,"len":3,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"05090c"}}`, "c61200"},
		{"ip", `{"payload":{"base":"network","offset":12,"len":8,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"05090c22ac110002"}}`, "c6120001ac110002"},
		{"ip", `{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"bitwise":{"op":"mask-xor","sreg":16,"dreg":16,"len":4,"mask":"ffffff00","xor":"00000000"}},{"cmp":{"op":"!=","sreg":16,"data":"05090c00"}}`, "c6120000"},
		{"inet", `{"meta":{"key":"nfproto","dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"02"}},{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"05090c22"}}`, "c6120001"},
		{"ip", `{"immediate":{"dreg":16,"data":"05090c22"}},{"nat":{"type":"snat","family":"ip","addr_min":16}}`, "c6120001"},
		{"ip", `{"immediate":{"dreg":16,"data":"05090c22"}},{"cmp":{"op":"==","sreg":20,"data":"05090c22"}}`, "05090c22"},
		{"ip", `{"payload":{"base":"transport","offset":0,"len":4,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"05090c22"}}`, "05090c22"},
		{"ip", `{"payload":{"base":"network","offset":12,"len":4,"dreg":16}},{"range":{"op":"==","sreg":16,"from":"05090c22","to":"05090c24"}}`, "c6120001"},
		{"ip", `{"ct":{"key":"ip saddr","dir":"original","dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"05090c22"}}`, "c6120001"},
		{"bridge", `{"payload":{"base":"link","offset":6,"len":6,"dreg":16}},{"cmp":{"op":"==","sreg":16,"data":"001122334455"}}`, "00005e005300"},
		{"ip", `{"target":{"target":"SNAT","rev":2,"info":"0100000005090c2200000000000000000000000005090c220000000000000000000000000000000000000000"}}`, "01000000c61200010000"},
		{"ip", `{"match":{"match":"comment","rev":0,"info":"` + hex.EncodeToString([]byte("from 5.9.12.34\x00\x00\x00\x00\x00")) + `"}}`, hex.EncodeToString([]byte("from 198.18.0.1\x00"))},
		{"ip", `{"opaque":{"expr":"x","raw":"05090c22"}}`, `"raw":"00000000"`},
	} {
		var exprs netstate.NftExprs
		if err := json.Unmarshal([]byte("["+test.exprs+"]"), &exprs); err != nil {
			t.Fatal(err)
		}
		s := &netstate.Snapshot{}
		s.Host.Nft = &netstate.Ruleset{Tables: []netstate.NftTable{{Family: test.family, Name: "t", Chains: []netstate.NftChain{{Name: "c", Rules: []netstate.NftRule{{Exprs: exprs}}}}}}}
		text, err := json.Marshal(s.Redact().Host.Nft.Tables[0].Chains[0].Rules[0].Exprs)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), test.want) {
			t.Errorf("%s: %s\n\tbecame %s, want %s", test.family, test.exprs, text, test.want)
		}
	}
}

// TestRedactIntervals has ranges that are private, public and both, side by side.
func TestRedactIntervals(t *testing.T) {
	element := func(key string, end bool) netstate.NftElement {
		b, _ := hex.DecodeString(key)
		return netstate.NftElement{Key: b, IntervalEnd: end}
	}
	set := netstate.NftSet{Name: "s", KeyType: 7, KeyLen: 4, Interval: true, Elements: []netstate.NftElement{
		element("00000000", true), element("0a000000", false), element("0b000000", true), // 10.0.0.0/8
		element("05090c00", false), element("05090d00", false), element("05090e00", true), // 5.9.12.0/24, 5.9.13.0/24
		element("08080808", false), element("08080814", true), // 8.8.8.8-8.8.8.19
		element("01000000", false), element("04000000", true), // 1.0.0.0-3.255.255.255: too wide
		element("f0000000", false), // to the end
	}}
	s := &netstate.Snapshot{}
	s.Host.Nft = &netstate.Ruleset{Tables: []netstate.NftTable{{Family: "ip", Name: "t", Sets: []netstate.NftSet{set}}}}
	want := []string{"00000000 end", "01000000", "04000000 end", "0a000000", "0b000000 end", "c6120001", "c6120003 end",
		"c6120100", "c6120200 end", "c6120200", "c6120300 end", "f0000000"}
	var got []string
	for _, e := range s.Redact().Host.Nft.Tables[0].Sets[0].Elements {
		text := hex.EncodeToString(e.Key)
		if e.IntervalEnd {
			text += " end"
		}
		got = append(got, text)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the elements are\n\t%q, want\n\t%q", got, want)
	}
}
