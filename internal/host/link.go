//go:build linux

package host

import (
	"encoding/binary"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix does not name.
const (
	iflaXDPAttached     = 2 // within IFLA_XDP
	iflaBrportIsolated  = 33
	iflaBrportLocked    = 39
	iflaBridgeVLANInfo  = 2 // within IFLA_AF_SPEC of AF_BRIDGE
	rtextFilterBrVLAN   = 2
	rtextFilterSkipStat = 8
)

var (
	operStates       = []string{"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}
	bridgePortStates = []string{"disabled", "listening", "learning", "forwarding", "blocking"}
	macvlanModes     = map[uint32]string{1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
	ipvlanModes      = []string{"l2", "l3", "l3s"}
)

func nameOf[N ~uint8 | ~uint16 | ~uint32](names []string, n N) string {
	if int(n) < len(names) {
		return names[n]
	}
	return strconv.FormatUint(uint64(n), 10)
}

// readLinks dumps the links and, because the same messages hold them, the sysctls
// net.ipv4.conf.LINK.* and net.ipv6.conf.LINK.*: one read instead of two dozen files a link.
func readLinks(c *netlink.Conn) ([]netstate.Link, map[string]string, error) {
	request := append(make([]byte, unix.SizeofIfInfomsg), attribute(unix.IFLA_EXT_MASK, uint32Bytes(rtextFilterSkipStat))...)
	answers, err := dump(c, unix.RTM_GETLINK, request)
	if err != nil {
		return nil, nil, err
	}
	links := make([]netstate.Link, 0, len(answers))
	sysctls := map[string]string{}
	for _, answer := range answers {
		if answer.Header.Type != unix.RTM_NEWLINK {
			continue
		}
		link, err := parseLink(answer.Data, sysctls)
		if err != nil {
			return nil, nil, err
		}
		links = append(links, link)
	}
	return links, sysctls, nil
}

// readVLANs adds the VLANs of bridges that filter them, and of their ports.
func readVLANs(c *netlink.Conn, links []netstate.Link) error {
	if !slices.ContainsFunc(links, func(l netstate.Link) bool { return l.Bridge != nil && l.Bridge.VLANFiltering }) {
		return nil
	}
	header := make([]byte, unix.SizeofIfInfomsg)
	header[0] = unix.AF_BRIDGE
	answers, err := dump(c, unix.RTM_GETLINK, append(header, attribute(unix.IFLA_EXT_MASK, uint32Bytes(rtextFilterBrVLAN))...))
	if err != nil {
		return err
	}
	for _, answer := range answers {
		index, vlans, err := parseVLANs(answer.Data)
		if err != nil {
			return err
		}
		if at := slices.IndexFunc(links, func(l netstate.Link) bool { return l.Index == index }); at >= 0 {
			links[at].VLANs = vlans
		}
	}
	return nil
}

// parseVLANs decodes one RTM_NEWLINK of AF_BRIDGE: struct bridge_vlan_info, which holds flags and the number.
func parseVLANs(data []byte) (index int, vlans []netstate.BridgeVLAN, err error) {
	const pvid, untagged = 2, 4
	err = eachAttribute(data, unix.SizeofIfInfomsg, func(ad *netlink.AttributeDecoder) {
		if ad.Type() != unix.IFLA_AF_SPEC {
			return
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				if b := ad.Bytes(); ad.Type() == iflaBridgeVLANInfo && len(b) >= 4 {
					flags := binary.NativeEndian.Uint16(b)
					vlans = append(vlans, netstate.BridgeVLAN{ID: int(binary.NativeEndian.Uint16(b[2:])), PVID: flags&pvid != 0, Untagged: flags&untagged != 0})
				}
			}
			return nil
		})
	})
	if err == nil {
		index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	}
	return index, vlans, err
}

// parseLink decodes one RTM_NEWLINK and adds the link's sysctls.
func parseLink(data []byte, sysctls map[string]string) (netstate.Link, error) {
	var link netstate.Link
	var info, spec []byte
	err := eachAttribute(data, unix.SizeofIfInfomsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			link.Name = ad.String()
		case unix.IFLA_MTU:
			link.MTU = int(ad.Uint32())
		case unix.IFLA_ADDRESS:
			link.MAC = hardwareAddr(ad.Bytes())
		case unix.IFLA_MASTER:
			link.Master = int(ad.Uint32())
		case unix.IFLA_LINK:
			link.Peer = int(ad.Uint32())
		case unix.IFLA_LINK_NETNSID:
			id := int(ad.Int32())
			link.PeerNS = &id
		case unix.IFLA_OPERSTATE:
			link.State = nameOf(operStates, ad.Uint8())
		case unix.IFLA_LINKINFO:
			info = ad.Bytes()
		case unix.IFLA_AF_SPEC:
			spec = ad.Bytes()
		case unix.IFLA_XDP:
			ad.Nested(func(xdp *netlink.AttributeDecoder) error {
				for xdp.Next() {
					if xdp.Type() == iflaXDPAttached {
						link.XDP = xdp.Uint8() != 0
					}
				}
				return nil
			})
		}
	})
	if err != nil {
		return link, err
	}
	link.Index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	flags := binary.NativeEndian.Uint32(data[8:])
	link.Up = flags&unix.IFF_UP != 0
	link.Carrier = flags&unix.IFF_LOWER_UP != 0
	link.Loopback = flags&unix.IFF_LOOPBACK != 0
	link.PointTo = flags&unix.IFF_POINTOPOINT != 0
	link.NoARP = flags&unix.IFF_NOARP != 0
	if err := parseLinkInfo(info, &link); err != nil {
		return link, err
	}
	return link, parseLinkSysctls(spec, link.Name, sysctls)
}

