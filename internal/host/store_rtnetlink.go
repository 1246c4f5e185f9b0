//go:build linux

package host

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
)

// An rtStore holds the objects of one rtnetlink table, which all stand in a namespace and are made and
// removed whole. A name is what tells an object from all others, a value the rest of it; both are words
// as ip(8) writes them. An attribute that has no word is kept as "attr NUMBER HEX", so that nothing is
// lost on the way.
type rtStore struct {
	m     machine
	kind  string
	fresh uint16 // message type that makes an object; those that remove and dump it follow
	size  int    // of its fixed header
	codec rtCodec

	// place is Excl where an object's place is free or another step's thing is in it; Replace where the kernel may
	// have put something there that is none.
	place netlink.HeaderFlags
}

// An rtCodec translates messages into words and back.
type rtCodec interface {
	// text returns the name and value of an object. ok is false if it is none that a step may name.
	text(message []byte, links linkTable) (name, value string, ok bool, err error)
	// message is the inverse; its value may leave out what has a default.
	message(name, value string, links linkTable) ([]byte, error)
}

// linkTable knows the links of a namespace by name and by index.
type linkTable struct {
	names   linkNames
	indices map[string]int
}

// links returns the links of the thread's namespace.
func links() (linkTable, error) {
	table := linkTable{linkNames{}, map[string]int{}}
	all, err := net.Interfaces()
	for _, link := range all {
		table.names[link.Index] = link.Name
		table.indices[link.Name] = link.Index
	}
	return table, err
}

// index returns the index of a link.
func (t linkTable) index(name string) (uint32, error) {
	if index, ok := t.indices[name]; ok {
		return uint32(index), nil
	}
	return 0, fmt.Errorf("there is no link %s", name)
}

// canonical returns a name and value as they are read back, so that they can be compared.
func (s rtStore) canonical(name, value string, links linkTable) (string, string, error) {
	message, err := s.codec.message(name, value, links)
	if err != nil {
		return "", "", err
	}
	name, value, ok, err := s.codec.text(message, links)
	if err == nil && !ok {
		err = errors.New("is nothing that a step may change")
	}
	return name, value, err
}

// canonicalStep returns the step with a canonical name and canonical values. A link that is gone takes its
// objects with it, so what stands on one is absent.
func (s rtStore) canonicalStep(step remediate.Step, links linkTable) (remediate.Step, error) {
	known := false
	for _, value := range []**string{&step.Old, &step.New} {
		if *value == nil {
			continue
		}
		name, text, err := s.canonical(local(step.Name), **value, links)
		if err != nil {
			return step, err
		}
		step.Name, *value, known = name, &text, true
	}
	if !known {
		return step, errors.New("a step needs an old or a new value")
	}
	return step, nil
}

// each calls f for every object of the thread's namespace.
func (s rtStore) each(c *netlink.Conn, links linkTable, f func(name, value string)) error {
	answers, err := dump(c, s.fresh+2, make([]byte, s.size))
	if err == nil && s.kind == "neigh" { // those that the host answers for are a list of their own
		header := make([]byte, s.size)
		header[10] = ntfProxy
		var proxies []netlink.Message
		proxies, err = dump(c, s.fresh+2, header)
		answers = append(answers, proxies...)
	}
	if err != nil {
		return err
	}
	for _, answer := range answers {
		if answer.Header.Type != netlink.HeaderType(s.fresh) {
			continue
		}
		name, value, ok, err := s.codec.text(answer.Data, links)
		if err != nil {
			return err
		}
		if ok {
			f(name, value)
		}
	}
	return nil
}

// get returns what stands under a canonical name.
func (s rtStore) get(c *netlink.Conn, links linkTable, name string) (value *string, err error) {
	n := 0
	err = s.each(c, links, func(other, text string) {
		if other == name {
			n++
			value = &text
		}
	})
	if n > 1 {
		return nil, fmt.Errorf("there are %d of that name", n)
	}
	return value, err
}

