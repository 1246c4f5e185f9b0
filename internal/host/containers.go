//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
)

// readEngine reads what the engine says, and starts reading the namespace of each asked container as
// soon as its process is known.
func (c *collection) readEngine() error {
	var wait sync.WaitGroup
	errs := make([]error, 3)
	run := func(i int, f func() error) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			errs[i] = f()
		}()
	}
	var list []network.Summary
	if c.asked(netstate.Engine) {
		c.s.Engine = &netstate.EngineState{Context: c.o.Context}
		run(0, func() error { return c.greet(c.s.Engine) })
		run(1, func() (err error) {
			list, err = c.o.Docker.NetworkList(c.ctx, network.ListOptions{})
			return err
		})
	}
	var inspected []network.Inspect
	run(2, func() (err error) {
		inspected, err = c.readContainers()
		return err
	})
	wait.Wait()
	// The error of the container that was asked for says most.
	for _, err := range []error{errs[2], errs[0], errs[1]} {
		if err != nil {
			return c.engineError(err)
		}
	}
	api := c.o.Docker.ClientVersion()
	for _, n := range inspected {
		c.s.Networks = append(c.s.Networks, networkState(n, api))
	}
	for _, n := range list {
		if c.s.Network(n.ID) == nil {
			c.s.Networks = append(c.s.Networks, networkState(n, api))
		}
	}
	slices.SortFunc(c.s.Networks, func(a, b netstate.Network) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return nil
}

// greet asks the engine who it is. An engine before 29 on this host is known by the header of any answer:
// it programs iptables, and is not rootless, unless we are in a user namespace, which may be its.
func (c *collection) greet(e *netstate.EngineState) error {
	if d, ok := c.o.Docker.(Dialer); ok && c.o.Place.Here && !c.o.Thorough && !c.m.inUserNamespace() {
		e.API, e.Version = header(c.ctx, d)
		if e.Version != "" && !e.AtLeast(29, 0, 0) {
			return nil
		}
	}
	ping, err := c.o.Docker.Ping(c.ctx)
	if err != nil {
		return err
	}
	e.API = ping.APIVersion
	info, err := c.o.Docker.Info(c.ctx)
	engineState(info, e)
	return err
}

// header returns the latest API version and the version of the engine as the headers of its answer say
// them: "Api-Version: 1.51", "Server: Docker/28.5.2 (linux)"; "" where they do not.
func header(ctx context.Context, engine Dialer) (api, version string) {
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return engine.Dialer()(ctx) },
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://docker/_ping", nil)
	if err != nil {
		return "", ""
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return "", ""
	}
	defer answer.Body.Close()
	server, ok := strings.CutPrefix(answer.Header.Get("Server"), "Docker/")
	if !ok {
		return "", ""
	}
	version, _, _ = strings.Cut(server, " ")
	return answer.Header.Get("Api-Version"), version
}

// engineError tells an engine that does not answer from one that refuses.
func (c *collection) engineError(err error) error {
	if cause := c.ctx.Err(); errors.Is(cause, context.Canceled) {
		return cause
	} else if cause != nil {
		return fmt.Errorf("%w in time: %w", ErrNoEngine, cause)
	}
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("%w: %w", ErrNoEngine, err)
	}
	return err
}

