//go:build linux

package host

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linux/fib_rules.h: struct fib_rule_hdr has the size of struct rtmsg.
const (
	fraDst             = 1
	fraSrc             = 2
	fraIifName         = 3
	fraGoto            = 4
	fraPriority        = 6
	fraFwMark          = 10
	fraFlow            = 11
	fraTunID           = 12
	fraSuppressIfGroup = 13
	fraSuppressPrefix  = 14
	fraTable           = 15
	fraFwMask          = 16
	fraOifName         = 17
	fraPad             = 18
	fraL3mdev          = 19
	fraUIDRange        = 20
	fraProtocol        = 21
	fraIPProto         = 22
	fraSPortRange      = 23
	fraDPortRange      = 24
	fibRuleInvert      = 0x2
	fibRuleNotMatching = 0x4 // FIB_RULE_UNRESOLVED: the target of a goto is not there
	fibRuleKnownFlags  = 0x1f
	suppressNothing    = 0xffffffff
)

var (
	ruleActions = [...]string{1: "table", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
	ruleAttrs   = map[uint16]string{25: "dscp", 26: "flowlabel", 27: "flowlabel-mask", 28: "sport-mask", 29: "dport-mask", 30: "dscp-mask"}
)

// readRules dumps the policy routing rules of both families in the kernel's order.
func readRules(c *netlink.Conn) ([]netstate.Rule, error) {
	var rules []netstate.Rule
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		answers, err := dump(c, unix.RTM_GETRULE, header)
		if errors.Is(err, unix.EAFNOSUPPORT) { // no IPv6, or a kernel without policy routing
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			if answer.Header.Type != unix.RTM_NEWRULE || len(answer.Data) == 0 || answer.Data[0] != family {
				continue
			}
			rule, err := parseRule(answer.Data)
			if err != nil {
				return nil, err
			}
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// parseRule decodes one RTM_NEWRULE. What may decide whether the rule matches and is not understood
// goes to Opaque.
func parseRule(data []byte) (netstate.Rule, error) {
	var rule netstate.Rule
	var dst, src netip.Addr
	err := eachAttribute(data, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case fraDst:
			dst = addr(ad.Bytes())
		case fraSrc:
			src = addr(ad.Bytes())
		case fraIifName:
			rule.Iif = ad.String()
		case fraOifName:
			rule.Oif = ad.String()
		case fraGoto:
			rule.Goto = ad.Uint32()
		case fraPriority:
			rule.Priority = ad.Uint32()
		case fraFwMark:
			rule.Mark = ad.Uint32()
		case fraFwMask:
			rule.Mask = ad.Uint32()
		case fraTable:
			rule.Table = ad.Uint32()
		case fraL3mdev:
			rule.L3mdev = ad.Uint8() != 0
		case fraIPProto:
			rule.Protocol = ad.Uint8()
		case fraSPortRange:
			rule.SPort = portRange(ad.Bytes())
		case fraDPortRange:
			rule.DPort = portRange(ad.Bytes())
		case fraUIDRange:
			if b := ad.Bytes(); len(b) == 8 {
				rule.UID = &[2]uint32{binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])}
			}
		case fraTunID:
			if b := ad.Bytes(); len(b) == 8 {
				rule.TunID = binary.BigEndian.Uint64(b)
			}
		case fraSuppressPrefix:
			rule.SuppressPrefixLen = suppress(ad.Uint32())
		case fraSuppressIfGroup:
			rule.SuppressGroup = suppress(ad.Uint32())
		case fraPad, fraProtocol, fraFlow: // who made it, and a realm: no conditions
		default:
			name := ruleAttrs[ad.Type()]
			if name == "" {
				name = "attribute " + strconv.Itoa(int(ad.Type()))
			}
			rule.Opaque = append(rule.Opaque, name+" "+hex.EncodeToString(ad.Bytes()))
		}
	})
	if err != nil {
		return rule, err
	}
	family, flags := data[0], binary.NativeEndian.Uint32(data[8:])
	rule.Family = familyName(family)
	if data[1] != 0 {
		rule.Dst = prefix(dst, data[1], family)
	}
	if data[2] != 0 {
		rule.Src = prefix(src, data[2], family)
	}
	rule.TOS = data[3]
	if rule.Table == 0 && data[7] == unix.FR_ACT_TO_TBL {
		rule.Table = uint32(data[4])
	}
	if int(data[7]) < len(ruleActions) {
		rule.Action = ruleActions[data[7]]
	}
	if rule.Action == "" {
		rule.Action = strconv.Itoa(int(data[7]))
		rule.Opaque = append(rule.Opaque, "action "+rule.Action)
	}
	rule.Not = flags&fibRuleInvert != 0
	if flags&fibRuleNotMatching != 0 {
		rule.Opaque = append(rule.Opaque, "unresolved")
	}
	if unknown := flags &^ fibRuleKnownFlags; unknown != 0 {
		rule.Opaque = append(rule.Opaque, fmt.Sprintf("flags %#x", unknown))
	}
	return rule, nil
}

