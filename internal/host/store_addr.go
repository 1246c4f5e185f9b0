//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addrCodec is that of addresses, kind "addr". A name is "172.17.0.1/16 dev docker0", a value the rest as
// ip-address(8) writes it: "broadcast 172.17.255.255 scope global", "scope global nodad". Without a scope
// it is global. What the kernel says of its own accord (secondary, tentative, deprecated) is left out; an
// address with a lifetime has the word dynamic, and no step can make one.
type addrCodec struct{}

func addrStore(m machine) rtStore {
	return rtStore{m, "addr", unix.RTM_NEWADDR, unix.SizeofIfAddrmsg, addrCodec{}, netlink.Excl}
}

const (
	ifaRTPriority    = 9
	ifaTargetNetnsID = 10
	ifaProto         = 11
)

// addrChosen are the flags that whoever makes an address chooses.
var addrChosen = []flagName{
	{unix.IFA_F_NODAD, "nodad"}, {unix.IFA_F_HOMEADDRESS, "home"}, {unix.IFA_F_MANAGETEMPADDR, "mngtmpaddr"},
	{unix.IFA_F_NOPREFIXROUTE, "noprefixroute"}, {unix.IFA_F_MCAUTOJOIN, "autojoin"},
}

var addrWords = []rtWord{
	{unix.IFA_BROADCAST, "broadcast", asAddr}, {unix.IFA_ANYCAST, "any", asAddr}, {ifaRTPriority, "metric", asU32}, {ifaProto, "proto", asU8},
}

func (addrCodec) text(message []byte, links linkTable) (name, value string, ok bool, err error) {
	var own, peer netip.Addr
	var flags uint32
	var dynamic bool
	label := ""
	words := map[string]string{}
	var raw []string
	err = eachAttribute(message, unix.SizeofIfAddrmsg, func(ad *netlink.AttributeDecoder) {
		switch data := ad.Bytes(); ad.Type() {
		case unix.IFA_ADDRESS:
			peer = addr(data)
		case unix.IFA_LOCAL:
			own = addr(data)
		case unix.IFA_LABEL:
			label = strings.TrimSuffix(string(data), "\x00")
		case unix.IFA_FLAGS:
			if len(data) == 4 {
				flags = binary.NativeEndian.Uint32(data)
			}
		case unix.IFA_CACHEINFO: // preferred and valid lifetime, then two times
			dynamic = len(data) >= 8 && binary.NativeEndian.Uint32(data[4:]) != 0xffffffff
		case ifaTargetNetnsID:
		default:
			i := slices.IndexFunc(addrWords, func(w rtWord) bool { return w.kind == ad.Type() })
			if i >= 0 {
				if text, ok := addrWords[i].write(data, links); ok {
					words[addrWords[i].word] = text
					return
				}
			}
			raw = append(raw, rawWord(ad.Type(), data))
		}
	})
	if err != nil || message[0] != unix.AF_INET && message[0] != unix.AF_INET6 {
		return "", "", false, err
	}
	if !own.IsValid() {
		own = peer
	}
	link := links.names.name(int(binary.NativeEndian.Uint32(message[4:])))
	name = fmt.Sprintf("%s/%d dev %s", own, message[1], link)
	var out []string
	if peer.IsValid() && peer != own {
		out = append(out, "peer "+peer.String())
	}
	for _, w := range addrWords {
		if text := words[w.word]; text != "" {
			out = append(out, text)
		}
	}
	out = append(out, "scope "+scopeName(message[3]))
	if label != "" && label != link {
		out = append(out, "label "+label)
	}
	for _, f := range addrChosen {
		if flags&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	if dynamic {
		out = append(out, "dynamic")
	}
	return name, strings.Join(append(out, raw...), " "), true, nil
}

func (addrCodec) message(name, value string, links linkTable) ([]byte, error) {
	part := strings.Fields(name)
	if len(part) != 3 || part[1] != "dev" {
		return nil, fmt.Errorf("%q is no address: it reads ADDRESS/LENGTH dev LINK", name)
	}
	own, err := netip.ParsePrefix(part[0])
	if err != nil {
		return nil, err
	}
	index, err := links.index(part[2])
	if err != nil {
		return nil, err
	}
	family := uint8(unix.AF_INET)
	if own.Addr().Is6() {
		family = unix.AF_INET6
	}
	header := append([]byte{family, uint8(own.Bits()), 0, unix.RT_SCOPE_UNIVERSE}, uint32Bytes(index)...)
	peer, label := own.Addr(), part[2]
	var flags uint32
	var attributes []byte
	for r := (wordReader{strings.Fields(value)}); len(r.left) > 0; {
		word := r.next()
		if flag := flagOf(word, addrChosen); flag != 0 {
			flags |= flag
			continue
		}
		i := slices.IndexFunc(addrWords, func(w rtWord) bool { return w.word == word })
		switch {
		case i >= 0:
			data, err := addrWords[i].read(r.next(), links)
			if err != nil {
				return nil, err
			}
			attributes = append(attributes, data...)
		case word == "peer":
			text, _, _ := strings.Cut(r.next(), "/")
			if peer, err = netip.ParseAddr(text); err != nil {
				return nil, err
			}
		case word == "scope":
			if header[3], err = numberOf(scopeNames, r.next()); err != nil {
				return nil, err
			}
		case word == "label":
			label = r.next()
		case word == "attr":
			data, err := r.raw()
			if err != nil {
				return nil, err
			}
			attributes = append(attributes, data...)
		case word == "dynamic":
			return nil, errors.New("has a lifetime: who gave it must give it anew")
		default:
			return nil, fmt.Errorf("%q is no word of an address", word)
		}
	}
	message := append(header, attribute(unix.IFA_LOCAL, own.Addr().AsSlice())...)
	message = append(message, attribute(unix.IFA_ADDRESS, peer.AsSlice())...)
	if family == unix.AF_INET {
		message = append(message, attribute(unix.IFA_LABEL, append([]byte(label), 0))...)
	}
	message = append(message, attributes...)
	return append(message, attribute(unix.IFA_FLAGS, uint32Bytes(flags))...), nil
}
