//go:build linux

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// readSCTP reads the SCTP endpoints of the calling thread's namespace from /proc, which is there as soon
// as the kernel can do SCTP; without it nobody has a socket.
func (m machine) readSCTP() ([]netstate.Socket, error) {
	text, err := m.read("proc/thread-self/net/sctp/eps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSCTP(text)
}

// parseSCTP reads lines of ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS…; one socket for each address.
// SST is a state of TCP. Whether an IPv6 socket takes IPv4 too is not in it.
func parseSCTP(text string) ([]netstate.Socket, error) {
	var sockets []netstate.Socket
	for line := range strings.Lines(text) {
		field := strings.Fields(line)
		if len(field) == 0 || field[0] == "ENDPT" {
			continue
		}
		if len(field) < 8 {
			return sockets, fmt.Errorf("sctp endpoint %q is not understood", line)
		}
		state, err1 := strconv.ParseUint(field[3], 10, 8)
		port, err2 := strconv.ParseUint(field[5], 10, 16)
		inode, err3 := strconv.ParseUint(field[7], 10, 32)
		if err := errors.Join(err1, err2, err3); err != nil {
			return sockets, fmt.Errorf("sctp endpoint %q: %w", line, err)
		}
		for _, text := range field[8:] {
			a, err := netip.ParseAddr(strings.TrimPrefix(text, "*"))
			if err != nil {
				return sockets, fmt.Errorf("sctp endpoint: %w", err)
			}
			sockets = append(sockets, netstate.Socket{
				Proto: "sctp", State: nameOf(tcpStates, uint8(state)), Local: netip.AddrPortFrom(a, uint16(port)), Inode: uint32(inode),
			})
		}
	}
	return sockets, nil
}
