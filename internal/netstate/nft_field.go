package netstate

import "fmt"

// An nftField is one field of a protocol header, in bits.
type nftField struct {
	name   string // as nft writes it
	offset uint32
	length uint32
	kind   *nftType
	base   string // it decides which protocol follows
}

// nftHeaders are the fields of each header, by nft's name of the protocol. Their values are in network order.
var nftHeaders = map[string][]nftField{
	"ether": {{"ether daddr", 0, 48, nftEther, ""}, {"ether saddr", 48, 48, nftEther, ""}, {"ether type", 96, 16, nftEthertype,
		"network"}},
	"vlan": {{"vlan pcp", 112, 3, nftInteger, ""}, {"vlan dei", 115, 1, nftInteger, ""}, {"vlan id", 116, 12, nftInteger, ""},
		{"vlan type", 128, 16, nftEthertype, "network"}},
	"ip": {{"ip version", 0, 4, nftInteger, ""}, {"ip hdrlength", 4, 4, nftInteger, ""}, {"ip dscp", 8, 6, nftDscp, ""},
		{"ip ecn", 14, 2, nftEcn, ""},
		{"ip length", 16, 16, nftInteger, ""}, {"ip id", 32, 16, nftInteger, ""}, {"ip frag-off", 48, 16, nftHexInteger, ""},
		{"ip ttl", 64, 8, nftInteger, ""},
		{"ip protocol", 72, 8, nftProtocol, "transport"}, {"ip checksum", 80, 16, nftInteger, ""}, {"ip saddr", 96, 32, nftIPv4,
			""}, {"ip daddr", 128, 32, nftIPv4, ""}},
	"ip6": {{"ip6 version", 0, 4, nftInteger, ""}, {"ip6 dscp", 4, 6, nftDscp, ""}, {"ip6 ecn", 10, 2, nftEcn, ""},
		{"ip6 flowlabel", 12, 20, nftInteger, ""},
		{"ip6 length", 32, 16, nftInteger, ""}, {"ip6 nexthdr", 48, 8, nftProtocol, "transport"}, {"ip6 hoplimit", 56, 8,
			nftInteger, ""},
		{"ip6 saddr", 64, 128, nftIPv6, ""}, {"ip6 daddr", 192, 128, nftIPv6, ""}},
	"arp": {{"arp htype", 0, 16, nftInteger, ""}, {"arp ptype", 16, 16, nftEthertype, ""}, {"arp hlen", 32, 8, nftInteger, ""},
		{"arp plen", 40, 8, nftInteger, ""},
		{"arp operation", 48, 16, nftArpop, ""}, {"arp saddr ether", 64, 48, nftEther, ""}, {"arp saddr ip", 112, 32, nftIPv4,
			""},
		{"arp daddr ether", 144, 48, nftEther, ""}, {"arp daddr ip", 192, 32, nftIPv4, ""}},
	"tcp": {{"tcp sport", 0, 16, nftPort, ""}, {"tcp dport", 16, 16, nftPort, ""}, {"tcp sequence", 32, 32, nftInteger, ""},
		{"tcp ackseq", 64, 32, nftInteger, ""},
		{"tcp doff", 96, 4, nftInteger, ""}, {"tcp reserved", 100, 4, nftInteger, ""}, {"tcp flags", 104, 8, nftTCPFlags, ""},
		{"tcp window", 112, 16, nftInteger, ""},
		{"tcp checksum", 128, 16, nftInteger, ""}, {"tcp urgptr", 144, 16, nftInteger, ""}},
	"udp": {{"udp sport", 0, 16, nftPort, ""}, {"udp dport", 16, 16, nftPort, ""}, {"udp length", 32, 16, nftInteger, ""},
		{"udp checksum", 48, 16, nftInteger, ""}},
	"udplite": {{"udplite sport", 0, 16, nftPort, ""}, {"udplite dport", 16, 16, nftPort, ""}, {"udplite csumcov", 32, 16,
		nftInteger, ""}, {"udplite checksum", 48, 16, nftInteger, ""}},
	"sctp": {{"sctp sport", 0, 16, nftPort, ""}, {"sctp dport", 16, 16, nftPort, ""}, {"sctp vtag", 32, 32, nftInteger, ""},
		{"sctp checksum", 64, 32, nftInteger, ""}},
	"dccp": {{"dccp sport", 0, 16, nftPort, ""}, {"dccp dport", 16, 16, nftPort, ""}},
	"icmp": {{"icmp type", 0, 8, nftIcmpType, ""}, {"icmp code", 8, 8, nftInteger, ""}, {"icmp checksum", 16, 16, nftInteger,
		""}, {"icmp id", 32, 16, nftInteger, ""}, {"icmp sequence", 48, 16, nftInteger, ""}},
	"icmpv6": {{"icmpv6 type", 0, 8, nftIcmp6Type, ""}, {"icmpv6 code", 8, 8, nftInteger, ""}, {"icmpv6 checksum", 16, 16,
		nftInteger, ""}, {"icmpv6 id", 32, 16, nftInteger, ""}, {"icmpv6 sequence", 48, 16, nftInteger, ""}},
	"igmp": {{"igmp type", 0, 8, nftIgmpType, ""}, {"igmp mrt", 8, 8, nftInteger, ""}, {"igmp checksum", 16, 16, nftInteger,
		""}, {"igmp group", 32, 32, nftInteger, ""}},
	"ah": {{"ah nexthdr", 0, 8, nftProtocol, ""}, {"ah hdrlength", 8, 8, nftInteger, ""}, {"ah reserved", 16, 16, nftInteger,
		""}, {"ah spi", 32, 32, nftInteger, ""}, {"ah sequence", 64, 32, nftInteger, ""}},
	"esp": {{"esp spi", 0, 32, nftInteger, ""}, {"esp sequence", 32, 32, nftInteger, ""}},
	"th":  {{"th sport", 0, 16, nftPort, ""}, {"th dport", 16, 16, nftPort, ""}},
}

// nftTransports are the headers that follow by IP protocol.
var nftTransports = map[uint64]string{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 50: "esp", 51: "ah", 58: "icmpv6",
	132: "sctp", 136: "udplite"}

// nftBases are nft's short names in raw loads: @nh,96,32.
var nftBases = map[string]string{"link": "ll", "network": "nh", "transport": "th", "inner": "ih"}

// header returns the protocol whose header is at that base, as far as the rule has said so, or "".
func (p *nftRuleText) header(base string) string {
	switch base {
	case "link":
		return p.link
	case "network":
		return p.network
	case "transport":
		if p.transport == "" {
			return "th"
		}
		return p.transport
	}
	return ""
}

// field returns the field that starts at the bit offset, and is the whole of length bits or, if it is longer, reaches
// beyond them.
func (p *nftRuleText) field(base string, offset, length uint32) *nftField {
	headers := []string{p.header(base)}
	if base == "link" && p.link == "ether" {
		headers = append(headers, "vlan")
	}
	for _, header := range headers {
		fields := nftHeaders[header]
		for i := range fields {
			if fields[i].offset == offset && fields[i].length >= length {
				return &fields[i]
			}
		}
	}
	return nil
}

// fieldAt returns the field that starts at the bit offset, however long.
func (p *nftRuleText) fieldAt(base string, offset uint32) *nftField { return p.field(base, offset, 0) }

// raw writes a load of bits that have no name here.
func rawLoad(base string, offset, length uint32) string {
	return fmt.Sprintf("@%s,%d,%d", nftBases[base], offset, length)
}
