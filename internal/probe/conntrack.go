//go:build linux

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Messages and attributes of conntrack, from linux/netfilter/nfnetlink_conntrack.h.
const (
	conntrackGet, conntrackDelete = 1, 2

	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaProtoinfo, ctaTimeout, ctaMark, ctaZone = 1, 2, 3, 4, 7, 8, 18

	ctaTupleIP, ctaTupleProto                             = 1, 2
	ctaIPv4Src, ctaIPv4Dst, ctaIPv6Src, ctaIPv6Dst        = 1, 2, 3, 4
	ctaProtoNum, ctaProtoSrcPort, ctaProtoDstPort         = 1, 2, 3
	ctaProtoICMPID, ctaProtoICMPType, ctaProtoICMPCode    = 4, 5, 6
	ctaProtoICMP6ID, ctaProtoICMP6Type, ctaProtoICMP6Code = 7, 8, 9
)

// tcpStates are the states of a tracked TCP connection, from linux/netfilter/nf_conntrack_tcp.h.
var tcpStates = []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}

// conntrack gets or deletes the entry of one flow in the namespace of the program. Both results are nil
// if there is none, or if it was deleted.
func conntrack(message uint8, flow Flow) (*netstate.Flow, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	defer conn.Close()
	tuple, err := encodeTuple(flow)
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	family := byte(unix.AF_INET)
	if flow.Server.Addr().Is6() {
		family = unix.AF_INET6
	}
	// The one answer says that more will follow, and only the acknowledgement does.
	conn.SetDeadline(time.Now().Add(time.Second))
	kind := netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | uint16(message))
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, tuple...),
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("conntrack: %w", err)
	case message == conntrackDelete:
		return nil, nil
	case len(answers) == 0 || len(answers[0].Data) < 4:
		return nil, errors.New("conntrack: an empty answer")
	}
	f, err := decodeFlow(answers[0].Data[4:])
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	f.Family, f.Proto = netstate.FamilyOf(flow.Server.Addr()), flow.Proto
	return f, nil
}

// encodeTuple writes the original direction of a flow.
func encodeTuple(flow Flow) ([]byte, error) {
	m := newMatcher(flow, nil)
	e := netlink.NewAttributeEncoder()
	e.Nested(ctaTupleOrig, func(e *netlink.AttributeEncoder) error {
		e.Nested(ctaTupleIP, func(e *netlink.AttributeEncoder) error {
			src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
			if m.v6 {
				src, dst = ctaIPv6Src, ctaIPv6Dst
			}
			e.Bytes(src, flow.Client.Addr().AsSlice())
			e.Bytes(dst, flow.Server.Addr().AsSlice())
			return nil
		})
		e.Nested(ctaTupleProto, func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Uint8(ctaProtoNum, m.proto)
			switch m.proto {
			case unix.IPPROTO_ICMP:
				e.Uint16(ctaProtoICMPID, flow.Client.Port())
				e.Uint8(ctaProtoICMPType, 8)
				e.Uint8(ctaProtoICMPCode, 0)
			case unix.IPPROTO_ICMPV6:
				e.Uint16(ctaProtoICMP6ID, flow.Client.Port())
				e.Uint8(ctaProtoICMP6Type, 128)
				e.Uint8(ctaProtoICMP6Code, 0)
			default:
				e.Uint16(ctaProtoSrcPort, flow.Client.Port())
				e.Uint16(ctaProtoDstPort, flow.Server.Port())
			}
			return nil
		})
		return nil
	})
	return e.Encode()
}

func decodeFlow(data []byte) (*netstate.Flow, error) {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return nil, err
	}
	d.ByteOrder = binary.BigEndian
	f := &netstate.Flow{}
	for d.Next() {
		switch d.Type() {
		case ctaTupleOrig:
			d.Nested(func(d *netlink.AttributeDecoder) error { f.Original = decodeTuple(d); return nil })
		case ctaTupleReply:
			d.Nested(func(d *netlink.AttributeDecoder) error { f.Reply = decodeTuple(d); return nil })
		case ctaStatus:
			f.Status = d.Uint32()
		case ctaTimeout:
			f.Timeout = d.Uint32()
		case ctaMark:
			f.Mark = d.Uint32()
		case ctaZone:
			f.Zone = d.Uint16()
		case ctaProtoinfo:
			d.Nested(func(d *netlink.AttributeDecoder) error { f.State = decodeState(d); return nil })
		}
	}
	return f, d.Err()
}

// decodeState reads the state of TCP: attribute 1 within attribute 1.
func decodeState(d *netlink.AttributeDecoder) (state string) {
	for d.Next() {
		if d.Type() != 1 {
			continue
		}
		d.Nested(func(d *netlink.AttributeDecoder) error {
			for d.Next() {
				if d.Type() == 1 {
					if n := int(d.Uint8()); n < len(tcpStates) {
						state = tcpStates[n]
					}
				}
			}
			return nil
		})
	}
	return state
}

func decodeTuple(d *netlink.AttributeDecoder) netstate.Tuple {
	var src, dst netip.Addr
	var sport, dport uint16
	for d.Next() {
		switch d.Type() {
		case ctaTupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					addr, _ := netip.AddrFromSlice(d.Bytes())
					switch d.Type() {
					case ctaIPv4Src, ctaIPv6Src:
						src = addr
					case ctaIPv4Dst, ctaIPv6Dst:
						dst = addr
					}
				}
				return nil
			})
		case ctaTupleProto:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				d.ByteOrder = binary.BigEndian
				for d.Next() {
					switch d.Type() {
					case ctaProtoSrcPort, ctaProtoICMPID, ctaProtoICMP6ID:
						sport = d.Uint16()
					case ctaProtoDstPort:
						dport = d.Uint16()
					}
				}
				return nil
			})
		}
	}
	return netstate.Tuple{Src: netip.AddrPortFrom(src, sport), Dst: netip.AddrPortFrom(dst, dport)}
}
