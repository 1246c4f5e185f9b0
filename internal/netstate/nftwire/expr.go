package nftwire

import (
	"bytes"
	"encoding/binary"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Words for the kernel's numbers, each in the order of its enum in linux/netfilter/nf_tables.h; "?" has no meaning.
var (
	cmpOps        = []string{"==", "!=", "<", "<=", ">", ">="}
	bitwiseOps    = []string{"mask-xor", "<<", ">>", "and", "or", "xor"}
	byteorderOps  = []string{"ntoh", "hton"}
	payloadBases  = []string{"link", "network", "transport", "inner", "tunnel"}
	checksums     = []string{"", "inet", "sctp"}
	dynsetOps     = []string{"add", "update", "delete"}
	exthdrOps     = []string{"ipv6", "tcp", "ipv4", "sctp", "dccp"}
	fibResults    = []string{"?", "oif", "oifname", "type"}
	fibFlags      = []string{"saddr", "daddr", "mark", "iif", "oif"}
	rtKeys        = []string{"classid", "nexthop4", "nexthop6", "tcpmss", "ipsec"}
	socketKeys    = []string{"transparent", "mark", "wildcard", "cgroupv2"}
	numgenTypes   = []string{"inc", "random"}
	hashTypes     = []string{"jhash", "symhash"}
	limitTypes    = []string{"packets", "bytes"}
	rejectTypes   = []string{"icmp", "tcp reset", "icmpx"}
	natTypes      = []string{"snat", "dnat"}
	tunnelKeys    = []string{"path", "id"}
	tunnelModes   = []string{"", "rx", "tx"}
	xfrmKeys      = []string{"?", "daddr4", "daddr6", "saddr4", "saddr6", "reqid", "spi"}
	xfrmDirs      = []string{"in", "out"}
	innerTypes    = []string{"other", "vxlan", "geneve"}
	ctDirs        = []string{"original", "reply"}
	objectTypes   = []string{"?", "counter", "quota", "ct helper", "limit", "connlimit", "tunnel", "ct timeout", "secmark", "ct expectation", "synproxy"}
	families      = []string{"", "inet", "ip", "arp", "?", "netdev", "?", "bridge", "?", "?", "ip6"}
	natRangeFlags = []string{1 << 1: "specified", 1 << 2: "random", 1 << 3: "persistent", 1 << 4: "fully-random", 1 << 6: "netmap"}

	metaKeys = []string{"len", "protocol", "priority", "mark", "iif", "oif", "iifname", "oifname", "iiftype", "oiftype",
		"skuid", "skgid", "nftrace", "rtclassid", "secmark", "nfproto", "l4proto", "ibrname", "obrname", "pkttype", "cpu",
		"iifgroup", "oifgroup", "cgroup", "prandom", "secpath", "iifkind", "oifkind", "ibrpvid", "ibrvproto", "time", "day",
		"hour", "sdif", "sdifname", "broute"}
	ctKeys = []string{"state", "direction", "status", "mark", "secmark", "expiration", "helper", "l3proto", "saddr", "daddr",
		"protocol", "proto-src", "proto-dst", "label", "packets", "bytes", "avgpkt", "zone", "event", "ip saddr", "ip daddr",
		"ip6 saddr", "ip6 daddr", "id"}
)

// maxNesting is how deep expressions may stand in expressions; the kernel has two levels (dynset, inner).
const maxNesting = 4

// expressions reads a list of expressions, and makes a bad if the list itself is malformed.
func (d *Decoder) expressions(a *attrs, n, depth int) netstate.NftExprs {
	var exprs netstate.NftExprs
	if !each(a.bytes(n), func(_ uint16, data []byte) { exprs = append(exprs, d.expression(data, depth)) }) {
		a.bad = true
	}
	return exprs
}

// expression reads one expression: its name and its attributes (nft_expr). It is Opaque if any of them is not
// known or not of the shape that it should have.
func (d *Decoder) expression(b []byte, depth int) netstate.NftExpr {
	outer := parse(b)
	name, body := outer.text(1), outer.bytes(2)
	if outer.whole() && depth < maxNesting {
		inner := parse(body)
		if expr := d.known(name, &inner, depth); expr != nil && inner.whole() {
			return expr
		}
		return &netstate.NftOpaque{Expr: name, Raw: body}
	}
	return &netstate.NftOpaque{Expr: name, Raw: b}
}

// known reads the attributes of an expression, or returns nil if it has no type of that name. The numbers are
// those of enum nft_NAME_attributes in linux/netfilter/nf_tables.h.
func (d *Decoder) known(name string, a *attrs, depth int) netstate.NftExpr {
	switch name {
	case "payload":
		a.must(2, 3, 4)
		flags := a.u32(8)
		e := &netstate.NftPayload{Dreg: a.reg(1), Base: a.word(2, payloadBases), Offset: a.u32(3), Len: a.u32(4),
			Sreg: a.reg(5), Csum: a.word(6, checksums), CsumOffset: a.u32(7), CsumPseudo: bit(&flags, 1)}
		a.none(flags)
		a.inside(max(e.Dreg, e.Sreg), e.Len)
		a.oneOf(e.Dreg, e.Sreg)
		return e
	case "meta":
		a.must(2)
		e := &netstate.NftMeta{Dreg: a.reg(1), Key: a.word(2, metaKeys), Sreg: a.reg(3)}
		a.oneOf(e.Dreg, e.Sreg)
		return e
	case "ct":
		a.must(2)
		e := &netstate.NftCt{Dreg: a.reg(1), Key: a.word(2, ctKeys), Sreg: a.reg(4)}
		if a.has&(1<<3) != 0 {
			e.Dir = a.name(uint32(a.u8(3)), ctDirs)
		}
		a.oneOf(e.Dreg, e.Sreg)
		return e
	case "cmp":
		a.must(1, 2, 3)
		e := &netstate.NftCmp{Sreg: a.reg(1), Op: a.word(2, cmpOps), Data: a.value(3)}
		a.inside(e.Sreg, uint32(len(e.Data)))
		return e
	case "range":
		a.must(1, 2, 3, 4)
		e := &netstate.NftRange{Sreg: a.reg(1), Op: a.word(2, cmpOps[:2]), From: a.value(3), To: a.value(4)}
		a.inside(e.Sreg, uint32(len(e.From)))
		a.same(len(e.From), len(e.To))
		return e
	case "bitwise":
		return d.bitwise(a)
	case "byteorder":
		a.must(1, 2, 3, 4, 5)
		e := &netstate.NftByteorder{Sreg: a.reg(1), Dreg: a.reg(2), Op: a.word(3, byteorderOps), Len: a.u32(4), Size: a.u32(5)}
		if e.Size != 2 && e.Size != 4 && e.Size != 8 {
			a.bad = true
		}
		a.inside(e.Sreg, e.Len)
		a.inside(e.Dreg, e.Len)
		return e
	case "lookup":
		a.must(1, 2)
		a.skip(4)
		flags := a.u32(5)
		e := &netstate.NftLookup{Set: a.text(1), Sreg: a.reg(2), Dreg: a.dest(3), Invert: bit(&flags, 1)}
		a.none(flags)
		return e
	case "immediate":
		a.must(1, 2)
		e := &netstate.NftImmediate{Dreg: a.dest(1)}
		e.Data, e.Verdict = a.data(2)
		if (e.Dreg == netstate.VerdictReg) != (e.Verdict != nil) {
			a.bad = true
		}
		a.inside(e.Dreg, uint32(len(e.Data)))
		return e
	case "fib":
		a.must(1, 2, 3)
		flags := a.u32(3)
		e := &netstate.NftFib{Dreg: a.reg(1), Result: a.word(2, fibResults), Present: bit(&flags, 1<<5)}
		for i, word := range fibFlags {
			if bit(&flags, 1<<i) {
				e.Flags = append(e.Flags, word)
			}
		}
		a.none(flags)
		return e
	case "rt":
		a.must(1, 2)
		return &netstate.NftRt{Dreg: a.reg(1), Key: a.word(2, rtKeys)}
	case "socket":
		a.must(1, 2)
		return &netstate.NftSocket{Key: a.word(1, socketKeys), Dreg: a.reg(2), Level: a.u32(3)}
	case "numgen":
		a.must(1, 2, 3)
		return &netstate.NftNumgen{Dreg: a.reg(1), Mod: a.u32(2), Type: a.word(3, numgenTypes), Offset: a.u32(4)}
	case "hash":
		a.must(2, 4)
		e := &netstate.NftHash{Sreg: a.reg(1), Dreg: a.reg(2), Len: a.u32(3), Mod: a.u32(4), Offset: a.u32(6), Type: a.word(7, hashTypes)}
		if a.has&(1<<5) != 0 {
			seed := a.u32(5)
			e.Seed = &seed
		}
		a.inside(e.Sreg, e.Len)
		return e
	case "osf":
		flags := a.u32(3)
		a.must(1)
		e := &netstate.NftOsf{Dreg: a.reg(1), TTL: a.u8(2), Version: bit(&flags, 1)}
		a.none(flags)
		return e
	case "tunnel":
		a.must(1, 2)
		return &netstate.NftTunnel{Key: a.word(1, tunnelKeys), Dreg: a.reg(2), Mode: a.word(3, tunnelModes)}
	case "xfrm":
		a.must(1, 2, 3)
		return &netstate.NftXfrm{Dreg: a.reg(1), Key: a.word(2, xfrmKeys), Dir: a.name(uint32(a.u8(3)), xfrmDirs), Num: a.u32(4)}
	case "exthdr":
		a.must(2, 3, 4)
		flags := a.u32(5)
		e := &netstate.NftExthdr{Dreg: a.reg(1), Type: a.u8(2), Offset: a.u32(3), Len: a.u32(4), Present: bit(&flags, 1),
			Op: a.word(6, exthdrOps), Sreg: a.reg(7)}
		a.none(flags)
		e.Strip = e.Dreg == netstate.NoReg && e.Sreg == netstate.NoReg
		a.inside(max(e.Dreg, e.Sreg), e.Len)
		return e
	case "inner":
		a.must(1, 2, 3, 5)
		a.same(int(a.u32(1)), 0)
		e := &netstate.NftInner{Type: a.word(2, innerTypes), Flags: a.u32(3), HdrSize: a.u32(4)}
		e.Exprs = netstate.NftExprs{d.expression(a.bytes(5), depth+1)}
		return e
	case "dynset":
		a.must(1, 3, 4)
		a.skip(2, 8)
		flags := a.u32(9)
		e := &netstate.NftDynset{Set: a.text(1), Op: a.word(3, dynsetOps), Key: a.reg(4), Data: a.reg(5), Timeout: a.u64(6), Invert: bit(&flags, 1)}
		bit(&flags, 2) // that there are expressions
		a.none(flags)
		if a.has&(1<<7) != 0 {
			e.Exprs = netstate.NftExprs{d.expression(a.bytes(7), depth+1)}
		}
		e.Exprs = append(e.Exprs, d.expressions(a, 10, depth+1)...)
		return e
	case "match":
		a.must(1)
		return &netstate.NftMatch{Match: a.text(1), Rev: a.u32(2), Info: a.info(3)}
	case "target":
		a.must(1)
		return &netstate.NftTarget{Target: a.text(1), Rev: a.u32(2), Info: a.info(3)}
	}
	if e := statement(name, a); e != nil {
		return e
	}
	return stateful(name, a)
}

// bitwise reads its operation's own arguments. An early kernel has no operation: it is mask-xor.
func (d *Decoder) bitwise(a *attrs) netstate.NftExpr {
	a.must(1, 2, 3)
	e := &netstate.NftBitwise{Sreg: a.reg(1), Dreg: a.reg(2), Len: a.u32(3), Op: a.word(6, bitwiseOps)}
	switch e.Op {
	case "mask-xor":
		a.must(4, 5)
		e.Mask, e.Xor = a.value(4), a.value(5)
		a.same(len(e.Mask), int(e.Len))
		a.same(len(e.Xor), int(e.Len))
	case "<<", ">>":
		a.must(7)
		shift := a.value(7)
		if len(shift) != 4 {
			a.bad = true
			return e
		}
		e.Shift = binary.NativeEndian.Uint32(shift)
	default:
		// One operand is a register; newer kernels also take it as data.
		e.Sreg2, e.Mask = a.reg(8), a.value(7)
		if (e.Sreg2 == netstate.NoReg) == (e.Mask == nil) {
			a.bad = true
		}
	}
	a.inside(e.Sreg, e.Len)
	a.inside(e.Sreg2, e.Len)
	a.inside(e.Dreg, e.Len)
	return e
}

// statement reads expressions that do something with the packet.
func statement(name string, a *attrs) netstate.NftExpr {
	switch name {
	case "log":
		e := &netstate.NftLog{Prefix: a.text(2), Snaplen: a.u32(3), Threshold: a.u16(4), Flags: a.u32(6)}
		if a.has&(1<<1) != 0 {
			group := a.u16(1)
			e.Group = &group
		}
		if a.has&(1<<5) != 0 {
			level := a.u32(5)
			e.Level = &level
		}
		return e
	case "reject":
		a.must(1)
		return &netstate.NftReject{Type: a.word(1, rejectTypes), Code: a.u8(2)}
	case "nat":
		a.must(1, 2)
		return &netstate.NftNat{Type: a.word(1, natTypes), Family: a.word(2, families), AddrMin: a.reg(3), AddrMax: a.reg(4),
			PortMin: a.reg(5), PortMax: a.reg(6), Flags: a.natFlags(7)}
	case "masq":
		return &netstate.NftMasq{Flags: a.natFlags(1), PortMin: a.reg(2), PortMax: a.reg(3)}
	case "redir":
		return &netstate.NftRedir{PortMin: a.reg(1), PortMax: a.reg(2), Flags: a.natFlags(3)}
	case "tproxy":
		return &netstate.NftTproxy{Family: a.word(1, families), Addr: a.reg(2), Port: a.reg(3)}
	case "notrack":
		return &netstate.NftNotrack{}
	case "objref":
		e := &netstate.NftObjref{Object: a.text(2), Sreg: a.reg(3), Set: a.text(4)}
		a.skip(5)
		if a.has&(1<<1) != 0 {
			e.Type = a.word(1, objectTypes)
		}
		return e
	case "flow_offload":
		a.must(1)
		return &netstate.NftFlowOffload{Table: a.text(1)}
	case "dup":
		return &netstate.NftDup{Addr: a.reg(1), Dev: a.reg(2)}
	case "fwd":
		a.must(1)
		return &netstate.NftFwd{Dev: a.reg(1), Addr: a.reg(2), Family: a.word(3, families)}
	case "queue":
		flags := uint32(a.u16(3))
		e := &netstate.NftQueue{Num: a.u16(1), Total: a.u16(2), Sreg: a.reg(4), Bypass: bit(&flags, 1), Fanout: bit(&flags, 2)}
		a.none(flags)
		return e
	}
	return nil
}

// stateful reads what stands in rules, in elements and in objects alike; nil: it has no type of that name.
func stateful(name string, a *attrs) netstate.NftExpr {
	switch name {
	case "counter":
		a.skip(3)
		return &netstate.NftCounter{Bytes: a.u64(1), Packets: a.u64(2)}
	case "limit":
		a.must(1, 2)
		a.skip(6)
		flags := a.u32(5)
		e := &netstate.NftLimit{Rate: a.u64(1), Unit: a.u64(2), Burst: a.u32(3), Type: a.word(4, limitTypes), Over: bit(&flags, 1)}
		a.none(flags)
		return e
	case "quota":
		a.must(1)
		a.skip(3)
		flags := a.u32(2)
		e := &netstate.NftQuota{Bytes: a.u64(1), Used: a.u64(4), Over: bit(&flags, 1), Depleted: bit(&flags, 2)}
		a.none(flags)
		return e
	case "connlimit":
		a.must(1)
		flags := a.u32(2)
		e := &netstate.NftConnlimit{Count: a.u32(1), Over: bit(&flags, 1)}
		a.none(flags)
		return e
	case "last":
		a.skip(3)
		return &netstate.NftLast{Used: a.u32(1) != 0, Msecs: a.u64(2)}
	case "synproxy":
		return &netstate.NftSynproxy{MSS: a.u16(1), Wscale: a.u8(2), Flags: a.u32(3)}
	}
	return nil
}

// object reads the data of an object of that type.
func object(kind string, body []byte) netstate.NftExpr {
	a := parse(body)
	var e netstate.NftExpr
	switch kind {
	case "ct helper":
		e = &netstate.NftCtHelper{Helper: a.text(1), L3: a.name(uint32(a.u16(2)), families), L4: a.u8(3)}
	case "ct timeout":
		t := &netstate.NftCtTimeout{L3: a.name(uint32(a.u16(1)), families), L4: a.u8(2)}
		ok := each(a.bytes(3), func(state uint16, data []byte) {
			if len(data) != 4 {
				a.bad = true
				return
			}
			if t.Policy == nil {
				t.Policy = map[uint16]uint32{}
			}
			t.Policy[state] = binary.BigEndian.Uint32(data)
		})
		a.bad = a.bad || !ok
		e = t
	case "ct expectation":
		// The port is in network order by itself; size and timeout are in the machine's.
		x := &netstate.NftCtExpect{L3: a.name(uint32(a.u16(1)), families), L4: a.u8(2), Port: a.u16(3), Size: a.u8(5)}
		if b := a.sized(4, 4); b != nil {
			x.Timeout = binary.NativeEndian.Uint32(b)
		}
		e = x
	case "secmark":
		e = &netstate.NftSecmark{Context: a.text(1)}
	default:
		e = stateful(kind, &a)
	}
	if e == nil || !a.whole() {
		return &netstate.NftOpaque{Expr: kind, Raw: body}
	}
	return e
}

// natFlags returns NF_NAT_RANGE_* as words, without MAP_IPS: that is said by an address register.
func (a *attrs) natFlags(n int) []string {
	flags := a.u32(n) &^ 1
	var words []string
	for mask := uint32(1); mask < uint32(len(natRangeFlags)); mask <<= 1 {
		if natRangeFlags[mask] != "" && bit(&flags, mask) {
			words = append(words, natRangeFlags[mask])
		}
	}
	a.none(flags)
	return words
}

// info returns an xt extension's struct, without the kernel's padding behind it being told apart.
func (a *attrs) info(n int) netstate.Hex { return bytes.Clone(a.bytes(n)) }

func (a *attrs) oneOf(dreg, sreg netstate.NftReg) {
	if (dreg == netstate.NoReg) == (sreg == netstate.NoReg) {
		a.bad = true
	}
}

func (a *attrs) same(x, y int) {
	if x != y {
		a.bad = true
	}
}
