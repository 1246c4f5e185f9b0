package netstate

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// XTables returns the rules behind a chain of an iptables-nft table, in the order in which iptables-save prints them.
func (r *Ruleset) XTables(family Family, table, chain string) []NftRule {
	name := "ip"
	if family == IPv6 {
		name = "ip6"
	}
	if c := r.Table(name, table).Chain(chain); c != nil {
		return c.Rules
	}
	return nil
}

// Covered says whether text, a rule as iptables-save of iptables-nft prints it (without "-A CHAIN"), says all that the
// rule behind it does. It need not: what iptables-nft does not know in a rule, as nft or another program may have put
// there, it leaves out without a word (1.8.9: `ip saddr @s drop` is saved as `-j DROP`).
//
// Each expression must be found in the text with its value, and nothing may be left over in the text. What an xt match
// or target says about itself is trusted: iptables prints it from the same bytes. In doubt the answer is no.
func Covered(text string, rule *NftRule) bool {
	saved, ok := readSaved(text)
	if !ok {
		return false
	}
	for exprs := rule.Exprs; len(exprs) > 0; {
		n := saved.account(exprs)
		if n == 0 {
			return false
		}
		exprs = exprs[n:]
	}
	return saved.empty()
}

// A savedRule is a rule in iptables' words; what has been accounted for is taken out.
type savedRule struct {
	options []savedOption // -s, -d, -i, -o, -p, -f
	matches []savedPart   // -m
	target  savedPart     // -j or -g
}

// A savedPart is an extension with its options.
type savedPart struct {
	name    string
	jump    bool // -j, not -g
	options []savedOption
}

// A savedOption is one option, "!" before it, and its values.
type savedOption struct {
	not    bool
	name   string
	values []string
}

// readSaved reads the words of a saved rule.
func readSaved(text string) (*savedRule, bool) {
	words, ok := savedWords(text)
	if !ok {
		return nil, false
	}
	var r savedRule
	to := &r.options
	for len(words) > 0 {
		var o savedOption
		if words[0] == "!" {
			o.not, words = true, words[1:]
		}
		if len(words) == 0 || !strings.HasPrefix(words[0], "-") {
			return nil, false
		}
		o.name, words = words[0], words[1:]
		for len(words) > 0 && words[0] != "!" && !strings.HasPrefix(words[0], "-") {
			o.values, words = append(o.values, words[0]), words[1:]
		}
		switch o.name {
		case "-m", "-j", "-g":
			if len(o.values) != 1 || o.not {
				return nil, false
			}
			part := savedPart{name: o.values[0], jump: o.name == "-j"}
			if o.name == "-m" {
				r.matches = append(r.matches, part)
				to = &r.matches[len(r.matches)-1].options
			} else {
				r.target = part
				to = &r.target.options
			}
		case "-s", "-d", "-i", "-o", "-p", "-f":
			r.options = append(r.options, o)
		default:
			*to = append(*to, o)
		}
	}
	// A comment stands in the rule's userdata, or is a match that always holds.
	r.matches = slices.DeleteFunc(r.matches, func(m savedPart) bool { return m.name == "comment" })
	return &r, true
}

// savedWords splits at spaces outside of quotes.
func savedWords(text string) (words []string, ok bool) {
	var word []byte
	inWord, quoted := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted && i+1 < len(text):
			i++
			word = append(word, text[i])
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			if inWord {
				words = append(words, string(word))
			}
			word, inWord = word[:0], false
		default:
			word, inWord = append(word, c), true
		}
	}
	if inWord {
		words = append(words, string(word))
	}
	return words, !quoted
}

// empty says whether everything was accounted for. A match by its protocol's name alone says what -p does.
func (r *savedRule) empty() bool {
	for _, m := range r.matches {
		if len(m.options) > 0 || m.name != "tcp" && m.name != "udp" {
			return false
		}
	}
	return len(r.options) == 0 && r.target.name == ""
}

