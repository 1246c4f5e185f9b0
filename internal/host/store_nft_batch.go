//go:build linux

package host

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An nftWriter collects the messages that turn tables as they were into what they are now.
type nftWriter struct {
	table    *nftTableState
	messages []netlink.Message
	sets     uint32 // anonymous sets so far, which rules name by their numbers
}

func (w *nftWriter) add(message, flags uint16, attributes ...[]byte) {
	w.messages = append(w.messages, nftMessage(w.table.family, w.table.name, message, flags, attributes...))
}

// nftMessage is a message about something in a table.
func nftMessage(family, table string, message, flags uint16, attributes ...[]byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(nfnlSubsysNftables<<8 | message), Flags: netlink.HeaderFlags(flags)},
		Data:   slices.Concat(append([][]byte{nfGen(nftFamilies[family], 0), cString(nftaTableName, table)}, attributes...)...),
	}
}

const nftFresh = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// batch returns the messages that make the state in the kernel. What others refer to is made first and
// removed last: tables, maps and chains, then rules and elements.
func (s nftState) batch() ([]netlink.Message, error) {
	w := &nftWriter{}
	for _, key := range slices.SortedFunc(maps.Keys(s.tables), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		w.table = s.tables[key]
		if err := w.whole(); err != nil {
			return nil, err
		}
	}
	return w.messages, nil
}

// whole writes one table.
func (w *nftWriter) whole() error {
	t := w.table
	chains, verdicts := slices.Sorted(maps.Keys(t.chains)), slices.Sorted(maps.Keys(t.maps))
	switch {
	case t.was == "" && t.now != "":
		w.add(nftMsgNewTable, nftFresh, tableFlags(t.now))
	case t.was != t.now && t.now != "":
		for _, name := range chains {
			if c := t.chains[name]; c.was != c.now {
				// Kernels have had errors there, and refuse some of it.
				return fmt.Errorf("nft %s %s: a table is not made dormant or woken together with chains that are made or removed", t.family, t.name)
			}
		}
		w.add(nftMsgNewTable, 0, tableFlags(t.now))
	}
	for _, name := range verdicts {
		if m := t.maps[name]; m.was == "" && m.now != "" {
			w.newSet(name, nftSetMap, 0, nil)
		}
	}
	for _, name := range verdicts {
		for _, key := range slices.Sorted(maps.Keys(t.maps[name].before)) {
			if m := t.maps[name]; m.before[key] != m.elements[key] {
				w.add(nftMsgDelSetElem, 0, cString(nftaSetName, name), elements(elementKey(key)))
			}
		}
	}
	for _, name := range chains {
		w.makeChain(name, t.chains[name])
	}
	for _, name := range chains {
		if c := t.chains[name]; c.now != "" {
			w.rules(name, c)
		}
	}
	for _, name := range verdicts {
		m := t.maps[name]
		for _, key := range slices.Sorted(maps.Keys(m.elements)) {
			if m.before[key] == m.elements[key] {
				continue
			}
			verdict, err := elementVerdict(m.elements[key])
			if err != nil {
				return fmt.Errorf("nft %s %s %s: %w", t.family, t.name, name, err)
			}
			w.add(nftMsgNewSetElem, unix.NLM_F_CREATE, cString(nftaSetName, name), elements(append(elementKey(key), verdict...)))
		}
	}
	return w.remove(chains, verdicts)
}

