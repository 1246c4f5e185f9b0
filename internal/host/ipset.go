//go:build linux

package host

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
)

// namesIpset says whether a rule looks into a set. Without one, asking the kernel for sets might make
// it load their module.
func namesIpset(sets []netstate.IptablesSet) bool {
	for _, set := range sets {
		for _, table := range set.Tables {
			for _, chain := range table.Chains {
				for _, rule := range chain.Rules {
					if strings.Contains(rule.Text, "--match-set ") {
						return true
					}
				}
			}
		}
	}
	return false
}

// linux/netfilter/ipset/ip_set.h
const (
	nfnlSubsysIpset = 6
	ipsetCmdList    = 7

	ipsetProtocol     = 1
	ipsetProtocolUsed = 6 // understood since 2010; 7 only adds commands
	ipsetSetName      = 2
	ipsetTypeName     = 3
	ipsetFamily       = 5
	ipsetData         = 7
	ipsetADT          = 8

	ipsetIP       = 1
	ipsetIPTo     = 2
	ipsetCIDR     = 3
	ipsetPort     = 4
	ipsetPortTo   = 5
	ipsetTimeout  = 6
	ipsetProto    = 7
	ipsetFlags    = 8
	ipsetMark     = 10
	ipsetEther    = 17
	ipsetName     = 18
	ipsetIP2      = 20
	ipsetCIDR2    = 21
	ipsetIface    = 23
	ipsetBytes    = 24
	ipsetPackets  = 25
	ipsetComment  = 26
	ipsetSkbMark  = 27
	ipsetSkbPrio  = 28
	ipsetSkbQueue = 29
	ipsetPad      = 30
	flagPhysdev   = 1 << 1
	flagNoMatch   = 1 << 2
	ipsetNestedV4 = 1
	ipsetNestedV6 = 2
)

// readIpsets lists all sets of the namespace with their entries.
func readIpsets(n netns) ([]netstate.Ipset, error) {
	c, err := dialNetfilter(n)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	request := append(make([]byte, sizeofNfGenMsg), attribute(ipsetProtocol, []byte{ipsetProtocolUsed})...)
	answers, err := dump(c, nfnlSubsysIpset<<8|ipsetCmdList, request)
	if err != nil {
		return nil, fmt.Errorf("ipset: %w", err)
	}
	var sets []netstate.Ipset
	for _, answer := range answers {
		if sets, err = parseIpset(sets, answer.Data); err != nil {
			return nil, fmt.Errorf("ipset: %w", err)
		}
	}
	return sets, nil
}

// parseIpset decodes one answer to IPSET_CMD_LIST and adds it to the sets before. A set that does not
// fit into one message goes on in the next, which then has its name and no type.
func parseIpset(sets []netstate.Ipset, data []byte) ([]netstate.Ipset, error) {
	var set netstate.Ipset
	var entries [][]byte
	err := eachAttribute(data, sizeofNfGenMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ipsetSetName:
			set.Name = ad.String()
		case ipsetTypeName:
			set.Type = ad.String()
		case ipsetFamily:
			set.Family = familyName(ad.Uint8())
		case ipsetADT:
			ad.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					if list.Type() == ipsetData {
						entries = append(entries, slices.Clone(list.Bytes()))
					}
				}
				return nil
			})
		}
	})
	if last := len(sets) - 1; last < 0 || sets[last].Name != set.Name {
		sets = append(sets, set)
	}
	last := &sets[len(sets)-1]
	for _, entry := range entries {
		text, ok := parseIpsetEntry(last.Type, entry)
		if !ok {
			last.Opaque = true
			continue
		}
		last.Entries = append(last.Entries, text)
	}
	return sets, err
}

