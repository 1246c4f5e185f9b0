//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Observe makes the connection and sees what becomes of it. It has to run in the host's network
// namespace, as root.
//
// The error is of this program or machine: then there is no observation. What stops the connection is no
// error, and what could not be seen of it stands in Observation.Missing. When Observe returns, however it
// returns, nothing that it installed is left.
func Observe(ctx context.Context, r *Request) (_ *Observation, err error) {
	// Drops may be watched on this thread alone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e := &experiment{Request: r, o: &Observation{Schema: Schema, Target: r.Target, Uplink: r.Uplink}}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.prepare(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = Timeout
	}
	o := e.o
	before := e.countLegacy(ctx)
	o.Started = time.Now()
	o.Outcome, o.Answer, err = e.caller.call(ctx, timeout, r.HTTP)
	o.Flow = e.caller.flow
	if err != nil {
		return nil, err
	}
	e.gather(ctx, before)
	return o, nil
}

// An experiment is what Observe has installed.
type experiment struct {
	*Request
	o      *Observation
	host   *seenNetns
	seen   map[uint32]*seenNetns // by inode: the host's namespace and those of containers
	client *synthetic            // of a probe from outside
	caller *caller
	divert *diversion
	tracer *tracer
	drops  dropWatcher
	taps   []*tap
}

// A dropWatcher tells what of the flow the kernel throws away.
type dropWatcher interface {
	drain(*experiment) []Drop
	Close() error
}

// A seenNetns is a namespace in which the flow is watched.
type seenNetns struct {
	*netns
	name string // "host", "container web"
}

// linkName names a link of the namespace, or returns "".
func (n *seenNetns) linkName(ifindex int) (name string) {
	if ifindex == 0 {
		return ""
	}
	n.do(func() error {
		if l, err := netlink.LinkByIndex(ifindex); err == nil {
			name = l.Attrs().Name
		}
		return nil
	})
	return name
}

// prepare installs everything: what sees first, then what takes replies off, what sends last.
func (e *experiment) prepare() error {
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11 BPF counts as locked memory
		return err
	}
	host, err := ownNetns()
	if err != nil {
		return err
	}
	e.host = &seenNetns{host, "host"}
	e.seen = map[uint32]*seenNetns{host.inode(): e.host}
	if e.Request.host != "" && e.Request.host != host.id {
		return refuse("this is not the namespace that was read: it is %s, not %s", host.id, e.Request.host)
	}
	from, err := e.locate()
	if err != nil {
		return err
	}
	proto := e.Target.Port.Proto
	switch {
	case e.out():
		proto = "tcp"
	case e.ICMP || proto == "":
		proto = "icmp"
	}
	client := e.Client
	if e.out() {
		client = netip.Addr{}
	}
	if e.caller, err = newCaller(from, proto, client, e.Server, e.taken); err != nil {
		return err
	}
	m := newMatcher(e.caller.flow, e.ports)
	e.watch(m)
	if e.client == nil {
		return nil
	}
	exits, err := leaves(e.client.own, e.shared)
	if err != nil {
		return err
	}
	outside := m
	if e.out() {
		outside.client, outside.port = e.Client, e.Server.Port()
	}
	e.divert, err = divert(injector{
		match: outside, own: e.client.own, client: e.client.mac, uplink: e.client.uplink, from: e.client.from,
		leaves: exits, name: e.Table(), older: slices.Contains(e.lacks, "tcx"),
	})
	if errors.Is(err, errForeign) {
		return refuse("%v", err)
	}
	return err
}

