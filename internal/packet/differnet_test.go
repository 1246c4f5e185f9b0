//go:build linux

package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// The differential test's machines, each a network namespace:
//
//	client c0 198.51.100.2 ─ eth0 198.51.100.15 ┐      ├ br0 172.17.0.1 ┬ v0 ─ eth0 172.17.0.2 sandbox
//	client c1 192.0.2.2 ──── eth1 192.0.2.15 ───┤ host ┤               └ v1 ─ eth0 172.17.0.3 peer
//	                                            ┘      └ br1 172.18.0.1 ── v2 ─ eth0 172.18.0.2 other
//
// The host's namespace is the test process's own. Neighbours are permanent, and so are the bridges'
// forwarding entries: no packet waits for another, or is flooded.
const wiring = `
link add eth0 address 02:00:00:00:00:15 type veth peer name c0 address 02:00:00:00:00:02 netns CLIENT
link add eth1 address 02:00:00:00:01:15 type veth peer name c1 address 02:00:00:00:01:02 netns CLIENT
link add br0 address 02:00:00:00:02:01 type bridge forward_delay 0 mcast_snooping 0
link add br1 address 02:00:00:00:03:01 type bridge forward_delay 0 mcast_snooping 0
link set lo up
link set eth0 up
link set eth1 up
link set br0 up
link set br1 up
addr add 198.51.100.15/24 dev eth0
addr add 192.0.2.15/24 dev eth1
addr add 172.17.0.1/16 dev br0
addr add 172.18.0.1/16 dev br1
addr add 2001:db8::15/64 dev eth0 nodad
addr add 2001:db8:1::15/64 dev eth1 nodad
addr add fd00::1/64 dev br0 nodad
addr add fd01::1/64 dev br1 nodad
route add default via 198.51.100.2
route add default via 2001:db8::2
neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent
neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent
neigh add 192.0.2.2 lladdr 02:00:00:00:01:02 dev eth1 nud permanent
neigh add 2001:db8:1::2 lladdr 02:00:00:00:01:02 dev eth1 nud permanent
`

// A box is one container's place. Its gateway is the bridge's first address.
type box struct {
	place, name, id, bridge, port, mac string
	v4, v6, gateway4, gateway6         string
	gatewayMAC                         string
}

var boxes = []box{
	{"sandbox", "web", webID, "br0", "v0", "02:00:00:00:02:02", "172.17.0.2", "fd00::2", "172.17.0.1", "fd00::1", "02:00:00:00:02:01"},
	{"peer", "peer", peerID, "br0", "v1", "02:00:00:00:02:03", "172.17.0.3", "fd00::3", "172.17.0.1", "fd00::1", "02:00:00:00:02:01"},
	{"other", "other", otherID, "br1", "v2", "02:00:00:00:03:02", "172.18.0.2", "fd01::2", "172.18.0.1", "fd01::1", "02:00:00:00:03:01"},
}

// wire returns what the host's side needs of a box, and what its own side needs.
func (b *box) wire(pid int) (host, inside string) {
	host = fmt.Sprintf("link add %s address 02:00:00:00:09:%s type veth peer name eth0 address %s netns %d\nlink set %s master %s\nlink set %s up\n", b.port, b.mac[9:11], b.mac, pid, b.port, b.bridge, b.port)
	inside = fmt.Sprintf("link set lo up\nlink set eth0 up\naddr add %s/16 dev eth0\naddr add %s/64 dev eth0 nodad\nroute add default via %s\nroute add default via %s\n", b.v4, b.v6, b.gateway4, b.gateway6)
	for _, addr := range []string{b.v4, b.v6} {
		host += fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent\n", addr, b.mac, b.bridge)
	}
	for _, gateway := range []string{b.gateway4, b.gateway6} {
		inside += fmt.Sprintf("neigh add %s lladdr %s dev eth0 nud permanent\n", gateway, b.gatewayMAC)
	}
	for _, other := range boxes {
		if other.bridge == b.bridge && other.name != b.name {
			inside += fmt.Sprintf("neigh add %s lladdr %s dev eth0 nud permanent\nneigh add %s lladdr %s dev eth0 nud permanent\n", other.v4, other.mac, other.v6, other.mac)
		}
	}
	return host, inside
}

const wiringClient = `
link set lo up
link set c0 up
link set c1 up
`