// parseIpsetEntry writes an entry as `ipset save` does, without what does not decide whether it
// matches. The type "hash:ip,port,net" tells what an entry is made of; the second address has attributes
// of its own. It is not ok if something in it is not understood.
func parseIpsetEntry(kind string, data []byte) (string, bool) {
	var first, second, to netip.Addr
	var cidr, cidr2, proto = -1, -1, -1
	var ether, name, iface, mark string
	var port, portTo uint16
	var flags uint32
	known := true
	err := eachAttribute(data, 0, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ipsetIP:
			first = ipsetAddr(ad)
		case ipsetIPTo:
			to = ipsetAddr(ad)
		case ipsetIP2:
			second = ipsetAddr(ad)
		case ipsetCIDR:
			cidr = int(ad.Uint8())
		case ipsetCIDR2:
			cidr2 = int(ad.Uint8())
		case ipsetPort:
			port = bigUint16(ad.Bytes())
		case ipsetPortTo:
			portTo = bigUint16(ad.Bytes())
		case ipsetProto:
			proto = int(ad.Uint8())
		case ipsetMark:
			mark = fmt.Sprintf("0x%08x", bigUint32(ad.Bytes()))
		case ipsetEther:
			ether = strings.ToUpper(hardwareAddr(ad.Bytes()))
		case ipsetName:
			name = ad.String()
		case ipsetIface:
			iface = ad.String()
		case ipsetFlags:
			flags = bigUint32(ad.Bytes())
		case ipsetTimeout, ipsetBytes, ipsetPackets, ipsetComment, ipsetSkbMark, ipsetSkbPrio, ipsetSkbQueue, ipsetPad:
		default:
			known = false
		}
	})
	if err != nil || !known || flags&^uint32(flagPhysdev|flagNoMatch) != 0 {
		return "", false
	}
	method, shape, ok := strings.Cut(kind, ":")
	if !ok {
		return "", false
	}
	var fields []string
	for dimension := range strings.SplitSeq(shape, ",") {
		field := ""
		switch dimension {
		case "ip", "net":
			if !first.IsValid() {
				return "", false
			}
			field = first.String()
			if to.IsValid() {
				field += "-" + to.String()
			} else if cidr >= 0 && cidr != first.BitLen() {
				field += "/" + strconv.Itoa(cidr)
			}
			first, cidr, to = second, cidr2, netip.Addr{}
		case "port":
			field = ipsetPortText(method, proto, port, portTo)
		case "mac":
			if field = ether; field == "" { // bitmap:ip,mac fills it in with the first packet
				continue
			}
		case "mark":
			field = mark
		case "iface":
			if field = iface; flags&flagPhysdev != 0 {
				field = "physdev:" + iface
			}
		case "set":
			field = name
		}
		if field == "" {
			return "", false
		}
		fields = append(fields, field)
	}
	text := strings.Join(fields, ",")
	if flags&flagNoMatch != 0 {
		text += " nomatch"
	}
	return text, true
}

// ipsetAddr reads a nested address.
func ipsetAddr(ad *netlink.AttributeDecoder) (a netip.Addr) {
	ad.Nested(func(nested *netlink.AttributeDecoder) error {
		for nested.Next() {
			if kind := nested.Type(); kind == ipsetNestedV4 || kind == ipsetNestedV6 {
				a = addr(nested.Bytes())
			}
		}
		return nil
	})
	return a
}

// ipsetPortText writes a port: bitmap:port has no protocol, and ICMP has type/code, always as numbers.
func ipsetPortText(method string, proto int, port, portTo uint16) string {
	text := strconv.Itoa(int(port))
	if portTo > port {
		text += "-" + strconv.Itoa(int(portTo))
	}
	switch {
	case method == "bitmap" || proto < 0:
		return text
	case proto == 1 || proto == 58:
		text = fmt.Sprintf("%d/%d", port>>8, port&0xff)
	}
	return ipProtocol(uint8(proto)) + ":" + text
}

var ipProtocols = map[uint8]string{1: "icmp", 2: "igmp", 4: "ipencap", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre",
	50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp", 136: "udplite"}

// ipProtocol names a protocol, as in /etc/protocols; one without a name is its number.
func ipProtocol(number uint8) string {
	if name, ok := ipProtocols[number]; ok {
		return name
	}
	return strconv.Itoa(int(number))
}

func bigUint16(b []byte) uint16 {
	if len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func bigUint32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
