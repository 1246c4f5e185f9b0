//go:build linux

package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A caller is the client's socket: bound, so that its port is known before anything is sent.
type caller struct {
	fd    int // -1 when closed
	flow  Flow
	raw   bool // ICMP echo
	local bool // the kernel chooses the address
}

// newCaller makes the socket in a namespace. from is the client's address, zero for the kernel's choice; its
// port, or identifier, is none of those that are taken.
func newCaller(ns *netns, proto string, from netip.Addr, server netip.AddrPort, taken []uint16) (*caller, error) {
	for tries := 0; ; tries++ {
		c, err := openCaller(ns, proto, from, server)
		if err != nil || !slices.Contains(taken, c.flow.Client.Port()) {
			return c, err
		}
		c.Close()
		if tries == 100 {
			return nil, refuse("%s has too many connections to this host: the probe could be taken for one of them", from)
		}
	}
}

func openCaller(ns *netns, proto string, from netip.Addr, server netip.AddrPort) (*caller, error) {
	c := &caller{fd: -1, raw: proto == "icmp", local: !from.IsValid()}
	family := unix.AF_INET
	if server.Addr().Is6() {
		family = unix.AF_INET6
	}
	if c.local {
		from = netip.IPv4Unspecified()
		if family == unix.AF_INET6 {
			from = netip.IPv6Unspecified()
		}
	}
	kind, number := unix.SOCK_STREAM, 0
	switch {
	case proto == "udp":
		kind = unix.SOCK_DGRAM
	case c.raw && family == unix.AF_INET:
		kind, number = unix.SOCK_RAW, unix.IPPROTO_ICMP
	case c.raw:
		kind, number = unix.SOCK_RAW, unix.IPPROTO_ICMPV6
	}
	err := ns.do(func() (err error) {
		c.fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, number)
		return err
	})
	if err == nil {
		err = c.bind(family, proto, from, server)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("client's socket: %w", err)
	}
	return c, nil
}

func (c *caller) bind(family int, proto string, from netip.Addr, server netip.AddrPort) error {
	level, option := unix.SOL_IP, unix.IP_RECVERR
	if family == unix.AF_INET6 {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	if err := unix.SetsockoptInt(c.fd, level, option, 1); err != nil { // to know which ICMP error came, and from whom
		return err
	}
	if proto == "tcp" {
		// Close with a reset: nothing of the connection may be under way when its client is gone.
		if err := unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
	}
	if err := unix.Bind(c.fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
		return err
	}
	if c.raw {
		var id [2]byte
		rand.Read(id[:])
		c.flow = Flow{proto, netip.AddrPortFrom(from, binary.BigEndian.Uint16(id[:])|1), netip.AddrPortFrom(server.Addr(), 0)}
		return nil
	}
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		return err
	}
	c.flow = Flow{proto, netip.AddrPortFrom(from, addrPort(name).Port()), server}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return netip.AddrPort{}
}

// call makes the connection, or sends and waits for an answer. The error is that of this machine alone;
// what the other side does is the outcome.
func (c *caller) call(ctx context.Context, wait time.Duration, http bool) (Outcome, string, error) {
	deadline := time.Now().Add(wait)
	err := unix.Connect(c.fd, sockaddr(c.flow.Server))
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return c.failed(err)
	}
	if name, err := unix.Getsockname(c.fd); err == nil && c.local {
		c.flow.Client = netip.AddrPortFrom(addrPort(name).Addr().Unmap(), c.flow.Client.Port())
	}
	if c.flow.Proto == "tcp" {
		return c.handshake(ctx, deadline, http)
	}
	message := c.message()
	for _, until := range []time.Time{time.Now().Add(wait / 2), deadline} {
		if _, err := unix.Write(c.fd, message); err != nil {
			return c.failed(err)
		}
		outcome, answer, err := c.listen(ctx, until)
		if outcome != Silent || err != nil {
			return outcome, answer, err
		}
	}
	return Silent, "", nil
}

// handshake waits for the end of a TCP connect.
func (c *caller) handshake(ctx context.Context, deadline time.Time, http bool) (Outcome, string, error) {
	ready, err := c.poll(ctx, unix.POLLOUT, deadline)
	if err != nil || !ready {
		return Silent, "", err
	}
	code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return "", "", err
	}
	// An ICMP error for what follows the handshake does not undo it, though this socket hears of it.
	if info, err := unix.GetsockoptTCPInfo(c.fd, unix.SOL_TCP, unix.TCP_INFO); code != 0 && (err != nil || info.State != unix.BPF_TCP_ESTABLISHED) {
		return c.failed(unix.Errno(code))
	}
	if !http {
		return Connected, "SYN/ACK", nil
	}
	answer, err := c.get(ctx, deadline)
	return Connected, answer, err
}