func hardwareAddr(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return net.HardwareAddr(b).String()
}

// parseLinkInfo decodes IFLA_LINKINFO: the kind, and what only that kind or a bridge's port has.
func parseLinkInfo(info []byte, link *netstate.Link) error {
	var own, slave []byte
	var slaveKind string
	err := eachAttribute(info, 0, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_INFO_KIND:
			link.Kind = ad.String()
		case unix.IFLA_INFO_DATA:
			own = ad.Bytes()
		case unix.IFLA_INFO_SLAVE_KIND:
			slaveKind = ad.String()
		case unix.IFLA_INFO_SLAVE_DATA:
			slave = ad.Bytes()
		}
	})
	if err != nil {
		return err
	}
	if slaveKind == "bridge" {
		link.Port = &netstate.BridgePort{}
		if err := parseBridgePort(slave, link.Port); err != nil {
			return err
		}
	}
	switch link.Kind {
	case "bridge":
		link.Bridge = &netstate.Bridge{}
		return parseBridge(own, link.Bridge)
	case "vlan":
		return eachAttribute(own, 0, func(ad *netlink.AttributeDecoder) {
			if ad.Type() == unix.IFLA_VLAN_ID {
				link.VLAN = int(ad.Uint16())
			}
		})
	case "vrf":
		return eachAttribute(own, 0, func(ad *netlink.AttributeDecoder) {
			if ad.Type() == unix.IFLA_VRF_TABLE {
				link.Table = ad.Uint32()
			}
		})
	case "macvlan", "macvtap":
		return eachAttribute(own, 0, func(ad *netlink.AttributeDecoder) {
			if ad.Type() == unix.IFLA_MACVLAN_MODE {
				mode := ad.Uint32()
				if link.Mode = macvlanModes[mode]; link.Mode == "" {
					link.Mode = strconv.FormatUint(uint64(mode), 10)
				}
			}
		})
	case "ipvlan", "ipvtap":
		return eachAttribute(own, 0, func(ad *netlink.AttributeDecoder) {
			if ad.Type() == unix.IFLA_IPVLAN_MODE {
				link.Mode = nameOf(ipvlanModes, ad.Uint16())
			}
		})
	}
	return nil
}

