//go:build linux

package probe

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// needBPF skips a test that loads programs where that cannot be, and fails it where CI is set.
func needBPF(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("not root")
	}
	t.Skip("not root")
}

// run returns what a socket filter says to a frame.
func runFilter(t *testing.T, program *ebpf.Program, frame []byte) uint32 {
	t.Helper()
	kept, err := program.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

func serialize(t *testing.T, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A testPacket is a packet to be made.
type testPacket struct {
	src, dst netip.AddrPort
	proto    string // "tcp", "udp", "echo", "echo reply"
	options  bool   // IPv4 options
	quoted   bool   // by an ICMP error to its source
	fragment bool
}

func (p testPacket) String() string {
	return fmt.Sprintf("%s %s > %s options %v quoted %v fragment %v", p.proto, p.src, p.dst, p.options, p.quoted, p.fragment)
}

// ip makes the packet from its IP header on.
func (p testPacket) ip(t *testing.T) []byte {
	v6 := p.src.Addr().Is6()
	number := map[string]layers.IPProtocol{"tcp": layers.IPProtocolTCP, "udp": layers.IPProtocolUDP, "echo": layers.IPProtocolICMPv4, "echo reply": layers.IPProtocolICMPv4}[p.proto]
	if v6 && number == layers.IPProtocolICMPv4 {
		number = layers.IPProtocolICMPv6
	}
	network := testIP(p.src.Addr(), p.dst.Addr(), number, p.options, p.fragment)
	var transport gopacket.SerializableLayer
	switch p.proto {
	case "tcp":
		tcp := &layers.TCP{SrcPort: layers.TCPPort(p.src.Port()), DstPort: layers.TCPPort(p.dst.Port()), SYN: true}
		tcp.SetNetworkLayerForChecksum(network)
		transport = tcp
	case "udp":
		udp := &layers.UDP{SrcPort: layers.UDPPort(p.src.Port()), DstPort: layers.UDPPort(p.dst.Port())}
		udp.SetNetworkLayerForChecksum(network)
		transport = udp
	default:
		kind, id := uint8(8), p.src.Port()
		if p.proto == "echo reply" {
			kind, id = 0, p.dst.Port()
		}
		if v6 {
			kind = map[uint8]uint8{8: 128, 0: 129}[kind]
		}
		transport = gopacket.Payload([]byte{kind, 0, 0, 0, byte(id >> 8), byte(id), 0, 1})
	}
	return serialize(t, network, transport)
}

func testIP(src, dst netip.Addr, number layers.IPProtocol, options, fragment bool) interface {
	gopacket.NetworkLayer
	gopacket.SerializableLayer
} {
	if src.Is6() {
		return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: number, SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(dst.AsSlice())}
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: number, SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(dst.AsSlice())}
	if options {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}} // router alert
	}
	if fragment {
		ip.FragOffset = 100
	}
	return ip
}

// frame makes the whole frame.
func (p testPacket) frame(t *testing.T) []byte {
	raw := p.ip(t)
	etherType := layers.EthernetTypeIPv4
	if p.src.Addr().Is6() {
		etherType = layers.EthernetTypeIPv6
	}
	if p.quoted {
		router := netip.MustParseAddr("198.51.100.15")
		number, head := layers.IPProtocolICMPv4, []byte{3, 13, 0, 0, 0, 0, 0, 0}
		if p.src.Addr().Is6() {
			router, number, head = netip.MustParseAddr("2001:db8::15"), layers.IPProtocolICMPv6, []byte{1, 1, 0, 0, 0, 0, 0, 0}
		}
		raw = serialize(t, testIP(router, p.src.Addr(), number, p.options, false), gopacket.Payload(append(head, raw...)))
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	return serialize(t, &layers.Ethernet{SrcMAC: mac, DstMAC: mac, EthernetType: etherType}, gopacket.Payload(raw))
}

// TestMatcherInTheKernel holds the eBPF program against what the decoder says, over packets that are the
// flow's, and such that differ from it in one thing.
func TestMatcherInTheKernel(t *testing.T) {
	needBPF(t)
	parse := netip.MustParseAddrPort
	for _, v6 := range []bool{false, true} {
		client, server, other := parse("192.0.2.77:40000"), parse("198.51.100.15:8080"), parse("198.51.100.99:40001")
		if v6 {
			client, server, other = parse("[2001:db8:77::9]:40000"), parse("[2001:db8::15]:8080"), parse("[2001:db8::99]:40001")
		}
		for _, proto := range []string{"tcp", "udp", "icmp"} {
			for _, known := range []bool{true, false} {
				flow := Flow{proto, client, server}
				m := newMatcher(flow, []uint16{8080, 80})
				if !known {
					flow.Client = netip.AddrPortFrom(netip.IPv4Unspecified(), client.Port())
					m = newMatcher(flow, []uint16{8080, 80})
				}
				program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: bpfLicense, Instructions: m.filter(14)}) // test runs give other types no link layer
				if err != nil {
					t.Fatal(err)
				}
				hits := 0
				ends := []netip.AddrPort{client, server, other, netip.AddrPortFrom(client.Addr(), 41000), netip.AddrPortFrom(server.Addr(), 80), netip.AddrPortFrom(other.Addr(), client.Port())}
				for _, src := range ends {
					for _, dst := range ends {
						for _, kind := range []string{"tcp", "udp", "echo", "echo reply"} {
							for shape := range 4 {
								p := testPacket{src, dst, kind, shape&1 > 0, shape&2 > 0, false}
								frame := p.frame(t)
								want := m.owns(decode(frame, true))
								if got := runFilter(t, program, frame) > 0; got != want && !ambiguous(m, p) {
									t.Errorf("flow %s (client known: %v): kernel %v, decoder %v: %s", flow, known, got, want, p)
								}
								if want {
									hits++
								}
							}
						}
					}
				}
				if hits == 0 {
					t.Errorf("%s: nothing matched", flow)
				}
				p := testPacket{src: server, dst: client, proto: "tcp", fragment: true}
				if got := runFilter(t, program, p.frame(t)) > 0; !v6 && got != known {
					t.Errorf("flow %s (client known: %v): a fragment to the client: %v", flow, known, got)
				}
				program.Close()
			}
		}
	}
}

// ambiguous are packets of which it does not matter what is said: from a machine to itself, and quotes by
// an error of what the client did not send.
func ambiguous(m matcher, p testPacket) bool {
	if p.src.Addr() == p.dst.Addr() {
		return true
	}
	if m.echo() && m.client.IsValid() {
		// An echo by its identifier: who asked is told by the address before.
		asks := p.proto == "echo" && p.src.Addr() == m.client || p.proto == "echo reply" && p.dst.Addr() == m.client
		return !asks || p.quoted && p.proto != "echo"
	}
	return p.quoted && !(p.src.Port() == m.port && (!m.client.IsValid() || p.src.Addr() == m.client))
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0x45, 0})
	f.Add([]byte{0x60, 0, 0, 0, 0, 8, 58, 64})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, ethernet := range []bool{true, false} {
			if fr := decode(data, ethernet); fr != nil {
				_ = fr.String()
				fr.toward(netip.AddrPort{})
			}
		}
	})
}

func FuzzTraces(f *testing.F) {
	f.Add([]byte{24, 0, 0, 0, 17, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		tr := &tracer{table: "netcheck-0"}
		(naming{}).observed(tr.ours(splitTraces(data), matcher{port: 1}), tr.table, Flow{})
	})
}