func portRange(b []byte) *[2]uint16 {
	if len(b) != 4 {
		return nil
	}
	return &[2]uint16{binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])}
}

func suppress(value uint32) *int {
	if value == suppressNothing {
		return nil
	}
	n := int(value)
	return &n
}

// linux/nexthop.h, kernel 5.3 and later.
const (
	rtmNewNexthop = 104
	rtmGetNexthop = 106
	sizeofNhMsg   = 8

	nhaID        = 1
	nhaGroup     = 2
	nhaBlackhole = 4
	nhaOif       = 5
	nhaGateway   = 6
)

// readNexthops dumps the nexthop objects. A kernel without them has none.
func readNexthops(c *netlink.Conn, names linkNames) ([]netstate.Nexthop, error) {
	answers, err := dump(c, rtmGetNexthop, make([]byte, sizeofNhMsg))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var nexthops []netstate.Nexthop
	for _, answer := range answers {
		if answer.Header.Type != rtmNewNexthop {
			continue
		}
		nexthop, err := parseNexthop(answer.Data, names)
		if err != nil {
			return nil, err
		}
		nexthops = append(nexthops, nexthop)
	}
	return nexthops, nil
}

// parseNexthop decodes one RTM_NEWNEXTHOP.
func parseNexthop(data []byte, names linkNames) (netstate.Nexthop, error) {
	var n netstate.Nexthop
	err := eachAttribute(data, sizeofNhMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case nhaID:
			n.ID = ad.Uint32()
		case nhaOif:
			n.Dev = names.name(int(ad.Uint32()))
		case nhaGateway:
			n.Gateway = addr(ad.Bytes())
		case nhaBlackhole:
			n.Blackhole = true
		case nhaGroup:
			// struct nexthop_grp: id, weight and padding, 8 bytes.
			for b := ad.Bytes(); len(b) >= 8; b = b[8:] {
				n.Group = append(n.Group, binary.NativeEndian.Uint32(b))
			}
		}
	})
	if err != nil {
		return n, err
	}
	n.Family = familyName(data[0])
	n.Flags = flagNames(binary.NativeEndian.Uint32(data[4:])&0xff, hopFlags)
	return n, nil
}

// readNSID returns the id that the namespace of c gave to another one, or nil if it gave none: the
// kernel does so when a veth crosses.
func readNSID(c *netlink.Conn, other netns) (*int, error) {
	const netnsaNSID, netnsaFD = 1, 3
	request := append(make([]byte, 4), attribute(netnsaFD, uint32Bytes(uint32(other.fd())))...) // struct rtgenmsg, padded
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNSID, Flags: netlink.Request},
		Data:   request,
	})
	if err != nil {
		return nil, err
	}
	for _, answer := range answers {
		var id *int
		err := eachAttribute(answer.Data, 4, func(ad *netlink.AttributeDecoder) {
			if ad.Type() == netnsaNSID {
				if n := int(ad.Int32()); n >= 0 {
					id = &n
				}
			}
		})
		if err != nil || id != nil {
			return id, err
		}
	}
	return nil, nil
}
