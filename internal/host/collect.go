//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Collect reads a host: the engine, the containers that are asked for and their networks, and the asked
// parts of the host's network namespace and of the running containers' own. Containers are listed in
// the order in which they were asked for; a container whose network another one has ("container:NAME")
// brings that one along. One with the host's network has no namespace of its own in Sandboxes.
//
// What tells whether all is well is always read. What only helps to name a fault and to mend it is read
// with Options.Thorough, and costs as much again: the other containers, the engine's /info, which makes it
// start runc and docker-init, firewalld's settings, for each of whose answers it asks polkit, and connections,
// for which the kernel looks at each of its 262,144 lists: TCP's sockets that do not listen, and the table of
// conntrack where no port of UDP is published. Of that table the first 16,384 entries are kept, and all that have to do
// with the asked containers.
//
// Collect changes nothing: it makes no table, loads no netfilter module and sends no packet. Parts are
// read side by side; when the engine was restarted or nf_tables changed meanwhile, all is read again,
// thrice in all.
//
// The error is ErrNoEngine, ErrNoContainer, the context's, or the engine's refusal. All else that cannot be
// read stands in the snapshot's Missing with the reason.
//
// Where the context's deadline passes after the engine answered, what was not read by then is missing
// too, and there is no error.
func Collect(ctx context.Context, o Options) (*netstate.Snapshot, error) {
	for try := 1; ; try++ {
		c := newCollection(ctx, o)
		err := c.read()
		c.cancel()
		c.work.Wait()
		c.close()
		if err != nil {
			return nil, err
		}
		moved := c.moved()
		if moved != 0 && try < 3 && ctx.Err() == nil {
			continue
		}
		for _, part := range moved.Each() {
			c.lacks(netstate.Key{Part: part}, fmt.Sprintf("changed while it was read, %d times", try))
		}
		c.s.Read = time.Now().UTC().Round(0) // as a document says it
		return c.s, nil
	}
}

// A collection is one try to read a host.
type collection struct {
	ctx    context.Context
	cancel context.CancelFunc
	o      Options
	m      machine
	s      *netstate.Snapshot
	work   sync.WaitGroup
	slots  chan struct{} // sandboxes are read so many at a time

	mu     sync.Mutex // guards s.Missing, s.Sandboxes and what follows
	opened []netns
	resolv map[string]<-chan []string // by container: see startResolvConf

	before     guard
	located    chan struct{} // closed when what follows is known
	elsewhere  string        // why this host is not the engine's; "": it is, or that is not known
	pidsDiffer bool          // dockerd numbers processes otherwise than this program
}

// A guard is what must be the same before and after.
type guard struct {
	dockerd    int
	started    string
	generation uint32 // of the host's nf_tables; 0 not known
}

func newCollection(ctx context.Context, o Options) *collection {
	c := &collection{o: o, m: machine{o.Root}, slots: make(chan struct{}, 4*runtime.GOMAXPROCS(0)), located: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.s = &netstate.Snapshot{Schema: netstate.Schema, Parts: o.Parts, Thorough: o.Thorough}
	return c
}

// lacks records why something could not be read.
func (c *collection) lacks(key netstate.Key, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Lacks(key, why)
}

// missing is lacks for an error, if there is one.
func (c *collection) missing(key netstate.Key, err error) {
	switch {
	case err == nil:
	case c.ctx.Err() != nil: // whatever the error is, it came of that
		c.lacks(key, "not read in time")
	default:
		c.lacks(key, needsRoot(err))
	}
}

func (c *collection) asked(parts netstate.Part) bool { return c.o.Parts&parts != 0 }

// run starts f beside the rest.
func (c *collection) run(f func()) {
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		f()
	}()
}

func (c *collection) close() {
	for _, n := range c.opened {
		n.Close()
	}
}

