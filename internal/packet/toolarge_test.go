package packet

import (
	"encoding/binary"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// What a rule of nf_tables does to the segment size keeps TCP's packets within 1300 bytes only where it is small enough.
func TestClampsReplies(t *testing.T) {
	const reg = 16
	write := &netstate.NftExthdr{Op: "tcp", Type: 2, Offset: 2, Len: 2, Sreg: reg}
	for _, c := range []struct {
		name     string
		exprs    netstate.NftExprs
		ip4, ip6 bool
	}{
		{"rt mtu", netstate.NftExprs{&netstate.NftRt{Key: "tcpmss", Dreg: reg}, &netstate.NftByteorder{Sreg: reg, Dreg: reg, Op: "hton", Len: 2, Size: 2}, write}, true, true},
		{"1240", netstate.NftExprs{&netstate.NftImmediate{Dreg: reg, Data: netstate.Hex{0x04, 0xd8}}, write}, true, true},
		{"1260", netstate.NftExprs{&netstate.NftImmediate{Dreg: reg, Data: netstate.Hex{0x04, 0xec}}, write}, true, false},
		{"1460", netstate.NftExprs{&netstate.NftImmediate{Dreg: reg, Data: netstate.Hex{0x05, 0xb4}}, write}, false, false},
		{"by chance", netstate.NftExprs{&netstate.NftNumgen{Dreg: reg, Mod: 2, Type: "random"}, write}, false, false},
		{"iptables, of the way", netstate.NftExprs{&netstate.NftTarget{Target: "TCPMSS", Info: netstate.Hex{0xff, 0xff}}}, true, true},
		{"iptables, 1460", netstate.NftExprs{&netstate.NftTarget{Target: "TCPMSS", Info: netstate.Hex{0xb4, 0x05}}}, false, false},
	} {
		r := nftRule{table: &nftTable{order: binary.LittleEndian}, exprs: c.exprs, last: len(c.exprs) - 1}
		for family, want := range map[netstate.Family]bool{netstate.IPv4: c.ip4, netstate.IPv6: c.ip6} {
			v := r.run(&walker{}, &skb{family: family, out: &link{}}, &rule{})
			trace := &Trace{Target: netstate.Target{Direction: netstate.In, Family: family}, Request: []Step{{Did: v.did}}}
			if trace.ClampsReplies(1300) != want {
				t.Errorf("%s, family %v: %q", c.name, family, v.did)
			}
		}
	}
}
