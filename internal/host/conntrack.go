//go:build linux

package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
)

// linux/netfilter/nfnetlink_conntrack.h
const (
	nfnlSubsysConntrack = 1
	ctMsgGet            = 1

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaTimeout    = 7
	ctaMark       = 8
	ctaZone       = 18

	ctaTupleIP      = 1
	ctaTupleProto   = 2
	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3
	ctaProtoICMPID  = 4
	ctaProtoICMPv6  = 7
	ctaInfoTCP      = 1
	ctaInfoTCPState = 1
)

var tcpFlowStates = []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}

// startFlows reads the host's table of connections beside the rest, once.
func (c *collection) startFlows() {
	if !c.asked(netstate.Conntrack) {
		return
	}
	c.flows.Do(func() {
		c.run(func() {
			flows, err := c.readFlows()
			c.s.Host.Flows = flows
			c.missing(netstate.Key{Part: netstate.Conntrack}, err)
		})
	})
}

// connectionless says whether clients of the container may have entries that outlive it: those of a
// protocol without an end of connections.
func connectionless(a netstate.Container) bool {
	return slices.ContainsFunc(slices.Concat(a.Published, a.Configured), func(b netstate.Binding) bool { return b.Port.Proto != "tcp" })
}

// readFlows dumps the host's connection tracking table. Where nothing tracks connections there is none.
func (c *collection) readFlows() ([]netstate.Flow, error) {
	if c.m.lacksModule("nf_conntrack") {
		return nil, nil
	}
	if c.m.lacksModule("nf_conntrack_netlink") {
		return nil, errors.New("the kernel's module nf_conntrack_netlink is not loaded")
	}
	conn, err := dialNetfilter(netns{})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answers, err := dump(conn, nfnlSubsysConntrack<<8|ctMsgGet, make([]byte, sizeofNfGenMsg))
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	flows := make([]netstate.Flow, 0, len(answers))
	for _, answer := range answers {
		flow, err := parseFlow(answer.Data)
		if err != nil {
			return nil, fmt.Errorf("conntrack: %w", err)
		}
		if flow.Family != 0 {
			flows = append(flows, flow)
		}
	}
	return flows, nil
}

// parseFlow decodes one IPCTNL_MSG_CT_NEW.
func parseFlow(data []byte) (netstate.Flow, error) {
	var f netstate.Flow
	var proto uint8
	err := eachAttribute(data, sizeofNfGenMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ctaTupleOrig:
			f.Original, proto = parseTuple(ad)
		case ctaTupleReply:
			f.Reply, _ = parseTuple(ad)
		case ctaStatus:
			f.Status = bigUint32(ad.Bytes())
		case ctaTimeout:
			f.Timeout = bigUint32(ad.Bytes())
		case ctaMark:
			f.Mark = bigUint32(ad.Bytes())
		case ctaZone:
			f.Zone = bigUint16(ad.Bytes())
		case ctaProtoInfo:
			ad.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					if info.Type() != ctaInfoTCP {
						continue
					}
					info.Nested(func(tcp *netlink.AttributeDecoder) error {
						for tcp.Next() {
							if tcp.Type() == ctaInfoTCPState {
								f.State = nameOf(tcpFlowStates, tcp.Uint8())
							}
						}
						return nil
					})
				}
				return nil
			})
		}
	})
	if err != nil {
		return f, err
	}
	f.Family, f.Proto = familyName(data[0]), ipProtocol(proto)
	return f, nil
}

// parseTuple decodes one direction. The id of ICMP stands for the source port.
func parseTuple(tuple *netlink.AttributeDecoder) (t netstate.Tuple, proto uint8) {
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	tuple.Nested(func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			switch ad.Type() {
			case ctaTupleIP:
				ad.Nested(func(ip *netlink.AttributeDecoder) error {
					for ip.Next() {
						// CTA_IP_V4_SRC, _V4_DST, _V6_SRC, _V6_DST
						switch ip.Type() {
						case 1, 3:
							src = addr(ip.Bytes())
						case 2, 4:
							dst = addr(ip.Bytes())
						}
					}
					return nil
				})
			case ctaTupleProto:
				ad.Nested(func(p *netlink.AttributeDecoder) error {
					for p.Next() {
						switch p.Type() {
						case ctaProtoNum:
							proto = p.Uint8()
						case ctaProtoSrcPort, ctaProtoICMPID, ctaProtoICMPv6:
							srcPort = bigUint16(p.Bytes())
						case ctaProtoDstPort:
							dstPort = bigUint16(p.Bytes())
						}
					}
					return nil
				})
			}
		}
		return nil
	})
	return netstate.Tuple{Src: netip.AddrPortFrom(src, srcPort), Dst: netip.AddrPortFrom(dst, dstPort)}, proto
}
