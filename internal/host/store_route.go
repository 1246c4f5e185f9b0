//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// routeCodec is that of routes, kind "route". A name is what the kernel tells routes apart by, as
// ip-route(8) writes it: "10.1.0.0/16", "default metric 100", "::/0 metric 1024 table 200" ("default" is
// IPv4's, table is a number or main; IPv6's metric is 1024 if none is given). A value is the rest: "via
// 10.0.0.1 dev eth0 proto static src 10.0.0.2", "blackhole", "nexthop via 10.0.0.1 dev eth0 weight 1
// nexthop via …". proto is boot, and scope as ip(8) chooses it, where they are left out. What the kernel
// adds (dead, linkdown) is no part of it; a route with a lifetime has the word expires, and no step can
// make one.
type routeCodec struct{}

func routeStore(m machine) rtStore {
	return rtStore{m, "route", unix.RTM_NEWROUTE, unix.SizeofRtMsg, routeCodec{}, netlink.Excl}
}

const (
	protoKernel = 2
	protoBoot   = 3
	protoRA     = 9

	ip6Metric = 1024 // of an IPv6 route that is given none
	rtaxMTU   = 2
	rtaPref   = 20
)

var routeWords = []rtWord{
	{unix.RTA_PREFSRC, "src", asAddr}, {unix.RTA_IIF, "iif", asLink}, {unix.RTA_FLOW, "realm", asU32}, {rtaPref, "pref", asU8},
}

// hopText returns the words of one way out: via, dev and onlink.
func hopText(attributes map[uint16][]byte, flags uint32, links linkTable) []string {
	var out []string
	if gateway := addr(attributes[unix.RTA_GATEWAY]); gateway.IsValid() {
		out = append(out, "via "+gateway.String())
	} else if via := attributes[unix.RTA_VIA]; viaAddr(via).IsValid() {
		out = append(out, "via inet6 "+viaAddr(via).String())
	}
	if link := attributes[unix.RTA_OIF]; len(link) == 4 {
		out = append(out, "dev "+links.names.name(int(binary.NativeEndian.Uint32(link))))
	}
	if flags&unix.RTNH_F_ONLINK != 0 {
		out = append(out, "onlink")
	}
	return out
}

func (routeCodec) text(message []byte, links linkTable) (name, value string, ok bool, err error) {
	attributes := map[uint16][]byte{}
	var expires bool
	var raw []string
	err = eachAttribute(message, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch data := ad.Bytes(); ad.Type() {
		case unix.RTA_DST, unix.RTA_SRC, unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_PRIORITY, unix.RTA_TABLE,
			unix.RTA_MULTIPATH, unix.RTA_METRICS, rtaNexthopID, unix.RTA_PREFSRC, unix.RTA_IIF, unix.RTA_FLOW, rtaPref:
			attributes[ad.Type()] = data
		case unix.RTA_CACHEINFO: // the third number is the time that it has left
			expires = len(data) >= 12 && binary.NativeEndian.Uint32(data[8:]) != 0
		default:
			raw = append(raw, rawWord(ad.Type(), data))
		}
	})
	if err != nil {
		return "", "", false, err
	}
	family, flags := message[0], binary.NativeEndian.Uint32(message[8:])
	if family != unix.AF_INET && family != unix.AF_INET6 || flags&unix.RTM_F_CLONED != 0 {
		return "", "", false, nil
	}
	number := func(kind uint16) (n uint32) {
		if data := attributes[kind]; len(data) == 4 {
			n = binary.NativeEndian.Uint32(data)
		}
		return n
	}

	key := []string{prefixText(addr(attributes[unix.RTA_DST]), message[1], family)}
	if message[2] != 0 {
		key = append(key, "from "+prefixText(addr(attributes[unix.RTA_SRC]), message[2], family))
	}
	if message[3] != 0 {
		key = append(key, fmt.Sprintf("tos %d", message[3]))
	}
	table := number(unix.RTA_TABLE)
	if table == 0 {
		table = uint32(message[4])
	}
	if table != unix.RT_TABLE_MAIN {
		key = append(key, fmt.Sprintf("table %d", table))
	}
	if metric := number(unix.RTA_PRIORITY); metric != 0 || family == unix.AF_INET6 {
		key = append(key, fmt.Sprintf("metric %d", metric))
	}

	var out []string
	if message[7] != unix.RTN_UNICAST {
		out = append(out, nameOf(routeTypes, message[7]))
	}
	if id := number(rtaNexthopID); id != 0 { // what else is said of its ways out is the nexthop object's
		out = append(out, fmt.Sprintf("nhid %d", id))
	} else {
		out = append(out, hopText(attributes, flags, links)...)
	}
	if message[5] != protoBoot {
		out = append(out, "proto "+protocolName(message[5]))
	}
	single := attributes[unix.RTA_GATEWAY] != nil || attributes[unix.RTA_VIA] != nil || attributes[unix.RTA_MULTIPATH] != nil || attributes[rtaNexthopID] != nil
	if family == unix.AF_INET && message[6] != usualScope(message[7], single) {
		out = append(out, "scope "+scopeName(message[6]))
	}
	for _, w := range routeWords {
		data := attributes[w.kind]
		if data == nil || w.kind == rtaPref && len(data) == 1 && data[0] == 0 { // medium: none was given
			continue
		}
		if text, ok := w.write(data, links); ok {
			out = append(out, text)
		} else {
			raw = append(raw, rawWord(w.kind, data))
		}
	}
	if metrics := attributes[unix.RTA_METRICS]; len(metrics) == 8 && binary.NativeEndian.Uint16(metrics[2:]) == rtaxMTU {
		out = append(out, fmt.Sprintf("mtu %d", binary.NativeEndian.Uint32(metrics[4:])))
	} else if len(metrics) > 0 {
		raw = append(raw, rawWord(unix.RTA_METRICS, metrics))
	}
	if attributes[rtaNexthopID] == nil {
		hops, err := hopsText(attributes[unix.RTA_MULTIPATH], links)
		if err != nil {
			return "", "", false, err
		}
		out = append(out, hops...)
	}
	if expires {
		out = append(out, "expires")
	}
	return strings.Join(key, " "), strings.Join(append(out, raw...), " "), true, nil
}

