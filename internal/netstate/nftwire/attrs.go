package nftwire

import (
	"bytes"
	"encoding/binary"

	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// attrs is one level of netlink attributes. Its methods read one by number; what was never read, or could not be,
// is found by whole and rest, so that nothing is passed over by mistake.
//
// The kernel writes numbers of nf_tables in network order. Slices share the message's memory.
type attrs struct {
	at   [32][]byte
	has  uint32 // bit n: attribute n is there
	read uint32 // bit n: it was asked for
	bad  bool   // something is not of the shape that it should have
	far  []byte // attributes with higher numbers, as they came
}

// parse splits b. It never fails: what is malformed makes attrs bad.
func parse(b []byte) attrs {
	var a attrs
	for len(b) > 0 {
		kind, data, size := next(b)
		if size == 0 {
			a.bad = true
			return a
		}
		switch {
		case kind >= uint16(len(a.at)):
			a.far = append(a.far, b[:size]...)
		case a.has&(1<<kind) != 0:
			a.bad = true
		default:
			a.at[kind] = data
			a.has |= 1 << kind
		}
		b = b[size:]
	}
	return a
}

// next returns the first attribute of b and how many bytes it takes with its padding; 0: it is malformed.
func next(b []byte) (kind uint16, data []byte, size int) {
	const header = 4
	if len(b) < header {
		return 0, nil, 0
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < header || length > len(b) {
		return 0, nil, 0
	}
	kind = binary.NativeEndian.Uint16(b[2:]) &^ (netlink.Nested | netlink.NetByteOrder)
	return kind, b[header:length:length], min((length+3)&^3, len(b))
}

// each calls f with every attribute of a list; it returns false if the list is malformed.
func each(b []byte, f func(kind uint16, data []byte)) bool {
	for len(b) > 0 {
		kind, data, size := next(b)
		if size == 0 {
			return false
		}
		f(kind, data)
		b = b[size:]
	}
	return true
}

// whole says whether every attribute was read and was as it should be.
func (a *attrs) whole() bool { return !a.bad && a.far == nil && a.has&^a.read == 0 }

// rest returns the attributes that were not read, as they came.
func (a *attrs) rest() netstate.Hex {
	var rest []byte
	for n, data := range a.at {
		if a.has&^a.read&(1<<n) != 0 {
			rest = binary.NativeEndian.AppendUint16(rest, uint16(len(data)+4))
			rest = binary.NativeEndian.AppendUint16(rest, uint16(n))
			rest = append(rest, data...)
			for len(rest)%4 != 0 {
				rest = append(rest, 0)
			}
		}
	}
	return append(rest, a.far...)
}

// must makes attrs bad if one of the attributes is absent.
func (a *attrs) must(numbers ...int) {
	for _, n := range numbers {
		if a.has&(1<<n) == 0 {
			a.bad = true
		}
	}
}

// skip passes over attributes that say nothing: padding, use counts, names known from elsewhere.
func (a *attrs) skip(numbers ...int) {
	for _, n := range numbers {
		a.read |= 1 << n
	}
}

func (a *attrs) bytes(n int) []byte {
	a.read |= 1 << n
	return a.at[n]
}

// sized returns the bytes of attribute n, or nil if it is absent or not that long.
func (a *attrs) sized(n, size int) []byte {
	b := a.bytes(n)
	if a.has&(1<<n) == 0 {
		return nil
	}
	if len(b) != size {
		a.bad = true
		return nil
	}
	return b
}

func (a *attrs) u8(n int) uint8 {
	if b := a.sized(n, 1); b != nil {
		return b[0]
	}
	return 0
}

func (a *attrs) u16(n int) uint16 {
	if b := a.sized(n, 2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (a *attrs) u32(n int) uint32 {
	if b := a.sized(n, 4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (a *attrs) u64(n int) uint64 {
	if b := a.sized(n, 8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text returns a string, which ends at its first NUL.
func (a *attrs) text(n int) string {
	return trim(a.bytes(n))
}

// trim returns the string in b, which ends at its first NUL.
func trim(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// word returns the word that stands for attribute n's number; a number without one is bad.
func (a *attrs) word(n int, words []string) string { return a.name(a.u32(n), words) }

func (a *attrs) name(number uint32, words []string) string {
	if uint64(number) >= uint64(len(words)) || words[number] == "?" {
		a.bad = true
		return ""
	}
	return words[number]
}

// bit returns whether a flag is set and clears it, so that flags left over can be seen.
func bit(flags *uint32, mask uint32) bool {
	set := *flags&mask != 0
	*flags &^= mask
	return set
}

// none makes attrs bad if a flag was left over.
func (a *attrs) none(flags uint32) {
	if flags != 0 {
		a.bad = true
	}
}

// reg returns a data register, or NoReg if the attribute is absent.
func (a *attrs) reg(n int) netstate.NftReg {
	r := a.dest(n)
	if r == netstate.VerdictReg {
		a.bad = true
	}
	return r
}

// dest returns a register that may be the verdict's.
func (a *attrs) dest(n int) netstate.NftReg {
	number := a.u32(n)
	switch {
	case a.has&(1<<n) == 0:
		return netstate.NoReg
	case number == 0:
		return netstate.VerdictReg
	case number <= 4: // NFT_REG_1 … NFT_REG_4
		return netstate.NftReg(16 * number)
	case number >= 8 && number < 24: // NFT_REG32_00 … NFT_REG32_15
		return netstate.NftReg(16 + 4*(number-8))
	}
	a.bad = true
	return netstate.NoReg
}

// inside makes attrs bad if size bytes from r on do not fit into the registers.
func (a *attrs) inside(r netstate.NftReg, size uint32) {
	const end = 80
	if r != netstate.NoReg && (size > end || uint32(r)+size > end) {
		a.bad = true
	}
}

// data returns a value or a verdict (nft_data).
func (a *attrs) data(n int) (netstate.Hex, *netstate.NftVerdict) {
	if a.has&(1<<n) == 0 {
		return nil, nil
	}
	inner := parse(a.bytes(n))
	value := inner.bytes(1)
	if len(value) > 64 {
		inner.bad = true
	}
	var verdict *netstate.NftVerdict
	if inner.has&(1<<2) != 0 {
		v := parse(inner.bytes(2))
		v.must(1)
		verdict = &netstate.NftVerdict{Chain: v.text(2)}
		switch code := int32(v.u32(1)); {
		case code == 0:
			verdict.Code = "drop"
		case code == 1:
			verdict.Code = "accept"
		case code&0xffff == 3:
			verdict.Code, verdict.Queue = "queue", uint16(code>>16)
		case code >= -5 && code <= -1:
			verdict.Code = [...]string{"continue", "break", "jump", "goto", "return"}[-code-1]
		default:
			a.bad = true
		}
		if (verdict.Code == "jump" || verdict.Code == "goto") != (verdict.Chain != "") || !v.whole() {
			a.bad = true
		}
	}
	if !inner.whole() || (value == nil) == (verdict == nil) {
		a.bad = true
	}
	return value, verdict
}

// value returns a value that is no verdict.
func (a *attrs) value(n int) netstate.Hex {
	value, verdict := a.data(n)
	if verdict != nil {
		a.bad = true
	}
	return value
}
