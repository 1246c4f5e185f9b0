//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linux/sock_diag.h and linux/inet_diag.h.
const (
	tcpDiagGetSock   = 18
	sockDiagByFamily = 20

	sizeofInetDiagReq   = 60
	sizeofInetDiagReqV2 = 56
	sizeofInetDiagMsg   = 72

	inetDiagSKV6Only = 11
	inetDiagMark     = 15

	tcpEstablished   = 1
	tcpSynReceived   = 3
	tcpClose         = 7
	tcpListen        = 10
	tcpNewSynRecv    = 12
	tcpBoundInactive = 13 // bound, neither connected nor listening: kernel 6.8 and later
)

var tcpStates = []string{"unknown", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait",
	"unconnected", "close-wait", "last-ack", "listen", "closing", "syn-recv", "bound"}

// readSockets dumps the TCP and UDP sockets of both families that a packet can reach: listening ones of
// TCP, all of UDP, and, if asked for, TCP's connections and the ports that are bound only: for these the
// kernel goes through its whole table of connections, however few there are. Connections that are closing are left out.
//
// As ss(8) does, it makes the kernel load its own tcp_diag and udp_diag where they are modules: there
// is no other way to learn whether an IPv6 socket takes IPv4 too. They touch no packet.
func readSockets(n netns, connections bool, names func() linkNames) ([]netstate.Socket, error) {
	c, err := dial(n, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	defer c.Close()
	var sockets []netstate.Socket
	for _, query := range socketQueries(connections) {
		answers, err := dump(c, query.kind, query.payload)
		if errors.Is(err, unix.ENOENT) && query.ipv6 { // no IPv6
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("sock_diag %s: %w", query.proto, err)
		}
		for _, answer := range answers {
			socket, err := parseSocket(answer.Data, query.proto, names)
			if err != nil {
				return nil, err
			}
			sockets = append(sockets, socket)
		}
	}
	return sockets, nil
}

// A socketQuery is one dump request.
type socketQuery struct {
	kind    uint16
	proto   string
	ipv6    bool
	payload []byte
}

// socketQueries asks for TCP of both families at once, which only the older request can. For UDP there
// is only the newer one.
func socketQueries(connections bool) []socketQuery {
	tcp := uint32(1 << tcpListen)
	if connections {
		tcp |= 1<<tcpEstablished | 1<<tcpSynReceived | 1<<tcpNewSynRecv | 1<<tcpBoundInactive
	}
	old := make([]byte, sizeofInetDiagReq)
	binary.NativeEndian.PutUint32(old[52:], tcp)
	queries := []socketQuery{{kind: tcpDiagGetSock, proto: "tcp", payload: old}}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, sizeofInetDiagReqV2)
		request[0], request[1] = family, unix.IPPROTO_UDP
		binary.NativeEndian.PutUint32(request[4:], 1<<tcpEstablished|1<<tcpClose)
		queries = append(queries, socketQuery{sockDiagByFamily, "udp", family == unix.AF_INET6, request})
	}
	return queries
}

// parseSocket decodes one struct inet_diag_msg.
func parseSocket(data []byte, proto string, names func() linkNames) (netstate.Socket, error) {
	s := netstate.Socket{Proto: proto}
	err := eachAttribute(data, sizeofInetDiagMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case inetDiagSKV6Only:
			only := ad.Uint8() != 0
			s.V6Only = &only
		case inetDiagMark:
			s.Mark = ad.Uint32()
		}
	})
	if err != nil {
		return s, err
	}
	size := 4
	if data[0] == unix.AF_INET6 {
		size = 16
	}
	s.State = nameOf(tcpStates, data[1])
	// struct inet_diag_sockid: ports in network order, addresses in 16 bytes each, the link's index.
	s.Local = netip.AddrPortFrom(addr(data[8:8+size]), binary.BigEndian.Uint16(data[4:]))
	if remote := addr(data[24 : 24+size]); !remote.IsUnspecified() {
		s.Remote = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(data[6:]))
	}
	if index := binary.NativeEndian.Uint32(data[40:]); index != 0 {
		s.Dev = names().name(int(index))
	}
	s.RecvQ = binary.NativeEndian.Uint32(data[56:])
	s.SendQ = binary.NativeEndian.Uint32(data[60:])
	s.Inode = binary.NativeEndian.Uint32(data[68:])
	return s, nil
}

// nameOwners fills in PID and Program of the sockets that want says, looking among the given
// processes in their order. It stops when all are found, and leaves out what it may not see.
func (m machine) nameOwners(sockets []netstate.Socket, want func(*netstate.Socket) bool, pids func(yield func(int) bool)) {
	open := map[string][]*netstate.Socket{} // "socket:[inode]" → sockets
	for i := range sockets {
		if s := &sockets[i]; s.Inode != 0 && s.PID == 0 && want(s) {
			key := fmt.Sprintf("socket:[%d]", s.Inode)
			open[key] = append(open[key], s)
		}
	}
	if len(open) == 0 {
		return
	}
	for pid := range pids {
		for _, target := range m.descriptors(pid) {
			if !strings.HasPrefix(target, "socket:[") {
				continue
			}
			for _, s := range open[target] {
				s.PID, s.Program = pid, m.comm(pid)
			}
			delete(open, target)
		}
		if len(open) == 0 {
			return
		}
	}
}