// hopsText returns the ways out of a multipath route.
func hopsText(data []byte, links linkTable) ([]string, error) {
	var out []string
	for len(data) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtNexthop || size > len(data) {
			return nil, errors.New("multipath route is cut")
		}
		attributes := map[uint16][]byte{unix.RTA_OIF: data[4:8]}
		var raw []string
		err := eachAttribute(data[:size], unix.SizeofRtNexthop, func(ad *netlink.AttributeDecoder) {
			switch ad.Type() {
			case unix.RTA_GATEWAY, unix.RTA_VIA:
				attributes[ad.Type()] = ad.Bytes()
			default:
				raw = append(raw, rawWord(ad.Type(), ad.Bytes()))
			}
		})
		if err != nil {
			return nil, err
		}
		out = append(append(out, "nexthop"), hopText(attributes, uint32(data[2]), links)...)
		out = append(append(out, fmt.Sprintf("weight %d", int(data[3])+1)), raw...)
		data = data[min((size+3)&^3, len(data)):]
	}
	return out, nil
}

// prefixText writes a prefix as ip(8) does, but for IPv6's default.
func prefixText(a netip.Addr, bits, family uint8) string {
	p := prefix(a, bits, family)
	switch {
	case bits == 0 && family == unix.AF_INET:
		return "default"
	case int(bits) == p.Addr().BitLen():
		return p.Addr().String()
	}
	return p.String()
}

// parsePrefix is the inverse of prefixText.
func parsePrefix(text string) (netip.Prefix, error) {
	if text == "default" {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
	}
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		return netip.PrefixFrom(a, a.BitLen()), err
	}
	return netip.ParsePrefix(text)
}

// usualScope is the scope that an IPv4 route has without a word for it. Source: iproute2, iproute.c.
func usualScope(kind uint8, gateway bool) uint8 {
	switch kind {
	case unix.RTN_LOCAL, unix.RTN_NAT:
		return unix.RT_SCOPE_HOST
	case unix.RTN_BROADCAST, unix.RTN_MULTICAST, unix.RTN_ANYCAST:
		return unix.RT_SCOPE_LINK
	case unix.RTN_UNICAST, unix.RTN_UNSPEC:
		if !gateway {
			return unix.RT_SCOPE_LINK
		}
	}
	return unix.RT_SCOPE_UNIVERSE
}