// readContainers inspects the asked containers and their networks, and starts reading their
// namespaces.
func (c *collection) readContainers() ([]network.Inspect, error) {
	names := c.o.Containers
	if c.o.All || c.o.Filters.Len() > 0 {
		running, err := c.o.Docker.ContainerList(c.ctx, container.ListOptions{Filters: c.o.Filters})
		if err != nil {
			return nil, err
		}
		names = slices.Clone(names)
		for _, r := range running {
			if _, own := r.Labels[AgentLabel]; !own {
				names = append(names, r.ID)
			}
		}
	}
	asked, err := each(c.ctx, names, func(ctx context.Context, name string) (netstate.Container, error) {
		in, err := c.o.Docker.ContainerInspect(ctx, name)
		if errdefs.IsNotFound(err) {
			return netstate.Container{}, fmt.Errorf("%w: %s", ErrNoContainer, name)
		}
		return containerState(in), err
	})
	if err != nil {
		return nil, err
	}
	var donors []string
	for _, a := range asked {
		if c.s.Container(a.ID) != nil { // named twice
			continue
		}
		c.s.Containers = append(c.s.Containers, a)
		c.s.Asked = append(c.s.Asked, a.ID)
		if donor, ok := strings.CutPrefix(a.NetworkMode, "container:"); ok {
			donors = append(donors, donor)
		}
		c.startSandbox(a)
	}
	for len(donors) > 0 {
		donor := donors[0]
		donors = donors[1:]
		in, err := c.o.Docker.ContainerInspect(c.ctx, donor)
		if errdefs.IsNotFound(err) { // removed since
			continue
		}
		if err != nil {
			return nil, err
		}
		if d := containerState(in); c.s.Container(d.ID) == nil {
			c.s.Containers = append(c.s.Containers, d)
			c.startSandbox(d)
		}
	}
	c.startFlows()
	if !c.asked(netstate.Engine) {
		return nil, nil
	}
	if c.o.Thorough {
		if err := c.readNeighbours(); err != nil {
			return nil, err
		}
	}
	var ids []string
	for _, a := range c.s.Containers {
		for _, e := range a.Endpoints {
			if e.NetworkID != "" && !slices.Contains(ids, e.NetworkID) {
				ids = append(ids, e.NetworkID)
			}
		}
	}
	inspected, err := each(c.ctx, ids, func(ctx context.Context, id string) (network.Inspect, error) {
		n, err := c.o.Docker.NetworkInspect(ctx, id, network.InspectOptions{})
		if errdefs.IsNotFound(err) { // of a stopped container, removed since
			return n, nil
		}
		return n, err
	})
	return slices.DeleteFunc(inspected, func(n network.Inspect) bool { return n.ID == "" }), err
}

// readNeighbours inspects the running containers that nobody asked for. Nothing in their namespaces is read.
func (c *collection) readNeighbours() error {
	running, err := c.o.Docker.ContainerList(c.ctx, container.ListOptions{})
	if err != nil {
		return err
	}
	var others []string
	for _, r := range running {
		if _, own := r.Labels[AgentLabel]; !own && c.s.Container(r.ID) == nil {
			others = append(others, r.ID)
		}
	}
	inspected, err := each(c.ctx, others, func(ctx context.Context, id string) (netstate.Container, error) {
		in, err := c.o.Docker.ContainerInspect(ctx, id)
		if errdefs.IsNotFound(err) { // removed since
			return netstate.Container{}, nil
		}
		return containerState(in), err
	})
	for _, n := range inspected {
		if n.ID != "" {
			c.s.Containers = append(c.s.Containers, n)
		}
	}
	return err
}

