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

// An nftNewRule is a rule to be put in: its attributes.
type nftNewRule struct {
	raw   []byte
	links []string // of the anonymous set that it has, if any
	exprs []expr.Any
	tail  []byte // what raw has behind exprs
}

// attributes returns the rule's attributes, where its set has that number in the batch.
func (r nftNewRule) attributes(set uint32) []byte {
	if len(r.links) == 0 {
		return r.raw
	}
	for _, e := range r.exprs {
		if lookup, ok := e.(*expr.Lookup); ok && lookup.SetName == nftAnonymous {
			lookup.SetID = set
		}
	}
	raw, _ := marshalRule(r.exprs) // as it went when the rule was made
	return append(raw, r.tail...)
}

// nftAnonymous is the name by which the kernel is asked for a set without one.
const nftAnonymous = "__set%d"

// nftRuleOf makes a new rule. It knows the words that let one container's traffic pass, and those of
// Docker's own rules, which become what nft makes of them:
//
//	iifname "eth0" · oifname != "docker0" · iifname != { "docker0", "eth0" } · oifname vmap @MAP
//	ip saddr 172.17.0.0/16 · ip6 daddr != fd00::2 · ip protocol icmp · tcp dport 80 · udp sport 53
//	meta l4proto tcp · meta mark 0x1 · meta mark & 0xff == 0x1 · fib daddr type local
//	ct state established,related · counter · comment "text"
//	accept, drop, return, jump CHAIN, goto CHAIN
//	dnat to 172.17.0.2:80 · dnat to [fd00::2]:80 · snat to 192.0.2.1 · masquerade
func nftRuleOf(family, text string) (nftNewRule, error) {
	var rule nftNewRule
	if family != "ip" && family != "ip6" && family != "inet" && family != "netdev" {
		return rule, fmt.Errorf("rules of family %s are not made here", family)
	}
	b := nftBuilder{family: family}
	text, comment, hasComment := cutComment(text)
	b.left = strings.Fields(text)
	for len(b.left) > 0 {
		if err := b.statement(b.next()); err != nil {
			return rule, fmt.Errorf("%q: %w", text, err)
		}
	}
	raw, err := marshalRule(b.exprs)
	if err != nil {
		return rule, fmt.Errorf("%q: %w", text, err)
	}
	rule = nftNewRule{links: b.links, exprs: b.exprs}
	if hasComment {
		rule.tail = attribute(nftaRuleUserdata, userdata.AppendString(nil, userdata.TypeComment, comment))
	}
	rule.raw = append(raw, rule.tail...)
	return rule, nil
}

// marshalRule returns the attribute of a rule's expressions.
func marshalRule(exprs []expr.Any) ([]byte, error) {
	var list []byte
	for _, e := range exprs {
		data, err := expr.Marshal(unix.NFPROTO_UNSPEC, e)
		if err != nil {
			return nil, err
		}
		list = append(list, attribute(1|unix.NLA_F_NESTED, data)...) // NFTA_LIST_ELEM
	}
	return attribute(nftaRuleExpressions|unix.NLA_F_NESTED, list), nil
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
	links  []string // of the rule's anonymous set
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
		return b.link(word)
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
		return b.meta(b.next())
	case "fib":
		side := b.next()
		if words := side + " " + b.next() + " " + b.next(); words != side+" type local" || side != "saddr" && side != "daddr" {
			return errors.New("of fib it knows saddr or daddr type local alone")
		}
		b.exprs = append(b.exprs, &expr.Fib{Register: 1, ResultADDRTYPE: true, FlagSADDR: side == "saddr", FlagDADDR: side == "daddr"},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})
	case "masquerade":
		b.exprs = append(b.exprs, &expr.Masq{})
	case "dnat", "snat":
		return b.nat(word)
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

// linkBytes returns a link's name, in quotes or not, as the kernel compares it.
func linkBytes(text string) ([]byte, error) {
	name := strings.Trim(text, `"`)
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.HasSuffix(name, "*") {
		return nil, fmt.Errorf("%q is no link", name)
	}
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...), nil
}

// link reads what stands behind iifname or oifname.
func (b *nftBuilder) link(word string) error {
	key := expr.MetaKeyIIFNAME
	if word == "oifname" {
		key = expr.MetaKeyOIFNAME
	}
	b.exprs = append(b.exprs, &expr.Meta{Key: key, Register: 1})
	switch rest := strings.Join(b.left, " "); {
	case strings.HasPrefix(rest, "vmap @"):
		b.next()
		b.exprs = append(b.exprs, &expr.Lookup{SourceRegister: 1, IsDestRegSet: true, SetName: strings.TrimPrefix(b.next(), "@")})
		return nil
	case strings.HasPrefix(rest, "{ "), strings.HasPrefix(rest, "!= { "):
		lookup := &expr.Lookup{SourceRegister: 1, SetName: nftAnonymous, Invert: b.next() == "!="}
		if lookup.Invert {
			b.next()
		}
		var links []string
		for text := b.next(); text != "}"; text = b.next() {
			text = strings.TrimSuffix(text, ",")
			if _, err := linkBytes(text); err != nil {
				return err
			}
			links = append(links, text)
		}
		if b.links != nil {
			return errors.New("a rule has one set at most here")
		}
		b.links, b.exprs = links, append(b.exprs, lookup)
		return nil
	}
	return b.match(linkBytes)
}