// account takes out of the text what the first expressions say, and returns how many they are; 0: the text does not
// say it.
func (r *savedRule) account(exprs NftExprs) int {
	switch e := exprs[0].(type) {
	case *NftCounter:
		return 1
	case *NftMatch:
		return count(e.Match == "comment" || r.takeMatch(e.Match))
	case *NftTarget:
		return count(r.takeTarget(e.Target, true))
	case *NftLimit:
		return count(e.Type == "packets" && !e.Over && r.takeMatch("limit"))
	case *NftLog:
		return count(e.Group != nil && r.takeTarget("NFLOG", true))
	case *NftImmediate:
		if e.Verdict != nil {
			return count(r.verdict(e.Verdict))
		}
		if len(exprs) > 1 {
			set, ok := exprs[1].(*NftMeta)
			if ok && set.Key == "nftrace" && set.Sreg == e.Dreg && string(e.Data) == "\x01" && r.takeTarget("TRACE", true) {
				return 2
			}
		}
		return 0
	}
	return r.comparison(exprs)
}

func count(found bool) int {
	if found {
		return 1
	}
	return 0
}

func (r *savedRule) takeMatch(name string) bool {
	i := slices.IndexFunc(r.matches, func(m savedPart) bool {
		return m.name == name || m.name == "state" && name == "conntrack" // -m state is an alias
	})
	if i < 0 || unknownToIptables(r.matches[i]) {
		return false
	}
	r.matches = slices.Delete(r.matches, i, i+1)
	return true
}

// unknownToIptables says whether iptables could not print an extension: it writes [unsupported revision] then.
func unknownToIptables(p savedPart) bool {
	return slices.ContainsFunc(p.options, func(o savedOption) bool {
		return slices.ContainsFunc(o.values, func(v string) bool { return strings.HasPrefix(v, "[unsupported") })
	})
}

func (r *savedRule) takeTarget(name string, jump bool) bool {
	said := r.target.name
	if said == "NOTRACK" && name == "CT" { // -j NOTRACK is an alias
		said = name
	}
	if said != name || r.target.jump != jump || unknownToIptables(r.target) {
		return false
	}
	r.target = savedPart{}
	return true
}

func (r *savedRule) verdict(v *NftVerdict) bool {
	switch v.Code {
	case "accept", "drop", "return":
		return r.takeTarget(strings.ToUpper(v.Code), true)
	case "jump", "goto":
		return r.takeTarget(v.Chain, v.Code == "jump")
	}
	return false
}

// comparison accounts for a load, its mask and its comparisons.
func (r *savedRule) comparison(exprs NftExprs) int {
	var reg NftReg
	switch e := exprs[0].(type) {
	case *NftPayload:
		reg = e.Dreg
	case *NftMeta:
		reg = e.Dreg
	}
	if reg == NoReg {
		return 0
	}
	n := 1
	var mask Hex
	if n < len(exprs) {
		if b, ok := exprs[n].(*NftBitwise); ok {
			if b.Sreg != reg || b.Dreg != reg || b.Op != "mask-xor" || !zero(b.Xor) {
				return 0
			}
			mask = b.Mask
			n++
		}
	}
	from, to, not, more := bounds(exprs[n:], reg)
	if more == 0 || len(from) != len(to) || mask != nil && len(mask) != len(from) {
		return 0
	}
	n += more
	single := bytes.Equal(from, to)
	said := false
	switch e := exprs[0].(type) {
	case *NftPayload:
		said = len(from) > 0 && len(from) == int(e.Len) && r.payload(e, mask, from, to, not)
	case *NftMeta:
		switch e.Key {
		case "iifname":
			said = single && mask == nil && r.takeOption(&r.options, "-i", not, savedLink(from))
		case "oifname":
			said = single && mask == nil && r.takeOption(&r.options, "-o", not, savedLink(from))
		case "l4proto":
			said = single && mask == nil && len(from) == 1 && r.protocol(from[0], not)
		case "mark":
			said = single && len(from) == 4 && r.mark(from, mask, not)
		}
	}
	if !said {
		return 0
	}
	return n
}

