//go:build linux

package lab

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire makes the segment: a bridge in a namespace of its own, with the host and
// the clients plugged in.
func (h *Host) wire() error {
	o := h.options
	sw, err := h.newNetns()
	if err != nil {
		return err
	}
	if h.Netns, err = h.newNetns(); err != nil {
		return err
	}
	// What a new namespace has for IPv4 comes from the machine. See to it that
	// a host begins as a kernel does, whoever has changed the machine; only for
	// duplicate addresses it does not look, which takes a second for each link.
	fresh := map[string]string{
		"net.ipv4.ip_forward":              "0",
		"net.ipv4.conf.all.rp_filter":      "0",
		"net.ipv4.conf.default.rp_filter":  "0",
		"net.ipv6.conf.default.accept_dad": "0",
	}
	if err := h.Sysctl(fresh); err != nil {
		return err
	}
	bridge := &netlink.Bridge{
		LinkAttrs:         linkAttrs("switch"),
		MulticastSnooping: new(bool), // or IPv6 neighbours wait for a querier that is not there
	}
	err = sw.configure(func(nl *netlink.Handle) error {
		if err := nl.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		return nl.LinkSetUp(bridge)
	})
	if err != nil {
		return err
	}

	if err := sw.plug(bridge, "host", h.Netns, o.IPv6, HostAddr+"/24", HostAddr6+"/64"); err != nil {
		return err
	}
	for i := range o.Clients {
		n, err := h.newNetns()
		if err != nil {
			return err
		}
		c := &Client{Netns: n, Addr: fmt.Sprintf("198.51.100.%d", 2+i), Addr6: fmt.Sprintf("2001:db8::%x", 2+i)}
		if err := sw.plug(bridge, "client"+strconv.Itoa(i), n, o.IPv6, c.Addr+"/24", c.Addr6+"/64"); err != nil {
			return err
		}
		h.Clients = append(h.Clients, c)
	}
	err = h.Clients[0].configure(func(nl *netlink.Handle) error {
		return addAddrs(nl, "lo", o.IPv6, FarAddr+"/32", FarAddr6+"/128")
	})
	if err != nil {
		return err
	}
	if err := h.addGateways(); err != nil {
		return err
	}
	return h.Sysctl(o.Sysctls)
}

// addGateways gives the host its way out, by the first client.
func (h *Host) addGateways() error {
	return h.Netns.configure(func(nl *netlink.Handle) error {
		gateways := []string{ClientAddr}
		if h.options.IPv6 {
			gateways = append(gateways, ClientAddr6)
		}
		eth0, err := nl.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, gw := range gateways {
			r := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gw)}
			if err := nl.RouteAdd(r); err != nil {
				return fmt.Errorf("default route via %s: %w", gw, err)
			}
		}
		return nil
	})
}

// plug joins n, by its eth0, to a port of the bridge in sw.
func (sw *Netns) plug(bridge netlink.Link, port string, n *Netns, v6 bool, addrs ...string) error {
	veth := netlink.NewVeth(linkAttrs(port))
	veth.PeerName = "eth0"
	veth.PeerNamespace = netlink.NsFd(n.file.Fd())
	err := sw.configure(func(nl *netlink.Handle) error {
		if err := nl.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth %s: %w", port, err)
		}
		if err := nl.LinkSetMaster(veth, bridge); err != nil {
			return fmt.Errorf("plug %s: %w", port, err)
		}
		return nl.LinkSetUp(veth)
	})
	if err != nil {
		return err
	}
	return n.configure(func(nl *netlink.Handle) error {
		if err := addAddrs(nl, "lo", false); err != nil {
			return err
		}
		return addAddrs(nl, "eth0", v6, addrs...)
	})
}

// linkAttrs are those of a new link, with the kernel's defaults.
func linkAttrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// addAddrs sets a link up and gives it addresses, of IPv6 only where v6 is set.
func addAddrs(nl *netlink.Handle, name string, v6 bool, addrs ...string) error {
	link, err := nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	for _, s := range addrs {
		if strings.Contains(s, ":") && !v6 {
			continue
		}
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if strings.Contains(s, ":") {
			addr.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %s to %s: %w", s, name, err)
		}
	}
	return nil
}

// configure calls f with a netlink socket of the namespace.
func (n *Netns) configure(f func(*netlink.Handle) error) error {
	var nl *netlink.Handle
	err := n.Do(func() (err error) {
		nl, err = netlink.NewHandle()
		return err
	})
	if err != nil {
		return err
	}
	defer nl.Close()
	return f(nl)
}

// Sysctl writes sysctls of the namespace, in the order of their names. A dot in
// an interface name is written /, as sysctl(8) does.
func (n *Netns) Sysctl(values map[string]string) error {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	return n.Do(func() error {
		for _, name := range names {
			if !strings.HasPrefix(name, "net.") {
				return fmt.Errorf("sysctl %s: not of a network namespace", name)
			}
			swap := strings.NewReplacer(".", "/", "/", ".")
			if err := os.WriteFile("/proc/sys/"+swap.Replace(name), []byte(values[name]), 0); err != nil {
				return fmt.Errorf("sysctl %s: %w", name, err)
			}
		}
		return nil
	})
}
