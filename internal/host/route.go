//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const rtaNexthopID = 30 // kernel 5.3 and later

var (
	routeTypes = []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole",
		"unreachable", "prohibit", "throw", "nat", "xresolve"}
	// As in iproute2's rt_protos.
	routeProtocols = map[uint8]string{
		1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt", 11: "zebra", 12: "bird",
		13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 18: "keepalived", 42: "babel", 186: "bgp", 187: "isis",
		188: "ospf", 189: "rip", 192: "eigrp",
	}
	hopFlags = []flagName{
		{unix.RTNH_F_DEAD, "dead"}, {unix.RTNH_F_PERVASIVE, "pervasive"}, {unix.RTNH_F_ONLINK, "onlink"},
		{unix.RTNH_F_OFFLOAD, "offload"}, {unix.RTNH_F_LINKDOWN, "linkdown"}, {unix.RTNH_F_UNRESOLVED, "unresolved"}, {64, "trap"},
	}
)

func protocolName(protocol uint8) string {
	if name, ok := routeProtocols[protocol]; ok {
		return name
	}
	return strconv.Itoa(int(protocol))
}

// readRoutes dumps every routing table of both families, the local tables included. Cached entries
// (IPv6 exceptions) are left out, as ip-route(8) does.
func readRoutes(c *netlink.Conn, names linkNames) ([]netstate.Route, error) {
	var routes []netstate.Route
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		answers, err := dump(c, unix.RTM_GETROUTE, header)
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			// Without IPv6 the kernel answers for every family.
			if answer.Header.Type != unix.RTM_NEWROUTE || len(answer.Data) == 0 || answer.Data[0] != family {
				continue
			}
			r, cached, err := parseRoute(answer.Data, names)
			if err != nil {
				return nil, err
			}
			if !cached {
				routes = append(routes, r)
			}
		}
	}
	return routes, nil
}

// parseRoute decodes one RTM_NEWROUTE.
func parseRoute(data []byte, names linkNames) (r netstate.Route, cached bool, err error) {
	var dst, src netip.Addr
	var hop netstate.RouteHop
	var single bool
	var multipath []byte
	err = eachAttribute(data, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.RTA_DST:
			dst = addr(ad.Bytes())
		case unix.RTA_SRC:
			src = addr(ad.Bytes())
		case unix.RTA_OIF:
			hop.Dev, single = names.name(int(ad.Uint32())), true
		case unix.RTA_GATEWAY:
			hop.Gateway, single = addr(ad.Bytes()), true
		case unix.RTA_VIA:
			hop.Gateway, single = viaAddr(ad.Bytes()), true
		case unix.RTA_PRIORITY:
			r.Metric = ad.Uint32()
		case unix.RTA_PREFSRC:
			r.PrefSrc = addr(ad.Bytes())
		case unix.RTA_TABLE:
			r.Table = ad.Uint32()
		case rtaNexthopID:
			r.Nexthop = ad.Uint32()
		case unix.RTA_MULTIPATH:
			multipath = ad.Bytes()
		case unix.RTA_METRICS:
			ad.Nested(func(metrics *netlink.AttributeDecoder) error {
				for metrics.Next() {
					if metrics.Type() == unix.RTAX_MTU {
						r.MTU = int(metrics.Uint32())
					}
				}
				return nil
			})
		}
	})
	if err != nil {
		return r, false, err
	}
	family, flags := data[0], binary.NativeEndian.Uint32(data[8:])
	r.Family = familyName(family)
	r.Dst = prefix(dst, data[1], family)
	if data[2] != 0 {
		r.Src = prefix(src, data[2], family)
	}
	r.TOS = data[3]
	if r.Table == 0 {
		r.Table = uint32(data[4])
	}
	r.Protocol, r.Scope, r.Type = protocolName(data[5]), scopeName(data[6]), nameOf(routeTypes, data[7])
	if single {
		hop.Flags = flagNames(flags&0xff, hopFlags)
		r.Hops = []netstate.RouteHop{hop}
	}
	if multipath != nil {
		if r.Hops, err = parseHops(multipath, names); err != nil {
			return r, false, err
		}
	}
	return r, flags&unix.RTM_F_CLONED != 0, nil
}

// parseHops decodes RTA_MULTIPATH: struct rtnexthop, each followed by its attributes.
func parseHops(data []byte, names linkNames) ([]netstate.RouteHop, error) {
	var hops []netstate.RouteHop
	for len(data) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtNexthop || size > len(data) {
			return nil, errors.New("multipath route is cut")
		}
		hop := netstate.RouteHop{
			Dev:    names.name(int(int32(binary.NativeEndian.Uint32(data[4:])))),
			Weight: int(data[3]) + 1,
			Flags:  flagNames(uint32(data[2]), hopFlags),
		}
		err := eachAttribute(data[:size], unix.SizeofRtNexthop, func(ad *netlink.AttributeDecoder) {
			switch ad.Type() {
			case unix.RTA_GATEWAY:
				hop.Gateway = addr(ad.Bytes())
			case unix.RTA_VIA:
				hop.Gateway = viaAddr(ad.Bytes())
			}
		})
		if err != nil {
			return nil, err
		}
		hops = append(hops, hop)
		data = data[min((size+3)&^3, len(data)):]
	}
	return hops, nil
}

// viaAddr reads struct rtvia: a gateway of another family than the route's.
func viaAddr(data []byte) netip.Addr {
	if len(data) < 2 {
		return netip.Addr{}
	}
	return addr(data[2:])
}

func familyName(family uint8) netstate.Family {
	switch family {
	case unix.AF_INET:
		return netstate.IPv4
	case unix.AF_INET6:
		return netstate.IPv6
	}
	return 0
}
