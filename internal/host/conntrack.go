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
	ctaTupleZone    = 3
	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3
	ctaProtoICMPID  = 4
	ctaProtoICMPv6  = 7
	ctaInfoTCP      = 1
	ctaInfoTCPState = 1
)

var tcpFlowStates = []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}

// Of a large table of connections no more is kept than this many entries whomever they concern, and beyond them
// those of the asked containers, up to this many in all.
const (
	anyFlows = 1 << 14
	maxFlows = 1 << 16
)

// startFlows reads the host's table of connections beside the rest, once the containers are known.
func (c *collection) startFlows() {
	entries := slices.ContainsFunc(c.s.Containers, connectionless)
	if !c.asked(netstate.Conntrack) || !entries && !c.o.Thorough {
		return
	}
	concerns := concern(c.s.Containers)
	c.run(func() {
		if <-c.located; c.elsewhere != "" {
			return
		}
		flows, err := c.readFlows(concerns)
		c.s.Host.Flows = flows
		c.missing(netstate.Key{Part: netstate.Conntrack}, err)
	})
}

// connectionless says whether clients of the container may have entries that outlive it: those of a
// protocol without an end of connections.
func connectionless(a netstate.Container) bool {
	return a.Running && slices.ContainsFunc(slices.Concat(a.Published, a.Configured), func(b netstate.Binding) bool { return b.Port.Proto != "tcp" })
}

// concern returns what tells whether a flow has to do with the containers: one of its addresses is theirs, or it
// is to a port of theirs, wherever it leads.
func concern(containers []netstate.Container) func(*netstate.Flow) bool {
	addrs, ports := map[netip.Addr]bool{}, map[uint16]bool{}
	for i := range containers {
		a := &containers[i]
		for _, e := range a.Endpoints {
			addrs[e.IPv4.Addr()], addrs[e.IPv6.Addr()] = true, true
		}
		for _, b := range slices.Concat(a.Published, a.Configured) {
			ports[b.HostPort] = true
		}
		if a.NetworkMode == "host" {
			for _, p := range a.Exposed {
				ports[p.Number] = true
			}
		}
	}
	delete(addrs, netip.Addr{})
	delete(ports, 0)
	return func(f *netstate.Flow) bool {
		o, r := f.Original, f.Reply
		return ports[o.Dst.Port()] || ports[r.Dst.Port()] || addrs[o.Src.Addr()] || addrs[o.Dst.Addr()] || addrs[r.Src.Addr()] || addrs[r.Dst.Addr()]
	}
}

// readFlows dumps the host's connection tracking table. Where nothing tracks connections there is none.
func (c *collection) readFlows(concerns func(*netstate.Flow) bool) ([]netstate.Flow, error) {
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
	kept := keptFlows{concerns: concerns}
	if err := eachAnswer(conn, nfnlSubsysConntrack<<8|ctMsgGet, make([]byte, sizeofNfGenMsg), kept.add); err != nil {
		return kept.flows, fmt.Errorf("conntrack: %w", err)
	}
	return kept.flows, nil
}

// keptFlows are those of a table of connections that are kept.
type keptFlows struct {
	concerns func(*netstate.Flow) bool // the asked containers
	flows    []netstate.Flow
}

// add keeps the flow of an IPCTNL_MSG_CT_NEW, if there is still room for one of its sort. An error ends the dump.
func (k *keptFlows) add(data []byte) error {
	flow, err := parseFlow(data)
	switch {
	case err != nil:
		return err
	case flow.Family == 0 || len(k.flows) >= anyFlows && !k.concerns(&flow):
		return nil
	case len(k.flows) == maxFlows:
		return fmt.Errorf("the containers have more than %d connections: the rest was not read", maxFlows)
	}
	k.flows = append(k.flows, flow)
	return nil
}

// parseFlow decodes one IPCTNL_MSG_CT_NEW. Its zone is that in which a connection's first packet is looked up: of both
// directions, or of the original one alone.
func parseFlow(data []byte) (netstate.Flow, error) {
	var f netstate.Flow
	var proto uint8
	err := eachAttribute(data, sizeofNfGenMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case ctaTupleOrig:
			f.Original, proto = parseTuple(ad, &f.Zone)
		case ctaTupleReply:
			f.Reply, _ = parseTuple(ad, nil)
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

// parseTuple decodes one direction, and its own zone where zone is not nil. The id of ICMP stands for the source port.
func parseTuple(tuple *netlink.AttributeDecoder, zone *uint16) (t netstate.Tuple, proto uint8) {
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
			case ctaTupleZone:
				if zone != nil {
					*zone = bigUint16(ad.Bytes())
				}
			}
		}
		return nil
	})
	return netstate.Tuple{Src: netip.AddrPortFrom(src, srcPort), Dst: netip.AddrPortFrom(dst, dstPort)}, proto
}
