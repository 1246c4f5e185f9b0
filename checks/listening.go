package checks

import (
	"fmt"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// Listening looks for a socket in the container that takes the packet.
var Listening = &Check{
	Name:  "listening",
	Title: "a program in the container listens on that port",
	Doc: `The packet arrives at the container's own address, so the program has to listen on 0.0.0.0, :: or that
address. One that listens on 127.0.0.1 hears only what is in the same container: most servers have an
option for it (--host 0.0.0.0, bind-address, listen_addresses). A published port on which nothing
listens is refused, whatever the host does.`,
	Needs:    netstate.Engine,
	Inside:   netstate.Sockets,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.NoListener) {
			if stop.Hop.Place() != packet.Socket && stop.Hop.Place() != packet.Container {
				continue
			}
			finding := found(stop)
			if lonely := loopbackListener(h.Sandboxes[t.ID], t); lonely != nil {
				program := lonely.Program
				if program == "" {
					program = "a program"
				}
				finding.explains = []string{stop.Object}
				finding.Object = strings.TrimSpace(fmt.Sprintf("socket %s %s", lonely.Local, lonely.Program)) + " in container " + t.Container
				finding.Problem = fmt.Sprintf("%s listens on %s alone, which is heard in the container only", program, lonely.Local.Addr())
			}
			finding.Advice = fmt.Sprintf("let the program in %s listen on port %d of 0.0.0.0, or publish the port that it listens on", t.Container, t.Port.Number)
			findings = append(findings, finding)
		}
		return findings
	},
}

// loopbackListener returns the socket that listens on the target's port of a loopback address, or nil.
func loopbackListener(ns *netstate.Namespace, t netstate.Target) *netstate.Socket {
	if ns == nil {
		return nil
	}
	for i := range ns.Sockets {
		s := &ns.Sockets[i]
		if s.Proto == t.Port.Proto && s.Local.Port() == t.Port.Number && s.Local.Addr().IsLoopback() && (s.State == "listen" || s.State == "unconnected") {
			return s
		}
	}
	return nil
}
