package checks

import (
	"fmt"
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
	if !ok || inside || part[1] == "bridge" || t.Direction == netstate.Out && t.Port.Number != 0 {
		if f, ok = plainFlow(h, t, stop.Hop); !ok {
			return ""
		}
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
