package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// taken says who holds the host port that kept the container from starting, and whether it was that.
func taken(h *Host, t netstate.Target, c *netstate.Container, f *Finding) bool {
	if !strings.Contains(c.Error, "already in use") && !strings.Contains(c.Error, "already allocated") {
		return false
	}
	f.explains = []string{f.Object}
	f.Evidence = []string{"State.Error = " + c.Error}
	f.Problem = fmt.Sprintf("the host port %d/%s is taken", t.Host.Port(), t.Port.Proto)
	f.Advice = fmt.Sprintf("ss -Hanp 'sport = :%d' shows who holds it: free it, then docker start %s", t.Host.Port(), arg(c.Name))
	if socket := holder(h, t, asked(c, t)); socket != nil {
		text := strings.TrimSpace(fmt.Sprintf("socket %s %s", socket.Local, socket.Program))
		f.Object, f.explains = text, append(f.explains, "container "+c.Name)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s %s, process %d", socket.State, text, socket.PID))
		f.Problem = fmt.Sprintf("the host port %d/%s is held by %s", t.Host.Port(), t.Port.Proto, orProgram(socket.Program))
		f.Advice = fmt.Sprintf("stop %s or move it to another port, then docker start %s", orProgram(socket.Program), arg(c.Name))
		if !waits(socket) {
			f.Advice = fmt.Sprintf("docker start %s once that connection has ended; publish a port outside of net.ipv4.ip_local_port_range, or list it in net.ipv4.ip_local_reserved_ports", arg(c.Name))
		}
	}
	for _, proxy := range proxiesAt(h, t, asked(c, t)) {
		if other := memberWith(h, proxy.Container.Addr()); other != "" {
			f.Object = "container " + other
			f.Problem = fmt.Sprintf("the host port %d/%s is published by container %s", t.Host.Port(), t.Port.Proto, other)
			f.Advice = fmt.Sprintf("docker stop %s, or publish another port; then docker start %s", arg(other), arg(c.Name))
		} else {
			f.Problem = fmt.Sprintf("the host port %d/%s is held by a docker-proxy for %s, which no container has", t.Host.Port(), t.Port.Proto, proxy.Container)
			f.Advice = fmt.Sprintf("kill %d, then docker start %s", proxy.PID, arg(c.Name))
		}
	}
	return true
}

// asked returns the address on which the container was to have the target's host port; zero: none was said, and the
// engine takes the port on all of both families.
func asked(c *netstate.Container, t netstate.Target) netip.Addr {
	if slices.Contains(c.Configured, netstate.Binding{Port: t.Port, HostPort: t.Host.Port()}) {
		return netip.Addr{}
	}
	return t.Host.Addr()
}

// contend says whether a port cannot be taken on both addresses, of which own may be zero: all of both families.
// Each docker-proxy and each socket of the engine's takes one family only.
func contend(own, theirs netip.Addr) bool {
	return !own.IsValid() || netstate.FamilyOf(own) == netstate.FamilyOf(theirs) &&
		(own.IsUnspecified() || theirs.IsUnspecified() || own == theirs.Unmap())
}

// keeps says whether a socket of the host keeps others from taking a port on the address own.
func keeps(s *netstate.Socket, proto string, own netip.AddrPort) bool {
	theirs := s.Local.Addr()
	both := theirs == netip.IPv6Unspecified() && (s.V6Only == nil || !*s.V6Only)
	return s.Proto == proto && s.Local.Port() == own.Port() && (both || contend(own.Addr(), theirs))
}

// waits says whether a socket is open for whoever comes.
func waits(s *netstate.Socket) bool { return s.State == "listen" || s.State == "unconnected" }

// holder returns the socket of the host that holds the target's host port on the address own, a listening one first.
func holder(h *Host, t netstate.Target, own netip.Addr) *netstate.Socket {
	var found *netstate.Socket
	for i := range h.Host.Sockets {
		s := &h.Host.Sockets[i]
		if !keeps(s, t.Port.Proto, netip.AddrPortFrom(own, t.Host.Port())) {
			continue
		}
		if waits(s) {
			return s
		}
		found = s
	}
	return found
}

// proxiesAt returns the docker-proxies that hold the target's host port on the address own.
func proxiesAt(h *Host, t netstate.Target, own netip.Addr) []netstate.Proxy {
	var found []netstate.Proxy
	for _, proxy := range h.Proxies {
		if proxy.Proto == t.Port.Proto && proxy.Host.Port() == t.Host.Port() && contend(own, proxy.Host.Addr()) {
			found = append(found, proxy)
		}
	}
	return found
}

// memberWith returns the name of the running container that has the address, or "".
func memberWith(h *Host, addr netip.Addr) string {
	for i := range h.Networks {
		for _, m := range h.Networks[i].Members {
			if m.IPv4.Addr() == addr || m.IPv6.Addr() == addr {
				return m.Name
			}
		}
	}
	return ""
}

func orProgram(name string) string {
	if name == "" {
		return "another program"
	}
	return name
}
