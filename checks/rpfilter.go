package checks

import (
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// RPFilter looks at the reverse path filter.
var RPFilter = &Check{
	Name:  "rpfilter",
	Title: "the reverse path filter lets the packet in",
	Doc: `With rp_filter = 1 the kernel drops a packet whose sender it would answer by another link: right on a host
with one uplink, fatal with two. The effective value is the larger of conf.all and the interface's own.
2 (loose) asks only that there is some way back.`,
	Needs:    netstate.Engine | netstate.Sysctls | netstate.Routes,
	Requires: []*Check{Running},
	Run: func(h *Host, t netstate.Target) []Finding {
		var findings []Finding
		for _, stop := range h.stops(t, packet.RPFilter) {
			finding := found(stop)
			if name, isSysctl := strings.CutPrefix(stop.Object, "sysctl "); isSysctl {
				// The larger of all and the interface counts, so 2 on the interface alone suffices.
				link := h.Walk(t).Uplink
				if stop.Hop.IsReply() || link == "" || strings.HasPrefix(name, "net.ipv6.") {
					link = ""
				}
				if own := "net.ipv4.conf." + sysctlLink(link) + ".rp_filter"; link != "" {
					if value, ok := h.Host.Sysctl(own); ok && value != "2" {
						finding.Fix = &remediate.Fix{
							Title: "ask only for some way back (rp_filter 2) on " + link,
							Steps: []remediate.Step{remediate.Set("sysctl", own, value, "2")},
							Opens: true,
						}
					}
				}
			}
			if finding.Fix == nil {
				finding.Advice = "give the sender's network a route by the link that it comes in by"
			}
			findings = append(findings, finding)
		}
		return findings
	},
}
