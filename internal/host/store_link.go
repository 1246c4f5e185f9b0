//go:build linux

package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A linkStore holds three things of a link, kind "link". The name "docker0" is its state, up or down;
// "veth1 master" the bridge that it is a port of, if any; "docker0 mtu" its MTU. It makes and removes no
// links.
//
// What a link loses on the way is journalled and put back (measured on Linux 6.18): set down, it loses its
// routes, its permanent neighbours and its IPv6 addresses; taken off a bridge, what the bridge kept of it
// as a port. A port of a bridge that filters VLANs, or with static forwarding entries, is left alone: these
// are not put back.
type linkStore struct{ m machine }

// part returns the link and the attribute of a step's name; "" is the state.
func (s linkStore) part(step remediate.Step, links linkTable) (index uint32, what string, err error) {
	part := strings.Fields(local(step.Name))
	if len(part) == 1 {
		part = append(part, "")
	}
	if len(part) != 2 || part[1] != "" && part[1] != "master" && part[1] != "mtu" {
		return 0, "", fmt.Errorf("%q is not a link, or a link and master or mtu", step.Name)
	}
	index, err = links.index(part[0])
	return index, part[1], err
}

// get returns what a thing of a link holds.
func (s linkStore) get(c *netlink.Conn, links linkTable, index uint32, what string) (*string, error) {
	attributes, header, err := linkAttributes(c, index)
	if err != nil {
		return nil, err
	}
	value := map[bool]string{false: "down", true: "up"}[up(header)]
	switch number := attributes[map[string]uint16{"master": unix.IFLA_MASTER, "mtu": unix.IFLA_MTU}[what]]; {
	case what == "":
	case len(number) != 4:
		return nil, nil
	case what == "master":
		value = links.names.name(int(binary.NativeEndian.Uint32(number)))
	case what == "mtu":
		value = strconv.Itoa(int(binary.NativeEndian.Uint32(number)))
	}
	return &value, nil
}

// set writes a thing of a link.
func (s linkStore) set(c *netlink.Conn, links linkTable, index uint32, what string, value *string) error {
	header := make([]byte, unix.SizeofIfInfomsg)
	copy(header[4:], uint32Bytes(index))
	var data []byte
	switch {
	case what == "master":
		var master uint32
		if value != nil {
			var err error
			if master, err = links.index(*value); err != nil {
				return err
			}
			if err := simpleBridge(c, master); err != nil {
				return err
			}
		}
		data = attribute(unix.IFLA_MASTER, uint32Bytes(master))
	case value == nil:
		return errors.New("a link always has it")
	case what == "mtu":
		mtu, err := strconv.ParseUint(*value, 10, 31)
		if err != nil {
			return fmt.Errorf("%q is no MTU", *value)
		}
		data = attribute(unix.IFLA_MTU, uint32Bytes(uint32(mtu)))
	case *value == "up" || *value == "down":
		if *value == "up" {
			copy(header[8:], uint32Bytes(unix.IFF_UP))
		}
		copy(header[12:], uint32Bytes(unix.IFF_UP)) // the flags that change
	default:
		return fmt.Errorf("%q is neither up nor down", *value)
	}
	return send(c, unix.RTM_NEWLINK, 0, append(header, data...))
}

// simpleBridge is an error unless the link is a bridge whose ports can be put back as they were.
func simpleBridge(c *netlink.Conn, index uint32) error {
	all, _, err := readLinks(c)
	if err != nil {
		return err
	}
	for _, link := range all {
		switch {
		case link.Index != int(index):
		case link.Bridge == nil:
			return fmt.Errorf("%s is no bridge", link.Name)
		case link.Bridge.VLANFiltering:
			return fmt.Errorf("bridge %s filters VLANs: the VLANs of a port cannot be put back", link.Name)
		}
	}
	return nil
}

