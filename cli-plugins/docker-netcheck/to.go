package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// askTo reads --to: ADDR, ADDR:PORT, CONTAINER or CONTAINER:PORT, where a container's port may have its
// protocol behind it. What reads as an address is one.
func askTo(ask *checks.Ask, text string) error {
	if addr, err := netip.ParseAddr(text); err == nil {
		ask.To = netip.AddrPortFrom(addr.Unmap(), 0)
		return nil
	}
	if to, err := netip.ParseAddrPort(text); err == nil {
		ask.To = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
		return nil
	}
	name, port, found := strings.Cut(text, ":")
	if name == "" || strings.ContainsAny(name, "/[] ") {
		return fmt.Errorf("--to %q: is neither an address nor a container, with or without :PORT", text)
	}
	ask.ToName = strings.TrimPrefix(name, "/")
	if found {
		at, err := netstate.ParsePort(port)
		if err != nil {
			return fmt.Errorf("--to %w", err)
		}
		ask.ToPort = at
	}
	return nil
}

// collected returns the containers that are read: those that are judged, and the one that --to names.
func (o *checkOptions) collected() []string {
	if o.ask.ToName == "" {
		return o.containers
	}
	return append(slices.Clone(o.containers), o.ask.ToName)
}
