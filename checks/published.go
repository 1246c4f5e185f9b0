package checks

import (
	"fmt"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Published looks at the mapping of the container's port to a host port.
var Published = &Check{
	Name:  "published",
	Title: "the port is published where the client knocks",
	Doc: `Only -p (ports: in Compose) maps a host port to a container; EXPOSE and expose: do not. A mapping to
127.0.0.1 can be reached from the host itself and from nowhere else. With the host's network, none, an
internal network or macvlan alone, -p does nothing. A host port that somebody else holds keeps the
container from starting. The mapping is made when the container is created: to change it, the container
is created anew. Clients on the host, and IPv6 clients of an IPv4 container, need docker-proxy besides.`,
	Needs: netstate.Engine | netstate.Links | netstate.Sockets,
	Run: func(h *Host, t netstate.Target) []Finding {
		if t.Direction != netstate.In {
			return nil
		}
		c := h.Container(t.ID)
		finding := Finding{Object: "container " + c.Name, At: packet.Uplink, Evidence: mappings(c, t.Port)}
		hostPort := t.Host.Port()
		if hostPort == 0 {
			hostPort = t.Port.Number
		}
		anew := fmt.Sprintf("create the container anew with -p %d:%s", hostPort, t.Port)
		live := slices.ContainsFunc(c.Published, func(b netstate.Binding) bool { return b.Port == t.Port })
		host := t.Host.Addr()
		foreign := host.IsValid() && !host.IsUnspecified() && !host.IsLoopback() && h.Host.LinkWith(host) == nil
		switch {
		case !host.IsValid():
			finding.Problem = fmt.Sprintf("port %s is not published", t.Port)
			finding.Advice = anew
		case foreign:
			finding.Problem = fmt.Sprintf("port %s is published on %s, which is no address of this host", t.Port, host)
			finding.Advice = fmt.Sprintf("give the host the address %s, or %s", host, anew)
			finding.explains = []string{finding.Object} // running's, if the engine could not start it
			finding.Object = "addr " + host.String()
		case !c.Running && c.Error != "":
			if !taken(h, t, c, &finding) {
				return nil
			}
		case !c.Running:
			return nil
		case !live:
			if !unpublished(h, t, c, &finding) {
				return nil
			}
			finding.Advice += anew
		case t.Host.Port() == 0:
			finding.Problem = fmt.Sprintf("port %s has no port of the host: its network routes to the container's own address", t.Port)
			finding.Advice = "let the client use the container's own address, by a route over this host; or take a network with gateway mode nat"
		case host.IsLoopback() && t.From == netstate.FromOutside:
			finding.Problem = fmt.Sprintf("port %s is published on %s alone, which no outside client can reach", t.Port, host)
			finding.Advice = anew
		default:
			return proxyMissing(h, t, finding)
		}
		// Where nothing leads to the container, all that would stop the packet on the way says nothing.
		for _, stop := range h.Walk(t).Stops {
			finding.explains = append(finding.explains, stop.Object)
		}
		return []Finding{finding}
	},
}

// mappings returns the container's published ports as docker port prints them: all of the asked port, and
// the first few of the others.
func mappings(c *netstate.Container, asked netstate.Port) []string {
	const few = 8
	var lines []string
	left := 0
	for _, own := range []bool{true, false} {
		for _, b := range c.Published {
			switch {
			case (b.Port == asked) != own:
			case own || len(lines) < few:
				lines = append(lines, fmt.Sprintf("%s -> %s", b.Port, joinHostPort(b)))
			default:
				left++
			}
		}
	}
	if left > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", left))
	}
	for _, port := range c.Exposed {
		if port == asked || len(c.Exposed) <= few {
			lines = append(lines, fmt.Sprintf("%s exposed", port))
		}
	}
	if len(lines) == 0 {
		lines = []string{"no port is published"}
	}
	if c.Error != "" {
		lines = append(lines, "State.Error = "+c.Error)
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
