package netstate

import (
	"fmt"
	"strings"
)

// source returns the register into which an expression loads something, NoReg if it does not, and what it loads,
// nil if nft has no words for it.
func (p *nftRuleText) source(e NftExpr) (NftReg, *nftValue) {
	switch e := e.(type) {
	case *NftMeta:
		if e.Dreg == NoReg {
			return NoReg, nil
		}
		key := nftMetaKeys[e.Key]
		v := &nftValue{text: key.text, kind: key.kind, size: key.size}
		if v.text == "" {
			v.text = "meta " + e.Key
		}
		switch e.Key {
		case "nfproto", "protocol":
			v.proto = "network"
		case "l4proto":
			v.proto = "transport"
		case "iiftype", "oiftype":
			v.proto = "link"
		}
		return e.Dreg, v
	case *NftCt:
		if e.Dreg == NoReg {
			return NoReg, nil
		}
		key := nftCtKeys[e.Key]
		v := &nftValue{text: "ct " + e.Key, kind: key.kind, size: key.size}
		if e.Dir != "" {
			v.text = "ct " + e.Dir + " " + e.Key
		}
		if e.Key == "saddr" || e.Key == "daddr" {
			v.kind, v.size = nftIPv4, 4
			if p.network == "ip6" {
				v.kind, v.size = nftIPv6, 16
			}
			if p.network != "" {
				v.text = "ct " + e.Dir + " " + p.network + " " + e.Key
			}
		}
		return e.Dreg, v
	case *NftFib:
		v := &nftValue{text: "fib " + strings.Join(e.Flags, " . ") + " " + e.Result, kind: nftIfindex, size: 4}
		switch {
		case e.Present:
			v.kind = nftHostBoolean
		case e.Result == "oifname":
			v.kind, v.size = nftIfname, 16
		case e.Result == "type":
			v.kind = nftAddrtype
		}
		return e.Dreg, v
	case *NftRt:
		v := map[string]nftValue{"classid": {text: "rt classid", kind: nftHostInteger, size: 4},
			"nexthop4": {text: "rt ip nexthop", kind: nftIPv4, size: 4},
			"nexthop6": {text: "rt ip6 nexthop", kind: nftIPv6, size: 16}, "tcpmss": {text: "rt mtu", kind: nftHostInteger,
				size: 2}, "ipsec": {text: "rt ipsec", kind: nftBoolean, size: 1}}[e.Key]
		return e.Dreg, &v
	case *NftSocket:
		v := &nftValue{text: "socket " + e.Key, kind: nftInteger, size: 1}
		switch e.Key {
		case "mark":
			v.kind, v.size = nftMark, 4
		case "cgroupv2":
			v.text, v.kind, v.size = fmt.Sprintf("socket cgroupv2 level %d", e.Level), nftHostInteger, 8
		}
		return e.Dreg, v
	case *NftNumgen:
		return e.Dreg, &nftValue{text: "numgen " + e.Type + p.modulo(e.Mod, nil, e.Offset), kind: nftHostInteger, size: 4}
	case *NftHash:
		text := e.Type
		if e.Sreg != NoReg {
			left := p.lefts(e.Sreg, e.Len)
			if left == nil {
				return e.Dreg, nil
			}
			text += " " + concatenated(left)
		}
		return e.Dreg, &nftValue{text: text + p.modulo(e.Mod, e.Seed, e.Offset), kind: nftHostInteger, size: 4}
	case *NftOsf:
		text := "osf " + []string{"", "ttl loose ", "ttl skip "}[min(e.TTL, 2)] + "name"
		if e.Version {
			text = strings.TrimSuffix(text, "name") + "version"
		}
		return e.Dreg, &nftValue{text: text, kind: nftString, size: 16}
	case *NftTunnel:
		if e.Mode != "" {
			return e.Dreg, nil
		}
		v := &nftValue{text: "tunnel " + e.Key, kind: nftHostInteger, size: 4}
		if e.Key == "path" {
			v.kind, v.size = nftBoolean, 1
		}
		return e.Dreg, v
	case *NftXfrm:
		text := "ipsec " + e.Dir
		if e.Num != 0 {
			text += fmt.Sprintf(" spnum %d", e.Num)
		}
		v := map[string]nftValue{"daddr4": {text: " ip daddr", kind: nftIPv4, size: 4}, "saddr4": {text: " ip saddr",
			kind: nftIPv4, size: 4},
			"daddr6": {text: " ip6 daddr", kind: nftIPv6, size: 16}, "saddr6": {text: " ip6 saddr", kind: nftIPv6, size: 16},
			"reqid": {text: " reqid", kind: nftHostInteger, size: 4}, "spi": {text: " spi", kind: nftInteger, size: 4}}[e.Key]
		v.text = text + v.text
		return e.Dreg, &v
	case *NftExthdr:
		if e.Dreg != NoReg {
			return e.Dreg, p.exthdr(e)
		}
	}
	return NoReg, nil
}

func (p *nftRuleText) modulo(mod uint32, seed *uint32, offset uint32) string {
	text := fmt.Sprintf(" mod %d", mod)
	if seed != nil {
		text += fmt.Sprintf(" seed 0x%x", *seed)
	}
	if offset != 0 {
		text += fmt.Sprintf(" offset %d", offset)
	}
	return text
}