// watch installs all that sees. What cannot be seen is no error.
func (e *experiment) watch(m matcher) {
	// The copies first: the kernel begins to stamp packets with the time a moment after it was asked to.
	for _, p := range e.places {
		if p.hop == packet.Uplink {
			e.tap(p, m)
		} else {
			e.tap(p, m.anyClient()) // which rules may masquerade on its way in
		}
	}
	if e.client != nil {
		e.tap(place{hop: packet.Uplink, link: e.Link()}, m) // where replies come that were taken off
	}
	var err error
	if e.tracer, err = newTracer(e.Table(), m); err != nil {
		e.tracer = nil
		e.o.lacks(Rules, "not available: "+err.Error())
	}
	if e.drops, err = e.watchDrops(m.anyClient()); err != nil {
		e.drops = nil
		e.o.lacks(Drops, "not available: "+err.Error())
	}
}

// watchDrops watches by BPF, and where that cannot be, by perf.
func (e *experiment) watchDrops(m matcher) (dropWatcher, error) {
	err := errors.New("the kernel's type information (BTF) is missing")
	if !slices.Contains(e.lacks, "btf") {
		var w *dropWatch
		if w, err = newDropWatch(m); err == nil {
			return w, nil
		}
	}
	if slices.Contains(e.lacks, "tracefs") {
		return nil, fmt.Errorf("%w; %w", err, errNoTracefs)
	}
	w, also := newThreadWatch()
	if also != nil {
		return nil, fmt.Errorf("%w; %w", err, also)
	}
	return w, nil
}

// countLegacy reads the counters of iptables-legacy, if it has rules of the flow's family.
func (e *experiment) countLegacy(ctx context.Context) *netstate.IptablesSet {
	family := netstate.FamilyOf(e.Server.Addr())
	if !e.names.legacy(family) {
		return nil
	}
	set, err := readLegacy(ctx, family)
	if err != nil {
		e.o.lacks(Rules, "the counters of iptables-legacy: "+err.Error())
	}
	return set
}

// locate returns the namespace that the client is in. One from outside is made.
func (e *experiment) locate() (*netns, error) {
	if e.Client.IsValid() {
		client, err := newSynthetic(e.Request)
		if err != nil {
			return nil, err
		}
		e.client = client
		if !e.out() {
			return client.ns, nil
		}
	}
	if e.Target.Direction == netstate.In {
		return e.host.netns, nil
	}
	ns, err := e.container(e.peer)
	if err != nil {
		return nil, err
	}
	return ns.netns, nil
}

// container opens a container's namespace, if it is still the one that was read.
func (e *experiment) container(p place) (*seenNetns, error) {
	ns, err := containerNetns(p.pid)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", p.name, err)
	}
	if p.id != "" && p.id != ns.id {
		ns.Close()
		return nil, fmt.Errorf("container %s: its namespace has changed since it was read", p.name)
	}
	if have := e.seen[ns.inode()]; have != nil {
		ns.Close()
		return have, nil
	}
	e.seen[ns.inode()] = &seenNetns{ns, p.where()}
	return e.seen[ns.inode()], nil
}

// tap takes copies at a place.
func (e *experiment) tap(p place, m matcher) {
	ns, err := e.host, error(nil)
	if p.pid != 0 {
		ns, err = e.container(p)
	}
	var t *tap
	if err == nil {
		err = ns.do(func() (err error) {
			t, err = openTap(p, m.filter)
			return err
		})
	}
	if err != nil {
		e.o.lacks(Copies, fmt.Sprintf("link %s in %s: %v", p.link, p.where(), err))
		return
	}
	e.taps = append(e.taps, t)
	if !slices.Contains(e.o.Watched, p.hop) {
		e.o.Watched = append(e.o.Watched, p.hop)
	}
}

