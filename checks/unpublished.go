package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// unpublished says why a port that was to be published is not, and whether it matters.
func unpublished(h *Host, t netstate.Target, c *netstate.Container, f *Finding) bool {
	f.Evidence = append([]string{"NetworkMode = " + c.NetworkMode}, f.Evidence...)
	switch c.NetworkMode {
	case "host":
		if h.Walk(t).Stop(packet.NoListener) == nil {
			return false // nothing needs to be published: the program is on the host's own port
		}
		f.Problem = fmt.Sprintf("-p does nothing with the host's network, and no program of it listens on port %d", t.Host.Port())
		f.Advice = "use the port that the program itself listens on, or without --network host "
		return true
	case "none":
		f.Problem = "-p does nothing: the container has no network"
		f.Advice = fmt.Sprintf("docker network disconnect none %s, docker network connect bridge %[1]s; or ", arg(c.Name))
		return true
	}
	if len(c.Endpoints) == 0 {
		f.Problem = "-p does nothing: the container is in no network"
		f.Advice = fmt.Sprintf("docker network connect bridge %s; or ", arg(c.Name))
		return true
	}
	for _, e := range c.Endpoints {
		switch n := h.Network(e.NetworkID); {
		case n == nil:
		case n.Driver == "macvlan" || n.Driver == "ipvlan":
			f.Problem = fmt.Sprintf("-p does nothing in the %s network %s: the container has an address of its own in the LAN", n.Driver, n.Name)
			f.Advice = fmt.Sprintf("let clients use %s:%d; or with a bridge network ", e.Addr(t.Family), t.Port.Number)
			return true
		case n.Internal:
			f.Problem = fmt.Sprintf("-p does nothing: the container's network %s is internal", n.Name)
			f.Advice = fmt.Sprintf("docker network connect bridge %s publishes it; or ", arg(c.Name))
			return true
		}
	}
	f.Problem = fmt.Sprintf("port %s was to be published and is not", t.Port)
	return true
}