// nftMetaKeys are the type of each key and, where it is not "meta KEY", what nft calls it.
var nftMetaKeys = map[string]struct {
	kind *nftType
	size uint32
	text string
}{
	"len": {nftHostInteger, 4, "meta length"}, "protocol": {nftEthertype, 2, ""}, "nfproto": {nftNfproto, 1, ""},
	"l4proto":  {nftProtocol, 1, ""},
	"priority": {nftClassid, 4, ""}, "mark": {nftMark, 4, ""}, "iif": {nftIfindex, 4, "iif"}, "oif": {nftIfindex, 4, "oif"},
	"iifname": {nftIfname, 16, "iifname"}, "oifname": {nftIfname, 16, "oifname"}, "iiftype": {nftArphrd, 2, ""},
	"oiftype": {nftArphrd, 2, ""},
	"skuid":   {nftHostInteger, 4, ""}, "skgid": {nftHostInteger, 4, ""}, "nftrace": {nftInteger, 1, ""},
	"rtclassid": {nftHostInteger, 4, ""},
	"secmark":   {nftHostInteger, 4, ""}, "ibrname": {nftIfname, 16, ""}, "obrname": {nftIfname, 16, ""}, "pkttype": {nftPkttype, 1,
		""},
	"cpu": {nftHostInteger, 4, ""}, "iifgroup": {nftDevgroup, 4, "iifgroup"}, "oifgroup": {nftDevgroup, 4, "oifgroup"},
	"cgroup":  {nftHostInteger, 4, ""},
	"prandom": {nftInteger, 4, "meta random"}, "secpath": {nftBoolean, 1, "meta ipsec"}, "iifkind": {nftIfname, 16, ""},
	"oifkind": {nftIfname, 16, ""},
	"ibrpvid": {nftHostInteger, 2, ""}, "ibrvproto": {nftEthertype, 2, ""}, "time": {nftDate, 8, ""}, "day": {nftDay, 1, ""},
	"hour": {nftHour, 4, ""},
	"sdif": {nftIfindex, 4, ""}, "sdifname": {nftIfname, 16, ""}, "broute": {nftInteger, 1, ""},
}

// nftCtKeys are the type of each key.
var nftCtKeys = map[string]struct {
	kind *nftType
	size uint32
}{
	"state": {nftCtState, 4}, "direction": {nftCtDir, 1}, "status": {nftCtStatus, 4}, "mark": {nftMark, 4},
	"secmark":    {nftHostInteger, 4},
	"expiration": {nftTime, 4}, "helper": {nftString, 16}, "l3proto": {nftNfproto, 1}, "protocol": {nftProtocol, 1},
	"proto-src": {nftPort, 2},
	"proto-dst": {nftPort, 2}, "label": {nftCtLabel, 16}, "packets": {nftHostInteger, 8}, "bytes": {nftHostInteger, 8},
	"avgpkt": {nftHostInteger, 8},
	"zone":   {nftHostInteger, 2}, "event": {nftCtEvent, 4}, "ip saddr": {nftIPv4, 4}, "ip daddr": {nftIPv4, 4},
	"ip6 saddr": {nftIPv6, 16},
	"ip6 daddr": {nftIPv6, 16}, "id": {nftInteger, 4},
}

// exthdr names a part of an extension header or option, or returns nil.
func (p *nftRuleText) exthdr(e *NftExthdr) *nftValue {
	v := &nftValue{kind: nftInteger, network: true, size: e.Len}
	switch e.Op {
	case "ipv6":
		v.implies = "network"
		name, ok := map[uint8]string{0: "hbh", 43: "rt", 44: "frag", 60: "dst", 135: "mh"}[e.Type]
		if !ok {
			return nil
		}
		if e.Present {
			v.text, v.kind, v.size = "exthdr "+name, nftBoolean, 1
			return v
		}
		if e.Offset == 0 && e.Len == 1 {
			v.text, v.kind = name+" nexthdr", nftProtocol
			return v
		}
		switch {
		case name == "frag" && e.Offset == 4 && e.Len == 4:
			v.text = "frag id"
			return v
		case name == "rt" && e.Offset == 2 && e.Len == 1:
			v.text = "rt type"
			return v
		case name == "rt" && e.Offset == 3 && e.Len == 1:
			v.text = "rt seg-left"
			return v
		}
	case "tcp":
		option, ok := map[uint8]string{0: "eol", 1: "nop", 2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp",
			30: "mptcp", 34: "fastopen", 19: "md5sig"}[e.Type]
		switch {
		case e.Strip && ok:
			v.text = "tcp option " + option
			return v
		case e.Present && ok:
			v.text, v.kind, v.size = "tcp option "+option, nftBoolean, 1
			return v
		case e.Present:
			v.text, v.kind, v.size = fmt.Sprintf("tcp option %d", e.Type), nftBoolean, 1
			return v
		case e.Offset == 0 && e.Len == 1 && ok:
			v.text = "tcp option " + option + " kind"
			return v
		case e.Offset == 1 && e.Len == 1 && ok:
			v.text = "tcp option " + option + " length"
			return v
		case option == "maxseg" && e.Offset == 2 && e.Len == 2:
			v.text = "tcp option maxseg size"
			return v
		case option == "window" && e.Offset == 2 && e.Len == 1:
			v.text = "tcp option window count"
			return v
		}
		v.text, v.kind = fmt.Sprintf("tcp option @%d,%d,%d", e.Type, e.Offset*8, e.Len*8), nftHexInteger
		return v
	case "ipv4":
		name, ok := map[uint8]string{131: "lsrr", 7: "rr", 137: "ssrr", 148: "ra"}[e.Type]
		if ok && e.Present {
			v.text, v.kind, v.size = "ip option "+name, nftBoolean, 1
			return v
		}
	}
	return nil
}
