package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// listenAdvice says what to do, by what does listen there.
func listenAdvice(h *Host, t netstate.Target, ns *netstate.Namespace, name string, port netstate.Port) string {
	var open []string
	if ns != nil {
		for _, s := range ns.Sockets {
			text := netstate.Port{Number: s.Local.Port(), Proto: s.Proto}.String()
			if (s.State == "listen" || s.State == "unconnected" && s.Proto == "udp") && !s.Local.Addr().IsLoopback() && !slices.Contains(open, text) && len(open) < 8 {
				open = append(open, text)
			}
		}
	}
	there := "nothing listens there yet: is the program still starting? docker logs " + arg(name)
	if len(open) > 0 {
		there = "it listens on " + strings.Join(open, ", ")
	}
	switch {
	case name == "":
		return fmt.Sprintf("let the program on the host listen on 0.0.0.0 or on the bridge's address, port %d", port.Number)
	case t.Direction == netstate.Peer:
		if c := h.Container(t.ToID); c != nil {
			for _, b := range c.Published {
				if b.HostPort == port.Number {
					return fmt.Sprintf("%d is the host's port: from container to container take the container's own, %s:%d", port.Number, c.Name, b.Port.Number)
				}
			}
		}
		return "let the client take a port on which it listens: " + there
	case t.Direction == netstate.Out:
		return "localhost in a container is that container: name the other container, or the host by its address on the bridge"
	}
	return fmt.Sprintf("let the program in %s listen on port %d of 0.0.0.0, or publish the port that it listens on: %s", name, port.Number, there)
}
