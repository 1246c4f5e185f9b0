//go:build linux

package host

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// errMoving says that a table changed each time that it was dumped.
var errMoving = errors.New("changed while it was read, three times")

// dump sends a dump request and returns the answers. A dump that the kernel marks as inconsistent is
// repeated, thrice in all.
func dump(c *netlink.Conn, kind uint16, payload []byte) ([]netlink.Message, error) {
	request := netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump},
		Data:   payload,
	}
next:
	for range 3 {
		answers, err := c.Execute(request)
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			if answer.Header.Flags&netlink.DumpInterrupted != 0 {
				continue next
			}
		}
		return answers, nil
	}
	return nil, errMoving
}

// eachAnswer sends a dump request and hands each answer on as it comes, so that a large table is never held as
// messages. It ends with the first error of each. Answers to a dump that was interrupted by a change count: of
// a table that always moves there are no others.
func eachAnswer(c *netlink.Conn, kind uint16, payload []byte, each func(data []byte) error) error {
	_, err := c.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump},
		Data:   payload,
	})
	if err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for done := false; !done && err == nil; {
		broken := raw.Read(func(fd uintptr) bool {
			var n int
			switch n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err {
			case unix.EAGAIN, unix.EINTR:
				err = nil
				return false
			case nil:
				done, err = eachMessage(buf[:n], each)
			}
			return true
		})
		err = cmp.Or(err, broken)
	}
	return err
}

// eachMessage hands on the messages of one datagram, and says whether the dump ends with it.
func eachMessage(data []byte, each func(data []byte) error) (done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(data)
	for i := 0; i < len(messages) && err == nil; i++ {
		switch m := messages[i]; m.Header.Type {
		case unix.NLMSG_NOOP:
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(m.Data) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return true, syscall.Errno(-code)
				}
			}
			return true, nil
		default:
			err = each(m.Data)
		}
	}
	return false, err
}

// dialRoute opens rtnetlink in the namespace.
func dialRoute(n netns) (*netlink.Conn, error) {
	c, err := dial(n, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return c, nil
}

// eachAttribute calls each for every attribute of a message behind its fixed header of the given size.
// It reports a message that is cut, and an attribute whose length is not its type's.
func eachAttribute(data []byte, header int, each func(*netlink.AttributeDecoder)) error {
	if len(data) < header {
		return errors.New("netlink message is cut")
	}
	ad, err := netlink.NewAttributeDecoder(data[header:])
	if err != nil {
		return err
	}
	for ad.Next() {
		each(ad)
	}
	return ad.Err()
}

// attribute encodes one attribute of a request.
func attribute(kind uint16, value []byte) []byte {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: kind, Data: value}})
	if err != nil { // only a value of 64 KiB or more
		panic(err)
	}
	return data
}

func uint32Bytes(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// addr reads an attribute that is an address of 4 or 16 bytes; anything else is the zero address.
func addr(data []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(data)
	return a
}

// prefix makes a prefix of an address, which is the family's zero where the kernel left it out.
func prefix(a netip.Addr, bits uint8, family uint8) netip.Prefix {
	if !a.IsValid() {
		if a = netip.IPv4Unspecified(); family == unix.AF_INET6 {
			a = netip.IPv6Unspecified()
		}
	}
	return netip.PrefixFrom(a, int(bits))
}

// flagNames lists the names of the bits that are set; a bit without a name is given as hexadecimal.
func flagNames(bits uint32, names []flagName) []string {
	var set []string
	for _, f := range names {
		if bits&f.bit != 0 {
			bits &^= f.bit
			if f.name != "" {
				set = append(set, f.name)
			}
		}
	}
	if bits != 0 {
		set = append(set, fmt.Sprintf("%#x", bits))
	}
	return set
}

// A flagName names a bit; "" is a bit that says nothing worth keeping.
type flagName struct {
	bit  uint32
	name string
}
