package checks

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// nameservers returns the servers outside of the host that the container's questions go to from its own
// namespace, as its own resolv.conf has them, or where that leads to the engine, as the engine was told. There are
// none where one is asked in some other way: that may answer.
//
// Source: libnetwork's sandbox_dns_unix.go and internal/resolvconf. A container of the default network has the servers
// in its file; in others they are --dns, else the engine's own dns, else the host's, and engines from 25 on write
// them down. They are asked from the container's namespace, but for loopback addresses and what stands there as
// host(ADDR).
func nameservers(h *Host, c *netstate.Container) []netip.Addr {
	own, forwarders := servers(c.ResolvConf)
	if len(own) == 0 || slices.Contains(own, embedded) {
		own = slices.Concat(forwarders)
		for _, source := range [][]string{c.DNS, h.Engine.Config.DNS} {
			if len(own) == 0 {
				own = source
			}
		}
		if len(own) == 0 {
			own, _ = servers(strings.Split(h.Files["/etc/resolv.conf"], "\n"))
		}
	}
	var addrs []netip.Addr
	for _, text := range own {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.IsLoopback() {
			return nil
		}
		addrs = append(addrs, addr.Unmap())
	}
	return addrs
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