// makeChain makes a chain that was not there, or is called at another hook: the kernel moves none, so that
// it is made anew with all its rules. A policy alone can be changed.
func (w *nftWriter) makeChain(name string, c *nftChainState) {
	attributes := append([][]byte{cString(nftaChainName, name)}, chainAttributes(c.now)...)
	switch {
	case c.now == c.was, c.now == "":
	case c.was == "":
		w.add(nftMsgNewChain, nftFresh, attributes...)
	case hookOf(c.now) == hookOf(c.was):
		w.add(nftMsgNewChain, 0, cString(nftaChainName, name), nftPolicyAttribute(c.now))
	default:
		for _, handle := range c.before {
			w.deleteRule(name, handle)
		}
		w.add(nftMsgDelChain, nonRecursive, cString(nftaChainName, name))
		w.add(nftMsgNewChain, nftFresh, attributes...)
		for i, handle := range c.handles {
			if handle != 0 {
				c.handles[i], c.fresh[i].raw = 0, c.raw[handle]
			}
		}
		c.before = nil
	}
}

// rules puts in the new rules of a chain before the next one that stays, and only then removes those that
// go, which may mark a place.
func (w *nftWriter) rules(name string, c *nftChainState) {
	for i, handle := range c.handles {
		if handle != 0 {
			continue
		}
		if links := c.fresh[i].links; len(links) > 0 {
			w.sets++
			w.newSet(nftAnonymous, nftSetAnonymous|nftSetConstant, w.sets, links)
		}
		flags, attributes := uint16(unix.NLM_F_CREATE|unix.NLM_F_APPEND), [][]byte{cString(nftaRuleChain, name)}
		if next := slices.IndexFunc(c.handles[i:], func(handle uint64) bool { return handle != 0 }); next >= 0 {
			flags = unix.NLM_F_CREATE
			attributes = append(attributes, attribute(nftaRulePosition, binary.BigEndian.AppendUint64(nil, c.handles[i+next])))
		}
		w.add(nftMsgNewRule, flags, append(attributes, c.fresh[i].attributes(w.sets))...)
	}
	for _, handle := range c.before {
		if !slices.Contains(c.handles, handle) {
			w.deleteRule(name, handle)
		}
	}
}

func (w *nftWriter) deleteRule(chain string, handle uint64) {
	w.add(nftMsgDelRule, 0, cString(nftaRuleChain, chain), attribute(nftaRuleHandle, binary.BigEndian.AppendUint64(nil, handle)))
}

// newSet makes a verdict map, or an anonymous set of links under a number by which the batch's rule names it.
func (w *nftWriter) newSet(name string, flags, number uint32, links []string) {
	w.messages = append(w.messages, setMessages(w.table.family, w.table.name, name, flags, number, links)...)
}

// setMessages are the messages that make a set or map whose keys are names of links.
func setMessages(family, table, name string, flags, number uint32, links []string) []netlink.Message {
	const ifname, keyIsHostOrder = 41, "\x00\x04"
	word := func(kind uint16, value uint32) []byte {
		return attribute(kind, binary.BigEndian.AppendUint32(nil, value))
	}
	attributes := [][]byte{cString(nftaSetName, name), word(nftaSetFlags, flags), word(nftaSetKeyType, ifname), word(nftaSetKeyLen, unix.IFNAMSIZ),
		attribute(nftaSetUserdata, binary.NativeEndian.AppendUint32([]byte(keyIsHostOrder), 1)), word(nftaSetID, number)}
	if flags&nftSetMap != 0 {
		attributes = append(attributes, word(nftaSetDataType, nftDataVerdict), word(nftaSetDataLen, 0))
	}
	if len(links) > 0 {
		attributes = append(attributes, attribute(nftaSetDesc|unix.NLA_F_NESTED, word(1, uint32(len(links)))))
	}
	messages := []netlink.Message{nftMessage(family, table, nftMsgNewSet, nftFresh, attributes...)}
	if len(links) > 0 {
		var keys [][]byte
		for _, link := range links {
			keys = append(keys, elementKey(link))
		}
		messages = append(messages, nftMessage(family, table, nftMsgNewSetElem, unix.NLM_F_CREATE, cString(nftaSetName, name), word(nftaElemSetID, number), elements(keys...)))
	}
	return messages
}

