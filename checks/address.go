package checks

import (
	"fmt"
	"net/netip"
	"strings"

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
	for i := range c.Endpoints {
		for _, other := range h.whole.holders()[c.Endpoints[i].Addr(t.Family)] {
			link := other.ns.Link(other.addr.Link)
			if link == nil || other.ns == own || other.ns.ID == own.ID {
				continue
			}
			if port := h.Host.LinkAt(link.Peer); port != nil && port.Master == bridge.Index {
				text := fmt.Sprintf("addr %s dev %s", other.addr.Prefix, other.addr.Link)
				finding := Finding{Object: text + " in container " + other.name, At: packet.Container, Warning: true, Evidence: []string{text},
					Problem: fmt.Sprintf("%s has the address of %s as well: which of them is met is luck", other.name, c.Name),
					Advice: fmt.Sprintf("nsenter -t $(docker inspect -f '{{.State.Pid}}' %s) -n ip addr del %s dev %s; look for what gives %[1]s that address",
						arg(other.name), other.addr.Prefix, arg(other.addr.Link))}
				for _, stop := range h.Walk(t).Stops { // it is met now
					if stop.Object == "container "+other.name || strings.HasSuffix(stop.Object, " in container "+other.name) {
						finding.Warning, finding.explains = false, append(finding.explains, stop.Object)
					}
				}
				return []Finding{finding}
			}
		}
	}
	return nil
}

// A held address is one that a container's namespace has.
type held struct {
	name string // of the container
	ns   *netstate.Namespace
	addr netstate.Addr
}

// holdersIn returns which containers hold an address.
func holdersIn(s *netstate.Snapshot) map[netip.Addr][]held {
	all := map[netip.Addr][]held{}
	for i := range s.Containers {
		c := &s.Containers[i]
		ns := s.Sandboxes[c.ID]
		if ns == nil {
			continue
		}
		for _, a := range ns.Addrs {
			if addr := a.Prefix.Addr(); !addr.IsLoopback() {
				all[addr] = append(all[addr], held{c.Name, ns, a})
			}
		}
	}
	return all
}