// A world is the machines of the differential test.
type world struct {
	t          testing.TB
	client     *os.Process
	pids       map[string]int // of the places; the host's is 0
	c          [2]int         // packet sockets on c0 and c1
	hostFrames int            // a packet socket on the host's eth0, for sentinels
	raw        map[string][]int
	send       map[string]map[netstate.Family]int
	traces     map[string]int
	legacy     [2]int // sockets that read legacy tables
	counted    map[string]uint64
	dirty      [2]bool // legacy tables exist
	furnished  bool    // the sandbox has rules
	switched   bool    // the bridges are not as plainBridges has them
	record     *recorder
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a program with input.
func run(input, name string, arguments ...string) error {
	cmd := exec.Command(name, arguments...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// sleeper starts a process in a network namespace of its own.
func sleeper(t testing.TB) *os.Process {
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process
}

// newWorld makes the machines. The calling thread stays on one CPU: what it sends is taken through all of
// them before it goes on, or waits in that CPU's queue behind which a sentinel comes.
func newWorld(t testing.TB) *world {
	runtime.LockOSThread()
	var cpu unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &cpu))
	for i := 0; i < 1024; i++ {
		if cpu.IsSet(i) {
			cpu.Zero()
			cpu.Set(i)
			break
		}
	}
	must(t, unix.SchedSetaffinity(0, &cpu))
	w := &world{t: t, client: sleeper(t), pids: map[string]int{"host": 0}, raw: map[string][]int{}, send: map[string]map[netstate.Family]int{}, traces: map[string]int{}}
	waitForNamespace(t, w.client.Pid)
	must(t, run(strings.ReplaceAll(wiring, "CLIENT", fmt.Sprint(w.client.Pid)), "ip", "-batch", "-"))
	inside := func(pid int, input string, command ...string) {
		must(t, run(input, "nsenter", append([]string{"-t", fmt.Sprint(pid), "-n"}, command...)...))
	}
	inside(w.client.Pid, "", "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	inside(w.client.Pid, wiringClient, "ip", "-batch", "-")
	ignored := []string{"/proc/sys/net/ipv4/icmp_echo_ignore_all", "/proc/sys/net/ipv6/icmp/echo_ignore_all"}
	for _, name := range ignored {
		must(t, os.WriteFile(name, []byte("1"), 0))
	}
	for i := range boxes {
		b, process := &boxes[i], sleeper(t)
		waitForNamespace(t, process.Pid)
		w.pids[b.place] = process.Pid
		host, own := b.wire(process.Pid)
		must(t, run(host, "ip", "-batch", "-"))
		w.switched = true // the bridges' forwarding entries are missing yet
		inside(process.Pid, own, "ip", "-batch", "-")
		inside(process.Pid, quiet, "nft", "-f", "-")
		for _, name := range ignored {
			inside(process.Pid, "", "sh", "-c", "echo 1 > "+name)
		}
	}
	// The client's own kernel must not answer: it has no addresses, and what it hears is for the test.
	w.in(w.client.Pid, func() {
		for i, name := range []string{"c0", "c1"} {
			w.c[i] = w.frames(name)
		}
	})
	w.hostFrames = w.frames("eth0")
	for place, pid := range w.pids {
		w.in(pid, func() {
			w.sockets(place)
			w.traces[place] = w.listenTraces()
		})
	}
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var err error
		w.legacy[i], err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		must(t, err)
	}
	return w
}

func waitForNamespace(t testing.TB, pid int) {
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	for range 1000 {
		if other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && other != own {
			return
		}
		runtime.Gosched()
	}
	t.Fatal("a process has no namespace of its own")
}

// in runs f in the network namespace of a process; 0 is the test's own.
func (w *world) in(pid int, f func()) {
	if pid == 0 {
		f()
		return
	}
	own, err := vnetns.Get()
	must(w.t, err)
	defer own.Close()
	there, err := vnetns.GetFromPid(pid)
	must(w.t, err)
	defer there.Close()
	must(w.t, vnetns.Set(there))
	defer func() { must(w.t, vnetns.Set(own)) }()
	f()
}

// frames opens a packet socket on a link.
func (w *world) frames(name string) int {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	must(w.t, err)
	l, err := net.InterfaceByName(name)
	must(w.t, err)
	must(w.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: l.Index}))
	return fd
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

var rawProtocols = []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP}

// sockets opens what hears packets that are delivered here, and what sends.
func (w *world) sockets(place string) {
	for _, proto := range rawProtocols {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
		must(w.t, err)
		w.raw[place] = append(w.raw[place], fd)
	}
	for _, proto := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6} {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
		must(w.t, err)
		must(w.t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
		w.raw[place] = append(w.raw[place], fd)
	}
	w.send[place] = map[netstate.Family]int{}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	must(w.t, err)
	must(w.t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
	w.send[place][netstate.IPv4] = fd
	fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	must(w.t, err)
	must(w.t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1))
	w.send[place][netstate.IPv6] = fd
}

// A shot is one packet to be sent: the packet, and a number by which it is known again whatever is
// translated.
type shot struct {
	skb
	id uint32
}

const marker = 0x6e6374 // "nct"