// Parts that are read of a namespace.
const (
	hostParts    = netstate.Links | netstate.Routes | netstate.Sysctls | netstate.Sockets | netstate.Iptables | netstate.Nftables | netstate.Conntrack | netstate.Traffic | netstate.Firewalld | netstate.Files
	sandboxParts = netstate.Links | netstate.Routes | netstate.Sysctls | netstate.Sockets | netstate.Iptables | netstate.Nftables
)

// read reads everything once. It returns when all of it is read, or at the first of Collect's errors.
func (c *collection) read() error {
	c.s.Kernel = c.m.kernel()
	c.s.BootID, _ = c.m.read("proc/sys/kernel/random/boot_id")
	if c.elsewhere = c.o.Place.Elsewhere; c.elsewhere == "" && !c.o.Place.Here && !sameHost(c.o.Docker.DaemonHost()) {
		c.elsewhere = "the engine is on another host: " + c.o.Docker.DaemonHost()
	}
	if c.elsewhere != "" {
		close(c.located)
	} else {
		c.readHost()
	}
	if err := c.readEngine(); err != nil {
		return err
	}
	c.work.Wait()
	c.finishResolvConf()
	if err := c.ctx.Err(); errors.Is(err, context.Canceled) {
		return err
	}
	if c.elsewhere != "" {
		c.forgetHost()
	}
	if c.asked(netstate.Engine) {
		c.finishEngine()
	}
	if c.asked(netstate.Sockets) {
		c.nameOwners()
	}
	return nil
}

// readHost starts reading the host, and finds out meanwhile whether it is the engine's.
func (c *collection) readHost() {
	if c.asked(netstate.Firewalld) {
		c.run(c.readFirewalld) // takes longest
	}
	c.before.generation = c.generation()
	c.readNamespace(netns{}, "", &c.s.Host)
	c.run(func() {
		if c.before.dockerd = c.o.Place.PID; c.before.dockerd == 0 {
			c.before.dockerd = c.m.findDockerd(c.o.Docker.DaemonHost())
		}
		c.before.started = c.m.started(c.before.dockerd)
		if c.m.sameNamespace(c.before.dockerd, "net") == localNo {
			c.elsewhere = "dockerd runs in another network namespace than this program"
		}
		c.pidsDiffer = c.m.sameNamespace(c.before.dockerd, "pid") == localNo
		close(c.located)
		if c.asked(netstate.Engine) {
			c.s.Proxies = c.m.readProxies(c.before.dockerd)
		}
	})
	if c.asked(netstate.Files) {
		c.run(c.readFiles)
	}
}

// forgetHost leaves out what was read of a host that is not the engine's.
func (c *collection) forgetHost() {
	c.s.Host, c.s.Firewalld, c.s.Files, c.s.Proxies = netstate.Namespace{}, nil, nil, nil
	maps.DeleteFunc(c.s.Missing, func(key netstate.Key, _ string) bool { return key.Container == "" })
	if parts := c.o.Parts & hostParts; parts != 0 {
		c.lacks(netstate.Key{Part: parts}, c.elsewhere)
	}
}

// generation returns the number of the host's nf_tables state; 0 if it is not known, as without
// privileges, when the state cannot be read either.
func (c *collection) generation() uint32 {
	if !c.asked(netstate.Nftables|netstate.Iptables) || c.m.lacksModule("nf_tables") {
		return 0
	}
	conn, err := dialNetfilter(netns{})
	if err != nil {
		return 0
	}
	defer conn.Close()
	generation, _ := nftGeneration(conn)
	return generation
}

// moved returns the parts that changed while they were read.
func (c *collection) moved() netstate.Part {
	if c.elsewhere != "" {
		return 0
	}
	var parts netstate.Part
	if c.m.started(c.before.dockerd) != c.before.started {
		parts |= netstate.Engine
	}
	if c.generation() != c.before.generation {
		parts |= netstate.Nftables | netstate.Iptables
	}
	return parts & c.o.Parts
}