// routeKey builds the fixed header and the attributes of a route's name.
func routeKey(name string) (header, attributes []byte, err error) {
	r := wordReader{strings.Fields(name)}
	dst, err := parsePrefix(r.next())
	if err != nil {
		return nil, nil, fmt.Errorf("%q is no route: %w", name, err)
	}
	family := uint8(unix.AF_INET)
	table, metric := uint64(unix.RT_TABLE_MAIN), uint64(0)
	if dst.Addr().Is6() {
		family, metric = unix.AF_INET6, ip6Metric
	}
	header = []byte{family, uint8(dst.Bits()), 0, 0, 0, protoBoot, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	if dst.Bits() > 0 {
		attributes = attribute(unix.RTA_DST, dst.Addr().AsSlice())
	}
	for len(r.left) > 0 && err == nil {
		switch word := r.next(); word {
		case "from":
			var src netip.Prefix
			if src, err = parsePrefix(r.next()); err == nil {
				header[2] = uint8(src.Bits())
				attributes = append(attributes, attribute(unix.RTA_SRC, src.Addr().AsSlice())...)
			}
		case "tos":
			var tos uint64
			tos, err = strconv.ParseUint(r.next(), 10, 8)
			header[3] = uint8(tos)
		case "table":
			if text := r.next(); text != "main" {
				table, err = strconv.ParseUint(text, 10, 32)
			}
		case "metric":
			metric, err = strconv.ParseUint(r.next(), 10, 32)
		default:
			err = fmt.Errorf("%q is no word of its name", word)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%q is no route: %w", name, err)
	}
	if table < 256 {
		header[4] = uint8(table)
	}
	attributes = append(attributes, attribute(unix.RTA_TABLE, uint32Bytes(uint32(table)))...)
	if metric != 0 || family == unix.AF_INET6 {
		attributes = append(attributes, attribute(unix.RTA_PRIORITY, uint32Bytes(uint32(metric)))...)
	}
	return header, attributes, nil
}

func (routeCodec) message(name, value string, links linkTable) ([]byte, error) {
	header, attributes, err := routeKey(name)
	if err != nil {
		return nil, err
	}
	scope, gateway := -1, false
	var hops [][]byte // of a multipath route
	var hop []byte    // attributes of the one that is being read; those of the route before the first
	var flags uint32
	add := func(data []byte) {
		if len(hops) > 0 {
			hops[len(hops)-1] = append(hops[len(hops)-1], data...)
		} else {
			hop = append(hop, data...)
		}
	}
	for r := (wordReader{strings.Fields(value)}); len(r.left) > 0; {
		word := r.next()
		i := slices.IndexFunc(routeWords, func(w rtWord) bool { return w.word == word })
		kind := slices.Index(routeTypes, word)
		var data []byte
		var err error
		switch {
		case i >= 0:
			data, err = routeWords[i].read(r.next(), links)
		case kind > 0:
			header[7] = uint8(kind)
		case word == "via":
			gateway = true
			if len(r.left) > 0 && r.left[0] == "inet6" && header[0] == unix.AF_INET {
				r.next()
				var via netip.Addr
				if via, err = netip.ParseAddr(r.next()); err == nil {
					data = attribute(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, unix.AF_INET6), via.AsSlice()...))
				}
				break
			}
			data, err = rtWord{unix.RTA_GATEWAY, word, asAddr}.read(r.next(), links)
		case word == "dev":
			var index uint32
			index, err = links.index(r.next())
			if len(hops) > 0 {
				copy(hops[len(hops)-1][4:8], uint32Bytes(index))
			} else {
				data = attribute(unix.RTA_OIF, uint32Bytes(index))
			}
		case word == "onlink" && len(hops) > 0:
			hops[len(hops)-1][2] |= unix.RTNH_F_ONLINK
		case word == "onlink":
			flags |= unix.RTNH_F_ONLINK
		case word == "weight" && len(hops) > 0:
			var weight uint64
			weight, err = strconv.ParseUint(r.next(), 10, 8)
			if weight == 0 {
				err = errors.Join(err, errors.New("a weight is 1 to 255"))
			}
			hops[len(hops)-1][3] = uint8(weight - 1)
		case word == "nexthop":
			gateway = true
			hops = append(hops, make([]byte, unix.SizeofRtNexthop))
		case word == "nhid":
			gateway = true
			data, err = rtWord{rtaNexthopID, word, asU32}.read(r.next(), links)
		case word == "proto":
			header[5], err = numberOf(routeProtocols, r.next())
		case word == "scope":
			var n uint8
			n, err = numberOf(scopeNames, r.next())
			scope = int(n)
		case word == "mtu":
			data, err = rtWord{rtaxMTU, word, asU32}.read(r.next(), links)
			data = attribute(unix.RTA_METRICS, data)
		case word == "attr":
			data, err = r.raw()
		case word == "expires":
			err = errors.New("has a lifetime: who made it must make it anew")
		default:
			err = fmt.Errorf("%q is no word of a route", word)
		}
		if err != nil {
			return nil, err
		}
		add(data)
	}
	if header[0] == unix.AF_INET {
		header[6] = usualScope(header[7], gateway)
	}
	if scope >= 0 {
		header[6] = uint8(scope)
	}
	binary.NativeEndian.PutUint32(header[8:], flags)
	message := slices.Concat(header, attributes, hop)
	if len(hops) > 0 {
		var all []byte
		for _, one := range hops {
			binary.NativeEndian.PutUint16(one, uint16(len(one)))
			all = append(all, one...)
		}
		message = append(message, attribute(unix.RTA_MULTIPATH, all)...)
	}
	return message, nil
}
