package checks

import (
	"fmt"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// twice says so where another container has the same address in the same network: which of them is met is
// luck. It shows only where the namespaces of both were read.
func twice(h *Host, t netstate.Target) []Finding {
	own, bridge := h.Sandboxes[t.ID], h.Host.Link(bridgeOf(h, t))
	c := h.Container(t.ID)
	if own == nil || c == nil || bridge == nil {
		return nil
	}
	for i := range h.Containers {
		other := &h.Containers[i]
		ns := h.Sandboxes[other.ID]
		if ns == nil || ns == own || ns.ID == own.ID {
			continue
		}
		for _, a := range ns.Addrs {
			link := ns.Link(a.Link)
			if !slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool { return e.Addr(t.Family) == a.Prefix.Addr() }) || link == nil {
				continue
			}
			if port := h.Host.LinkAt(link.Peer); port != nil && port.Master == bridge.Index {
				text := fmt.Sprintf("addr %s dev %s", a.Prefix, a.Link)
				return []Finding{{Object: text + " in container " + other.Name, At: packet.Container, Warning: true, Evidence: []string{text},
					Problem: fmt.Sprintf("%s has the address of %s as well: which of them is met is luck", other.Name, c.Name),
					Advice:  fmt.Sprintf("docker restart %s; look for what gives it that address", arg(other.Name))}}
			}
		}
	}
	return nil
}
