//go:build linux

package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A bridgeportStore holds what a bridge keeps of its ports, kind "bridgeport". A name is the port's and one
// word of bridge(8): "veth1 hairpin". A value is on or off, a number for cost, priority and mcast_router, and
// a state's name for state: "forwarding". What is no port of a bridge has none of them.
type bridgeportStore struct{ m machine }

// portWords are the attributes of a port that a step may name. Source: enum of linux/if_link.h, IFLA_BRPORT_*.
var portWords = []rtWord{
	{2, "priority", asU16}, {3, "cost", asU32}, {4, "hairpin", asU8}, {5, "guard", asU8}, {6, "root_block", asU8},
	{7, "fastleave", asU8}, {8, "learning", asU8}, {9, "flood", asU8}, {10, "proxy_arp", asU8}, {11, "learning_sync", asU8},
	{12, "proxy_arp_wifi", asU8}, {25, "mcast_router", asU8}, {27, "mcast_flood", asU8}, {28, "mcast_to_unicast", asU8},
	{29, "vlan_tunnel", asU8}, {30, "bcast_flood", asU8}, {31, "group_fwd_mask", asU16}, {32, "neigh_suppress", asU8},
	{33, "isolated", asU8}, {39, "locked", asU8}, {40, "mab", asU8}, {1, "state", asU8},
}

const (
	iflaProtinfo      = 12
	iflaInfoSlaveKind = 4
	iflaInfoSlaveData = 5
)

// linkAttributes asks for one link.
func linkAttributes(c *netlink.Conn, index uint32) (map[uint16][]byte, []byte, error) {
	header := make([]byte, unix.SizeofIfInfomsg)
	copy(header[4:], uint32Bytes(index))
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: header,
	})
	if err != nil {
		return nil, nil, err
	}
	if len(answers) != 1 || len(answers[0].Data) < unix.SizeofIfInfomsg {
		return nil, nil, errors.New("rtnetlink does not answer with the link")
	}
	attributes, err := nested(answers[0].Data, unix.SizeofIfInfomsg)
	return attributes, answers[0].Data[:unix.SizeofIfInfomsg], err
}

// nested returns attributes by their type.
func nested(data []byte, header int) (map[uint16][]byte, error) {
	attributes := map[uint16][]byte{}
	err := eachAttribute(data, header, func(ad *netlink.AttributeDecoder) { attributes[ad.Type()] = ad.Bytes() })
	return attributes, err
}

// port returns the words of a link as a bridge's port and what they say; none if it is no port.
func port(c *netlink.Conn, index uint32) (map[string]string, error) {
	attributes, _, err := linkAttributes(c, index)
	if err != nil {
		return nil, err
	}
	info, err := nested(attributes[unix.IFLA_LINKINFO], 0)
	if err != nil || strings.TrimSuffix(string(info[iflaInfoSlaveKind]), "\x00") != "bridge" {
		return nil, err
	}
	data, err := nested(info[iflaInfoSlaveData], 0)
	if err != nil {
		return nil, err
	}
	words := map[string]string{}
	for _, w := range portWords {
		bytes, ok := data[w.kind]
		switch {
		case !ok:
		case w.word == "state" && len(bytes) == 1:
			words[w.word] = nameOf(bridgePortStates, bytes[0])
		case w.word == "mcast_router" && len(bytes) == 1:
			words[w.word] = strconv.Itoa(int(bytes[0]))
		case len(bytes) == 1:
			words[w.word] = map[bool]string{false: "off", true: "on"}[bytes[0] != 0]
		default:
			if text, ok := w.write(bytes, linkTable{}); ok {
				_, words[w.word], _ = strings.Cut(text, " ")
			}
		}
	}
	return words, nil
}

// setPort writes one word of a port.
func setPort(c *netlink.Conn, index uint32, word, value string) error {
	i := slices.IndexFunc(portWords, func(w rtWord) bool { return w.word == word })
	if i < 0 {
		return fmt.Errorf("%q is no word of a bridge's port", word)
	}
	w := portWords[i]
	switch {
	case word == "state":
		state := slices.Index(bridgePortStates, value)
		if state < 0 {
			return fmt.Errorf("%q is no state of a bridge's port", value)
		}
		value = strconv.Itoa(state)
	case word != "mcast_router" && w.form == asU8:
		switch value {
		case "on":
			value = "1"
		case "off":
			value = "0"
		default:
			return fmt.Errorf("%q is neither on nor off", value)
		}
	}
	data, err := w.read(value, linkTable{})
	if err != nil {
		return err
	}
	header := make([]byte, unix.SizeofIfInfomsg)
	header[0] = unix.AF_BRIDGE
	copy(header[4:], uint32Bytes(index))
	return send(c, unix.RTM_SETLINK, 0, append(header, attribute(iflaProtinfo|unix.NLA_F_NESTED, data)...))
}

// part returns the link and the word of a step's name.
func (s bridgeportStore) part(step remediate.Step, links linkTable) (index uint32, word string, err error) {
	part := strings.Fields(local(step.Name))
	if len(part) != 2 || !slices.ContainsFunc(portWords, func(w rtWord) bool { return w.word == part[1] }) {
		return 0, "", fmt.Errorf("%q is not a link and a word of a bridge's port", step.Name)
	}
	index, err = links.index(part[0])
	return index, part[1], err
}

// get returns what a port's word says, nil if it says nothing.
func (s bridgeportStore) get(c *netlink.Conn, index uint32, word string) (*string, error) {
	words, err := port(c, index)
	if value, ok := words[word]; ok {
		return &value, err
	}
	return nil, err
}

// Look implements [remediate.Store].
func (s bridgeportStore) Look(_ context.Context, step remediate.Step) (remediate.Step, bool, error) {
	step, err := s.m.bound(step)
	if err != nil {
		return step, false, err
	}
	var there bool
	err = s.m.with(step, func(c *netlink.Conn, links linkTable) error {
		index, word, err := s.part(step, links)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		step = step.Guarded(remediate.GuardIfindex+" "+links.names.name(int(index)), strconv.Itoa(int(index)))
		now, err := s.get(c, index, word)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		there = remediate.Equal(now, step.New)
		return nil
	})
	return step, there, err
}

// Swap implements [remediate.Store].
func (s bridgeportStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		err := s.m.with(step, func(c *netlink.Conn, links linkTable) error {
			index, word, err := s.part(step, links)
			if err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
			now, err := s.get(c, index, word)
			switch {
			case err != nil:
			case remediate.Equal(now, step.New):
				return nil
			case !remediate.Equal(now, step.Old):
				return remediate.Changed(step, now)
			case step.New == nil:
				err = errors.New("goes only with the port")
			default:
				if err = setPort(c, index, word, *step.New); err == nil {
					changed[i] = true
					return nil
				}
			}
			return fmt.Errorf("%s: %w", step.Object(), err)
		})
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// up says whether the flags of a link's fixed header have IFF_UP.
func up(header []byte) bool { return binary.NativeEndian.Uint32(header[8:])&unix.IFF_UP != 0 }