// put makes the object new in place of old; nil: there is none.
func (s rtStore) put(c *netlink.Conn, links linkTable, name string, old, new *string) error {
	var messages [2][]byte
	for i, value := range []*string{old, new} {
		if value == nil {
			continue
		}
		var err error
		if messages[i], err = s.codec.message(name, *value, links); err != nil {
			return err
		}
	}
	if old != nil {
		if err := send(c, s.fresh+1, 0, messages[0]); err != nil {
			return fmt.Errorf("remove it: %w", err)
		}
	}
	if new == nil {
		return nil
	}
	err := send(c, s.fresh, netlink.Create|s.place, messages[1])
	if err != nil && old != nil {
		return errors.Join(err, send(c, s.fresh, netlink.Create|s.place, messages[0]))
	}
	return err
}

// send sends one request and waits for its acknowledgement.
func send(c *netlink.Conn, kind uint16, flags netlink.HeaderFlags, data []byte) error {
	_, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   data,
	})
	var refusal *netlink.OpError
	if !errors.As(err, &refusal) {
		return err
	}
	if refusal.Message != "" {
		return fmt.Errorf("%w: %s", refusal.Err, refusal.Message)
	}
	return refusal.Err
}

// with runs f in the step's namespace with an open rtnetlink and the links there.
func (m machine) with(step remediate.Step, f func(*netlink.Conn, linkTable) error) error {
	return m.in(step, func() error {
		c, err := dialRoute(netns{})
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		defer c.Close()
		links, err := links()
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		return f(c, links)
	})
}

// Look implements [remediate.Store].
func (s rtStore) Look(_ context.Context, step remediate.Step) (remediate.Step, bool, error) {
	step, err := s.m.bound(step)
	if err != nil {
		return step, false, err
	}
	var there bool
	err = s.m.with(step, func(c *netlink.Conn, links linkTable) error {
		plain, err := s.canonicalStep(step, links)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		now, err := s.get(c, links, plain.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		there = remediate.Equal(now, plain.New)
		if s.kind == "rule" && plain.New == nil && !there {
			if err := s.comesLast(c, links, plain.Name); err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
		}
		text := strings.Fields(plain.Name + " " + deref(plain.Old) + " " + deref(plain.New))
		for i := 1; i < len(text); i++ {
			if index, ok := links.indices[text[i]]; ok && text[i-1] == "dev" {
				step = step.Guarded(remediate.GuardIfindex+" "+text[i], strconv.Itoa(index))
			}
		}
		return nil
	})
	return step, there, err
}

// comesLast is an error if another rule of the same priority follows: the kernel puts a rule that is made behind
// those of its priority, so that this one would not come back to its place.
func (s rtStore) comesLast(c *netlink.Conn, links linkTable, rule string) error {
	priority, _, _ := strings.Cut(rule, ":")
	last := ""
	err := s.each(c, links, func(name, _ string) {
		if strings.HasPrefix(name, priority+":") {
			last = name
		}
	})
	if err == nil && last != rule {
		err = fmt.Errorf("the rule %s follows it, and would come before it when it is put back", last)
	}
	return err
}

// Swap implements [remediate.Store].
func (s rtStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		err := s.m.with(step, func(c *netlink.Conn, links linkTable) error {
			plain, err := s.canonicalStep(step, links)
			if err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
			now, err := s.get(c, links, plain.Name)
			if err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
			// A replacement that was cut off may have removed the old object and not made the new one.
			halfway := step.Settle && now == nil
			switch {
			case remediate.Equal(now, plain.New):
				return nil
			case !remediate.Equal(now, plain.Old) && !halfway:
				return remediate.Changed(step, now)
			}
			if err := s.put(c, links, plain.Name, now, plain.New); err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
			changed[i] = true
			return nil
		})
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// ensure makes what stands under the step's name be its New, whatever is there now.
func (s rtStore) ensure(c *netlink.Conn, links linkTable, step remediate.Step) error {
	plain, err := s.canonicalStep(step, links)
	if err != nil {
		return fmt.Errorf("%s: %w", step.Object(), err)
	}
	now, err := s.get(c, links, plain.Name)
	if err == nil && !remediate.Equal(now, plain.New) {
		err = s.put(c, links, plain.Name, now, plain.New)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step.Object(), err)
	}
	return nil
}

// deref returns a value, "" for none.
func deref(value *string) string {
	if value == nil {
		return ""
	}
	return *value
}

// A form is how the bytes of an attribute are written as a word.
type form uint8

const (
	asAddr form = iota
	asLink      // index of a link
	asU32
	asU16
	asU8
	asText
)

// An rtWord is an attribute and its word. Without a word it says nothing that must be restored.
type rtWord struct {
	kind uint16
	word string
	form form
}

// write returns the attribute's word and value; ok is false if its bytes are not in its form.
func (w rtWord) write(data []byte, links linkTable) (text string, ok bool) {
	switch {
	case w.form == asAddr:
		a := addr(data)
		return w.word + " " + a.String(), a.IsValid()
	case w.form == asLink && len(data) == 4:
		return w.word + " " + links.names.name(int(binary.NativeEndian.Uint32(data))), true
	case w.form == asU32 && len(data) == 4:
		return w.word + " " + strconv.FormatUint(uint64(binary.NativeEndian.Uint32(data)), 10), true
	case w.form == asU16 && len(data) == 2:
		return w.word + " " + strconv.FormatUint(uint64(binary.NativeEndian.Uint16(data)), 10), true
	case w.form == asU8 && len(data) == 1:
		return w.word + " " + strconv.FormatUint(uint64(data[0]), 10), true
	case w.form == asText:
		text := strings.TrimSuffix(string(data), "\x00")
		return w.word + " " + text, text != "" && !strings.ContainsAny(text, " \t\n\x00")
	}
	return "", false
}

// read is the inverse of write: it returns the attribute.
func (w rtWord) read(value string, links linkTable) ([]byte, error) {
	var data []byte
	switch w.form {
	case asAddr:
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("%s %q is no address", w.word, value)
		}
		data = a.AsSlice()
	case asLink:
		index, err := links.index(value)
		if err != nil {
			return nil, err
		}
		data = uint32Bytes(index)
	case asText:
		data = append([]byte(value), 0)
	default:
		bits := map[form]int{asU32: 32, asU16: 16, asU8: 8}[w.form]
		n, err := strconv.ParseUint(value, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%s %q is no number of %d bits", w.word, value, bits)
		}
		switch w.form {
		case asU32:
			data = uint32Bytes(uint32(n))
		case asU16:
			data = binary.NativeEndian.AppendUint16(nil, uint16(n))
		default:
			data = []byte{uint8(n)}
		}
	}
	return attribute(w.kind, data), nil
}

