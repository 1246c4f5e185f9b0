package packet

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

func (m *machine) compare(e *netstate.NftCmp) outcome {
	switch e.Op {
	case "==":
		return outcomeOf(m.equal(e.Sreg, e.Data))
	case "!=":
		return outcomeOf(m.equal(e.Sreg, e.Data).not())
	}
	data, dark, ok := m.span(e.Sreg, len(e.Data))
	if !ok {
		return either
	}
	low, high := m.bounds(e.Sreg, data, dark)
	a, b := bytes.Compare(low, e.Data), bytes.Compare(high, e.Data)
	holds := func(c int) bool {
		switch e.Op {
		case "<":
			return c < 0
		case "<=":
			return c <= 0
		case ">":
			return c > 0
		}
		return c >= 0
	}
	if holds(a) != holds(b) {
		return either
	}
	return outcomeOf(answerOf(holds(a)))
}

func (m *machine) bitwise(e *netstate.NftBitwise) outcome {
	n := int(e.Len)
	from, dark, ok := m.span(e.Sreg, n)
	if !ok {
		return either
	}
	data, unknown := bytes.Clone(from), bytes.Clone(dark)
	switch e.Op {
	case "mask-xor":
		for i := range data {
			mask, xor := byteAt(e.Mask, i), byteAt(e.Xor, i)
			data[i], unknown[i] = data[i]&mask^xor, unknown[i]&mask
		}
	case "<<", ">>":
		shift(data, e, m.table.order)
		shift(unknown, e, m.table.order)
	case "and", "or", "xor":
		other, otherDark, ok := m.span(e.Sreg2, n)
		if !ok {
			return either
		}
		for i := range data {
			switch e.Op {
			case "and":
				zero := ^(data[i] | unknown[i]) | ^(other[i] | otherDark[i])
				data[i] &= other[i]
				unknown[i] = (unknown[i] | otherDark[i]) &^ zero
			case "or":
				one := data[i]&^unknown[i] | other[i]&^otherDark[i]
				data[i] |= other[i]
				unknown[i] = (unknown[i] | otherDark[i]) &^ one
			default:
				data[i] ^= other[i]
				unknown[i] |= otherDark[i]
			}
		}
	default:
		return either
	}
	if !m.write(e.Dreg, data, unknown) {
		return either
	}
	return next
}

func byteAt(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// shift moves the bits of 32-bit words, the first of which is the highest.
func shift(data []byte, e *netstate.NftBitwise, order binary.ByteOrder) {
	n := (len(data) + 3) / 4
	words := make([]uint32, n)
	padded := make([]byte, 4*n)
	copy(padded, data)
	for i := range words {
		words[i] = order.Uint32(padded[4*i:])
	}
	s := e.Shift % 32
	var carry uint32
	if e.Op == "<<" {
		for i := n - 1; i >= 0; i-- {
			w := words[i]
			words[i] = w<<s | carry
			carry = uint32(uint64(w) >> (32 - s))
		}
	} else {
		for i := range words {
			w := words[i]
			words[i] = w>>s | carry
			carry = uint32(uint64(w) << (32 - s))
		}
	}
	for i, w := range words {
		order.PutUint32(padded[4*i:], w)
	}
	copy(data, padded)
}

func (m *machine) byteorder(e *netstate.NftByteorder) outcome {
	n, size := int(e.Len), int(e.Size)
	from, dark, ok := m.span(e.Sreg, n)
	if !ok || size != 2 && size != 4 && size != 8 {
		return either
	}
	data, unknown := bytes.Clone(from), bytes.Clone(dark)
	if m.table.order == binary.ByteOrder(binary.LittleEndian) {
		for i := 0; i+size <= n; i += size {
			slices.Reverse(data[i : i+size])
			slices.Reverse(unknown[i : i+size])
		}
	}
	if !m.write(e.Dreg, data, unknown) {
		return either
	}
	return next
}
