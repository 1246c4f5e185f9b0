//go:build linux

package probe

import (
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// reset sends one TCP reset of the flow, as its client. It is the last that the client says: if it cannot
// be sent, the server's patience ends it.
func (s *synthetic) reset(flow Flow, seq uint32) {
	raw := resetPacket(flow, seq)
	family := unix.AF_INET
	if flow.Server.Addr().Is6() {
		family = unix.AF_INET6
	}
	s.ns.do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, raw, 0, sockaddr(netip.AddrPortFrom(flow.Server.Addr(), 0)))
	})
}

// resetPacket returns a TCP reset of the flow with its IP header.
func resetPacket(flow Flow, seq uint32) []byte {
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(flow.Client.Port()), DstPort: layers.TCPPort(flow.Server.Port()), Seq: seq, RST: true,
	}
	src, dst := net.IP(flow.Client.Addr().AsSlice()), net.IP(flow.Server.Addr().AsSlice())
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	if flow.Server.Addr().Is4() {
		ip = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: src, DstIP: dst}
	} else {
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: src, DstIP: dst}
	}
	tcp.SetNetworkLayerForChecksum(ip)
	buf := gopacket.NewSerializeBuffer()
	if gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp) != nil {
		return nil
	}
	return buf.Bytes()
}