// rawWord keeps an attribute that has no word.
func rawWord(kind uint16, data []byte) string {
	if len(data) == 0 {
		return fmt.Sprintf("attr %d -", kind)
	}
	return fmt.Sprintf("attr %d %x", kind, data)
}

// A wordReader takes words from the front of a text.
type wordReader struct{ left []string }

func (r *wordReader) next() string {
	if len(r.left) == 0 {
		return ""
	}
	word := r.left[0]
	r.left = r.left[1:]
	return word
}

// raw reads the rest of "attr NUMBER HEX".
func (r *wordReader) raw() ([]byte, error) {
	number, text := r.next(), r.next()
	kind, err := strconv.ParseUint(number, 10, 14)
	data, wrong := hex.DecodeString(strings.TrimSuffix(text, "-"))
	if err != nil || wrong != nil || len(data) > 4096 {
		return nil, fmt.Errorf("attr %q %q is no attribute", number, text)
	}
	return attribute(uint16(kind), data), nil
}

// flagOf returns the flag of a word, 0 if there is none.
func flagOf(word string, names []flagName) uint32 {
	if i := slices.IndexFunc(names, func(f flagName) bool { return f.name == word }); i >= 0 && word != "" {
		return names[i].bit
	}
	return 0
}

// numberOf returns the number of a name, or the number that the text is.
func numberOf(names map[uint8]string, text string) (uint8, error) {
	for n, name := range names {
		if name == text {
			return n, nil
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%q is no name or number that is known here", text)
	}
	return uint8(n), nil
}
