package checks

import (
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Engine looks at the engine itself: whether it programs the host that was read.
var Engine = &Check{
	Name:  "engine",
	Title: "the engine programs this host",
	Doc: `Everything else is judged on the host whose firewall, links and sysctls were read. That has to be the host
on which the engine makes its bridges: an engine in a virtual machine, in another container or without
root makes them elsewhere. An engine that was told not to program iptables publishes TCP and UDP ports
through docker-proxy alone, and gives containers no way out.`,
	Needs: netstate.Engine,
	Run: func(h *Host, t netstate.Target) []Finding {
		e := h.Engine
		switch {
		case e.Rootless && !e.Local:
			return []Finding{{Unknown: true, Object: "engine rootless",
				Problem:  "the engine runs without root: its bridges and rules are in a namespace that was not read",
				Evidence: []string{"/info SecurityOptions: name=rootless"}}}
		case e.Rootless && t.Direction == netstate.In && !e.Builtin():
			return []Finding{{Unknown: true, Object: "engine rootless",
				Problem:  "RootlessKit takes clients to the published port in a way that is not known here",
				Evidence: []string{"--port-driver other than builtin"}}}
		case !e.Local:
			return []Finding{{Unknown: true, Object: "engine context " + e.Context,
				Problem: "the engine's network namespace is not the one that was read",
				Advice:  "run docker netcheck as root on the engine's own host"}}
		case e.Config.Iptables != nil && !*e.Config.Iptables:
			finding := Finding{Object: "engine option iptables", Warning: true,
				Problem:  "the engine was told not to program iptables",
				Evidence: []string{"iptables = false (" + e.Config.From["iptables"] + ")"},
				Advice:   unset(h, "iptables", e.Config.From["iptables"])}
			// Published ports have docker-proxy, the way out has nothing.
			switch stop := h.Walk(t).Stop(packet.NotPublished); {
			case t.Direction == netstate.Out:
				finding.Warning = rewritten(h.Walk(t))
			case stop != nil && !h.Program().Proxy.On:
				finding.Warning, finding.explains = false, []string{stop.Object}
			}
			return []Finding{finding}
		}
		return nil
	},
}