// remove removes what is not there now.
func (w *nftWriter) remove(chains, verdicts []string) error {
	t := w.table
	left := t.others
	for _, name := range chains {
		if c := t.chains[name]; c.now != "" {
			left = true
		} else if c.was != "" {
			for _, handle := range c.before {
				w.deleteRule(name, handle)
			}
			w.add(nftMsgDelChain, nonRecursive, cString(nftaChainName, name))
		}
	}
	for _, name := range verdicts {
		if m := t.maps[name]; m.now != "" {
			left = true
		} else if m.was != "" {
			w.add(nftMsgDelSet, 0, cString(nftaSetName, name))
		}
	}
	if t.now != "" || t.was == "" {
		return nil
	}
	if left {
		return fmt.Errorf("nft %s %s: %w: it holds more than was made", t.family, t.name, remediate.ErrChanged)
	}
	w.add(nftMsgDelTable, nonRecursive)
	return nil
}

// tableFlags is the attribute of a table that is dormant, or not.
func tableFlags(value string) []byte {
	flags := uint32(0)
	if value == "dormant" {
		flags = 1
	}
	return attribute(nftaTableFlags, binary.BigEndian.AppendUint32(nil, flags))
}

// hookOf returns the value of a chain without its policy.
func hookOf(chain string) string {
	if part := nftBaseChain().FindStringSubmatch(chain); part != nil {
		return part[1] + " " + part[2] + " " + part[3]
	}
	return chain
}

// chainAttributes are those of a new chain.
func chainAttributes(value string) [][]byte {
	part := nftBaseChain().FindStringSubmatch(value)
	if part == nil {
		return nil
	}
	number := map[string]uint32{"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}[part[2]]
	priority, _ := strconv.ParseInt(part[3], 10, 32)
	hook := append(attribute(1, binary.BigEndian.AppendUint32(nil, number)), attribute(2, binary.BigEndian.AppendUint32(nil, uint32(priority)))...)
	return [][]byte{attribute(nftaChainHook|unix.NLA_F_NESTED, hook), cString(nftaChainType, part[1]), nftPolicyAttribute(value)}
}

// nftPolicyAttribute is the attribute of a base chain's policy.
func nftPolicyAttribute(chain string) []byte {
	if policyOf(chain) == "drop" {
		return chainPolicy("DROP")
	}
	return chainPolicy("ACCEPT")
}

// elements is the attribute of a list of elements.
func elements(each ...[]byte) []byte {
	var list []byte
	for _, one := range each {
		list = append(list, attribute(1|unix.NLA_F_NESTED, one)...) // NFTA_LIST_ELEM
	}
	return attribute(nftaElemList|unix.NLA_F_NESTED, list)
}

// elementKey is the key of an element: a link's name as in a text, in quotes or not.
func elementKey(text string) []byte {
	name, err := linkBytes(text)
	if err != nil {
		name = []byte(text) // of another length, which the kernel refuses
	}
	return attribute(1|unix.NLA_F_NESTED, attribute(1, name)) // NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE
}

// The verdicts that an element can say, as the kernel counts them.
var verdictCodes = map[string]int32{"drop": 0, "accept": 1, "continue": -1, "jump": -3, "goto": -4, "return": -5}

// elementVerdict is what an element of a verdict map says.
func elementVerdict(text string) ([]byte, error) {
	word, chain, named := strings.Cut(text, " ")
	code, ok := verdictCodes[word]
	if jumps := word == "jump" || word == "goto"; !ok || jumps != named || jumps && (chain == "" || strings.ContainsAny(chain, " {")) {
		return nil, fmt.Errorf("an element that says %q is not made here", text)
	}
	verdict := attribute(1, binary.BigEndian.AppendUint32(nil, uint32(code)))
	if named {
		verdict = append(verdict, cString(2, chain)...)
	}
	return attribute(2|unix.NLA_F_NESTED, attribute(2|unix.NLA_F_NESTED, verdict)), nil // NFTA_SET_ELEM_DATA, NFTA_DATA_VERDICT
}