// bounds reads the comparisons at the head of a list: the least and the largest value that reg may have, or with not
// must not have, and how many expressions say so; 0: none that are known here.
func bounds(exprs NftExprs, reg NftReg) (from, to Hex, not bool, n int) {
	if len(exprs) == 0 {
		return
	}
	switch e := exprs[0].(type) {
	case *NftRange:
		if e.Sreg == reg {
			return e.From, e.To, e.Op == "!=", 1
		}
	case *NftCmp:
		if e.Sreg != reg {
			return
		}
		lowest, highest := make(Hex, len(e.Data)), Hex(bytes.Repeat([]byte{0xff}, len(e.Data)))
		switch e.Op {
		case "==", "!=":
			return e.Data, e.Data, e.Op == "!=", 1
		case "<=":
			return lowest, e.Data, false, 1
		case ">=":
			if len(exprs) > 1 {
				if end, ok := exprs[1].(*NftCmp); ok && end.Op == "<=" && end.Sreg == reg && len(end.Data) == len(e.Data) {
					return e.Data, end.Data, false, 2
				}
			}
			return e.Data, highest, false, 1
		}
	}
	return
}

// payload accounts for a comparison of header bytes.
func (r *savedRule) payload(e *NftPayload, mask, from, to Hex, not bool) bool {
	single := bytes.Equal(from, to)
	at := func(base string, offset, size uint32) bool {
		return e.Base == base && e.Offset == offset && e.Len == size
	}
	switch {
	case at("transport", 0, 2):
		return mask == nil && r.port("--sport", from, to, not)
	case at("transport", 2, 2):
		return mask == nil && r.port("--dport", from, to, not)
	case at("transport", 0, 4): // both ports at once
		return single && !not && mask == nil && r.port("--sport", from[:2], from[:2], not) && r.port("--dport", from[2:], from[2:], not)
	case at("transport", 13, 1):
		return single && r.tcpFlags(mask, from, not)
	case at("network", 6, 2): // -f: any fragment but the first
		i := r.find(r.options, "-f", !not)
		if i < 0 || string(mask) != "\x1f\xff" || !single || !zero(from) || len(r.options[i].values) != 0 {
			return false
		}
		r.options = slices.Delete(r.options, i, i+1)
		return true
	case at("network", 9, 1):
		return single && mask == nil && r.protocol(from[0], not)
	case e.Base != "network" || !single:
		return false
	case e.Offset == 12 && e.Len <= 4:
		return r.address("-s", mask, from, 4, not)
	case e.Offset == 16 && e.Len <= 4:
		return r.address("-d", mask, from, 4, not)
	case e.Offset == 8 && e.Len <= 16:
		return r.address("-s", mask, from, 16, not)
	case e.Offset == 24 && e.Len <= 16:
		return r.address("-d", mask, from, 16, not)
	}
	return false
}

func (r *savedRule) find(options []savedOption, name string, not bool) int {
	return slices.IndexFunc(options, func(o savedOption) bool { return o.name == name && o.not == not })
}

// takeOption takes out an option that has exactly that value.
func (r *savedRule) takeOption(options *[]savedOption, name string, not bool, value string) bool {
	i := r.find(*options, name, not)
	if i < 0 || len((*options)[i].values) != 1 || (*options)[i].values[0] != value {
		return false
	}
	*options = slices.Delete(*options, i, i+1)
	return true
}

// savedLink writes an interface name as iptables does: a prefix ends in "+".
func savedLink(data Hex) string {
	name, _, whole := strings.Cut(string(data), "\x00")
	if !whole && len(data) < 16 {
		return name + "+"
	}
	return name
}

func (r *savedRule) protocol(number uint8, not bool) bool {
	i := r.find(r.options, "-p", not)
	if i < 0 || len(r.options[i].values) != 1 {
		return false
	}
	said := r.options[i].values[0]
	if n, err := strconv.ParseUint(said, 10, 8); err == nil && uint8(n) != number || err != nil && said != savedProtocol(number) {
		return false
	}
	r.options = slices.Delete(r.options, i, i+1)
	return true
}

