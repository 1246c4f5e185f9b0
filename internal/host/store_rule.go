//go:build linux

package host

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ruleCodec is that of policy routing rules, kind "rule". A name is the whole rule as ip-rule(8) prints it,
// tables as numbers, with -6 before an IPv6 rule: "100: from 10.0.0.0/8 fwmark 0x1 lookup 77", "-6 200: from
// all unreachable". A value is "-".
type ruleCodec struct{}

func ruleStore(m machine) rtStore {
	return rtStore{m, "rule", unix.RTM_NEWRULE, unix.SizeofRtMsg, ruleCodec{}, netlink.Excl}
}

func (ruleCodec) text(message []byte, _ linkTable) (name, value string, ok bool, err error) {
	at := map[uint16][]byte{}
	var raw []string
	err = eachAttribute(message, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case fraDst, fraSrc, fraIifName, fraGoto, fraPriority, fraFwMark, fraSuppressIfGroup, fraSuppressPrefix, fraTable, fraFwMask, fraOifName, fraIPProto, fraSPortRange, fraDPortRange, fraProtocol:
			at[ad.Type()] = ad.Bytes()
		case fraL3mdev:
			if data := ad.Bytes(); len(data) == 1 && data[0] == 0 {
				return
			}
			raw = append(raw, rawWord(ad.Type(), ad.Bytes()))
		default:
			raw = append(raw, rawWord(ad.Type(), ad.Bytes()))
		}
	})
	if err != nil || message[0] != unix.AF_INET && message[0] != unix.AF_INET6 {
		return "", "", false, err
	}
	number := func(kind uint16) (n uint32) {
		if data := at[kind]; len(data) == 4 {
			n = binary.NativeEndian.Uint32(data)
		}
		return n
	}
	family := message[0]
	out := []string{strconv.FormatUint(uint64(number(fraPriority)), 10) + ":"}
	if family == unix.AF_INET6 {
		out = slices.Insert(out, 0, "-6")
	}
	if binary.NativeEndian.Uint32(message[8:])&fibRuleInvert != 0 {
		out = append(out, "not")
	}
	from := "all"
	if message[2] != 0 {
		from = prefixText(addr(at[fraSrc]), message[2], family)
	}
	out = append(out, "from", from)
	if message[1] != 0 {
		out = append(out, "to", prefixText(addr(at[fraDst]), message[1], family))
	}
	if message[3] != 0 {
		out = append(out, fmt.Sprintf("tos %d", message[3]))
	}
	if mark, mask := number(fraFwMark), number(fraFwMask); mark != 0 || mask != 0 {
		word := fmt.Sprintf("fwmark %#x", mark)
		if mask != 0xffffffff {
			word += fmt.Sprintf("/%#x", mask)
		}
		out = append(out, word)
	}
	for _, link := range []struct {
		kind uint16
		word string
	}{{fraIifName, "iif"}, {fraOifName, "oif"}} {
		if data := at[link.kind]; data != nil {
			out = append(out, link.word, stringOf(data))
		}
	}
	if data := at[fraIPProto]; len(data) == 1 {
		out = append(out, "ipproto "+nameOrNumber(data[0]))
	}
	for _, ports := range []struct {
		kind uint16
		word string
	}{{fraSPortRange, "sport"}, {fraDPortRange, "dport"}} {
		if data := at[ports.kind]; len(data) == 4 {
			out = append(out, ports.word, portsText(data))
		}
	}
	switch does := message[7]; {
	case does == 1: // FR_ACT_TO_TBL
		table := number(fraTable)
		if table == 0 {
			table = uint32(message[4])
		}
		out = append(out, fmt.Sprintf("lookup %d", table))
	case does == 2:
		out = append(out, fmt.Sprintf("goto %d", number(fraGoto)))
	case int(does) < len(ruleActions) && ruleActions[does] != "":
		out = append(out, ruleActions[does])
	default:
		return "", "", false, nil
	}
	for _, suppress := range []struct {
		kind uint16
		word string
	}{{fraSuppressPrefix, "suppress_prefixlength"}, {fraSuppressIfGroup, "suppress_ifgroup"}} {
		if n := number(suppress.kind); at[suppress.kind] != nil && n != suppressNothing {
			out = append(out, fmt.Sprintf("%s %d", suppress.word, n))
		}
	}
	if data := at[fraProtocol]; len(data) == 1 && data[0] != 0 {
		out = append(out, "proto "+protocolName(data[0]))
	}
	return strings.Join(append(out, raw...), " "), "-", true, nil
}

