package netstate

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// An nftType is how nft writes the bytes of a value.
type nftType struct {
	host  bool              // a number in the machine's order
	hex   int               // numbers without a word are written with at least so many hexadecimal digits; 0: decimal
	words map[uint64]string // numbers, or with bits single bits, that have a word
	bits  bool
	text  func(p *nftRuleText, b []byte) string // instead of a number; may be nil
}

// nftTypes are nft's types by the number that it stores with a set (KeyType, DataType).
var nftTypes = [...]*nftType{
	0: nftInteger, 2: nftNfproto, 3: nftInteger, 4: nftInteger, 5: nftString, 6: nftHexInteger, 7: nftIPv4, 8: nftIPv6,
	9:  nftEther,
	10: nftEthertype, 11: nftArpop, 12: nftProtocol, 13: nftPort, 14: nftIcmpType, 15: nftTCPFlags, 16: nftInteger,
	17: nftInteger,
	18: nftTime, 19: nftMark, 20: nftIfindex, 21: nftArphrd, 22: nftHostInteger, 23: nftClassid, 24: nftHostInteger,
	25: nftHostInteger,
	26: nftCtState, 27: nftCtDir, 28: nftCtStatus, 29: nftIcmp6Type, 30: nftCtLabel, 31: nftPkttype, 32: nftIcmpCode,
	33: nftIcmp6Code, 34: nftIcmpxCode,
	35: nftDevgroup, 36: nftDscp, 37: nftEcn, 38: nftAddrtype, 39: nftBoolean, 40: nftCtEvent, 41: nftIfname, 42: nftIgmpType,
	43: nftDate, 44: nftHour, 45: nftDay, 46: nftHostInteger,
}

