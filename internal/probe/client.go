//go:build linux

package probe

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A synthetic is a client that has no machine: a namespace with one link, the other end of which is in
// the host's namespace.
type synthetic struct {
	ns     *netns
	own    netlink.Link     // the host's end
	uplink netlink.Link     // where its frames come in
	mac    net.HardwareAddr // its own
	from   net.HardwareAddr // what its frames say they come from
	server net.Listener     // of a probe to outside
}

// hostMAC is the address of the host's end: locally administered, ours, and never that of another link.
var hostMAC = net.HardwareAddr{0x02, 0x6e, 0x63, 0x00, 0x00, 0x01}

// newSynthetic makes the client with its link, address and way to the server. Nothing leads into the
// host yet.
func newSynthetic(r *Request) (_ *synthetic, err error) {
	s := &synthetic{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.uplink, err = netlink.LinkByName(r.Uplink); err != nil {
		return nil, fmt.Errorf("link %s: %w", r.Uplink, err)
	}
	s.mac = net.HardwareAddr{0x02, 0x6e, 0x63, 0, 0, 0}
	rand.Read(s.mac[3:])
	s.from = s.mac
	if mac, err := net.ParseMAC(r.NextHop); err == nil && len(mac) == 6 {
		s.from = mac
	}
	if s.ns, err = newNetns(); err != nil {
		return nil, err
	}
	if err := s.plug(r); err != nil {
		return nil, err
	}
	return s, s.ns.do(func() error { return s.configure(r) })
}

// plug makes the link between host and client.
func (s *synthetic) plug(r *Request) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = r.Link(), hostMAC, s.uplink.Attrs().MTU
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = "eth0", s.mac, netlink.NsFd(s.ns.fd())
	veth.PeerMTU = uint32(attrs.MTU)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link %s: %w", r.Link(), err)
	}
	own, err := netlink.LinkByName(r.Link())
	if err != nil {
		return fmt.Errorf("link %s: %w", r.Link(), err)
	}
	s.own = own
	// Before it is up, lest the host speak IPv6 on it.
	if err := setConf("ipv6", r.Link(), "disable_ipv6", "1"); err != nil {
		return err
	}
	return netlink.LinkSetUp(s.own)
}

// setConf writes net.FAMILY.conf.LINK.NAME of the namespace that the thread is in. Where the family is
// off there is nothing to write.
func setConf(family, link, name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+family+"/conf/"+link+"/"+name, []byte(value), 0)
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// configure runs inside of the client's namespace.
func (s *synthetic) configure(r *Request) error {
	// A new namespace may have the settings of the first one: none of them may matter.
	for _, c := range [][4]string{
		{"ipv4", "all", "rp_filter", "0"}, {"ipv4", "eth0", "rp_filter", "0"}, {"ipv4", "all", "arp_ignore", "8"},
		{"ipv6", "all", "disable_ipv6", "0"}, {"ipv6", "eth0", "disable_ipv6", "0"}, {"ipv6", "eth0", "accept_dad", "0"},
		{"ipv6", "eth0", "accept_ra", "0"}, {"ipv6", "eth0", "router_solicitations", "0"}, {"ipv6", "eth0", "autoconf", "0"},
	} {
		if err := setConf(c[0], c[1], c[2], c[3]); err != nil {
			return fmt.Errorf("client's namespace: %w", err)
		}
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("client's link: %w", err)
	}
	if err := noOffload("eth0"); err != nil {
		return fmt.Errorf("client's link: offloads: %w", err)
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("client's link: %w", err)
	}
	addr := &netlink.Addr{IPNet: single(r.Client)}
	if r.Client.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(eth0, addr); err != nil {
		return fmt.Errorf("client's address %s: %w", r.Client, err)
	}
	if r.out() {
		return s.listen(r, eth0)
	}
	// Everything is on this link; the server's hardware address is known.
	everywhere := &net.IPNet{IP: make(net.IP, r.Client.BitLen()/8), Mask: net.CIDRMask(0, r.Client.BitLen())}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: everywhere, Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("client's route: %w", err)
	}
	neigh := &netlink.Neigh{
		LinkIndex: eth0.Attrs().Index, IP: r.Server.Addr().AsSlice(), HardwareAddr: hostMAC, State: netlink.NUD_PERMANENT,
	}
	if err := netlink.NeighSet(neigh); err != nil {
		return fmt.Errorf("client's neighbour: %w", err)
	}
	return nil
}

// listen makes a server of it, inside of its namespace. It knows the host by the addresses of the uplink,
// and no container: what comes from another address it does not answer, as the world would not.
func (s *synthetic) listen(r *Request, eth0 netlink.Link) error {
	for _, addr := range r.known {
		route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: single(addr), Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("server's route: %w", err)
		}
		neigh := &netlink.Neigh{LinkIndex: eth0.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: hostMAC, State: netlink.NUD_PERMANENT}
		if err := netlink.NeighSet(neigh); err != nil {
			return fmt.Errorf("server's neighbour: %w", err)
		}
	}
	listen := net.ListenConfig{}
	listen.SetMultipathTCP(false)
	var err error
	if s.server, err = listen.Listen(context.Background(), "tcp", r.Server.String()); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

func single(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}

// Close ends the client. Without its namespace the link would go too; but when, is the kernel's choice.
func (s *synthetic) Close() error {
	var err error
	if s.server != nil {
		s.server.Close()
	}
	if s.own != nil {
		err = netlink.LinkDel(s.own)
		s.own = nil
	}
	if s.ns != nil {
		s.ns.Close()
	}
	return err
}

// noOffload makes a link send packets as they are on a wire: with their checksums, and not larger than
// its MTU.
func noOffload(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, command := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM} {
		// struct ethtool_value, and struct ifreq with a pointer to it.
		value := struct{ command, data uint32 }{command, 0}
		var request struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(request.name[:unix.IFNAMSIZ-1], name)
		request.data = unsafe.Pointer(&value)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
		if errno != 0 && errno != unix.EOPNOTSUPP {
			return errno
		}
	}
	return nil
}

// leaves returns every link by which a packet can leave the machine at the network layer: all but
// loopback, ports of bridges and bonds, Docker's bridges and the probe's own.
func leaves(own netlink.Link, bridges []string) ([]netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	kinds := map[int]string{}
	for _, l := range links {
		kinds[l.Attrs().Index] = l.Type()
	}
	return slices.DeleteFunc(links, func(l netlink.Link) bool {
		a := l.Attrs()
		port := a.MasterIndex != 0 && kinds[a.MasterIndex] != "vrf"
		return a.Flags&net.FlagLoopback != 0 || a.Index == own.Attrs().Index || port || slices.Contains(bridges, a.Name)
	}), nil
}
