// Package nftwire reads nf_tables' netlink messages into netstate's model. It does no I/O: bytes in, values out.
//
// Whatever the bytes are, it does not panic, and what it holds grows with their number alone. An attribute that
// it does not know is kept: in an NftOpaque of the expression, in the Opaque field of anything else.
package nftwire

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Subsystem is the number of nf_tables in the upper byte of a message's type (NFNL_SUBSYS_NFTABLES).
const Subsystem = 10

// The messages, without the subsystem (enum nf_tables_msg_types). Each New is the kernel's answer to its Get.
const (
	NewTable     = 0
	GetTable     = 1
	NewChain     = 3
	GetChain     = 4
	NewRule      = 6
	GetRule      = 7
	NewSet       = 9
	GetSet       = 10
	NewSetElem   = 12
	GetSetElem   = 13
	NewGen       = 15
	GetGen       = 16
	NewObj       = 18
	GetObj       = 19
	NewFlowtable = 22
	GetFlowtable = 23
)

// A Decoder puts a Ruleset together from the kernel's messages: first the tables, then their chains and sets,
// then the rest. It keeps parts of the messages' memory.
type Decoder struct {
	Ruleset netstate.Ruleset
	tables  map[tableKey]*table
	order   []*table // as in Ruleset.Tables
	last    *table   // the table and chain of the last rule: rules come in runs
	chain   int
}

type tableKey struct {
	family uint8
	name   string
}

// table finds things in Ruleset.Tables[at] by name.
type table struct {
	key          tableKey
	at           int
	chains, sets map[string]int
}

// NewDecoder returns a decoder for messages of this machine, or of another one of its byte order.
func NewDecoder() *Decoder {
	d := &Decoder{tables: map[tableKey]*table{}}
	d.Ruleset.BigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1
	return d
}

// Add takes one message. It returns an error if the message is malformed, or belongs to something that was
// not added: the ruleset changed while it was dumped.
func (d *Decoder) Add(m netlink.Message) error {
	if m.Header.Type>>8 != Subsystem {
		return fmt.Errorf("netlink message %#x is none of nf_tables", uint16(m.Header.Type))
	}
	const header = 4 // struct nfgenmsg: family, version, the generation's lower half
	if len(m.Data) < header {
		return fmt.Errorf("nf_tables message of %d bytes: too short", len(m.Data))
	}
	family, a := m.Data[0], parse(m.Data[header:])
	if a.bad {
		return fmt.Errorf("nf_tables message %d: malformed attributes", m.Header.Type&0xff)
	}
	var err error
	switch m.Header.Type & 0xff {
	case NewGen:
		a.must(1)
		d.Ruleset.Generation = a.u32(1)
	case NewTable:
		err = d.addTable(family, &a)
	case NewChain:
		err = d.addChain(family, &a)
	case NewRule:
		err = d.addRule(family, &a)
	case NewSet:
		err = d.addSet(family, &a)
	case NewSetElem:
		err = d.addElements(family, &a)
	case NewObj:
		err = d.addObject(family, &a)
	case NewFlowtable:
		err = d.addFlowtable(family, &a)
	default:
		return fmt.Errorf("nf_tables message %d is no answer to a question", m.Header.Type&0xff)
	}
	if err == nil && a.bad {
		err = fmt.Errorf("nf_tables message %d: an attribute is not of the shape that it should have", m.Header.Type&0xff)
	}
	return err
}

// find returns the table that a message names in attribute n.
func (d *Decoder) find(family uint8, a *attrs, n int) (*table, *netstate.NftTable, error) {
	name := a.text(n)
	if d.last == nil || d.last.key.family != family || d.last.key.name != name {
		t := d.tables[tableKey{family, name}]
		if t == nil {
			return nil, nil, fmt.Errorf("nft table %q of family %d was not there when the tables were read", name, family)
		}
		d.last, d.chain = t, -1
	}
	return d.last, &d.Ruleset.Tables[d.last.at], nil
}

func (d *Decoder) addTable(family uint8, a *attrs) error {
	a.must(1)
	a.skip(3, 5)
	key := tableKey{family, a.text(1)}
	if d.tables[key] != nil {
		return fmt.Errorf("nft table %q of family %d comes twice", key.name, family)
	}
	flags := a.u32(2)
	t := netstate.NftTable{Family: a.name(uint32(family), families), Name: key.name, Handle: a.u64(4), Dormant: bit(&flags, 1),
		Owner: a.u32(7), Userdata: a.bytes(6)}
	bit(&flags, 2) // that there is an owner
	t.Persist = bit(&flags, 4)
	a.leave(2, flags)
	t.Comment = note(t.Userdata, 0)
	t.Opaque = a.rest()
	entry := &table{key: key, at: len(d.Ruleset.Tables), chains: map[string]int{}, sets: map[string]int{}}
	d.tables[key] = entry
	d.order = append(d.order, entry)
	d.Ruleset.Tables = append(d.Ruleset.Tables, t)
	return nil
}

