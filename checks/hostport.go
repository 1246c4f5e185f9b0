package checks

import (
	"fmt"
	"net/netip"
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
	if socket := holder(h, t); socket != nil {
		text := strings.TrimSpace(fmt.Sprintf("socket %s %s", socket.Local, socket.Program))
		f.Object, f.explains = text, append(f.explains, "container "+c.Name)
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s %s, process %d", socket.State, text, socket.PID))
		f.Problem = fmt.Sprintf("the host port %d/%s is held by %s", t.Host.Port(), t.Port.Proto, orProgram(socket.Program))
		f.Advice = fmt.Sprintf("stop %s or move it to another port, then docker start %s", orProgram(socket.Program), arg(c.Name))
		if socket.State != "listen" && socket.State != "unconnected" {
			f.Advice = fmt.Sprintf("docker start %s once that connection has ended; publish a port outside of net.ipv4.ip_local_port_range, or list it in net.ipv4.ip_local_reserved_ports", arg(c.Name))
		}
	}
	for _, proxy := range h.Proxies {
		if proxy.Host.Port() != t.Host.Port() || proxy.Proto != t.Port.Proto {
			continue
		}
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

// holder returns the socket of the host that holds the target's host port, a listening one first.
func holder(h *Host, t netstate.Target) *netstate.Socket {
	var found *netstate.Socket
	for i := range h.Host.Sockets {
		s := &h.Host.Sockets[i]
		if s.Proto != t.Port.Proto || s.Local.Port() != t.Host.Port() {
			continue
		}
		if s.State == "listen" || s.State == "unconnected" {
			return s
		}
		found = s
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
