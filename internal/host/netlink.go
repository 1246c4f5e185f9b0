//go:build linux

package host

import (
	"errors"
	"os"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// largestDump is what the kernel puts into one answer to a dump at most, unless one thing alone takes
// more (net/netlink/af_netlink.c, netlink_recvmsg).
const largestDump = 32 << 10

// dial opens a socket of a netlink family in the namespace.
//
// netlink.Dial does so too, but its socket offers the kernel a page first and doubles it until an answer fits, so that
// the kernel makes its answers small, and nearly all memory that reading a host takes is such buffers.
func dial(n netns, family int) (*netlink.Conn, error) {
	var fd int
	err := n.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	s := &netlinkSocket{File: os.NewFile(uintptr(fd), "netlink")}
	port, err := s.bind(fd)
	if err != nil {
		s.Close()
		return nil, err
	}
	return netlink.NewConn(s, port), nil
}

// A netlinkSocket does what a netlink.Conn asks of its socket. Deadlines are the file's; options, filters and groups,
// which the library would offer for a socket of its own, are not there.
type netlinkSocket struct {
	*os.File
	raw    syscall.RawConn
	buffer []byte // for an answer that is a dump's
}

// bind lets the kernel choose the socket's port, which stands in every answer.
func (s *netlinkSocket) bind(fd int) (port uint32, err error) {
	if s.raw, err = s.SyscallConn(); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	return own.(*unix.SockaddrNetlink).Pid, nil
}

// Send sends one message. The socket is not connected: what it writes goes to the kernel.
func (s *netlinkSocket) Send(m netlink.Message) error { return s.SendMessages([]netlink.Message{m}) }

// SendMessages sends messages at once.
func (s *netlinkSocket) SendMessages(messages []netlink.Message) error {
	var data []byte
	for _, m := range messages {
		encoded, err := m.MarshalBinary()
		if err != nil {
			return err
		}
		data = append(data, encoded...)
	}
	_, err := s.Write(data)
	return err
}

// Receive waits for the next answer and returns its messages.
func (s *netlinkSocket) Receive() ([]netlink.Message, error) {
	size, err := s.receive(nil, unix.MSG_PEEK|unix.MSG_TRUNC) // how long it is
	if err != nil {
		return nil, err
	}
	if len(s.buffer) < size+syscall.NLMSG_ALIGNTO {
		s.buffer = make([]byte, max(size, largestDump)+syscall.NLMSG_ALIGNTO)
	}
	if size, err = s.receive(s.buffer, 0); err != nil {
		return nil, err
	}
	// The last message may lack the padding behind it.
	raw, err := syscall.ParseNetlinkMessage(slices.Clone(s.buffer[:(size+syscall.NLMSG_ALIGNTO-1)&^(syscall.NLMSG_ALIGNTO-1)]))
	if err != nil {
		return nil, err
	}
	messages := make([]netlink.Message, len(raw))
	for i, m := range raw {
		messages[i] = netlink.Message{
			Header: netlink.Header{
				Length: m.Header.Len, Type: netlink.HeaderType(m.Header.Type), Flags: netlink.HeaderFlags(m.Header.Flags),
				Sequence: m.Header.Seq, PID: m.Header.Pid,
			},
			Data: m.Data,
		}
	}
	return messages, nil
}

func (s *netlinkSocket) receive(into []byte, flags int) (size int, err error) {
	waiting := s.raw.Read(func(fd uintptr) bool {
		for {
			size, _, err = unix.Recvfrom(int(fd), into, flags)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waiting != nil { // the deadline, or the socket was closed
		return 0, waiting
	}
	return size, os.NewSyscallError("recvfrom", err)
}
