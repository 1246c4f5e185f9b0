package nftwire

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Entries of nft's userdata of a set. A byte order is 4 bytes of the machine's, 1 for its own order.
const (
	setKeyOrder  = 0
	setDataOrder = 1
	setComment   = 7
)

func (d *Decoder) addSet(family uint8, a *attrs) error {
	t, table, err := d.find(family, a, 1)
	if err != nil {
		return err
	}
	a.must(2)
	a.skip(10, 14, 19, 20)
	flags := a.u32(3)
	s := netstate.NftSet{Name: a.text(2), KeyType: a.u32(4), KeyLen: a.u32(5), DataType: a.u32(6), DataLen: a.u32(7),
		Timeout: a.u64(11), GCInterval: a.u32(12), Userdata: a.bytes(13), Handle: a.u64(16),
		Anonymous: bit(&flags, 1), Constant: bit(&flags, 2), Interval: bit(&flags, 4), Map: bit(&flags, 8), Timed: bit(&flags, 0x10),
		Dynamic: bit(&flags, 0x20)}
	object := bit(&flags, 0x40)
	bit(&flags, 0x80) // that it is a concatenation: Fields
	s.Stateful = bit(&flags, 0x100)
	a.leave(3, flags)
	const verdict = 0xffffff00 // NFT_DATA_VERDICT
	if s.Map && s.DataType == verdict {
		s.Verdicts, s.DataType, s.DataLen = true, 0, 0
	}
	if kind := a.u32(15); object {
		if kind == 0 || kind >= uint32(len(objectTypes)) {
			a.leave(15, 1)
		} else {
			s.ObjectType = objectTypes[kind]
		}
	}
	if a.has&(1<<8) != 0 {
		s.Policy = a.word(8, []string{"", "memory"})
	}
	if a.has&(1<<9) != 0 {
		desc := parse(a.bytes(9))
		s.Size = desc.u32(1)
		ok := each(desc.bytes(2), func(_ uint16, data []byte) {
			field := parse(data)
			s.Fields = append(s.Fields, field.u32(1))
			desc.bad = desc.bad || !field.whole()
		})
		if !ok || !desc.whole() {
			a.leave(9, 1)
		}
	}
	if a.has&(1<<17) != 0 {
		s.Exprs = netstate.NftExprs{d.expression(a.bytes(17), 0)}
	}
	s.Exprs = append(s.Exprs, d.expressions(a, 18, 0)...)
	host := binary.NativeEndian.AppendUint32(nil, 1)
	s.HostKey, s.HostData = bytes.Equal(entry(s.Userdata, setKeyOrder), host), bytes.Equal(entry(s.Userdata, setDataOrder), host)
	s.Comment = note(s.Userdata, setComment)
	s.Opaque = a.rest()
	t.sets[s.Name] = len(table.Sets)
	table.Sets = append(table.Sets, s)
	return nil
}

func (d *Decoder) addElements(family uint8, a *attrs) error {
	t, table, err := d.find(family, a, 1)
	if err != nil {
		return err
	}
	a.skip(4)
	at, known := t.sets[a.text(2)]
	if !known {
		return fmt.Errorf("nft set %q of table %q was not there when the sets were read", a.text(2), t.key.name)
	}
	s := &table.Sets[at]
	if !each(a.bytes(3), func(_ uint16, data []byte) { s.Elements = append(s.Elements, d.element(s, data)) }) {
		return fmt.Errorf("nft set %q of table %q: malformed list of elements", s.Name, t.key.name)
	}
	s.Opaque = append(s.Opaque, a.rest()...)
	return nil
}

// element reads one element. What is not as it should be becomes its Opaque.
func (d *Decoder) element(s *netstate.NftSet, b []byte) netstate.NftElement {
	a := parse(b)
	a.skip(8)
	flags := a.u32(3)
	e := netstate.NftElement{IntervalEnd: bit(&flags, 1), CatchAll: bit(&flags, 2), Timeout: a.u64(4), Expiration: a.u64(5),
		Userdata: a.bytes(6), Object: a.text(9)}
	a.leave(3, flags)
	e.Key = a.value(1)
	e.KeyEnd = a.value(10)
	e.Data, e.Verdict = a.data(2)
	if a.has&(1<<7) != 0 {
		e.Exprs = netstate.NftExprs{d.expression(a.bytes(7), 0)}
	}
	if a.has&(1<<11) != 0 {
		e.Exprs = append(e.Exprs, d.expressions(&a, 11, 0)...)
	}
	e.Comment = note(e.Userdata, 0)
	wrong := len(e.Key) != int(s.KeyLen) && !e.CatchAll || e.KeyEnd != nil && len(e.KeyEnd) != int(s.KeyLen) ||
		e.Data != nil && len(e.Data) != int(s.DataLen) || e.Verdict != nil && !s.Verdicts
	if a.bad || wrong {
		e.Opaque = b
	} else {
		e.Opaque = a.rest()
	}
	return e
}

// A setID names a set for GetSetElem.
type setID struct {
	family     uint8
	table, set string
}

// setIDs returns the sets that were added so far, in the kernel's order.
func (d *Decoder) setIDs() []setID {
	var ids []setID
	for _, t := range d.order {
		for i := range d.Ruleset.Tables[t.at].Sets {
			ids = append(ids, setID{t.key.family, t.key.name, d.Ruleset.Tables[t.at].Sets[i].Name})
		}
	}
	return ids
}

// request returns the message that asks for one set's elements.
func (id setID) request() netlink.Message {
	data := []byte{id.family, 0, 0, 0}
	for n, name := range []string{id.table, id.set} {
		data = binary.NativeEndian.AppendUint16(data, uint16(4+len(name)+1))
		data = binary.NativeEndian.AppendUint16(data, uint16(n+1))
		data = append(append(data, name...), 0)
		for len(data)%4 != 0 {
			data = append(data, 0)
		}
	}
	return request(GetSetElem, data)
}

// request returns the message that asks for all of a kind, of all families; data may name one thing instead.
func request(kind uint16, data []byte) netlink.Message {
	if data == nil {
		data = []byte{0, 0, 0, 0}
	}
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(Subsystem<<8 | kind), Flags: netlink.Request | netlink.Dump}, Data: data}
}