// get sends an HTTP request and returns the first line of the answer, or what came instead.
func (c *caller) get(ctx context.Context, deadline time.Time) (string, error) {
	request := "GET / HTTP/1.0\r\nHost: " + c.flow.Server.String() + "\r\nUser-Agent: docker-netcheck\r\n\r\n"
	if _, err := unix.Write(c.fd, []byte(request)); err != nil {
		return "SYN/ACK, then " + err.Error(), nil
	}
	ready, err := c.poll(ctx, unix.POLLIN, deadline)
	if err != nil || !ready {
		return "SYN/ACK, but no answer to an HTTP request", err
	}
	buf := make([]byte, 512)
	n, err := unix.Read(c.fd, buf)
	if err != nil || n <= 0 {
		return "SYN/ACK, but an HTTP request closed the connection", nil
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	return printable(strings.TrimSpace(line)), nil
}

// message is what is sent: an empty datagram, or an echo request.
func (c *caller) message() []byte {
	if !c.raw {
		return nil
	}
	id := c.flow.Client.Port()
	if c.flow.Server.Addr().Is6() { // the kernel makes the checksum
		return []byte{128, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
	}
	sum := ^(8<<8 + uint32(id) + 1)
	if carry := 8<<8 + uint32(id) + 1; carry > 0xffff {
		sum = ^(carry&0xffff + carry>>16)
	}
	return []byte{8, 0, byte(sum >> 8), byte(sum), byte(id >> 8), byte(id), 0, 1}
}

// listen waits for an answer to what was sent.
func (c *caller) listen(ctx context.Context, until time.Time) (Outcome, string, error) {
	buf := make([]byte, 2048)
	for {
		ready, err := c.poll(ctx, unix.POLLIN, until)
		if err != nil || !ready {
			return Silent, "", err
		}
		n, err := unix.Read(c.fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return c.failed(err)
		case !c.raw:
			return Answered, fmt.Sprintf("a datagram of %d bytes", n), nil
		}
		data, reply := buf[:n], byte(129)
		if c.flow.Server.Addr().Is4() { // a raw socket of IPv4 gives the IP header too
			if n < 20 || n < int(data[0]&0xf)*4 {
				continue
			}
			data, reply = data[int(data[0]&0xf)*4:], 0
		}
		if len(data) >= 8 && data[0] == reply && binary.BigEndian.Uint16(data[4:]) == c.flow.Client.Port() {
			return Answered, "echo reply", nil
		}
	}
}

// poll waits until the socket is ready, or has an error. It is false when the time is over.
func (c *caller) poll(ctx context.Context, events int16, until time.Time) (bool, error) {
	const slice = 50 * time.Millisecond // how late the end of ctx may be seen
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		left := time.Until(until)
		if left <= 0 {
			return false, nil
		}
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: events}}
		n, err := unix.Poll(fds, int(min(left, slice)/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if n > 0 {
			return true, nil
		}
	}
}

// failed names the outcome of an error that the other side, or the way there, has caused.
func (c *caller) failed(err error) (Outcome, string, error) {
	answer := c.icmpError()
	switch {
	case errors.Is(err, unix.ECONNREFUSED) && answer == "", errors.Is(err, unix.ECONNRESET):
		return Refused, "RST", nil
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused, answer, nil
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM),
		errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EMSGSIZE), errors.Is(err, unix.EPROTO), errors.Is(err, unix.EINVAL):
		if answer == "" {
			answer = err.Error() // the kernel's own word to a process of its host
		}
		return Unreachable, answer, nil
	case errors.Is(err, unix.ETIMEDOUT):
		return Silent, "", nil
	}
	return "", "", fmt.Errorf("connect to %s: %w", c.flow.Server, err)
}

// icmpError returns the last ICMP error that the socket got, with its sender, or "".
func (c *caller) icmpError() string {
	buf, oob := make([]byte, 512), make([]byte, 512)
	_, n, _, _, err := unix.Recvmsg(c.fd, buf, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return ""
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return ""
	}
	for _, m := range messages {
		// struct sock_extended_err, and behind it the address of who has sent it.
		const size = int(unsafe.Sizeof(unix.SockExtendedErr{}))
		if len(m.Data) < size {
			continue
		}
		origin, kind, code, offender := m.Data[4], m.Data[5], m.Data[6], m.Data[size:]
		v6 := origin == unix.SO_EE_ORIGIN_ICMP6
		if origin != unix.SO_EE_ORIGIN_ICMP && !v6 {
			continue
		}
		text := "ICMP " + icmpName(v6, kind, code)
		switch {
		case v6 && len(offender) >= 24:
			text += " from " + netip.AddrFrom16([16]byte(offender[8:24])).String()
		case !v6 && len(offender) >= 8:
			text += " from " + netip.AddrFrom4([4]byte(offender[4:8])).String()
		}
		return text
	}
	return ""
}

// Close ends the connection. It may be called twice.
func (c *caller) Close() error {
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}