func parseBridge(data []byte, bridge *netstate.Bridge) error {
	return eachAttribute(data, 0, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_BR_STP_STATE:
			bridge.STP = ad.Uint32() != 0
		case unix.IFLA_BR_VLAN_FILTERING:
			bridge.VLANFiltering = ad.Uint8() != 0
		case unix.IFLA_BR_MCAST_SNOOPING:
			bridge.MulticastSnoop = ad.Uint8() != 0
		case unix.IFLA_BR_NF_CALL_IPTABLES:
			bridge.CallIptables = ad.Uint8() != 0
		case unix.IFLA_BR_NF_CALL_IP6TABLES:
			bridge.CallIp6tables = ad.Uint8() != 0
		case unix.IFLA_BR_NF_CALL_ARPTABLES:
			bridge.CallArptables = ad.Uint8() != 0
		}
	})
}

func parseBridgePort(data []byte, port *netstate.BridgePort) error {
	return eachAttribute(data, 0, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_BRPORT_STATE:
			port.State = nameOf(bridgePortStates, ad.Uint8())
		case unix.IFLA_BRPORT_MODE:
			port.Hairpin = ad.Uint8() != 0
		case unix.IFLA_BRPORT_GUARD:
			port.Guard = ad.Uint8() != 0
		case unix.IFLA_BRPORT_LEARNING:
			port.Learning = ad.Uint8() != 0
		case unix.IFLA_BRPORT_UNICAST_FLOOD:
			port.Flood = ad.Uint8() != 0
		case iflaBrportIsolated:
			port.Isolated = ad.Uint8() != 0
		case iflaBrportLocked:
			port.Locked = ad.Uint8() != 0
		}
	})
}

// The sysctls of a link, by their place in the arrays IFLA_INET_CONF and IFLA_INET6_CONF. The places
// are kernel ABI: enum IPV4_DEVCONF_* in linux/ip.h, counted from 1, and DEVCONF_* in linux/ipv6.h.
var (
	ipv4Conf = []confField{
		{1, "forwarding"}, {2, "mc_forwarding"}, {3, "proxy_arp"}, {4, "accept_redirects"}, {5, "secure_redirects"},
		{6, "send_redirects"}, {7, "shared_media"}, {8, "rp_filter"}, {9, "accept_source_route"}, {11, "log_martians"},
		{13, "arp_filter"}, {15, "disable_xfrm"}, {16, "disable_policy"}, {18, "arp_announce"}, {19, "arp_ignore"},
		{20, "promote_secondaries"}, {23, "accept_local"}, {24, "src_valid_mark"}, {25, "proxy_arp_pvlan"},
		{26, "route_localnet"}, {29, "ignore_routes_with_linkdown"}, {30, "drop_unicast_in_l2_multicast"}, {32, "bc_forwarding"},
	}
	ipv6Conf = []confField{
		{0, "forwarding"}, {3, "accept_ra"}, {4, "accept_redirects"}, {5, "autoconf"}, {17, "accept_ra_defrtr"},
		{22, "proxy_ndp"}, {25, "mc_forwarding"}, {26, "disable_ipv6"}, {27, "accept_dad"},
		{39, "ignore_routes_with_linkdown"}, {40, "drop_unicast_in_l2_multicast"}, {42, "keep_addr_on_down"},
		{48, "disable_policy"}, {59, "force_forwarding"},
	}
)

type confField struct {
	place int
	name  string
}

// parseLinkSysctls decodes IFLA_AF_SPEC. A kernel that lacks a field has a shorter array.
func parseLinkSysctls(spec []byte, link string, sysctls map[string]string) error {
	link = strings.ReplaceAll(link, ".", "/")
	keep := func(family *netlink.AttributeDecoder, kind uint16, before string, fields []confField, first int) {
		family.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				if ad.Type() != kind {
					continue
				}
				array := ad.Bytes()
				for _, field := range fields {
					if at := (field.place - first) * 4; at+4 <= len(array) {
						value := int32(binary.NativeEndian.Uint32(array[at:]))
						sysctls[before+link+"."+field.name] = strconv.Itoa(int(value))
					}
				}
			}
			return nil
		})
	}
	return eachAttribute(spec, 0, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.AF_INET:
			keep(ad, unix.IFLA_INET_CONF, "net.ipv4.conf.", ipv4Conf, 1)
		case unix.AF_INET6:
			keep(ad, unix.IFLA_INET6_CONF, "net.ipv6.conf.", ipv6Conf, 0)
		}
	})
}
