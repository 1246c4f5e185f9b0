package checks

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A nameserver is whom the container's questions go to in the end.
type nameserver struct {
	Addr netip.Addr // zero: it cannot be told
	Text string
	Host bool // the engine asks it in the host's own namespace
}

// nameservers returns the servers that the container's own resolv.conf has, or where that leads to the engine, those
// that the engine was told.
//
// Source: libnetwork's sandbox_dns_unix.go and internal/resolvconf. A container of the default network has the servers
// in its file; in others they are --dns, else the engine's own dns, else the host's, and engines from 25 on write
// them down. They are asked from the container's namespace, but for loopback addresses and what stands there as
// host(ADDR).
func nameservers(h *Host, c *netstate.Container) []nameserver {
	own, forwarders := servers(c.ResolvConf)
	engine := len(own) == 0 || slices.Contains(own, embedded)
	if engine {
		own = forwarders
		for _, source := range [][]string{c.DNS, h.Engine.Config.DNS} {
			if len(own) == 0 {
				own = source
			}
		}
		if len(own) == 0 {
			own, _ = servers(strings.Split(h.Files["/etc/resolv.conf"], "\n"))
		}
	}
	var all []nameserver
	for _, text := range own {
		inner, host := strings.CutPrefix(text, "host(")
		addr, _ := netip.ParseAddr(strings.TrimSuffix(inner, ")"))
		addr = addr.Unmap()
		all = append(all, nameserver{addr, strings.TrimSuffix(inner, ")"), host || engine && addr.IsLoopback()})
	}
	return all
}

// servers returns the addresses behind the nameserver lines of a resolv.conf, and those to which the engine says that
// its own resolver passes questions on.
func servers(lines []string) (own, forwarders []string) {
	for _, line := range lines {
		if field := strings.Fields(line); len(field) > 1 && field[0] == "nameserver" {
			own = append(own, field[1])
		}
		if list, ok := strings.CutPrefix(line, "# ExtServers: "); ok {
			forwarders = strings.Fields(strings.Trim(list, "[]"))
		}
	}
	return own, forwarders
}
