package checks

import (
	"fmt"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// throttled names the disciplines of a link that limit, delay or lose packets.
func throttled(h *Host, link *netstate.Link) []Finding {
	if link == nil {
		return nil
	}
	var findings []Finding
	for _, q := range h.Host.Qdiscs {
		if q.Link == link.Name && (q.Kind == "tbf" || q.Kind == "netem") {
			findings = append(findings, Finding{Object: "link " + link.Name, At: packet.Veth, Warning: true,
				Problem:  fmt.Sprintf("a queueing discipline (%s) slows %s down or loses packets", q.Kind, link.Name),
				Evidence: []string{strings.TrimSpace(fmt.Sprintf("qdisc %s dev %s %s %s", q.Kind, q.Link, q.Parent, q.Text))},
				Advice:   fmt.Sprintf("tc qdisc del dev %s root", arg(link.Name))})
		}
	}
	return findings
}