func (d *Decoder) addChain(family uint8, a *attrs) error {
	t, table, err := d.find(family, a, 1)
	if err != nil {
		return err
	}
	a.must(3)
	a.skip(6, 9, 11)
	flags := a.u32(10)
	bit(&flags, 1) // that it is a base chain
	c := netstate.NftChain{Handle: a.u64(2), Name: a.text(3), Offload: bit(&flags, 2), Bound: bit(&flags, 4), Userdata: a.bytes(12)}
	a.leave(10, flags)
	if a.has&(1<<4) != 0 {
		h := parse(a.bytes(4))
		h.must(1, 2)
		c.Hook = &netstate.NftHook{Type: a.text(7), Priority: int32(h.u32(2)), Policy: a.word(5, []string{"drop", "accept"})}
		c.Hook.Name = h.name(h.u32(1), hooks(table.Family))
		if device := h.text(3); device != "" {
			c.Hook.Devices = []string{device}
		}
		if many := devices(&h, 4); many != nil {
			c.Hook.Devices = many
		}
		if h.bad {
			a.bad = true
		}
		c.Opaque = h.rest()
		if a.has&(1<<8) != 0 {
			counter := parse(a.bytes(8))
			counter.skip(3)
			c.Hook.Bytes, c.Hook.Packets = counter.u64(1), counter.u64(2)
		}
	}
	c.Comment = note(c.Userdata, 0)
	c.Opaque = append(c.Opaque, a.rest()...)
	t.chains[c.Name] = len(table.Chains)
	table.Chains = append(table.Chains, c)
	return nil
}

// hooks returns the words for a family's hook numbers.
func hooks(family string) []string {
	switch family {
	case "arp":
		return []string{"input", "output", "forward"}
	case "netdev":
		return []string{"ingress", "egress"}
	}
	return []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
}

// devices returns a list of links; a prefix is written "eth*".
func devices(a *attrs, n int) []string {
	var names []string
	ok := each(a.bytes(n), func(kind uint16, data []byte) {
		switch kind {
		case 1:
			names = append(names, trim(data))
		case 2:
			names = append(names, trim(data)+"*")
		default:
			a.bad = true
		}
	})
	a.bad = a.bad || !ok
	return names
}

func (d *Decoder) addRule(family uint8, a *attrs) error {
	t, table, err := d.find(family, a, 1)
	if err != nil {
		return err
	}
	if name := a.bytes(2); d.chain < 0 || table.Chains[d.chain].Name != trim(name) {
		at, known := t.chains[trim(name)]
		if !known {
			return fmt.Errorf("nft chain %q of table %q was not there when the chains were read", trim(name), t.key.name)
		}
		d.chain = at
	}
	a.skip(6, 8, 9, 10, 11)
	r := netstate.NftRule{Handle: a.u64(3), Userdata: a.bytes(7)}
	r.Comment = note(r.Userdata, 0)
	r.Exprs = d.expressions(a, 4, 0)
	if a.has&(1<<5) != 0 {
		c := parse(a.bytes(5))
		flags := c.u32(2)
		r.Compat = &netstate.NftCompat{Proto: c.u32(1), Invert: bit(&flags, 2)}
		if flags != 0 || !c.whole() {
			r.Exprs = append(r.Exprs, &netstate.NftOpaque{Expr: "compat", Raw: a.at[5]})
		}
	}
	if rest := a.rest(); rest != nil {
		r.Exprs = append(r.Exprs, &netstate.NftOpaque{Expr: "rule", Raw: rest})
	}
	chain := &table.Chains[d.chain]
	chain.Rules = append(chain.Rules, r)
	return nil
}

func (d *Decoder) addObject(family uint8, a *attrs) error {
	_, table, err := d.find(family, a, 1)
	if err != nil {
		return err
	}
	a.must(2, 3)
	a.skip(5, 7)
	o := netstate.NftObject{Name: a.text(2), Handle: a.u64(6), Userdata: a.bytes(8)}
	if kind := a.u32(3); kind > 0 && kind < uint32(len(objectTypes)) {
		o.Type = objectTypes[kind]
	} else {
		o.Type = fmt.Sprintf("object %d", kind)
	}
	o.Exprs = netstate.NftExprs{object(o.Type, a.bytes(4))}
	o.Comment = note(o.Userdata, 0)
	o.Opaque = a.rest()
	table.Objects = append(table.Objects, o)
	return nil
}

func (d *Decoder) addFlowtable(family uint8, a *attrs) error {
	_, table, err := d.find(family, a, 1)
	if err != nil {
		return err
	}
	a.must(2)
	a.skip(4, 6)
	flags := a.u32(7)
	f := netstate.NftFlowtable{Name: a.text(2), Handle: a.u64(5), Offload: bit(&flags, 1), Counter: bit(&flags, 2)}
	a.leave(7, flags)
	h := parse(a.bytes(3))
	f.Hook, f.Priority, f.Devices = h.name(h.u32(1), hooks("netdev")), int32(h.u32(2)), devices(&h, 3)
	if h.bad {
		a.bad = true
	}
	f.Opaque = append(h.rest(), a.rest()...)
	table.Flowtables = append(table.Flowtables, f)
	return nil
}

// leave makes attribute n count as unread if flags of it were left over.
func (a *attrs) leave(n int, flags uint32) {
	if flags != 0 {
		a.read &^= 1 << n
	}
}

// entry returns one entry of nft's userdata: type, length and value, one byte each but the value.
func entry(userdata []byte, kind byte) []byte {
	for b := userdata; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		if b[0] == kind {
			return b[2 : 2+int(b[1])]
		}
	}
	return nil
}

// note returns an entry that is a string.
func note(userdata []byte, kind byte) string { return trim(entry(userdata, kind)) }
