//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Run captures until the count or the duration is reached or ctx ends, none of which is an error. Packets
// come to each in order of time.
//
// What each returns as an error ends the capture. One hop that cannot be opened is told in the table; if
// none can, it is an error. Nothing is left when Run returns.
func (c *Capture) Run(ctx context.Context, each func(Packet) error) (err error) {
	taps, err := c.open()
	defer func() {
		for _, t := range taps {
			if t != nil {
				t.Close()
			}
		}
	}()
	if err != nil {
		return err
	}
	if c.options.Ready != nil {
		c.options.Ready()
	}
	ctx, cancel := context.WithTimeout(ctx, c.options.Duration)
	defer cancel()
	err = c.loop(ctx, taps, each)
	for i, t := range taps {
		if t != nil {
			c.seen[i].Lost = t.lost()
		}
	}
	return err
}

// open opens a tap at every place, and starts the counts.
func (c *Capture) open() ([]*tap, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, err
	}
	host, err := ownNetns()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	if c.host != "" && c.host != host.id {
		return nil, fmt.Errorf("this is not the namespace that was read: it is %s, not %s", host.id, c.host)
	}
	filter, err := newSieve(c.what, c.options.Snaplen)
	if err != nil {
		return nil, err
	}
	defer filter.Close() // the filters hold it
	taps := make([]*tap, len(c.places))
	c.seen = make([]HopCount, len(c.places))
	opened := false
	var errs []error
	// From the container outward: what a filter outside has to know is written down by those inside.
	for i, p := range slices.Backward(c.places) {
		c.seen[i] = HopCount{Hop: p.hop, Link: p.link, Where: p.where()}
		program := filter.innerFilter
		if p.hop == packet.Uplink {
			program = filter.outerFilter
		}
		ns := host
		if p.pid != 0 {
			if ns, err = containerNetns(p.pid); err == nil && p.id != "" && ns.id != p.id {
				ns.Close()
				err = errors.New("its namespace has changed since it was read")
			}
		}
		if err == nil {
			err = ns.do(func() (err error) {
				taps[i], err = openTap(p, program)
				return err
			})
			if ns != host {
				ns.Close()
			}
		}
		if err != nil {
			c.seen[i].Missing = err.Error()
			errs = append(errs, fmt.Errorf("link %s in %s: %w", p.link, p.where(), err))
			err = nil
			continue
		}
		taps[i].hold(4 << 20)
		opened = true
	}
	if !opened {
		return taps, errors.Join(errs...)
	}
	return taps, nil
}

// settle is how long a packet is held back, so that those of other hops which are older come before it.
const settle = 20 * time.Millisecond

// loop reads the taps in turn and hands on what is old enough.
func (c *Capture) loop(ctx context.Context, taps []*tap, each func(Packet) error) error {
	var fds []unix.PollFd
	for _, t := range taps {
		if t != nil {
			fds = append(fds, unix.PollFd{Fd: int32(t.fd), Events: unix.POLLIN})
		}
	}
	var pending []Packet
	buf := make([]byte, c.options.Snaplen+64)
	left := c.options.Count
	for left > 0 && ctx.Err() == nil {
		if _, err := unix.Poll(fds, int(settle/time.Millisecond)); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		now := time.Now()
		for i, t := range taps {
			if t == nil {
				continue
			}
			for range 256 { // and then the next hop's turn
				s, err := t.read(buf)
				if s == nil || err != nil {
					break // a link that goes down or away says so once; it may come back
				}
				pending = append(pending, c.packet(i, t, s))
			}
		}
		var err error
		if pending, left, err = c.hand(pending, left, now.Add(-settle), each); err != nil {
			return err
		}
	}
	_, _, err := c.hand(pending, left, time.Now().Add(time.Hour), each)
	return err
}

func (c *Capture) packet(i int, t *tap, s *sample) Packet {
	p := Packet{Time: s.time, Place: i, Length: s.length, Data: s.data[:min(len(s.data), c.options.Snaplen)]}
	p.In = s.outgoing // of bridge and veth, what the host sends by them goes to the container
	if t.place.hop == packet.Uplink || t.place.hop == packet.Container {
		p.In = !s.outgoing
	}
	p.Text = printable(decode(s.data, t.ethernet).String())
	return p
}

// hand gives the packets older than a time to each, in order.
func (c *Capture) hand(pending []Packet, left int, until time.Time, each func(Packet) error) ([]Packet, int, error) {
	slices.SortStableFunc(pending, func(a, b Packet) int { return a.Time.Compare(b.Time) })
	n := 0
	for n < len(pending) && left > 0 && pending[n].Time.Before(until) {
		p := pending[n]
		if p.In {
			c.seen[p.Place].In++
		} else {
			c.seen[p.Place].Out++
		}
		n, left = n+1, left-1
		if err := each(p); err != nil {
			return nil, 0, err
		}
	}
	return pending[n:], left, nil
}
