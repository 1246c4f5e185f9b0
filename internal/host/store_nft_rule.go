//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/nftwire"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nftRuleOf returns the bytes of a new rule. It knows what it takes to let one container's traffic pass:
//
//	iifname "eth0" · oifname != "docker0" · ip saddr 172.17.0.0/16 · ip6 daddr != fd00::2 · tcp dport 80 ·
//	udp sport 53 · meta l4proto tcp · ct state established,related · counter · comment "text" ·
//	accept, drop, return, jump CHAIN, goto CHAIN
func nftRuleOf(family, text string) ([]byte, error) {
	if family != "ip" && family != "ip6" && family != "inet" {
		return nil, fmt.Errorf("rules of family %s are not made here", family)
	}
	b := nftBuilder{family: family}
	text, comment, hasComment := cutComment(text)
	b.left = strings.Fields(text)
	for len(b.left) > 0 {
		if err := b.statement(b.next()); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
	}
	var list []byte
	for _, e := range b.exprs {
		data, err := expr.Marshal(nftFamilies[family], e)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		list = append(list, attribute(1|unix.NLA_F_NESTED, data)...) // NFTA_LIST_ELEM
	}
	raw := attribute(nftaRuleExpressions|unix.NLA_F_NESTED, list)
	if hasComment {
		raw = append(raw, attribute(nftaRuleUserdata, userdata.AppendString(nil, userdata.TypeComment, comment))...)
	}
	return raw, nil
}

// cutComment cuts off the comment at the end of a rule.
func cutComment(text string) (rest, comment string, found bool) {
	i := strings.Index(text, ` comment "`)
	if i < 0 || !strings.HasSuffix(text, `"`) || len(text) < i+11 {
		return text, "", false
	}
	return text[:i], text[i+10 : len(text)-1], true
}

// An nftBuilder turns a rule's words into expressions.
type nftBuilder struct {
	wordReader
	family string
	exprs  []expr.Any
	needs  []string // what was asked already: "ip", "tcp", …
}

// match compares the register with bytes; the word != before them inverts it.
func (b *nftBuilder) match(value func(string) ([]byte, error)) error {
	op := expr.CmpOpEq
	word := b.next()
	if word == "!=" {
		op, word = expr.CmpOpNeq, b.next()
	}
	data, err := value(word)
	b.exprs = append(b.exprs, &expr.Cmp{Op: op, Register: 1, Data: data})
	return err
}

// need asks once for what a word takes for granted.
func (b *nftBuilder) need(what string, key expr.MetaKey, value byte) {
	if !slices.Contains(b.needs, what) {
		b.needs = append(b.needs, what)
		b.exprs = append(b.exprs, &expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{value}})
	}
}

var layer4 = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP, "icmp": unix.IPPROTO_ICMP, "ipv6-icmp": unix.IPPROTO_ICMPV6}

func (b *nftBuilder) statement(word string) error {
	switch word {
	case "iifname", "oifname":
		key := expr.MetaKeyIIFNAME
		if word == "oifname" {
			key = expr.MetaKeyOIFNAME
		}
		b.exprs = append(b.exprs, &expr.Meta{Key: key, Register: 1})
		return b.match(func(name string) ([]byte, error) {
			name = strings.Trim(name, `"`)
			if name == "" || len(name) >= unix.IFNAMSIZ || strings.HasSuffix(name, "*") {
				return nil, fmt.Errorf("%q is no link", name)
			}
			return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...), nil
		})
	case "ip", "ip6":
		return b.address(word, b.next())
	case "tcp", "udp", "sctp":
		b.need(word, expr.MetaKeyL4PROTO, layer4[word])
		offset, ok := map[string]uint32{"sport": 0, "dport": 2}[b.next()]
		if !ok {
			return fmt.Errorf("%s needs dport or sport", word)
		}
		b.exprs = append(b.exprs, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2})
		return b.match(func(port string) ([]byte, error) {
			n, err := strconv.ParseUint(port, 10, 16)
			return binary.BigEndian.AppendUint16(nil, uint16(n)), err
		})
	case "meta":
		if b.next() != "l4proto" {
			return errors.New("of meta it knows l4proto alone")
		}
		proto := b.next()
		if layer4[proto] == 0 {
			return fmt.Errorf("%q is no protocol that is known here", proto)
		}
		b.need(proto, expr.MetaKeyL4PROTO, layer4[proto])
		return nil
	case "ct":
		return b.conntrack()
	case "counter":
		b.exprs = append(b.exprs, &expr.Counter{})
	case "accept":
		b.exprs = append(b.exprs, &expr.Verdict{Kind: expr.VerdictAccept})
	case "drop":
		b.exprs = append(b.exprs, &expr.Verdict{Kind: expr.VerdictDrop})
	case "return":
		b.exprs = append(b.exprs, &expr.Verdict{Kind: expr.VerdictReturn})
	case "jump":
		b.exprs = append(b.exprs, &expr.Verdict{Kind: expr.VerdictJump, Chain: b.next()})
	case "goto":
		b.exprs = append(b.exprs, &expr.Verdict{Kind: expr.VerdictGoto, Chain: b.next()})
	default:
		return fmt.Errorf("the word %q is not known here", word)
	}
	return nil
}

