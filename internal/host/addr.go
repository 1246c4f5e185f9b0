//go:build linux

package host

import (
	"encoding/binary"
	"strconv"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linkNames gives a link's name by its index; an index that nobody has is written as "#7".
type linkNames map[int]string

func namesOf(links []netstate.Link) linkNames {
	names := make(linkNames, len(links))
	for _, link := range links {
		names[link.Index] = link.Name
	}
	return names
}

func (n linkNames) name(index int) string {
	if name, ok := n[index]; ok {
		return name
	}
	return "#" + strconv.Itoa(index)
}

var scopeNames = map[uint8]string{
	unix.RT_SCOPE_UNIVERSE: "global", unix.RT_SCOPE_SITE: "site", unix.RT_SCOPE_LINK: "link",
	unix.RT_SCOPE_HOST: "host", unix.RT_SCOPE_NOWHERE: "nowhere",
}

func scopeName(scope uint8) string {
	if name, ok := scopeNames[scope]; ok {
		return name
	}
	return strconv.Itoa(int(scope))
}

// Flags of an address, as ip-address(8) names them. IFA_F_PERMANENT is the rule: its absence is
// "dynamic".
var addrFlags = []flagName{
	{unix.IFA_F_SECONDARY, "secondary"}, {unix.IFA_F_NODAD, "nodad"}, {unix.IFA_F_OPTIMISTIC, "optimistic"},
	{unix.IFA_F_DADFAILED, "dadfailed"}, {unix.IFA_F_HOMEADDRESS, "home"}, {unix.IFA_F_DEPRECATED, "deprecated"},
	{unix.IFA_F_TENTATIVE, "tentative"}, {unix.IFA_F_PERMANENT, ""}, {unix.IFA_F_MANAGETEMPADDR, "mngtmpaddr"},
	{unix.IFA_F_NOPREFIXROUTE, "noprefixroute"}, {unix.IFA_F_MCAUTOJOIN, "autojoin"}, {unix.IFA_F_STABLE_PRIVACY, "stable-privacy"},
}

// readAddrs dumps the addresses of both families.
func readAddrs(c *netlink.Conn, names linkNames) ([]netstate.Addr, error) {
	answers, err := dump(c, unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, err
	}
	addrs := make([]netstate.Addr, 0, len(answers))
	for _, answer := range answers {
		if answer.Header.Type != unix.RTM_NEWADDR {
			continue
		}
		a, ok, err := parseAddr(answer.Data, names)
		if err != nil {
			return nil, err
		}
		if ok {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// parseAddr decodes one RTM_NEWADDR; it is not ok if the family is none of IP's.
func parseAddr(data []byte, names linkNames) (a netstate.Addr, ok bool, err error) {
	var local, address []byte
	var flags *uint32
	err = eachAttribute(data, unix.SizeofIfAddrmsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFA_ADDRESS:
			address = ad.Bytes()
		case unix.IFA_LOCAL:
			local = ad.Bytes()
		case unix.IFA_FLAGS:
			all := ad.Uint32()
			flags = &all
		}
	})
	if err != nil || data[0] != unix.AF_INET && data[0] != unix.AF_INET6 {
		return a, false, err
	}
	if flags == nil {
		low := uint32(data[2])
		flags = &low
	}
	bits := int(data[1])
	a.Link = names.name(int(binary.NativeEndian.Uint32(data[4:])))
	a.Scope = scopeName(data[3])
	a.Flags = flagNames(*flags, addrFlags)
	if *flags&unix.IFA_F_PERMANENT == 0 {
		a.Flags = append(a.Flags, "dynamic")
	}
	// On a point-to-point link IFA_ADDRESS is the other end and has the network; IPv6 has only
	// IFA_ADDRESS otherwise.
	own, peer := addr(local), addr(address)
	switch {
	case !own.IsValid():
		a.Prefix = prefix(peer, data[1], data[0])
	case own == peer || !peer.IsValid():
		a.Prefix = prefix(own, data[1], data[0])
	default:
		a.Prefix = prefix(own, uint8(own.BitLen()), data[0])
		a.Peer = prefix(peer, uint8(bits), data[0])
	}
	return a, true, nil
}

// Neighbour attributes, flags and states of linux/neighbour.h.
const (
	sizeofNdMsg = 12

	ndaDst    = 1
	ndaVLAN   = 5
	ndaLLAddr = 2
	ndaMaster = 9

	ntfProxy  = 0x08
	ntfSticky = 0x40 // NTF_STICKY
	nudNoARP  = 0x40
)

var neighStates = []flagName{
	{0x01, "incomplete"}, {0x02, "reachable"}, {0x04, "stale"}, {0x08, "delay"}, {0x10, "probe"},
	{0x20, "failed"}, {nudNoARP, "noarp"}, {0x80, "permanent"},
}

// readNeighs dumps the neighbours of both families, the proxied ones, and the bridges' forwarding
// entries. As ip-neighbour(8), it leaves out entries that need no resolution (multicast, loopback).
func readNeighs(c *netlink.Conn, names linkNames) ([]netstate.Neigh, error) {
	var neighs []netstate.Neigh
	for _, request := range []struct{ family, flags uint8 }{{}, {flags: ntfProxy}, {family: unix.AF_BRIDGE}} {
		header := make([]byte, sizeofNdMsg)
		header[0], header[10] = request.family, request.flags
		answers, err := dump(c, unix.RTM_GETNEIGH, header)
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			if answer.Header.Type != unix.RTM_NEWNEIGH {
				continue
			}
			n, ok, err := parseNeigh(answer.Data, names)
			if err != nil {
				return nil, err
			}
			if ok {
				neighs = append(neighs, n)
			}
		}
	}
	return neighs, nil
}

// parseNeigh decodes one RTM_NEWNEIGH; it is not ok if the entry is of no concern.
func parseNeigh(data []byte, names linkNames) (n netstate.Neigh, ok bool, err error) {
	err = eachAttribute(data, sizeofNdMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ndaDst:
			n.Addr = addr(ad.Bytes())
		case ndaLLAddr:
			n.MAC = hardwareAddr(ad.Bytes())
		case ndaMaster:
			n.Master = names.name(int(ad.Uint32()))
		case ndaVLAN:
			n.VLAN = int(ad.Uint16())
		}
	})
	if err != nil {
		return n, false, err
	}
	n.Link = names.name(int(int32(binary.NativeEndian.Uint32(data[4:]))))
	state := uint32(binary.NativeEndian.Uint16(data[8:]))
	if set := flagNames(state, neighStates); len(set) > 0 {
		n.State = set[0]
	} else {
		n.State = "none"
	}
	n.Proxy = data[10]&ntfProxy != 0
	switch data[0] {
	case unix.AF_INET, unix.AF_INET6:
		return n, n.Proxy || state&nudNoARP == 0, nil
	case unix.AF_BRIDGE:
		n.Addr, n.Sticky = addr(nil), data[10]&ntfSticky != 0
		return n, n.Master != "", nil
	}
	return n, false, nil
}