// meta reads the rest of "meta l4proto tcp" and "meta mark & 0xff == 0x1".
func (b *nftBuilder) meta(key string) error {
	number := func(text string) ([]byte, error) {
		n, err := strconv.ParseUint(text, 0, 32)
		return binaryutil.NativeEndian.PutUint32(uint32(n)), err
	}
	switch key {
	case "l4proto":
		proto := b.next()
		if layer4[proto] == 0 {
			return fmt.Errorf("%q is no protocol that is known here", proto)
		}
		b.need(proto, expr.MetaKeyL4PROTO, layer4[proto])
		return nil
	case "mark":
		b.exprs = append(b.exprs, &expr.Meta{Key: expr.MetaKeyMARK, Register: 1})
		if len(b.left) > 3 && b.left[0] == "&" && b.left[2] == "==" {
			mask, err := number(b.left[1])
			if err != nil {
				return err
			}
			b.left = b.left[3:]
			b.exprs = append(b.exprs, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)})
		}
		return b.match(number)
	}
	return errors.New("of meta it knows l4proto and mark alone")
}

// nat reads the rest of "dnat to 172.17.0.2:80".
func (b *nftBuilder) nat(word string) error {
	if to := b.next(); to != "to" {
		return fmt.Errorf("%s needs to", word)
	}
	text := b.next()
	at, err := netip.ParseAddrPort(text)
	hasPort := err == nil
	addr := at.Addr()
	if !hasPort {
		if addr, err = netip.ParseAddr(text); err != nil {
			return err
		}
	}
	family := uint32(unix.NFPROTO_IPV4)
	if addr.Is6() {
		family = unix.NFPROTO_IPV6
	}
	if uint8(family) != nftFamilies[b.family] {
		return fmt.Errorf("%s is no address of family %s", addr, b.family)
	}
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1}
	if word == "snat" {
		nat.Type = expr.NATTypeSourceNAT
	}
	b.exprs = append(b.exprs, &expr.Immediate{Register: 1, Data: addr.AsSlice()})
	if hasPort {
		nat.RegProtoMin = 2
		b.exprs = append(b.exprs, &expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, at.Port())})
	}
	b.exprs = append(b.exprs, nat)
	return nil
}

// address reads the rest of "ip saddr 192.0.2.0/24" and "ip protocol icmp".
func (b *nftBuilder) address(family, side string) error {
	if side == "protocol" && family == "ip" && b.family == "ip" {
		b.exprs = append(b.exprs, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1})
		return b.match(func(text string) (data []byte, err error) {
			if layer4[text] == 0 {
				err = fmt.Errorf("%q is no protocol that is known here", text)
			}
			return []byte{layer4[text]}, err
		})
	}
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
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
	b.exprs = append(b.exprs, load)
	mask := len(b.exprs)
	return b.match(func(text string) ([]byte, error) {
		p, err := parsePrefix(text)
		if err == nil && p.Addr().BitLen() != int(size)*8 {
			err = fmt.Errorf("%q is no address of %s", text, family)
		}
		if err != nil {
			return nil, err
		}
		data := p.Masked().Addr().AsSlice()
		switch {
		case p.Bits() == p.Addr().BitLen():
		case p.Bits() > 0 && p.Bits()%8 == 0: // as nft does: whole bytes need no mask
			load.Len = uint32(p.Bits() / 8)
			data = data[:load.Len]
		default:
			b.exprs = slices.Insert(b.exprs, mask, expr.Any(&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: netmask(p), Xor: make([]byte, size)}))
		}
		return data, nil
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

// nftPrinted returns the text of a new rule as it will be read back.
func nftPrinted(family, text string) (string, error) {
	rule, err := nftRuleOf(family, text)
	if err != nil {
		return "", err
	}
	const table, chain = "t", "c"
	word := make([]byte, 8)
	messages := []netlink.Message{
		nftMessage(family, table, nftMsgNewTable, 0, attribute(nftaTableFlags, word[:4]), attribute(4, word)), // NFTA_TABLE_HANDLE
		nftMessage(family, table, nftMsgNewChain, 0, attribute(2, word), cString(nftaChainName, chain)),       // NFTA_CHAIN_HANDLE
	}
	if len(rule.links) > 0 {
		messages = append(messages, setMessages(family, table, nftAnonymous, nftSetAnonymous|nftSetConstant, 0, rule.links)...)
	}
	for _, e := range rule.exprs {
		if lookup, ok := e.(*expr.Lookup); ok && lookup.IsDestRegSet {
			messages = append(messages, setMessages(family, table, lookup.SetName, nftSetMap, 0, nil)...)
		}
	}
	messages = append(messages, nftMessage(family, table, nftMsgNewRule, 0, cString(nftaRuleChain, chain), attribute(nftaRuleHandle, word), rule.raw))
	decoder := nftwire.NewDecoder()
	for _, message := range messages {
		if err := decoder.Add(message); err != nil {
			return "", err
		}
	}
	made := &decoder.Ruleset.Tables[0]
	printed := netstate.NftPrinter{BigEndian: decoder.Ruleset.BigEndian}.Rule(made, &made.Chains[0].Rules[0])
	if strings.Contains(printed, "[ ") {
		return "", fmt.Errorf("it would be %q", printed)
	}
	return oneLine(printed), nil
}
