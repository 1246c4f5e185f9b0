//go:build linux

package nftwire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestSpoilt prints rules of expressions that stand in no order and have values that do not fit: a saved document
// may have anything. It must not panic, and it must not leave an expression out without a word.
func TestSpoilt(t *testing.T) {
	const rules = 100_000
	var pool netstate.NftExprs
	var tables []*netstate.NftTable
	for _, path := range recordings(t) {
		ruleset := load(t, path)
		for i := range ruleset.Tables {
			table := &ruleset.Tables[i]
			tables = append(tables, table)
			for _, c := range table.Chains {
				for _, r := range c.Rules {
					pool = append(pool, r.Exprs...)
				}
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range rules {
		table := tables[random.IntN(len(tables))]
		for i := range table.Sets {
			if random.IntN(50) == 0 && len(table.Sets[i].Elements) > 0 {
				spoil(random, reflect.ValueOf(&table.Sets[i].Elements[0]).Elem())
				spoil(random, reflect.ValueOf(&table.Sets[i]).Elem())
			}
		}
		r := netstate.NftRule{Exprs: make(netstate.NftExprs, 1+random.IntN(6))}
		for i := range r.Exprs {
			original := reflect.ValueOf(pool[random.IntN(len(pool))]).Elem()
			spoilt := reflect.New(original.Type())
			spoilt.Elem().Set(original)
			if random.IntN(2) == 0 {
				spoil(random, spoilt.Elem())
			}
			r.Exprs[i] = spoilt.Interface().(netstate.NftExpr)
		}
		text := netstate.NftPrinter{Counters: true}.Rule(table, &r)
		if text == "" {
			t.Fatalf("nothing printed of %s", marshal(t, r))
		}
		netstate.Covered("-s 10.0.0.0/8 -p tcp -m tcp --dport 80 --tcp-flags SYN SYN -m mark --mark 1 -j web", &r)
	}
}

// spoil changes fields of a struct.
func spoil(random *rand.Rand, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		if random.IntN(3) > 0 {
			continue
		}
		switch f.Kind() {
		case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			f.SetUint([]uint64{0, 1, 2, 3, 4, 8, 16, 20, 32, 64, 255, 1 << 31}[random.IntN(12)] & (1<<(8*f.Type().Size()-1) - 1))
		case reflect.Bool:
			f.SetBool(!f.Bool())
		case reflect.Slice:
			if h, ok := f.Interface().(netstate.Hex); ok {
				spoilt := make(netstate.Hex, random.IntN(20))
				copy(spoilt, h)
				f.Set(reflect.ValueOf(spoilt))
			}
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// attribute is one netlink attribute, padded.
func attribute(kind uint16, data ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func join(parts ...[]byte) []byte { return []byte(strings.Join(texts(parts), "")) }

func texts(parts [][]byte) []string {
	out := make([]string, len(parts))
	for i, part := range parts {
		out[i] = string(part)
	}
	return out
}

// TestUnknown says that an attribute of a kernel to come is kept, wherever it stands.
func TestUnknown(t *testing.T) {
	name := func(kind uint16, text string) []byte { return attribute(kind, append([]byte(text), 0)...) }
	future := attribute(31, 1, 2, 3, 4)
	message := func(kind uint16, parts ...[]byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(Subsystem<<8 | kind)}, Data: append([]byte{2, 0, 0, 0}, join(parts...)...)}
	}
	expr := func(kind string, parts ...[]byte) []byte {
		return attribute(1, join(name(1, kind), attribute(2, join(parts...)...))...)
	}
	number := func(kind uint16, n uint32) []byte { return attribute(kind, binary.BigEndian.AppendUint32(nil, n)...) }
	d := NewDecoder()
	for _, m := range []netlink.Message{
		message(NewTable, name(1, "t"), number(2, 0x81), future),
		message(NewChain, name(1, "t"), name(3, "c"), future),
		message(NewSet, name(1, "t"), name(2, "s"), number(5, 4), future),
		message(NewRule, name(1, "t"), name(2, "c"), future, attribute(4, join(
			expr("counter", attribute(1, 0, 0, 0, 0, 0, 0, 0, 1), future), // an attribute more
			expr("quantum", number(1, 5)),                                 // a type more
			expr("meta", number(1, 1), number(2, 99)),                     // a key more
			expr("meta", number(1, 77), number(2, 3)),                     // a register that there is not
			expr("limit", attribute(1, 1, 2), attribute(2, 0, 0, 0, 0, 0, 0, 0, 1)),
			expr("notrack"),
		)...)),
		message(NewSetElem, name(1, "t"), name(2, "s"), attribute(3, attribute(1, join(attribute(1, attribute(1, 1, 2, 3, 4)...), future)...)...)),
		message(NewObj, name(1, "t"), name(2, "o"), number(3, 77), attribute(4, future...), future),
		message(NewFlowtable, name(1, "t"), name(2, "f"), attribute(3, join(number(1, 0), number(2, 0))...), future),
	} {
		if err := d.Add(m); err != nil {
			t.Fatalf("message %#x: %v", m.Header.Type, err)
		}
	}
	table := &d.Ruleset.Tables[0]
	for what, opaque := range map[string]netstate.Hex{"table": table.Opaque, "chain": table.Chains[0].Opaque, "set": table.Sets[0].Opaque,
		"element": table.Sets[0].Elements[0].Opaque, "object": table.Objects[0].Opaque, "flowtable": table.Flowtables[0].Opaque} {
		if len(opaque) == 0 {
			t.Errorf("%s: an attribute is lost", what)
		}
	}
	if !table.Dormant {
		t.Error("a flag that is not known hides one that is")
	}
	var names []string
	for _, e := range table.Chains[0].Rules[0].Exprs {
		if o, ok := e.(*netstate.NftOpaque); ok {
			names = append(names, o.Expr)
		} else {
			names = append(names, "known "+e.Name())
		}
	}
	if got, want := strings.Join(names, ", "), "counter, quantum, meta, meta, limit, known notrack, rule"; got != want {
		t.Errorf("expressions: %s, want %s", got, want)
	}
}

// A kernel answers a reader; its ruleset may move on.
type kernel struct {
	generation uint32
	moves      int // so many times it changes while it is dumped
	how        error
	flags      netlink.HeaderFlags
}

func (k *kernel) execute(m netlink.Message) ([]netlink.Message, error) {
	switch m.Header.Type & 0xff {
	case GetGen:
		answer := append([]byte{0, 0, 0, 0}, attribute(1, binary.BigEndian.AppendUint32(nil, k.generation)...)...)
		return []netlink.Message{{Header: netlink.Header{Type: Subsystem<<8 | NewGen}, Data: answer}}, nil
	case GetTable:
		answer := append([]byte{2, 0, 0, 0}, attribute(1, 't', 0)...)
		message := netlink.Message{Header: netlink.Header{Type: Subsystem<<8 | NewTable}, Data: answer}
		if k.moves > 0 {
			k.moves--
			if k.how != nil {
				return nil, k.how
			}
			if k.flags != 0 {
				message.Header.Flags = k.flags
			} else {
				k.generation++
			}
		}
		return []netlink.Message{message}, nil
	}
	return nil, nil
}

func TestRead(t *testing.T) {
	for _, test := range []struct {
		name string
		k    kernel
		want error
	}{
		{"still", kernel{generation: 7}, nil},
		{"generation moves twice", kernel{generation: 7, moves: 2}, nil},
		{"generation moves thrice", kernel{generation: 7, moves: 3}, ErrMoved},
		{"dump interrupted twice", kernel{generation: 7, moves: 2, flags: netlink.DumpInterrupted}, nil},
		{"dump interrupted thrice", kernel{generation: 7, moves: 3, flags: netlink.DumpInterrupted}, ErrMoved},
		{"gone thrice", kernel{generation: 7, moves: 3, how: syscall.ENOENT}, ErrMoved},
		{"not allowed", kernel{generation: 7, moves: 1, how: syscall.EPERM}, syscall.EPERM},
	} {
		t.Run(test.name, func(t *testing.T) {
			ruleset, err := Read(test.k.execute)
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err == nil && (ruleset.Generation != test.k.generation || len(ruleset.Tables) != 1) {
				t.Errorf("generation %d with %d tables", ruleset.Generation, len(ruleset.Tables))
			}
		})
	}
}

// FuzzDecode reads any bytes. What comes of them is not much larger than they are, can be printed and saved.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"testdata/words.netlink", "testdata/iptables-1.8.9.netlink"} {
		recording, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		messages, err := syscall.ParseNetlinkMessage(recording)
		if err != nil {
			f.Fatal(err)
		}
		var before []byte // what a rule needs: its table and chains
		for _, m := range messages {
			raw := appendMessage(nil, netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(m.Header.Type)}, Data: m.Data})
			switch m.Header.Type & 0xff {
			case NewRule, NewSetElem:
				f.Add(append(before[:len(before):len(before)], raw...))
			case NewTable:
				before = append(before, raw...)
			case NewChain, NewSet:
				if len(before) < 2000 {
					before = append(before, raw...)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ruleset, _ := decode(b)
		if ruleset == nil {
			return
		}
		ours(ruleset)
		text, err := json.Marshal(ruleset)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 1000+100*len(b) {
			t.Errorf("%d bytes became %d", len(b), len(text))
		}
		var back netstate.Ruleset
		if err := json.Unmarshal(text, &back); err != nil {
			t.Errorf("%v: %s", err, text)
		}
	})
}