// ip builds the packet from its IP header on.
func (s *shot) ip() []byte {
	var network gopacket.SerializableLayer
	var sums gopacket.NetworkLayer
	proto := layers.IPProtocol(s.proto)
	ttl, dscp := byte(s.ttl), byte(max(s.dscp, 0))<<2
	if s.family == netstate.IPv4 {
		h := &layers.IPv4{Version: 4, IHL: 5, TOS: dscp, TTL: ttl, Protocol: proto, SrcIP: s.src.AsSlice(), DstIP: s.dst.AsSlice(), Id: uint16(s.id), Flags: layers.IPv4DontFragment}
		network, sums = h, h
	} else {
		h := &layers.IPv6{Version: 6, FlowLabel: s.id & 0xfffff, TrafficClass: dscp, HopLimit: ttl, NextHeader: proto, SrcIP: s.src.AsSlice(), DstIP: s.dst.AsSlice()}
		network, sums = h, h
	}
	var payload [12]byte
	binary.BigEndian.PutUint32(payload[:], marker)
	binary.BigEndian.PutUint32(payload[4:], s.id)
	all := []gopacket.SerializableLayer{network}
	if s.about != nil {
		quoted := shot{skb: skb{family: s.family, tuple: *s.about, ttl: 60, flags: tcpSYN}, id: s.id}
		if quoted.icmpType = 8; s.family == netstate.IPv6 {
			quoted.icmpType = 128
			h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(s.icmpType, s.icmpCode)}
			h.SetNetworkLayerForChecksum(sums)
			return serialize(append(all, h, gopacket.Payload(append(make([]byte, 4), quoted.ip()...)))...)
		}
		return serialize(append(all, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(s.icmpType, s.icmpCode)}, gopacket.Payload(quoted.ip()))...)
	}
	switch s.proto {
	case protoTCP:
		h := &layers.TCP{SrcPort: layers.TCPPort(s.sport), DstPort: layers.TCPPort(s.dport), Window: 1000,
			SYN: s.flags&tcpSYN != 0, ACK: s.flags&tcpACK != 0, FIN: s.flags&tcpFIN != 0, RST: s.flags&tcpRST != 0, PSH: s.flags&tcpPSH != 0}
		// Sequence numbers that connection tracking takes: the client's is id·256, the server's the same and 2³¹.
		mine, theirs := s.id<<8, s.id<<8|1<<31
		if s.replyDir {
			mine, theirs = theirs, mine
		}
		h.Seq = mine
		if !h.SYN {
			h.Seq++
		}
		if h.ACK {
			h.Ack = theirs + 1
		}
		h.SetNetworkLayerForChecksum(sums)
		all = append(all, h)
	case protoUDP:
		h := &layers.UDP{SrcPort: layers.UDPPort(s.sport), DstPort: layers.UDPPort(s.dport)}
		h.SetNetworkLayerForChecksum(sums)
		all = append(all, h, gopacket.Payload(payload[:]))
	case protoICMP:
		all = append(all, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(s.icmpType, s.icmpCode), Id: uint16(s.sport), Seq: 1}, gopacket.Payload(payload[:]))
	case protoICMPv6:
		h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(s.icmpType, s.icmpCode)}
		h.SetNetworkLayerForChecksum(sums)
		all = append(all, h, &layers.ICMPv6Echo{Identifier: uint16(s.sport), SeqNumber: 1}, gopacket.Payload(payload[:]))
	}
	return serialize(all...)
}

func serialize(all ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		panic(err)
	}
	return bytes.Clone(b.Bytes())
}

// fire sends the packet from a place: "c0" or "c1" (to the host at the other end), "host" or "sandbox".
func (w *world) fire(from string, s *shot) error {
	packet := s.ip()
	switch from {
	case "c0", "c1":
		i := int(from[1] - '0')
		frame := append([]byte{2, 0, 0, 0, byte(i), 0x15, 2, 0, 0, 0, byte(i), 2}, byte(s.etherType()>>8), byte(s.etherType()))
		_, err := unix.Write(w.c[i], append(frame, packet...))
		return err
	}
	// Bound, so that the source is known when the packet is routed, as it is of any other socket.
	fd := w.send[from][s.family]
	if s.family == netstate.IPv4 {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: s.src.As4()}); err != nil {
			return fmt.Errorf("bind %s: %w", s.src, err)
		}
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: s.dst.As4()})
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: s.src.As16()}); err != nil {
		return fmt.Errorf("bind %s: %w", s.src, err)
	}
	return unix.Sendto(fd, packet, 0, &unix.SockaddrInet6{Addr: s.dst.As16()})
}