// savedProtocol is iptables' own name of a protocol, which it prefers to that of /etc/protocols.
func savedProtocol(number uint8) string {
	if number == 135 {
		return "mobility-header"
	}
	return ipProtocols[uint64(number)]
}

// address accounts for -s or -d: "10.0.0.0/8", "10.0.0.1/255.0.0.255". The mask may be said by a shorter load.
func (r *savedRule) address(name string, mask, data Hex, size int, not bool) bool {
	i := r.find(r.options, name, not)
	if i < 0 || len(r.options[i].values) != 1 {
		return false
	}
	text, maskText, masked := strings.Cut(r.options[i].values[0], "/")
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.BitLen() != size*8 {
		return false
	}
	want := bytes.Repeat([]byte{0xff}, size)
	if length, err := strconv.Atoi(maskText); err == nil && length >= 0 && length <= size*8 {
		for bit := length; bit < size*8; bit++ {
			want[bit/8] &^= 0x80 >> (bit % 8)
		}
	} else if m, err := netip.ParseAddr(maskText); err == nil && m.BitLen() == size*8 {
		want = m.AsSlice()
	} else if masked {
		return false
	}
	if mask == nil {
		mask = bytes.Repeat([]byte{0xff}, len(data))
	}
	padding := make([]byte, size-len(data))
	if !bytes.Equal(append(slices.Clip(data), padding...), addr.AsSlice()) || !bytes.Equal(append(slices.Clip(mask), padding...), want) {
		return false
	}
	r.options = slices.Delete(r.options, i, i+1)
	return true
}

// port accounts for --sport or --dport: "80", "80:90".
func (r *savedRule) port(name string, from, to Hex, not bool) bool {
	for i := range r.matches {
		m := &r.matches[i]
		if m.name != "tcp" && m.name != "udp" {
			continue
		}
		text := strconv.Itoa(int(binary.BigEndian.Uint16(from)))
		if !bytes.Equal(from, to) {
			text += ":" + strconv.Itoa(int(binary.BigEndian.Uint16(to)))
		}
		if r.takeOption(&m.options, name, not, text) {
			return true
		}
	}
	return false
}

// tcpFlags accounts for --tcp-flags MASK SET.
func (r *savedRule) tcpFlags(mask, data Hex, not bool) bool {
	if mask == nil {
		return false
	}
	for i := range r.matches {
		m := &r.matches[i]
		at := r.find(m.options, "--tcp-flags", not)
		if m.name != "tcp" || at < 0 || len(m.options[at].values) != 2 {
			continue
		}
		if o := m.options[at]; savedFlags(o.values[0]) == int(mask[0]) && savedFlags(o.values[1]) == int(data[0]) {
			m.options = slices.Delete(m.options, at, at+1)
			return true
		}
	}
	return false
}

func savedFlags(text string) int {
	bits := map[string]int{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
	flags := 0
	for name := range strings.SplitSeq(text, ",") {
		bit, ok := bits[name]
		if !ok {
			return -1
		}
		flags |= bit
	}
	return flags
}

// mark accounts for -m mark --mark 0x1/0xff.
func (r *savedRule) mark(data, mask Hex, not bool) bool {
	i := slices.IndexFunc(r.matches, func(m savedPart) bool { return m.name == "mark" })
	if i < 0 || len(r.matches[i].options) != 1 {
		return false
	}
	o := r.matches[i].options[0]
	if o.name != "--mark" || o.not != not || len(o.values) != 1 {
		return false
	}
	valueText, maskText, masked := strings.Cut(o.values[0], "/")
	value, err := strconv.ParseUint(valueText, 0, 32)
	want := uint64(0xffffffff)
	if masked && err == nil {
		want, err = strconv.ParseUint(maskText, 0, 32)
	}
	if mask == nil {
		mask = Hex{0xff, 0xff, 0xff, 0xff}
	}
	// The registers are in the machine's order, whatever that is: both must be right in one of the two.
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if err == nil && uint64(order.Uint32(data)) == value && uint64(order.Uint32(mask)) == want {
			r.matches = slices.Delete(r.matches, i, i+1)
			return true
		}
	}
	return false
}
