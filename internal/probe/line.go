//go:build linux

package probe

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A frame is one packet, decoded as far as this package speaks of it.
type frame struct {
	v6       bool
	proto    string         // "tcp", "udp", "icmp", or the protocol's number
	src, dst netip.AddrPort // port 0 where there is none
	tcp      *layers.TCP
	udp      *layers.UDP
	icmp     *layers.ICMPv4 // of IPv6 too: it has the same first four bytes
	arp      *layers.ARP
	payload  int    // bytes behind the last header
	quoted   *frame // of an ICMP error
	id       uint16 // of an ICMP echo
}

// decode reads a packet that begins with an Ethernet header, or with the IP header. It returns nil if
// there is no IP or ARP in it.
func decode(data []byte, ethernet bool) *frame {
	first := gopacket.Decoder(layers.LayerTypeEthernet)
	if !ethernet {
		if len(data) == 0 {
			return nil
		}
		first = layers.LayerTypeIPv4
		if data[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	f := &frame{}
	var src, dst netip.Addr
	var sport, dport uint16
	for _, layer := range gopacket.NewPacket(data, first, gopacket.DecodeOptions{NoCopy: true}).Layers() {
		switch l := layer.(type) {
		case *layers.ARP:
			f.arp, f.proto = l, "arp"
		case *layers.IPv4:
			src, _ = netip.AddrFromSlice(l.SrcIP.To4())
			dst, _ = netip.AddrFromSlice(l.DstIP.To4())
			f.proto = protoName(l.Protocol)
			f.payload = max(0, int(l.Length)-4*int(l.IHL))
		case *layers.IPv6:
			src, _ = netip.AddrFromSlice(l.SrcIP)
			dst, _ = netip.AddrFromSlice(l.DstIP)
			f.v6, f.proto, f.payload = true, protoName(l.NextHeader), int(l.Length)
		case *layers.TCP:
			f.tcp, sport, dport = l, uint16(l.SrcPort), uint16(l.DstPort)
			f.payload = max(0, f.payload-4*int(l.DataOffset))
		case *layers.UDP:
			f.udp, sport, dport = l, uint16(l.SrcPort), uint16(l.DstPort)
			f.payload = max(0, f.payload-8)
		case *layers.ICMPv4:
			f.icmp = l
			f.message(l.TypeCode.Type(), l.Id, l.LayerPayload())
		case *layers.ICMPv6:
			f.icmp = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(l.TypeCode.Type(), l.TypeCode.Code())}
			if body := l.LayerPayload(); len(body) >= 4 {
				f.message(l.TypeCode.Type(), uint16(body[0])<<8|uint16(body[1]), body[4:])
			}
		}
	}
	if f.proto == "" {
		return nil
	}
	f.src, f.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return f
}

// message reads what an ICMP message is about: id is bytes 5 and 6, body what is behind byte 8.
func (f *frame) message(kind uint8, id uint16, body []byte) {
	switch {
	case !f.v6 && (kind == 0 || kind == 8), f.v6 && (kind == 128 || kind == 129):
		f.id = id
	case !f.v6 && (kind == 3 || kind == 5 || kind == 11 || kind == 12), f.v6 && kind < 128:
		f.quoted = quote(body, f.v6)
	}
}

func protoName(p layers.IPProtocol) string {
	switch p {
	case layers.IPProtocolTCP:
		return "tcp"
	case layers.IPProtocolUDP:
		return "udp"
	case layers.IPProtocolICMPv4, layers.IPProtocolICMPv6:
		return "icmp"
	}
	return fmt.Sprintf("proto %d", uint8(p))
}

// quote reads what an ICMP error quotes: an IP header and eight bytes, which is too little for gopacket's
// TCP.
func quote(data []byte, v6 bool) *frame {
	f := &frame{v6: v6}
	head, proto, at, size := 40, 6, 8, 16
	if !v6 {
		if len(data) < 20 {
			return nil
		}
		head, proto, at, size = int(data[0]&0xf)*4, 9, 12, 4
	}
	if len(data) < head+8 || head < 20 {
		return nil
	}
	src, _ := netip.AddrFromSlice(data[at : at+size])
	dst, _ := netip.AddrFromSlice(data[at+size : at+2*size])
	f.proto = protoName(layers.IPProtocol(data[proto]))
	var sport, dport uint16
	switch l4 := data[head:]; f.proto {
	case "tcp", "udp":
		sport, dport = uint16(l4[0])<<8|uint16(l4[1]), uint16(l4[2])<<8|uint16(l4[3])
	case "icmp":
		f.id = uint16(l4[4])<<8 | uint16(l4[5])
	}
	f.src, f.dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return f
}

// toward says whether a packet of a flow goes to its client.
func (f *frame) toward(client netip.AddrPort) bool {
	switch {
	case f.quoted != nil:
		return true
	case f.icmp != nil:
		kind := f.icmp.TypeCode.Type()
		return !f.v6 && kind == 0 || f.v6 && kind == 129
	case f.src.Addr() != f.dst.Addr() && f.dst.Addr() == client.Addr():
		return true
	case f.src.Addr() != f.dst.Addr() && f.src.Addr() == client.Addr():
		return false
	}
	return f.dst.Port() == client.Port()
}

// String writes the packet on one line, as tcpdump -n does.
func (f *frame) String() string {
	if f == nil {
		return "a packet that is not IP"
	}
	if f.arp != nil {
		from, _ := netip.AddrFromSlice(f.arp.SourceProtAddress)
		to, _ := netip.AddrFromSlice(f.arp.DstProtAddress)
		if f.arp.Operation == layers.ARPRequest {
			return fmt.Sprintf("ARP, Request who-has %s tell %s", to, from)
		}
		return fmt.Sprintf("ARP, Reply %s is-at %s", from, net.HardwareAddr(f.arp.SourceHwAddress))
	}
	ip := "IP"
	if f.v6 {
		ip = "IP6"
	}
	text := fmt.Sprintf("%s %s > %s: ", ip, dotted(f.src), dotted(f.dst))
	switch {
	case f.tcp != nil:
		return text + tcpText(f.tcp, f.payload)
	case f.udp != nil:
		return text + fmt.Sprintf("UDP, length %d", f.payload)
	case f.icmp != nil:
		return text + f.icmpText()
	}
	return text + fmt.Sprintf("%s, length %d", f.proto, f.payload)
}

// dotted writes address and port as tcpdump does: with a dot between them.
func dotted(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return fmt.Sprintf("%s.%d", a.Addr(), a.Port())
}

func tcpText(t *layers.TCP, payload int) string {
	flags := ""
	for _, f := range []struct {
		set  bool
		name string
	}{{t.FIN, "F"}, {t.SYN, "S"}, {t.RST, "R"}, {t.PSH, "P"}, {t.ACK, "."}, {t.URG, "U"}, {t.ECE, "E"}, {t.CWR, "W"}} {
		if f.set {
			flags += f.name
		}
	}
	text := "Flags [" + flags + "]"
	switch {
	case payload > 0:
		text += fmt.Sprintf(", seq %d:%d", t.Seq, t.Seq+uint32(payload))
	case t.SYN || t.FIN || t.RST:
		text += fmt.Sprintf(", seq %d", t.Seq)
	}
	if t.ACK {
		text += fmt.Sprintf(", ack %d", t.Ack)
	}
	return text + fmt.Sprintf(", win %d, length %d", t.Window, payload)
}

func (f *frame) icmpText() string {
	text := "ICMP " + icmpName(f.v6, f.icmp.TypeCode.Type(), f.icmp.TypeCode.Code())
	switch {
	case f.quoted != nil:
		text += fmt.Sprintf(" for %s %s > %s", f.quoted.proto, dotted(f.quoted.src), dotted(f.quoted.dst))
	case f.id != 0:
		text += fmt.Sprintf(", id %d", f.id)
	}
	return text + fmt.Sprintf(", length %d", f.payload)
}

var unreachable4 = []string{"net unreachable", "host unreachable", "protocol unreachable", "port unreachable", "fragmentation needed",
	"source route failed", "net unknown", "host unknown", "source isolated", "net prohibited", "host prohibited",
	"net unreachable for TOS", "host unreachable for TOS", "admin prohibited", "precedence violation", "precedence cutoff"}

var unreachable6 = []string{"no route", "admin prohibited", "beyond scope", "address unreachable", "port unreachable", "policy fail", "reject route"}

var icmp4 = map[uint8]string{0: "echo reply", 5: "redirect", 8: "echo request", 11: "time exceeded", 12: "parameter problem"}

var icmp6 = map[uint8]string{2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request", 129: "echo reply",
	133: "router solicitation", 134: "router advertisement", 135: "neighbor solicitation", 136: "neighbor advertisement"}

// icmpName names a message by type and code (RFC 792, RFC 1812, RFC 4443).
func icmpName(v6 bool, kind, code uint8) string {
	names, unreachable, at := icmp4, unreachable4, uint8(3)
	if v6 {
		names, unreachable, at = icmp6, unreachable6, 1
	}
	switch {
	case kind == at && int(code) < len(unreachable):
		return unreachable[code]
	case names[kind] != "":
		return names[kind]
	}
	return fmt.Sprintf("type %d code %d", kind, code)
}