var (
	nftInteger     = &nftType{}
	nftHexInteger  = &nftType{hex: 1}
	nftHostInteger = &nftType{host: true}
	nftString      = &nftType{text: nftName}
	nftIfname      = &nftType{text: nftName}
	nftIPv4        = &nftType{text: nftAddr}
	nftIPv6        = &nftType{text: nftAddr}
	nftEther       = &nftType{text: func(_ *nftRuleText, b []byte) string { return net.HardwareAddr(b).String() }}
	nftEthertype   = &nftType{hex: 4, words: map[uint64]string{0x800: "ip", 0x806: "arp", 0x86dd: "ip6", 0x8100: "8021q",
		0x88a8: "8021ad"}}
	nftArpop = &nftType{hex: 4, words: map[uint64]string{1: "request", 2: "reply", 3: "rrequest", 4: "rreply",
		8: "inrequest", 9: "inreply", 10: "nak"}}
	nftProtocol    = &nftType{words: ipProtocols}
	nftPort        = &nftType{}
	nftMark        = &nftType{host: true, hex: 8}
	nftIfindex     = &nftType{host: true, text: nftLink}
	nftNfproto     = &nftType{words: map[uint64]string{2: "ipv4", 10: "ipv6"}}
	nftClassid     = &nftType{host: true, text: nftTC}
	nftDevgroup    = &nftType{host: true, words: map[uint64]string{0: `"default"`}}
	nftBoolean     = &nftType{words: map[uint64]string{0: "missing", 1: "exists"}}
	nftHostBoolean = &nftType{host: true, words: nftBoolean.words}
	nftDscp        = &nftType{hex: 2, words: map[uint64]string{0: "cs0", 1: "lephb", 8: "cs1", 10: "af11", 12: "af12", 14: "af13",
		16: "cs2", 18: "af21", 20: "af22",
		22: "af23", 24: "cs3", 26: "af31", 28: "af32", 30: "af33", 32: "cs4", 34: "af41", 36: "af42", 38: "af43", 40: "cs5",
		44: "va", 46: "ef", 48: "cs6", 56: "cs7"}}
	nftEcn  = &nftType{hex: 1, words: map[uint64]string{0: "not-ect", 1: "ect1", 2: "ect0", 3: "ce"}}
	nftTime = &nftType{host: true, text: func(p *nftRuleText, b []byte) string { return nftDuration(p.number(b, true)) }}
	nftDate = &nftType{host: true, text: nftTimestamp}
	nftHour = &nftType{host: true, text: nftClock}
	nftDay  = &nftType{words: map[uint64]string{0: `"Sunday"`, 1: `"Monday"`, 2: `"Tuesday"`, 3: `"Wednesday"`,
		4: `"Thursday"`, 5: `"Friday"`, 6: `"Saturday"`}}
	nftPkttype = &nftType{words: map[uint64]string{0: "host", 1: "broadcast", 2: "multicast", 3: "other"}}
	nftArphrd  = &nftType{host: true, hex: 4, words: map[uint64]string{1: "ether", 512: "ppp", 768: "ipip", 769: "ipip6",
		772: "loopback", 776: "sit", 778: "ipgre"}}
	nftAddrtype = &nftType{host: true, words: map[uint64]string{0: "unspec", 1: "unicast", 2: "local", 3: "broadcast",
		4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}}
	nftTCPFlags = &nftType{hex: 2, bits: true, words: map[uint64]string{1: "fin", 2: "syn", 4: "rst", 8: "psh", 16: "ack",
		32: "urg", 64: "ecn", 128: "cwr"}}
	nftCtState = &nftType{host: true, hex: 8, bits: true, words: map[uint64]string{1: "invalid", 8: "new", 2: "established",
		4: "related", 64: "untracked"}}
	nftCtStatus = &nftType{host: true, hex: 8, bits: true, words: map[uint64]string{1: "expected", 2: "seen-reply", 4: "assured",
		8: "confirmed", 16: "snat", 32: "dnat", 64: "seq-adjust", 128: "snat-done", 256: "dnat-done", 512: "dying",
		1024: "fixed-timeout"}}
	nftCtEvent = &nftType{host: true, hex: 8, bits: true, words: map[uint64]string{1: "new", 2: "related", 4: "destroy",
		8: "reply", 16: "assured", 32: "protoinfo", 64: "helper", 128: "mark", 256: "seqadj", 512: "secmark", 1024: "label"}}
	nftCtDir    = &nftType{words: map[uint64]string{0: "original", 1: "reply"}}
	nftCtLabel  = &nftType{host: true, text: nftLabel}
	nftIcmpType = &nftType{words: map[uint64]string{0: "echo-reply", 3: "destination-unreachable", 4: "source-quench",
		5: "redirect", 8: "echo-request", 9: "router-advertisement", 10: "router-solicitation", 11: "time-exceeded",
		12: "parameter-problem", 13: "timestamp-request", 14: "timestamp-reply", 15: "info-request", 16: "info-reply",
		17: "address-mask-request", 18: "address-mask-reply"}}
	nftIcmp6Type = &nftType{words: map[uint64]string{1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded",
		4: "parameter-problem", 128: "echo-request", 129: "echo-reply", 130: "mld-listener-query", 131: "mld-listener-report",
		132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert", 135: "nd-neighbor-solicit",
		136: "nd-neighbor-advert", 137: "nd-redirect", 138: "router-renumbering", 141: "ind-neighbor-solicit",
		142: "ind-neighbor-advert", 143: "mld2-listener-report"}}
	nftIgmpType = &nftType{words: map[uint64]string{0x11: "membership-query", 0x12: "membership-report-v1",
		0x16: "membership-report-v2", 0x17: "leave-group", 0x22: "membership-report-v3"}}
	nftIcmpCode = &nftType{words: map[uint64]string{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable",
		3: "port-unreachable", 4: "frag-needed", 9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"}}
	nftIcmp6Code = &nftType{words: map[uint64]string{0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable",
		4: "port-unreachable", 5: "policy-fail", 6: "reject-route"}}
	nftIcmpxCode = &nftType{words: map[uint64]string{0: "no-route", 1: "port-unreachable", 2: "host-unreachable",
		3: "admin-prohibited"}}
)

// ipProtocols are the words that nft writes for protocols, those of Debian's /etc/protocols.
var ipProtocols = map[uint64]string{0: "ip", 1: "icmp", 2: "igmp", 3: "ggp", 4: "ipencap", 5: "st", 6: "tcp", 8: "egp", 9: "igp",
	12: "pup",
	17: "udp", 20: "hmp", 22: "xns-idp", 27: "rdp", 29: "iso-tp4", 33: "dccp", 36: "xtp", 37: "ddp", 38: "idpr-cmtp", 41: "ipv6",
	43: "ipv6-route", 44: "ipv6-frag", 45: "idrp", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah", 57: "skip", 58: "ipv6-icmp",
	59: "ipv6-nonxt", 60: "ipv6-opts", 73: "rspf", 81: "vmtp", 88: "eigrp", 89: "ospf", 93: "ax.25", 94: "ipip", 97: "etherip",
	98: "encap", 103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp", 124: "isis", 132: "sctp", 133: "fc", 135: "mobility-header",
	136: "udplite", 137: "mpls-in-ip", 138: "manet", 139: "hip", 140: "shim6", 141: "wesp", 142: "rohc", 143: "ethernet"}

// number reads up to 8 bytes.
func (p *nftRuleText) number(b []byte, host bool) uint64 {
	var wide [8]byte
	if host && !p.BigEndian {
		copy(wide[:], b)
		return binary.LittleEndian.Uint64(wide[:])
	}
	copy(wide[8-min(8, len(b)):], b)
	return binary.BigEndian.Uint64(wide[:])
}

// constant writes b as nft does for its type. network: the bytes are in network order, whatever the type.
func (p *nftRuleText) constant(t *nftType, b []byte, network bool) string {
	host := t.host && !network
	if t.text != nil {
		if t.host && network && !p.BigEndian {
			b = reversed(b)
		}
		return t.text(p, b)
	}
	if len(b) > 8 {
		if host && !p.BigEndian {
			b = reversed(b)
		}
		return "0x" + new(big.Int).SetBytes(b).Text(16)
	}
	n := p.number(b, host)
	if t.bits && n != 0 {
		if words := t.flags(n); words != nil {
			return strings.Join(words, " | ")
		}
	}
	if word, ok := t.words[n]; ok {
		return word
	}
	if t.hex > 0 {
		return fmt.Sprintf("0x%0*x", t.hex, n)
	}
	return strconv.FormatUint(n, 10)
}

// flags returns the words of all the bits of n, or nil if one has none.
func (t *nftType) flags(n uint64) []string {
	var words []string
	for bit := uint64(1); bit != 0 && bit <= n; bit <<= 1 {
		if n&bit == 0 {
			continue
		}
		word, ok := t.words[bit]
		if !ok {
			return nil
		}
		words = append(words, word)
	}
	return words
}

func reversed(b []byte) []byte {
	r := make([]byte, len(b))
	for i, c := range b {
		r[len(b)-1-i] = c
	}
	return r
}

// nftName writes a string that NULs fill up; one without a NUL that is no whole interface name is a prefix.
func nftName(_ *nftRuleText, b []byte) string {
	const ifnamsiz = 16
	text, _, ended := strings.Cut(string(b), "\x00")
	if !ended && len(b) < ifnamsiz {
		text += "*"
	}
	return `"` + text + `"`
}

func nftAddr(_ *nftRuleText, b []byte) string {
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return "0x" + hexText(b)
	}
	return addr.String()
}

func nftLink(p *nftRuleText, b []byte) string {
	index := uint32(p.number(b, true))
	if name, ok := p.Links[index]; ok {
		return `"` + name + `"`
	}
	return strconv.FormatUint(uint64(index), 10)
}

// nftTC writes a traffic class.
func nftTC(p *nftRuleText, b []byte) string {
	switch n := p.number(b, true); {
	case n == 0:
		return "none"
	case n == 0xffffffff:
		return "root"
	case n>>16 == 0:
		return fmt.Sprintf("0:%x", n)
	case n&0xffff == 0:
		return fmt.Sprintf("%x:0", n>>16)
	default:
		return fmt.Sprintf("%x:%x", n>>16, n&0xffff)
	}
}

// nftLabel writes a set of 128 labels by their numbers.
func nftLabel(p *nftRuleText, b []byte) string {
	if !p.BigEndian {
		b = reversed(b)
	}
	n := new(big.Int).SetBytes(b)
	var labels []string
	for bit := range n.BitLen() {
		if n.Bit(bit) == 1 {
			labels = append(labels, strconv.Itoa(bit))
		}
	}
	return strings.Join(labels, ",")
}

// nftTimestamp and nftClock write UTC, as the kernel has it, and say so: nft writes the time of its own zone.
func nftTimestamp(p *nftRuleText, b []byte) string {
	return time.Unix(0, int64(p.number(b, true))).UTC().Format(`"2006-01-02 15:04:05 UTC"`)
}

func nftClock(p *nftRuleText, b []byte) string {
	seconds := p.number(b, true)
	text := fmt.Sprintf(`"%02d:%02d`, seconds/3600, seconds/60%60)
	if seconds%60 != 0 {
		text += fmt.Sprintf(":%02d", seconds%60)
	}
	return text + ` UTC"`
}

// nftDuration writes milliseconds.
func nftDuration(ms uint64) string {
	var text strings.Builder
	for _, unit := range []struct {
		ms   uint64
		name string
	}{{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}} {
		if n := ms / unit.ms; n > 0 {
			fmt.Fprintf(&text, "%d%s", n, unit.name)
			ms %= unit.ms
		}
	}
	if text.Len() == 0 {
		return "0s"
	}
	return text.String()
}