// gather reads what was seen. All of it is there already: copies, messages and records are made on the
// packet's own way. before is what countLegacy read before it.
func (e *experiment) gather(ctx context.Context, before *netstate.IptablesSet) {
	o := e.o
	after := e.countLegacy(ctx)
	if flow, err := conntrack(conntrackGet, o.Flow); err != nil {
		o.lacks(Conntrack, err.Error())
	} else {
		o.Conntrack = flow
	}
	syn := e.copies()
	if e.tracer != nil {
		events, lost := e.tracer.drain(newMatcher(o.Flow, e.ports))
		if lost {
			o.lacks(Rules, "the kernel had to throw messages away")
		}
		o.Rules = e.names.observed(events, e.Table(), o.Flow)
	}
	o.Rules = append(o.Rules, counted(before, after)...)
	if e.drops != nil {
		o.Drops = e.drops.drain(e)
		o.placeDrops()
	}
	if e.divert != nil {
		o.ReplyBy, o.Left = e.divert.left()
		if e.out() {
			o.ReplyBy, o.Left = nil, o.ReplyBy
		}
	}
	e.hangUp(syn)
}

// copies reads the taps, and returns the first SYN.
func (e *experiment) copies() (syn *frame) {
	o := e.o
	for _, t := range e.taps {
		own := e.client != nil && t.place.link == e.Link() && t.place.pid == 0
		for _, s := range t.drain() {
			f := decode(s.data, t.ethernet)
			client, mine := e.clientEnd(f)
			if !mine {
				continue
			}
			reply := f.toward(client)
			if own && reply == e.out() {
				continue // what comes from outside enters the uplink, and is seen there
			}
			if f.tcp != nil && f.tcp.SYN && !f.tcp.ACK && syn == nil {
				syn = f
			}
			c := Copy{Time: s.time, Hop: t.place.hop, Link: t.place.link, Where: t.place.where(), Text: f.String()}
			if reply {
				c.Hop = c.Hop.Reply()
			}
			if own {
				c.Link = e.Uplink
			}
			o.Copies = append(o.Copies, c)
		}
	}
	slices.SortStableFunc(o.Copies, func(a, b Copy) int { return a.Time.Compare(b.Time) })
	return syn
}

// clientEnd returns the client's end of a packet of the flow as the packet has it: rules may masquerade the
// client on its way in. ok is false of a packet that is not the flow's.
func (e *experiment) clientEnd(f *frame) (end netip.AddrPort, ok bool) {
	flow := e.o.Flow
	ends := []netip.AddrPort{flow.Client}
	if e.o.Conntrack != nil {
		ends = append(ends, e.o.Conntrack.Reply.Dst)
	}
	for _, flow.Client = range ends {
		if newMatcher(flow, e.ports).owns(f) {
			return flow.Client, true
		}
	}
	return netip.AddrPort{}, false
}

// placeDrops gives drops by netfilter the hop of the rule that dropped.
func (o *Observation) placeDrops() {
	for i := range o.Drops {
		d := &o.Drops[i]
		if d.Hop != "" || !d.netfilter() {
			continue
		}
		for _, r := range o.Rules {
			if r.ends() && o.met(r) {
				d.Hop = r.Hop
			}
		}
	}
}

// hangUp sees to it that nobody goes on answering a client that is no more: it resets the connection,
// also one of which the server waits for the third packet, and takes its entry out of conntrack.
func (e *experiment) hangUp(syn *frame) {
	e.caller.Close()
	if e.client == nil {
		return
	}
	if syn != nil && !e.out() && !e.o.Outcome.Well() {
		e.client.reset(e.o.Flow, syn.tcp.Seq+1)
	}
	conntrack(conntrackDelete, e.o.Flow)
}

// close takes everything away: first what sends, last what takes off.
func (e *experiment) close() error {
	var errs []error
	if e.caller != nil {
		errs = append(errs, e.caller.Close())
	}
	for _, t := range e.taps {
		errs = append(errs, t.Close())
	}
	if e.tracer != nil {
		errs = append(errs, e.tracer.Close())
	}
	if e.drops != nil {
		errs = append(errs, e.drops.Close())
	}
	if e.divert != nil {
		errs = append(errs, e.divert.Close())
	}
	if e.client != nil {
		errs = append(errs, e.client.Close())
	}
	for _, ns := range e.seen {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}