// Look implements [remediate.Store].
func (s linkStore) Look(_ context.Context, step remediate.Step) (remediate.Step, bool, error) {
	step, err := s.m.bound(step)
	if err != nil {
		return step, false, err
	}
	var there bool
	err = s.m.with(step, func(c *netlink.Conn, links linkTable) error {
		index, what, err := s.part(step, links)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		name := links.names.name(int(index))
		step = step.Guarded(remediate.GuardIfindex+" "+name, strconv.Itoa(int(index)))
		now, err := s.get(c, links, index, what)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		if there = remediate.Equal(now, step.New); there || len(step.Also) > 0 {
			return nil
		}
		switch what {
		case "":
			step.Also, err = s.lost(c, links, name)
		case "master":
			if step.Also, err = s.lostPort(c, index, name, now, step.New); err == nil {
				var neighs []remediate.Step
				neighs, err = s.lostNeighs(c, links, now, step.New)
				step.Also = append(step.Also, neighs...)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		return nil
	})
	return step, there, err
}

// lost returns what a link loses when it is set down, as steps that keep addresses and know that routes
// and neighbours cannot stand on a link that is down.
func (s linkStore) lost(c *netlink.Conn, links linkTable, link string) ([]remediate.Step, error) {
	var also []remediate.Step
	on := func(text string) bool {
		part := strings.Fields(text)
		for i := 1; i < len(part); i++ {
			if part[i-1] == "dev" && part[i] == link {
				return true
			}
		}
		return false
	}
	err := addrStore(s.m).each(c, links, func(name, value string) {
		if on(name) && strings.Contains(name, ":") && !slices.Contains(strings.Fields(value), "dynamic") &&
			!strings.Contains(value+" ", "proto 3 ") { // the kernel makes its link-local address itself
			also = append(also, remediate.Set("addr", name, value, value))
		}
	})
	if err != nil {
		return nil, err
	}
	err = routeStore(s.m).each(c, links, func(name, value string) {
		word := strings.Fields(value)
		if on(value) && !strings.Contains(value+" ", "proto kernel ") && !strings.Contains(value+" ", "proto ra ") && !slices.Contains(word, "expires") {
			also = append(also, remediate.Remove("route", name, value))
		}
	})
	if err != nil {
		return nil, err
	}
	err = neighStore(s.m).each(c, links, func(name, value string) {
		if on(name) {
			also = append(also, remediate.Remove("neigh", name, value))
		}
	})
	return also, err
}

// lostPort returns what a bridge keeps of a port that leaves it, as steps that keep it on the next one.
func (s linkStore) lostPort(c *netlink.Conn, index uint32, link string, from, to *string) ([]remediate.Step, error) {
	if from == nil {
		return nil, nil
	}
	attributes, _, err := linkAttributes(c, index)
	if err != nil {
		return nil, err
	}
	if master := attributes[unix.IFLA_MASTER]; len(master) == 4 {
		if err := simpleBridge(c, binary.NativeEndian.Uint32(master)); err != nil {
			return nil, err
		}
	}
	names := linkNames{int(index): link}
	neighs, err := readNeighs(c, names)
	if err != nil {
		return nil, err
	}
	for _, n := range neighs {
		if n.Master != "" && n.Link == link && n.State == "noarp" {
			return nil, fmt.Errorf("it has a static forwarding entry for %s, which cannot be put back", n.MAC)
		}
	}
	words, err := port(c, index)
	if err != nil {
		return nil, err
	}
	var also []remediate.Step
	for _, word := range slices.Sorted(maps.Keys(words)) {
		if word == "state" { // the bridge's own decision
			continue
		}
		step := remediate.Remove("bridgeport", link+" "+word, words[word])
		if to != nil {
			step.New = step.Old
		}
		also = append(also, step)
	}
	return also, nil
}

// lostNeighs returns the permanent neighbours of bridges, as steps that keep them. A bridge without a MAC
// address of its own takes one of its ports', and with each other address it forgets its neighbours.
func (s linkStore) lostNeighs(c *netlink.Conn, links linkTable, bridges ...*string) ([]remediate.Step, error) {
	var also []remediate.Step
	err := neighStore(s.m).each(c, links, func(name, value string) {
		for _, bridge := range bridges {
			if bridge != nil && strings.HasSuffix(name+" ", " dev "+*bridge+" ") {
				also = append(also, remediate.Set("neigh", name, value, value))
			}
		}
	})
	return also, err
}

// Swap implements [remediate.Store].
func (s linkStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		err := s.m.with(step, func(c *netlink.Conn, links linkTable) error {
			index, what, err := s.part(step, links)
			if err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
			now, err := s.get(c, links, index, what)
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", step.Object(), err)
			case remediate.Equal(now, step.New):
				if !step.Settle {
					return nil
				}
			case !remediate.Equal(now, step.Old):
				return remediate.Changed(step, now)
			default:
				if err := s.set(c, links, index, what, step.New); err != nil {
					return fmt.Errorf("%s: %w", step.Object(), err)
				}
				changed[i] = true
			}
			if err := s.putBack(c, links, index, step.Also); err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
			return nil
		})
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// linkPatience is how long a link that comes up may take until its routes can be put back: IPv6 waits
// for the carrier.
const linkPatience = 3 * time.Second

// putBack makes what changed along hold its New: addresses first, on which routes rest.
func (s linkStore) putBack(c *netlink.Conn, links linkTable, index uint32, also []remediate.Step) error {
	order := []string{"bridgeport", "addr", "neigh", "route"}
	also = slices.Clone(also)
	slices.SortStableFunc(also, func(a, b remediate.Step) int {
		return slices.Index(order, a.Kind) - slices.Index(order, b.Kind)
	})
	for deadline := time.Now().Add(linkPatience); len(also) > 0; {
		var left []remediate.Step
		var wrong []error
		for _, step := range also {
			if err := s.putBackOne(c, links, index, step); err != nil {
				left, wrong = append(left, step), append(wrong, err)
			}
		}
		if len(left) == len(also) { // a route may rest on another one; but nothing has moved
			if time.Now().After(deadline) {
				return errors.Join(wrong...)
			}
			time.Sleep(20 * time.Millisecond)
		}
		also = left
	}
	return nil
}

func (s linkStore) putBackOne(c *netlink.Conn, links linkTable, index uint32, step remediate.Step) error {
	switch step.Kind {
	case "addr":
		return addrStore(s.m).ensure(c, links, step)
	case "route":
		return routeStore(s.m).ensure(c, links, step)
	case "neigh":
		return neighStore(s.m).ensure(c, links, step)
	case "bridgeport":
		if step.New == nil {
			return nil // it has gone with the port
		}
		_, word, _ := strings.Cut(step.Name, " ")
		if now, err := (bridgeportStore(s)).get(c, index, word); err != nil || remediate.Equal(now, step.New) {
			return err
		}
		if err := setPort(c, index, word, *step.New); err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		return nil
	}
	return fmt.Errorf("%s: does not change along with a link", step.Object())
}
