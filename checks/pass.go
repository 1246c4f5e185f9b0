package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// letPass is the command that lets the target's packets pass where a rule or a policy stops them, "" where none
// can be written: a rule at the head of the same chain, about this traffic alone.
func letPass(h *Host, t netstate.Target, stop packet.Stop) string {
	object, name, inside := strings.Cut(stop.Object, " in container ")
	kind, part := ruleParts(object)
	if kind == "" || part[2] == "nat" || stop.Kind != packet.Filter && stop.Kind != packet.Policy {
		return ""
	}
	enter := ""
	if inside {
		s := h.whole.snapshot
		i := slices.IndexFunc(s.Containers, func(c netstate.Container) bool { return c.Name == name && c.PID != 0 })
		if i < 0 {
			return ""
		}
		enter = fmt.Sprintf("nsenter -t %d -n ", s.Containers[i].PID)
	}
	f, ok := flowOf(h, t, stop.Hop)
	switch known := inside || part[1] == "bridge"; {
	case t.Direction == netstate.In && !known && (!ok || t.From != netstate.FromOutside):
		f, ok = publishedFlow(h, t, stop)
	case !ok || known || t.Direction == netstate.Out && t.Port.Number != 0:
		f, ok = plainFlow(h, t, stop.Hop)
	}
	if !ok {
		return ""
	}
	insert := func(rule string) string {
		return enter + strings.Join([]string{"nft insert rule", part[1], arg(part[2]), arg(part[3]), arg(rule)}, " ")
	}
	switch {
	case kind == "nft" && part[1] == "bridge": // it knows no connections, and carries ARP
		back, _ := plainFlow(h, t, stop.Hop.Reply())
		if stop.Hop.IsReply() {
			back, _ = plainFlow(h, t, stop.Hop.Place())
		}
		f.reply, back.reply = false, false
		return strings.Join([]string{insert(f.nft()), insert(back.nft()), insert("ether type arp accept")}, " && ")
	case kind == "nft":
		f.reply = f.reply && part[1] != "netdev"
		return insert(f.nft())
	}
	return enter + commandLine(append([]string{part[1], "-t", part[2], "-I", part[3]}, dockerd.Words(f.iptables())...))
}

// publishedFlow is a published port's packets at the place of the stop: between the client and DNAT or docker-proxy
// by that port, and beyond by the container's address. ok says that it can be told, and by the published port that
// they are the loopback's: a rule for other addresses would let everybody pass.
func publishedFlow(h *Host, t netstate.Target, stop packet.Stop) (f flow, ok bool) {
	trace, c, reply := h.Walk(t), h.Container(t.ID), stop.Hop.IsReply()
	steps, turn := trace.Request, func(s packet.Step) bool { // where it becomes the container's
		return s.Hop == packet.Socket || strings.HasPrefix(s.Did, "dnat to ")
	}
	if reply {
		steps, turn = trace.Reply, func(s packet.Step) bool { // where docker-proxy answers
			return trace.Via == "docker-proxy" && strings.HasPrefix(s.Object, "route local ")
		}
	}
	at := slices.IndexFunc(steps, func(s packet.Step) bool { return s.Hop == stop.Hop && s.Object == stop.Object })
	if c == nil || at < 0 {
		return f, false // of a later packet
	}
	addr, port := t.Host.Addr(), t.Host.Port()
	if addr.IsUnspecified() && t.From == netstate.FromLocalhost {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if t.Family == netstate.IPv6 {
			addr = netip.IPv6Loopback()
		}
	}
	if slices.ContainsFunc(steps[:at], turn) != reply {
		endpoint := h.Program().Gateway(c, t.Family)
		if endpoint == nil {
			return f, false
		}
		addr, port = endpoint.Addr(t.Family), t.Port.Number
	} else if !addr.IsLoopback() {
		return f, false
	}
	f = flow{proto: t.Port.Proto, to: addr, toPort: port}
	if reply {
		f = flow{proto: t.Port.Proto, from: addr, fromPort: port, reply: true}
	}
	return f, addr.IsValid() && port != 0
}

// plainFlow is a target's packets by their port, and from container to container by their addresses.
func plainFlow(h *Host, t netstate.Target, hop packet.Hop) (f flow, ok bool) {
	port := t.Port.Number
	if t.Direction != netstate.In {
		port = t.To.Port()
	}
	if f.proto = t.Port.Proto; f.proto != "" {
		f.toPort = port
	}
	if t.Direction == netstate.Out {
		f.to = t.To.Addr()
	}
	if c := h.Container(t.ID); c != nil && t.Direction == netstate.Peer {
		for i := range c.Endpoints {
			if c.Endpoints[i].IPv4.Masked().Contains(t.To.Addr()) || c.Endpoints[i].IPv6.Masked().Contains(t.To.Addr()) {
				f.from, f.to = c.Endpoints[i].Addr(t.Family), t.To.Addr()
			}
		}
	}
	if hop.IsReply() {
		f.from, f.to, f.fromPort, f.toPort, f.reply = f.to, f.from, f.toPort, 0, true
	}
	return f, f.toPort != 0 || f.fromPort != 0 || f.to.IsValid() || f.from.IsValid()
}
