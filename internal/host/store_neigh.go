//go:build linux

package host

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// neighCodec is that of permanent neighbours, kind "neigh". A name is "10.0.0.7 dev eth0", with the word
// proxy behind it for an address that the host answers for; a value is "lladdr 02:42:ac:11:00:02", for a
// proxy "proxy". What the kernel has learnt is none of its things: the kernel learns it anew.
type neighCodec struct{}

func neighStore(m machine) rtStore {
	return rtStore{m, "neigh", unix.RTM_NEWNEIGH, sizeofNdMsg, neighCodec{}, netlink.Replace}
}

const (
	ndaCacheInfo = 3
	ndaProbes    = 4
	nudPermanent = 0x80
)

func (neighCodec) text(message []byte, links linkTable) (name, value string, ok bool, err error) {
	var dst netip.Addr
	var out, raw []string
	err = eachAttribute(message, sizeofNdMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ndaDst:
			dst = addr(ad.Bytes())
		case ndaLLAddr:
			out = append(out, "lladdr "+net.HardwareAddr(ad.Bytes()).String())
		case ndaCacheInfo, ndaProbes:
		default:
			raw = append(raw, rawWord(ad.Type(), ad.Bytes()))
		}
	})
	family := uint8(0)
	if err == nil {
		family = message[0]
	}
	if family != unix.AF_INET && family != unix.AF_INET6 || !dst.IsValid() {
		return "", "", false, err
	}
	state, flags := binary.NativeEndian.Uint16(message[8:]), message[10]
	name = dst.String() + " dev " + links.names.name(int(binary.NativeEndian.Uint32(message[4:])))
	switch {
	case flags&ntfProxy != 0:
		name, out = name+" proxy", append(out, "proxy")
	case state != nudPermanent:
		return "", "", false, nil
	}
	if more := flags &^ ntfProxy; more != 0 {
		out = append(out, fmt.Sprintf("flags %d", more))
	}
	return name, strings.Join(append(out, raw...), " "), true, nil
}

func (neighCodec) message(name, value string, links linkTable) ([]byte, error) {
	part := strings.Fields(name)
	proxy := len(part) == 4 && part[3] == "proxy"
	if len(part) != 3 && !proxy || part[1] != "dev" {
		return nil, fmt.Errorf("%q is no neighbour: it reads ADDRESS dev LINK", name)
	}
	dst, err := netip.ParseAddr(part[0])
	if err != nil {
		return nil, err
	}
	index, err := links.index(part[2])
	if err != nil {
		return nil, err
	}
	message := make([]byte, sizeofNdMsg)
	message[0] = unix.AF_INET
	if dst.Is6() {
		message[0] = unix.AF_INET6
	}
	copy(message[4:], uint32Bytes(index))
	binary.NativeEndian.PutUint16(message[8:], nudPermanent)
	if proxy {
		binary.NativeEndian.PutUint16(message[8:], 0)
		message[10] = ntfProxy
	}
	message = append(message, attribute(ndaDst, dst.AsSlice())...)
	for r := (wordReader{strings.Fields(value)}); len(r.left) > 0; {
		var data []byte
		var err error
		switch word := r.next(); word {
		case "lladdr":
			var mac net.HardwareAddr
			mac, err = net.ParseMAC(r.next())
			data = attribute(ndaLLAddr, mac)
		case "proxy":
		case "flags":
			var flags uint8
			flags, err = numberOf(nil, r.next())
			message[10] |= flags
		case "attr":
			data, err = r.raw()
		default:
			err = fmt.Errorf("%q is no word of a neighbour", word)
		}
		if err != nil {
			return nil, err
		}
		message = append(message, data...)
	}
	return message, nil
}
