package netstate

import (
	"bytes"
	"cmp"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// Elements writes the elements of a set or map as nft does, each by itself: `10.0.0.0/8 comment "x"`,
// `"eth0" . 80 : jump web`.
func (p NftPrinter) Elements(t *NftTable, s *NftSet) []string {
	text := nftRuleText{NftPrinter: p, table: t}
	return text.elements(s, text.fieldsOf(s.KeyType, s.KeyLen, s.Fields, s.HostKey))
}

// nftSizes are the bytes of a type's values, where they are always the same.
var nftSizes = map[*nftType]uint32{nftIPv4: 4, nftIPv6: 16, nftEther: 6, nftEthertype: 2, nftArpop: 2, nftProtocol: 1, nftPort: 2,
	nftIcmpType: 1,
	nftTCPFlags: 1, nftTime: 8, nftMark: 4, nftIfindex: 4, nftArphrd: 2, nftClassid: 4, nftCtState: 4, nftCtDir: 1, nftCtStatus: 4, nftIcmp6Type: 1,
	nftCtLabel: 16, nftPkttype: 1, nftIcmpCode: 1, nftIcmp6Code: 1, nftDevgroup: 4, nftDscp: 1, nftEcn: 1, nftAddrtype: 4, nftBoolean: 1,
	nftCtEvent: 4, nftIfname: 16, nftIgmpType: 1, nftNfproto: 1, nftDate: 8, nftHour: 4, nftDay: 1}

// fieldsOf returns the kinds and sizes behind the number of a type, which has 6 bits a field.
func (p *nftRuleText) fieldsOf(number, length uint32, sizes []uint32, host bool) []nftLeft {
	var fields []nftLeft
	for shift := 24; shift >= 0; shift -= 6 {
		n := number >> shift & 0x3f
		if n == 0 && fields == nil && shift > 0 {
			continue
		}
		kind := nftHexInteger
		if int(n) < len(nftTypes) && nftTypes[n] != nil {
			kind = nftTypes[n]
		}
		if kind == nftInteger && host {
			kind = nftHostInteger
		}
		fields = append(fields, nftLeft{kind: kind, size: nftSizes[kind]})
	}
	switch {
	case len(sizes) == len(fields):
		for i := range fields {
			fields[i].size = sizes[i]
		}
	case len(fields) == 1:
		fields[0].size = length
	}
	return fields
}

// elements writes the elements of a set whose keys are those parts, in nft's order.
func (p *nftRuleText) elements(s *NftSet, parts []nftLeft) []string {
	sorted := slices.Clone(s.Elements)
	if s.Interval && len(parts) == 1 {
		slices.SortStableFunc(sorted, func(a, b NftElement) int {
			return cmp.Or(flagLast(a.CatchAll, b.CatchAll), bytes.Compare(a.Key, b.Key), -flagLast(a.IntervalEnd, b.IntervalEnd))
		})
		return p.intervals(s, sorted, parts[0])
	}
	slices.SortStableFunc(sorted, func(a, b NftElement) int {
		return cmp.Or(flagLast(a.CatchAll, b.CatchAll), p.compareKeys(a.Key, b.Key, parts))
	})
	texts := make([]string, len(sorted))
	for i := range sorted {
		e := &sorted[i]
		texts[i] = p.element(s, e, p.key(e, parts))
	}
	return texts
}

func flagLast(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// compareKeys orders keys: as numbers or by the alphabet.
func (p *nftRuleText) compareKeys(a, b Hex, parts []nftLeft) int {
	if len(parts) == 1 && parts[0].kind.host && !parts[0].network && !p.BigEndian {
		a, b = reversed(a), reversed(b)
	}
	return bytes.Compare(a, b)
}

// key writes the key of one element.
func (p *nftRuleText) key(e *NftElement, parts []nftLeft) string {
	if e.CatchAll {
		return "*"
	}
	if len(parts) == 1 {
		return p.right(parts[0], e.Key)
	}
	var texts []string
	from, to := e.Key, e.KeyEnd
	for _, part := range parts {
		size := int(part.size)
		padded := (size + 3) &^ 3
		if size == 0 || padded > len(from) || to != nil && padded > len(to) {
			return "[ key " + hexText(e.Key) + " ]"
		}
		text := p.right(part, from[:size])
		if to != nil && !bytes.Equal(from[:size], to[:size]) {
			text = p.between(part, from[:size], to[:size])
		}
		texts = append(texts, text)
		from = from[padded:]
		if to != nil {
			to = to[padded:]
		}
	}
	return strings.Join(texts, " . ")
}

func hexText(h Hex) string {
	text, _ := h.MarshalText()
	return string(text)
}

// between writes a range, as a prefix if it is one and the type has prefixes.
func (p *nftRuleText) between(part nftLeft, from, to []byte) string {
	if length, ok := prefixOf(from, to); ok && (part.kind == nftIPv4 || part.kind == nftIPv6) {
		return p.right(part, from) + "/" + strconv.Itoa(length)
	}
	if part.kind == nftIfname {
		// All names with a prefix: NULs behind it in the first, ones in the last.
		name := bytes.TrimRight(from, "\x00")
		if rest, ok := bytes.CutPrefix(to, name); ok && len(bytes.Trim(rest, "\xff")) == 0 {
			return nftName(p, name)
		}
	}
	return p.span(part, from, to)
}

// prefixOf returns the length of the prefix that has exactly the addresses between from and to.
func prefixOf(from, to []byte) (int, bool) {
	if len(from) != len(to) {
		return 0, false
	}
	mask := make([]byte, len(from))
	for i := range from {
		mask[i] = ^(from[i] ^ to[i])
		if from[i]&^mask[i] != 0 || to[i]|mask[i] != 0xff {
			return 0, false
		}
	}
	return prefixLength(mask)
}

// intervals writes the elements of an interval set of one field, which are sorted: starts and ends.
func (p *nftRuleText) intervals(s *NftSet, sorted []NftElement, part nftLeft) []string {
	part.network = true // that is how the kernel sorts them
	if part.kind == nftIfname || part.kind == nftString {
		return p.namePrefixes(s, sorted, part)
	}
	var texts []string
	for i := range sorted {
		e := &sorted[i]
		if e.IntervalEnd {
			continue
		}
		if e.CatchAll {
			texts = append(texts, p.element(s, e, "*"))
			continue
		}
		last := slices.Repeat([]byte{0xff}, len(e.Key))
		if i+1 < len(sorted) && !sorted[i+1].CatchAll && len(sorted[i+1].Key) == len(e.Key) && bytes.Compare(sorted[i+1].Key, e.Key) > 0 {
			n := new(big.Int).SetBytes(sorted[i+1].Key)
			n.Sub(n, big.NewInt(1)).FillBytes(last)
		}
		text := p.right(part, e.Key)
		if !bytes.Equal(last, e.Key) {
			text = p.between(part, e.Key, last)
		}
		texts = append(texts, p.element(s, e, text))
	}
	return texts
}

// namePrefixes writes intervals of names: from a prefix to the first name that has not got it.
func (p *nftRuleText) namePrefixes(s *NftSet, sorted []NftElement, part nftLeft) []string {
	var texts []string
	for i := range sorted {
		e := &sorted[i]
		if e.IntervalEnd {
			continue
		}
		text := "*"
		if !e.CatchAll {
			name := bytes.TrimRight(e.Key, "\x00")
			text = nftName(p, append(slices.Clip(name), 0))
			if i+1 < len(sorted) && !bytes.Equal(after(e.Key), sorted[i+1].Key) {
				text = nftName(p, name)
			}
		}
		texts = append(texts, p.element(s, e, text))
	}
	return texts
}

// after returns the number behind b.
func after(b []byte) []byte {
	n := new(big.Int).SetBytes(b)
	n.Add(n, big.NewInt(1))
	if n.BitLen() > len(b)*8 {
		return nil
	}
	return n.FillBytes(make([]byte, len(b)))
}

// element writes what stands behind the key.
func (p *nftRuleText) element(s *NftSet, e *NftElement, text string) string {
	for _, expr := range e.Exprs {
		words, ok := p.state(expr)
		if !ok {
			words = "[ " + expr.Name() + " ]"
		}
		text += " " + words
	}
	if e.Timeout != 0 && e.Timeout != s.Timeout {
		text += " timeout " + nftDuration(e.Timeout)
	}
	if e.Expiration != 0 && p.Counters {
		text += " expires " + nftDuration(e.Expiration)
	}
	if e.Comment != "" {
		text += ` comment "` + e.Comment + `"`
	}
	if e.Opaque != nil {
		text += " [ " + hexText(e.Opaque) + " ]"
	}
	switch {
	case e.Verdict != nil:
		text += " : " + p.verdict(e.Verdict)
	case e.Object != "":
		text += ` : "` + e.Object + `"`
	case e.Data != nil:
		text += " : " + p.data(s, e.Data)
	}
	return text
}

// data writes what a map gives.
func (p *nftRuleText) data(s *NftSet, data Hex) string {
	fields := p.fieldsOf(s.DataType, s.DataLen, nil, s.HostData)
	if len(fields) == 1 {
		kind := fields[0].kind
		if size := int(nftSizes[kind]); size > 0 && len(data) == 2*((size+3)&^3) {
			from, to := data[:size], data[len(data)/2:len(data)/2+size]
			if bytes.Equal(from, to) {
				return p.constant(kind, from, false)
			}
			return p.between(fields[0], from, to)
		}
		return p.constant(kind, data, false)
	}
	total := 0
	for _, field := range fields {
		total += int(field.size+3) &^ 3
	}
	e := NftElement{Key: data}
	if total*2 == len(data) {
		e.Key, e.KeyEnd = data[:total], data[total:]
	}
	return p.key(&e, fields)
}