// settle waits until all that was sent has got where it goes: sentinels pass through the same queue.
func (w *world) settle() error {
	sentinel := append([]byte{2, 0, 0, 0, 0, 0x15, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, make([]byte, 46)...)
	for range 4 {
		if _, err := unix.Write(w.c[0], sentinel); err != nil {
			return err
		}
		deadline := time.Now().Add(5 * time.Second)
		for seen := false; !seen; {
			poll := []unix.PollFd{{Fd: int32(w.hostFrames), Events: unix.POLLIN}}
			if _, err := unix.Poll(poll, 1000); err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			buf := make([]byte, 2048)
			n, from, err := unix.Recvfrom(w.hostFrames, buf, 0)
			if err == nil && n >= 14 && buf[12] == 0x88 && buf[13] == 0xb5 {
				seen = from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING
			}
			if time.Now().After(deadline) {
				return errors.New("a sentinel was lost")
			}
		}
	}
	return nil
}

// A sighting is a packet seen somewhere.
type sighting struct {
	place string // "c0", "c1", "host", "sandbox"
	id    uint32
	tuple
	about *tuple // of an ICMP error
	ttl   int
	dscp  int
}

// String returns "sandbox udp 198.51.100.2:1→172.17.0.2:80".
func (s sighting) String() string {
	if s.about != nil {
		return fmt.Sprintf("%s %s %s→%s about %s %s:%s→%s:%s", s.place, protoName(s.proto), s.src, s.dst, protoName(s.about.proto), s.about.src, s.about.sport, s.about.dst, s.about.dport)
	}
	return fmt.Sprintf("%s %s %s:%s→%s:%s", s.place, protoName(s.proto), s.src, s.sport, s.dst, s.dport)
}

// hear collects what was seen since the last time.
func (w *world) hear() []sighting {
	var all []sighting
	buf := make([]byte, 4096)
	for i, fd := range w.c {
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				break
			}
			if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING || n < 34 {
				continue
			}
			if s, ok := parseIP(buf[14:n]); ok {
				s.place = fmt.Sprintf("c%d", i)
				all = append(all, s)
			}
		}
	}
	for place, fds := range w.raw {
		for i, fd := range fds {
			for {
				oob := make([]byte, 256)
				n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, 0)
				if err != nil {
					break
				}
				var s sighting
				ok := false
				if i < 3 {
					s, ok = parseIP(buf[:n])
				} else {
					s.proto = []uint8{protoTCP, protoUDP, protoICMPv6}[i-3]
					s.src = netip.AddrFrom16(from.(*unix.SockaddrInet6).Addr)
					messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
					for _, m := range messages {
						if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
							s.dst, _ = netip.AddrFromSlice(m.Data[:16])
						}
					}
					ok = s.parseTransport(buf[:n])
				}
				if ok {
					s.place = place
					all = append(all, s)
				}
			}
		}
	}
	return all
}

func parseIP(b []byte) (sighting, bool) {
	var s sighting
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		n := int(b[0]&15) * 4
		s.src, s.dst, s.proto = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9]
		s.ttl, s.dscp = int(b[8]), int(b[1]>>2)
		if len(b) < n {
			return s, false
		}
		return s, s.parseTransport(b[n:])
	case len(b) >= 40 && b[0]>>4 == 6:
		s.src, s.dst, s.proto = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6]
		s.ttl, s.dscp = int(b[7]), int(b[0]&15)<<2|int(b[1]>>6)
		return s, s.parseTransport(b[40:])
	}
	return s, false
}

// parseTransport reads ports and the number of the shot; false: it is none of ours.
func (s *sighting) parseTransport(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	s.sport, s.dport = port(binary.BigEndian.Uint16(b)), port(binary.BigEndian.Uint16(b[2:]))
	switch s.proto {
	case protoTCP:
		if len(b) < 20 || b[13]&tcpRST != 0 {
			return false
		}
		s.id = binary.BigEndian.Uint32(b[4:]) << 1 >> 9
		return true
	case protoUDP:
		b = b[8:]
	case protoICMP, protoICMPv6:
		s.sport, s.dport = port(binary.BigEndian.Uint16(b[4:])), 0
		if s.proto == protoICMP && b[0] == 3 && b[1] == ownError || s.proto == protoICMPv6 && b[0] == 1 && b[1] == ownError6 {
			return s.parseQuoted(b[8:])
		}
		if b[0] != 8 && b[0] != 0 && b[0] != 128 && b[0] != 129 {
			return false // an error of some kernel
		}
		b = b[8:]
	default:
		return false
	}
	if len(b) < 8 || binary.BigEndian.Uint32(b) != marker {
		return false
	}
	s.id = binary.BigEndian.Uint32(b[4:])
	return true
}

// parseQuoted reads what an ICMP error quotes, of which a trace has the beginning alone. Of its number, the
// lower half is there.
func (s *sighting) parseQuoted(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	s.sport = 0
	if s.id = uint32(binary.BigEndian.Uint16(b[4:])); b[0]>>4 == 6 {
		s.id = uint32(binary.BigEndian.Uint16(b[2:]))
	}
	quoted, _ := parseIP(b)
	s.about = &quoted.tuple
	return true
}
