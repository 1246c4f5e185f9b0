package checks

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// linkOf returns the name of the link that an object names, or "".
func linkOf(object string) string {
	name, ok := strings.CutPrefix(object, "link ")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, " in container ")
	return name
}

// linkUp is the fix that sets a link of the host up.
func linkUp(h *Host, name string) *remediate.Fix {
	link := h.Host.Link(name)
	if link == nil {
		return nil
	}
	step := remediate.Set("link", name, "down", "up")
	return &remediate.Fix{
		Title: "set " + name + " up",
		Steps: []remediate.Step{step.Guarded(remediate.GuardIfindex+" "+name, fmt.Sprint(link.Index))},
	}
}

// portFix is the fix that sets a word of a bridge's port as the engine did.
func portFix(port *netstate.Link, word, old, new string, opens bool) *remediate.Fix {
	step := remediate.Set("bridgeport", port.Name+" "+word, old, new)
	return &remediate.Fix{
		Title: fmt.Sprintf("set the bridge port %s to %s %s", port.Name, word, new),
		Steps: []remediate.Step{step.Guarded(remediate.GuardIfindex+" "+port.Name, fmt.Sprint(port.Index))},
		Opens: opens,
	}
}

// linkMTU is the fix that lets a link of the host take larger packets.
func linkMTU(link *netstate.Link, mtu int) *remediate.Fix {
	step := remediate.Set("link", link.Name+" mtu", fmt.Sprint(link.MTU), fmt.Sprint(mtu))
	return &remediate.Fix{
		Title: fmt.Sprintf("let %s take %d bytes", link.Name, mtu),
		Steps: []remediate.Step{step.Guarded(remediate.GuardIfindex+" "+link.Name, fmt.Sprint(link.Index))},
	}
}

// broadcast returns the last address of an IPv4 prefix.
func broadcast(prefix netip.Prefix) netip.Addr {
	addr := prefix.Masked().Addr().As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		addr[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(addr)
}

// linkMaster is the fix that makes a link a port of its bridge again.
func linkMaster(h *Host, name, bridge string) *remediate.Fix {
	link := h.Host.Link(name)
	if link == nil || h.Host.Link(bridge) == nil {
		return nil
	}
	step := remediate.Add("link", name+" master", bridge)
	if master := h.Host.LinkAt(link.Master); master != nil {
		step = remediate.Set("link", name+" master", master.Name, bridge)
	}
	return &remediate.Fix{
		Title: fmt.Sprintf("make %s a port of %s again", name, bridge),
		Steps: []remediate.Step{step.Guarded(remediate.GuardIfindex+" "+name, fmt.Sprint(link.Index))},
	}
}
