package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// design says what cannot work with the container's network, by design, or "".
func design(s *netstate.Snapshot, c *netstate.Container) string {
	owner := donor(s, c)
	switch {
	case owner != c:
		return fmt.Sprintf("%s has the network of %s: its ports and its way out are those of %[2]s", c.Name, owner.Name)
	case c.NetworkMode == "host":
		return c.Name + " has the host's own network: it publishes nothing, what it listens on is open on the host (--port judges one)"
	}
	if slices.ContainsFunc(c.Published, func(b netstate.Binding) bool { return b.HostPort == 0 }) && c.Running {
		return c.Name + " has ports without a port of the host: its network routes to the container's own address"
	}
	for _, e := range c.Endpoints {
		n := s.Network(e.NetworkID)
		if n != nil && (n.Driver == "macvlan" || n.Driver == "ipvlan") && len(c.Endpoints) == 1 {
			return fmt.Sprintf("%s is in the %s network %s: it publishes nothing, has an address of its own in the LAN, and this host itself does not reach it", c.Name, n.Driver, n.Name)
		}
	}
	return ""
}

// rootless says what is not judged where the engine runs without root, or "".
func rootless(s *netstate.Snapshot) string {
	if s.Engine == nil || !s.Engine.Rootless || !s.Engine.Local {
		return ""
	}
	driver, net := "unknown", "its network"
	if kit := s.Engine.RootlessKit; kit != nil {
		driver, net = kit.PortDriver, kit.Net
	}
	return fmt.Sprintf("the engine runs without root: judged in RootlessKit's namespace; its port driver (%s), %s and the host's own firewall are not", driver, net)
}

// cutOff says why the container was made so that nothing of it gets out, or "".
func cutOff(s *netstate.Snapshot, c *netstate.Container) string {
	switch {
	case c.NetworkMode == "none":
		return c.Name + " has no network, as it was told"
	case c.NetworkMode == "host" || strings.HasPrefix(c.NetworkMode, "container:"):
		return ""
	case len(c.Endpoints) == 0:
		return c.Name + " was taken out of all networks"
	}
	for _, e := range c.Endpoints {
		if n := s.Network(e.NetworkID); n == nil || !n.Internal {
			return ""
		}
	}
	return c.Name + " is in internal networks alone, out of which nothing gets"
}

// waysOut returns the families in which the container is to reach the world: those in which it has a gateway,
// of IPv6 where the host has a way for it, or where it has nothing else. For one that has no gateway it is
// IPv4, so that there is something of which to say why.
func waysOut(s *netstate.Snapshot, c *netstate.Container) []netstate.Family {
	var v4, v6 bool
	for _, e := range c.Endpoints {
		if n := s.Network(e.NetworkID); n == nil || !n.Internal {
			v4, v6 = v4 || e.Gateway4.IsValid(), v6 || e.Gateway6.IsValid()
		}
	}
	v6 = v6 && (!v4 || reachesOut(s, netstate.IPv6))
	switch {
	case v4 && v6:
		return []netstate.Family{netstate.IPv4, netstate.IPv6}
	case v6:
		return []netstate.Family{netstate.IPv6}
	}
	return []netstate.Family{netstate.IPv4}
}

// asMade says why the target cannot work and need not, by what its container was made for, or "": then nothing
// is judged but the engine and the container's own state. A destination that was named is judged.
func asMade(h *Host, t netstate.Target) string {
	known := h.Why(netstate.Key{Part: netstate.Engine}) == ""
	if c := h.Container(t.ID); known && t.Direction == netstate.Out && t.Assumed && c != nil && c.Running {
		return cutOff(h.Snapshot, c)
	}
	return ""
}

// keptIn says so where a destination was named that the container was made not to reach.
func keptIn(h *Host, t netstate.Target) []Finding {
	c := h.Container(t.ID)
	if c == nil || t.Direction != netstate.Out {
		return nil
	}
	why := cutOff(h.Snapshot, c)
	if why == "" || t.To.Addr().IsLoopback() || slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool {
		return e.IPv4.Masked().Contains(t.To.Addr()) || e.IPv6.Masked().Contains(t.To.Addr())
	}) {
		return nil
	}
	finding := Finding{Object: "container " + c.Name, At: packet.Container, Problem: why, Evidence: []string{"NetworkMode = " + c.NetworkMode},
		Advice: "put it into a network that has a way out: docker network connect NETWORK " + arg(c.Name)}
	for _, stop := range h.Walk(t).Stops {
		finding.explains = append(finding.explains, stop.Object)
	}
	return []Finding{finding}
}