// address reads the rest of "ip saddr 192.0.2.0/24".
func (b *nftBuilder) address(family, side string) error {
	size, offset := uint32(4), map[string]uint32{"saddr": 12, "daddr": 16}[side]
	nfproto := byte(unix.NFPROTO_IPV4)
	if family == "ip6" {
		size, offset, nfproto = 16, map[string]uint32{"saddr": 8, "daddr": 24}[side], unix.NFPROTO_IPV6
	}
	if offset == 0 || b.family != "inet" && b.family != family {
		return fmt.Errorf("%s %s is nothing that a table of family %s matches here", family, side, b.family)
	}
	if b.family == "inet" {
		b.need(family, expr.MetaKeyNFPROTO, nfproto)
	}
	b.exprs = append(b.exprs, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size})
	mask := len(b.exprs)
	return b.match(func(text string) ([]byte, error) {
		p, err := parsePrefix(text)
		if err == nil && p.Addr().BitLen() != int(size)*8 {
			err = fmt.Errorf("%q is no address of %s", text, family)
		}
		if err != nil {
			return nil, err
		}
		if p.Bits() < p.Addr().BitLen() {
			ones := netmask(p)
			b.exprs = slices.Insert(b.exprs, mask, expr.Any(&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: ones, Xor: make([]byte, size)}))
		}
		return p.Masked().Addr().AsSlice(), nil
	})
}

// netmask returns a prefix's mask.
func netmask(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for bit := range p.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return mask
}

// conntrack reads the rest of "ct state established,related".
func (b *nftBuilder) conntrack() error {
	if b.next() != "state" {
		return errors.New("of ct it knows state alone")
	}
	bits := uint32(0)
	for name := range strings.SplitSeq(b.next(), ",") {
		bit := map[string]uint32{"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}[name]
		if bit == 0 {
			return fmt.Errorf("%q is no state of a connection", name)
		}
		bits |= bit
	}
	b.exprs = append(b.exprs, &expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
	return nil
}

// printed returns a new rule as it is read back.
func printed(family string, raw []byte) (string, error) {
	decoder := nftwire.NewDecoder()
	for _, message := range []struct {
		kind       uint16
		attributes [][]byte
	}{
		{nftMsgNewTable, [][]byte{cString(nftaTableName, "t"), attribute(2, make([]byte, 4)), attribute(4, make([]byte, 8))}},
		{nftMsgNewChain, [][]byte{cString(nftaRuleTable, "t"), attribute(2, make([]byte, 8)), cString(nftaChainName, "c")}},
		{nftMsgNewRule, [][]byte{cString(nftaRuleTable, "t"), cString(nftaRuleChain, "c"), attribute(nftaRuleHandle, make([]byte, 8)), raw}},
	} {
		err := decoder.Add(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(nfnlSubsysNftables<<8 | message.kind)},
			Data:   slices.Concat(append([][]byte{nfGen(nftFamilies[family], 0)}, message.attributes...)...),
		})
		if err != nil {
			return "", err
		}
	}
	table := &decoder.Ruleset.Tables[0]
	text := netstate.NftPrinter{BigEndian: decoder.Ruleset.BigEndian}.Rule(table, &table.Chains[0].Rules[0])
	if strings.Contains(text, "[ ") {
		return "", fmt.Errorf("it would be %q", text)
	}
	return oneLine(text), nil
}
