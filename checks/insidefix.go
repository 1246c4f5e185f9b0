package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// insideOf makes a step one on the namespace of a container, which its guards find.
func insideOf(c *netstate.Container, ns *netstate.Namespace, step remediate.Step) remediate.Step {
	step.Name += " in container " + c.Name
	return step.
		Guarded(remediate.GuardPID, fmt.Sprint(c.PID)).
		Guarded(remediate.GuardNetns, ns.ID).
		Guarded(remediate.GuardContainer+" "+c.ID, c.StartedAt)
}

// restoreInside is the fix that gives a link in the container's own namespace back what the engine gave
// it: up, its addresses, and the default route by it. It is nil where there is nothing to give.
func restoreInside(h *Host, t netstate.Target, name string) *remediate.Fix {
	ns, c := h.Sandboxes[t.ID], h.Container(t.ID)
	if ns == nil || c == nil || ns.Link(name) == nil {
		return nil
	}
	link := ns.Link(name)
	fix := &remediate.Fix{Title: fmt.Sprintf("set up %s in %s as the engine did", name, c.Name)}
	add := func(step remediate.Step) { fix.Steps = append(fix.Steps, insideOf(c, ns, step)) }
	if !link.Up {
		add(remediate.Set("link", name, "down", "up"))
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		if !strings.EqualFold(e.MAC, link.MAC) {
			continue
		}
		for _, way := range []struct {
			family  netstate.Family
			addr    netip.Prefix
			gateway netip.Addr
			any     string
		}{{netstate.IPv4, e.IPv4, e.Gateway4, "default"}, {netstate.IPv6, e.IPv6, e.Gateway6, "::/0"}} {
			if way.addr.IsValid() && !slices.ContainsFunc(ns.Addrs, func(a netstate.Addr) bool { return a.Link == name && a.Prefix == way.addr }) {
				value := "scope global nodad"
				if way.family == netstate.IPv4 {
					value = "broadcast " + broadcast(way.addr).String() + " scope global"
				}
				add(remediate.Add("addr", way.addr.String()+" dev "+name, value))
			}
			if gateway := h.Program().Gateway(c, way.family); way.gateway.IsValid() && gateway != nil && gateway.NetworkID == e.NetworkID &&
				!slices.ContainsFunc(ns.Routes, func(r netstate.Route) bool { return r.Family == way.family && r.Dst.Bits() == 0 && r.Type == "unicast" }) {
				add(remediate.Add("route", way.any, fmt.Sprintf("via %s dev %s", way.gateway, name)))
			}
		}
	}
	if len(fix.Steps) == 0 {
		return nil
	}
	return fix
}

// insideFix is the fix for a route, rule or permanent neighbour that somebody made in the container's namespace, where
// nothing but the engine's own should be.
func insideFix(h *Host, t netstate.Target, stop packet.Stop) (fix *remediate.Fix) {
	ns, c := h.Sandboxes[t.ID], h.Container(t.ID)
	if ns == nil || c == nil {
		return nil
	}
	object, inside := strings.CutSuffix(stop.Object, " in container "+c.Name)
	endpoint := h.Program().Gateway(c, t.Family)
	switch {
	case !inside || endpoint == nil:
		return nil
	case strings.HasPrefix(object, "neigh "):
		fix = forgetNeighbour(ns, object)
	case strings.HasPrefix(object, "rule "):
		fix = beforeRule(h, t, object, endpoint.Addr(t.Family), false)
	default:
		for _, r := range ns.Routes {
			value, ok := routeValue(r)
			if r.Type == "unicast" || r.Type == "local" || !ok || r.Table != tableMain {
				continue
			}
			name := r.Dst.String()
			if r.Dst.IsSingleIP() {
				name = r.Dst.Addr().String()
			} else if r.Dst.Bits() == 0 {
				name = "default"
			}
			if object == "route "+r.Type+" "+name {
				fix = &remediate.Fix{Opens: true, Title: fmt.Sprintf("take the %s out of %s", object, c.Name), Steps: []remediate.Step{remediate.Remove("route", name, value)}}
			}
		}
	}
	if fix != nil {
		for i := range fix.Steps {
			fix.Steps[i] = insideOf(c, ns, fix.Steps[i])
		}
	}
	return fix
}
