package checks

import (
	"fmt"

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
			finding.Advice = fmt.Sprintf("let the program in %s listen on port %d of 0.0.0.0, or publish the port that it listens on", t.Container, t.Port.Number)
			findings = append(findings, finding)
		}
		return findings
	},
}
