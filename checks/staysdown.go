package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// taskName is the name of a container that Swarm made: SERVICE.SLOT.TASK.
var taskName = lazyregexp.New(`\.[0-9a-z]+\.[0-9a-z]{25}$`)

// staysDown says what has to be done before a container can be started anew, or "".
func (h *Host) staysDown(c *netstate.Container) string {
	s := h.whole.snapshot
	if !c.Running || c.Paused || c.StartedAt == "" {
		return "find out why it does not run: docker logs " + arg(c.Name)
	}
	if taskName().MatchString(c.Name) {
		service, _, _ := strings.Cut(c.Name, ".")
		return "let Swarm make it anew: docker service update --force " + arg(service)
	}
	for _, e := range c.Endpoints {
		if n := s.Network(e.NetworkID); n != nil && n.Bridge() != "" && s.Host.Link(n.Bridge()) == nil {
			return restartEngine(h) + ", which makes the bridge " + n.Bridge() + " anew"
		}
	}
	if slices.ContainsFunc(h.compared(), func(d dockerd.Difference) bool { return d.Kind == dockerd.MissingChain }) {
		return "bring Docker's chains back (--only accept,dnat,masquerade --fix), without which no container with ports starts"
	}
	if s.Why(netstate.Key{Part: netstate.Sockets}) != "" {
		return "see that nobody else holds its host ports (ss -ltnup)"
	}
	for _, b := range c.Published {
		if b.HostPort == 0 {
			continue
		}
		for i := range s.Host.Sockets {
			socket := &s.Host.Sockets[i]
			if !keeps(socket, b.Port.Proto, netip.AddrPortFrom(b.Host, b.HostPort)) || h.releases(c, socket.PID) || h.accepted(socket) {
				continue
			}
			who := fmt.Sprintf("%s, process %d", orProgram(socket.Program), socket.PID)
			if socket.PID == 0 {
				who = fmt.Sprintf("another program (ss -Hanp 'sport = :%d' shows which)", b.HostPort)
			}
			return fmt.Sprintf("the host port %d/%s is held by %s: stop that", b.HostPort, b.Port.Proto, who)
		}
	}
	return ""
}

// accepted says whether a socket is a connection that came in by a listening one of the host: that one holds the
// port, its connections do not keep another from listening.
func (h *Host) accepted(s *netstate.Socket) bool {
	return !waits(s) && slices.ContainsFunc(h.whole.snapshot.Host.Sockets, func(l netstate.Socket) bool {
		return l.State == "listen" && keeps(&l, s.Proto, s.Local)
	})
}

// releases says whether a process holds a container's host port for it, and ends or lets go with it.
func (h *Host) releases(c *netstate.Container, pid int) bool {
	s := h.whole.snapshot
	if s.Engine != nil && pid != 0 && pid == s.Engine.PID {
		return true
	}
	return slices.ContainsFunc(s.Proxies, func(p netstate.Proxy) bool {
		return p.PID == pid && (s.Engine == nil || p.Parent == s.Engine.PID) &&
			slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool {
				return p.Container.Addr() == e.IPv4.Addr() || p.Container.Addr() == e.IPv6.Addr()
			})
	})
}