func nameOrNumber(proto uint8) string {
	for _, name := range []string{"tcp", "udp", "icmp", "sctp"} {
		if layer4[name] == proto {
			return name
		}
	}
	return strconv.Itoa(int(proto))
}

// portsText writes struct fib_rule_port_range.
func portsText(data []byte) string {
	low, high := binary.NativeEndian.Uint16(data), binary.NativeEndian.Uint16(data[2:])
	if low == high {
		return strconv.Itoa(int(low))
	}
	return fmt.Sprintf("%d-%d", low, high)
}

func (ruleCodec) message(name, value string, _ linkTable) ([]byte, error) {
	if value != "-" {
		return nil, fmt.Errorf("a rule has the value -, not %q", value)
	}
	message := make([]byte, unix.SizeofRtMsg)
	message[0], message[7] = unix.AF_INET, 1
	r := wordReader{strings.Fields(name)}
	word := r.next()
	if word == "-6" {
		message[0] = unix.AF_INET6
		word = r.next()
	}
	priority, err := strconv.ParseUint(strings.TrimSuffix(word, ":"), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is no rule: it begins with its priority", name)
	}
	put := func(kind uint16, data []byte) { message = append(message, attribute(kind, data)...) }
	put(fraPriority, uint32Bytes(uint32(priority)))
	proto := byte(0)
	for len(r.left) > 0 && err == nil {
		switch word := r.next(); word {
		case "not":
			copy(message[8:], uint32Bytes(fibRuleInvert))
		case "from", "to":
			text := r.next()
			if text == "all" {
				continue
			}
			var p netip.Prefix
			if p, err = parsePrefix(text); err != nil {
				break
			}
			kind, length := uint16(fraSrc), 2
			if word == "to" {
				kind, length = fraDst, 1
			}
			message[length] = uint8(p.Bits())
			put(kind, p.Addr().AsSlice())
		case "tos":
			message[3], err = numberOf(nil, r.next())
		case "fwmark":
			mark, mask, found := strings.Cut(r.next(), "/")
			var bits [2]uint64
			bits[1] = 0xffffffff
			if bits[0], err = strconv.ParseUint(mark, 0, 32); err == nil && found {
				bits[1], err = strconv.ParseUint(mask, 0, 32)
			}
			put(fraFwMark, uint32Bytes(uint32(bits[0])))
			put(fraFwMask, uint32Bytes(uint32(bits[1])))
		case "iif":
			put(fraIifName, append([]byte(r.next()), 0))
		case "oif":
			put(fraOifName, append([]byte(r.next()), 0))
		case "ipproto":
			text := r.next()
			n := layer4[text]
			if n == 0 {
				n, err = numberOf(nil, text)
			}
			put(fraIPProto, []byte{n})
		case "sport", "dport":
			low, high, found := strings.Cut(r.next(), "-")
			if !found {
				high = low
			}
			var n [2]uint64
			if n[0], err = strconv.ParseUint(low, 10, 16); err == nil {
				n[1], err = strconv.ParseUint(high, 10, 16)
			}
			data := binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, uint16(n[0])), uint16(n[1]))
			put(map[string]uint16{"sport": fraSPortRange, "dport": fraDPortRange}[word], data)
		case "lookup":
			var table uint64
			table, err = strconv.ParseUint(r.next(), 10, 32)
			if table < 256 {
				message[4] = uint8(table)
			}
			put(fraTable, uint32Bytes(uint32(table)))
		case "goto":
			var target uint64
			target, err = strconv.ParseUint(r.next(), 10, 32)
			message[7] = 2
			put(fraGoto, uint32Bytes(uint32(target)))
		case "nop", "blackhole", "unreachable", "prohibit":
			message[7] = uint8(slices.Index(ruleActions[:], word))
		case "suppress_prefixlength", "suppress_ifgroup":
			var n uint64
			n, err = strconv.ParseUint(r.next(), 10, 32)
			put(map[string]uint16{"suppress_prefixlength": fraSuppressPrefix, "suppress_ifgroup": fraSuppressIfGroup}[word], uint32Bytes(uint32(n)))
		case "proto":
			proto, err = numberOf(routeProtocols, r.next())
		case "attr":
			var data []byte
			data, err = r.raw()
			message = append(message, data...)
		default:
			err = fmt.Errorf("%q is no word of a rule", word)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%q is no rule: %w", name, err)
	}
	if proto != 0 {
		put(fraProtocol, []byte{proto})
	}
	return message, nil
}
