package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Published looks at the mapping of the container's port to a host port.
var Published = &Check{
	Name:  "published",
	Title: "the port is published where the client knocks",
	Doc: `Only -p (ports: in Compose) maps a host port to a container; EXPOSE and expose: do not. A mapping to
127.0.0.1 can be reached from the host itself and from nowhere else. The mapping is made when the
container is created: to change it, the container is created anew.`,
	Needs: netstate.Engine | netstate.Links,
	Run: func(h *Host, t netstate.Target) []Finding {
		if t.Direction != netstate.In {
			return nil
		}
		c := h.Container(t.ID)
		finding := Finding{Object: "container " + c.Name, At: packet.Uplink}
		switch host := t.Host.Addr(); {
		case !host.IsValid():
			finding.Problem = fmt.Sprintf("port %s is not published", t.Port)
			finding.Advice = fmt.Sprintf("create the container anew with -p %d:%s", t.Port.Number, t.Port)
			finding.Evidence = mappings(c)
		case host.IsLoopback() && t.From == netstate.FromOutside:
			finding.Problem = fmt.Sprintf("port %s is published on %s alone, which no outside client can reach", t.Port, host)
			finding.Advice = fmt.Sprintf("create the container anew with -p %d:%s", t.Host.Port(), t.Port)
			finding.Evidence = mappings(c)
		case !host.IsUnspecified() && !host.IsLoopback() && h.Host.LinkWith(host) == nil:
			finding.Problem = fmt.Sprintf("port %s is published on %s, which is no address of this host", t.Port, host)
			finding.Advice = fmt.Sprintf("give the host the address %s, or create the container anew with -p %d:%s", host, t.Host.Port(), t.Port)
			finding.Evidence = mappings(c)
		default:
			return nil
		}
		// Where nothing leads to the container, all that would stop the packet on the way says nothing.
		for _, stop := range h.Walk(t).Stops {
			finding.explains = append(finding.explains, stop.Object)
		}
		return []Finding{finding}
	},
}

// mappings returns the container's published ports as docker port prints them.
func mappings(c *netstate.Container) []string {
	var lines []string
	for _, b := range c.Published {
		lines = append(lines, fmt.Sprintf("%s -> %s", b.Port, joinHostPort(b)))
	}
	for _, port := range c.Exposed {
		lines = append(lines, fmt.Sprintf("%s exposed", port))
	}
	if len(lines) == 0 {
		lines = []string{"no port is published"}
	}
	return lines
}

func joinHostPort(b netstate.Binding) string {
	host := "0.0.0.0"
	if b.Host.IsValid() {
		host = b.Host.String()
	}
	if b.Host.Is6() {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, b.HostPort)
}
