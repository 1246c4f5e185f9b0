package checks

import (
	"fmt"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Listening looks for a socket in the container that takes the packet.
var Listening = &Check{
	Name:  "listening",
	Title: "a program in the container listens on that port",
	Doc: `The packet arrives at the container's own address, so the program has to listen on 0.0.0.0, :: or that
address. One that listens on 127.0.0.1 hears only what is in the same container: most servers have an
option for it (--host 0.0.0.0, bind-address, listen_addresses). A published port on which nothing
listens is refused, whatever the host does. Between containers the container's port counts, not the
host's; and localhost in a container is that container, not the host and not its neighbour.`,
	Needs:    netstate.Engine | netstate.Sockets,
	Inside:   netstate.Sockets,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.NoListener) {
			if stop.Hop.Place() != packet.Socket && stop.Hop.Place() != packet.Container {
				continue
			}
			finding := found(stop)
			ns, name, port := receiver(h, t, stop)
			finding.Advice = listenAdvice(h, t, ns, name, port)
			if lonely := elsewhereListener(ns, port, stop); lonely != nil {
				program := lonely.Program
				if program == "" {
					program = "a program"
				}
				where := "is heard there only"
				if lonely.Local.Addr().IsLoopback() {
					where = "is heard on the host itself only"
					if name != "" {
						where = "is heard in the container only"
					}
				}
				finding.explains = []string{stop.Object}
				finding.Object = strings.TrimSpace(fmt.Sprintf("socket %s %s", lonely.Local, lonely.Program))
				if name != "" {
					finding.Object += " in container " + name
				}
				if name != "" && lonely.Local.Addr().IsLoopback() {
					finding.Advice = fmt.Sprintf("let %s in %s listen on 0.0.0.0 instead of %s (--host, --bind or bind-address, by the program)", program, name, lonely.Local.Addr())
				}
				finding.Problem = fmt.Sprintf("%s listens on %s alone, which %s", program, lonely.Local.Addr(), where)
			}
			findings = append(findings, finding)
		}
		return findings
	},
}

// receiver returns the namespace in which a stop missed a socket, the name of its container ("" for the
// host), and the port.
func receiver(h *Host, t netstate.Target, stop packet.Stop) (*netstate.Namespace, string, netstate.Port) {
	port := t.Port
	if t.To.Port() != 0 {
		port.Number = t.To.Port()
	}
	if port.Proto == "" {
		port.Proto = "tcp"
	}
	_, name, inside := strings.Cut(stop.Object, " in container ")
	switch {
	case !inside:
		return &h.Host, "", port
	case t.Direction == netstate.Peer && name == t.ToName:
		return h.Sandboxes[t.ToID], name, port
	}
	return h.Sandboxes[t.ID], name, port
}

// elsewhereListener returns the socket that listens on the port of another address, or nil.
func elsewhereListener(ns *netstate.Namespace, port netstate.Port, stop packet.Stop) *netstate.Socket {
	if ns == nil {
		return nil
	}
	for i := range ns.Sockets {
		s := &ns.Sockets[i]
		if s.Proto == port.Proto && s.Local.Port() == port.Number && !s.Local.Addr().IsUnspecified() && (s.State == "listen" || s.State == "unconnected") &&
			!strings.Contains(stop.Object, s.Local.String()) {
			return s
		}
	}
	return nil
}
