package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// hits says whom else a fault hits: the containers on that bridge, or on all bridges for "", and whether
// the port still answers on the host itself.
func hits(h *Host, t netstate.Target, bridge string) string {
	members := map[string]bool{}
	for i := range h.Networks {
		if name := h.Networks[i].Bridge(); name == "" || bridge != "" && name != bridge {
			continue
		}
		for _, member := range h.Networks[i].Members {
			members[member.ID] = true
		}
	}
	text := "this container"
	if n := len(members); n > 1 {
		text = fmt.Sprintf("%d containers", n)
	}
	if t.Direction != netstate.In || bridge != "" {
		return text
	}
	for _, proxy := range h.Proxies {
		if proxy.Host.Port() == t.Host.Port() && proxy.Proto == t.Port.Proto {
			return text + "; localhost still answers (docker-proxy)"
		}
	}
	return text
}
