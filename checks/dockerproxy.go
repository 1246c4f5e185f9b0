package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// proxyMissing says so where a port needs docker-proxy and there is none, or one for another container.
func proxyMissing(h *Host, t netstate.Target, f Finding) []Finding {
	trace := h.Walk(t)
	f.Object, f.At = "engine docker-proxy", packet.Socket
	if stop := trace.Stop(packet.Diverted); stop != nil && stop.Object == "docker-proxy" {
		f.Problem, f.explains = stop.Why, []string{stop.Object}
		f.Advice = staleProxy(h, t)
		return []Finding{f}
	}
	stop := trace.Stop(packet.NotPublished)
	if stop == nil || !h.Program().Proxy.On || len(h.differences(t, isDNAT)) > 0 || len(proxiesAt(h, t, t.Host.Addr())) > 0 {
		return nil
	}
	f.Problem = fmt.Sprintf("no docker-proxy serves %s/%s, and no rule sends this client to the container", t.Host, t.Port.Proto)
	f.Evidence = []string{"no process docker-proxy for " + t.Host.String() + "/" + t.Port.Proto}
	f.explains = []string{stop.Object}
	f.byRestart(h, t)
	return []Finding{f}
}

// staleProxy says what to do about a docker-proxy that leads to where the container is no longer: it holds the
// host port, with which the container could not start again. One that leads to another container may be that one's.
func staleProxy(h *Host, t netstate.Target) string {
	for _, proxy := range proxiesAt(h, t, t.Host.Addr()) {
		if owner := memberWith(h, proxy.Container.Addr()); owner == "" || owner == t.Container {
			return fmt.Sprintf("kill %d, which is that docker-proxy, then docker restart %s starts one for its present address", proxy.PID, arg(t.Container))
		}
	}
	return "docker restart " + arg(t.Container) + " starts a docker-proxy for its present address"
}