// each calls f for all names side by side, eight at a time, and returns the results in their order.
func each[T any](ctx context.Context, names []string, f func(context.Context, string) (T, error)) ([]T, error) {
	results, errs := make([]T, len(names)), make([]error, len(names))
	slots := make(chan struct{}, 8)
	var wait sync.WaitGroup
	for i, name := range names {
		wait.Add(1)
		slots <- struct{}{}
		go func() {
			defer wait.Done()
			results[i], errs[i] = f(ctx, name)
			<-slots
		}()
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

// startSandbox reads the namespace of a running container beside the rest. Containers that share one
// share its netstate.Namespace.
func (c *collection) startSandbox(a netstate.Container) {
	parts := c.o.Parts & sandboxParts
	if parts == 0 || !a.Running || a.PID == 0 || a.NetworkMode == "host" {
		return
	}
	key := netstate.Key{Part: parts, Container: a.ID}
	<-c.located
	switch {
	case c.elsewhere != "":
		c.lacks(key, c.elsewhere)
		return
	case c.pidsDiffer:
		c.lacks(key, "dockerd numbers processes otherwise than this program: it is in another PID namespace")
		return
	}
	n, err := c.m.openNetns(a.PID)
	if err != nil {
		c.missing(key, err)
		return
	}
	if c.asked(netstate.Files) {
		c.startResolvConf(a.ID, a.PID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = append(c.opened, n)
	if c.s.Sandboxes == nil {
		c.s.Sandboxes = map[string]*netstate.Namespace{}
	}
	for _, other := range c.s.Sandboxes {
		if other.ID == n.id {
			c.s.Sandboxes[a.ID] = other
			return
		}
	}
	ns := &netstate.Namespace{ID: n.id}
	c.s.Sandboxes[a.ID] = ns
	c.run(func() {
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
		c.readNamespace(n, a.ID, ns)
	})
}

// finishEngine adds what the machine knows of the engine to what the engine says of itself.
func (c *collection) finishEngine() {
	e := c.s.Engine
	e.PID, e.Started = c.before.dockerd, c.before.started
	switch {
	case c.elsewhere != "":
		e.Config.Unread = c.elsewhere
		return
	case c.m.sameNamespace(e.PID, "net") == localYes:
		e.Local = true
	default:
		e.Local = c.bridgesHere()
	}
	if e.Rootless && e.Local {
		e.RootlessKit = c.m.readRootlessKit(e.PID)
		for i := range c.s.Containers {
			if e.Builtin() && e.AtLeast(28, 0, 0) {
				delivered(&c.s.Containers[i])
			}
		}
	}
	if err := c.m.readConfig(e, c.s.Proxies, c.hairpin()); err != nil {
		e.Config.Unread = needsRoot(err)
	}
}

// bridgesHere says whether a gateway of the engine's bridge networks is on this host's bridge of that
// name: evidence of where the engine is that takes no privileges.
func (c *collection) bridgesHere() bool {
	for _, n := range c.s.Networks {
		bridge := n.Bridge()
		if bridge == "" {
			continue
		}
		for _, subnet := range n.Subnets {
			if slices.ContainsFunc(c.s.Host.Addrs, func(a netstate.Addr) bool {
				// Engine 20.10 does not say the default bridge's gateway.
				own := a.Prefix.Addr()
				return a.Link == bridge && (own == subnet.Gateway || !subnet.Gateway.IsValid() && subnet.Prefix.Contains(own))
			}) {
				return true
			}
		}
	}
	return false
}

// hairpin says whether a port of one of the engine's bridges has hairpin mode, which the engine
// switches on where it runs no docker-proxy.
func (c *collection) hairpin() bool {
	bridges := map[int]bool{}
	for _, n := range c.s.Networks {
		if link := c.s.Host.Link(n.Bridge()); link != nil {
			bridges[link.Index] = true
		}
	}
	return slices.ContainsFunc(c.s.Host.Links, func(l netstate.Link) bool {
		return l.Port != nil && l.Port.Hairpin && bridges[l.Master]
	})
}

// nameOwners finds the processes behind the sockets that matter: on the host, those on a host port of
// an asked container; in a container, those that wait for packets. To look through every process of
// the host is dear, and only done for a port that neither docker-proxy nor dockerd holds.
func (c *collection) nameOwners() {
	hostPorts := map[netstate.Port]bool{}
	for _, a := range c.s.Containers {
		for _, b := range slices.Concat(a.Published, a.Configured) {
			hostPorts[netstate.Port{Number: b.HostPort, Proto: b.Port.Proto}] = true
		}
		if ns := c.s.Sandboxes[a.ID]; ns != nil {
			c.m.nameOwners(ns.Sockets, waits, c.m.descendants(a.PID))
		}
	}
	wanted := func(s *netstate.Socket) bool {
		return waits(s) && hostPorts[netstate.Port{Number: s.Local.Port(), Proto: s.Proto}]
	}
	c.m.nameOwners(c.s.Host.Sockets, wanted, func(yield func(int) bool) {
		for _, p := range c.s.Proxies {
			if !yield(p.PID) {
				return
			}
		}
		if c.before.dockerd != 0 && !yield(c.before.dockerd) {
			return
		}
		c.m.processes()(yield)
	})
}

// waits says whether a socket waits for packets of anybody.
func waits(s *netstate.Socket) bool {
	return s.State == "listen" || s.State == "unconnected" || s.State == "bound"
}
