//go:build linux

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A tap is a packet socket on one link, which gets copies of what a filter lets through.
type tap struct {
	place    place
	fd       int
	ethernet bool
	mac      net.HardwareAddr
}

// A sample is what a tap got.
type sample struct {
	time     time.Time
	outgoing bool   // it was sent by the link, as seen from the tap's namespace
	length   int    // on the wire
	data     []byte // perhaps cut
}

// openTap opens a tap in the namespace that the thread is in. filter makes the program that decides how
// many bytes of a packet to keep; base is where the IP header is.
func openTap(p place, filter func(base int32) asm.Instructions) (*tap, error) {
	l, err := netlink.LinkByName(p.link)
	if err != nil {
		return nil, err
	}
	// Protocol 0 hears nothing: not until the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	base := header(l)
	t := &tap{place: p, fd: fd, ethernet: base > 0, mac: l.Attrs().HardwareAddr}
	if err := t.start(l.Attrs().Index, filter(base)); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *tap) start(ifindex int, filter asm.Instructions) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "netcheck", Type: ebpf.SocketFilter, License: bpfLicense, Instructions: filter,
	})
	if err != nil {
		return fmt.Errorf("bpf filter: %w", err)
	}
	defer program.Close() // the socket holds it
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program.FD()); err != nil {
		return fmt.Errorf("bpf filter: %w", err)
	}
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("timestamps: %w", err)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// hold makes the socket keep that many bytes before it drops.
func (t *tap) hold(bytes int) {
	if unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
}

// read returns the next copy, or nil if there is none now.
func (t *tap) read(buf []byte) (*sample, error) {
	oob := make([]byte, 128)
	// MSG_TRUNC gives the whole length of what was cut.
	n, oobn, _, from, err := unix.Recvmsg(t.fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, nil
	case errors.Is(err, unix.EINTR):
		return t.read(buf)
	case err != nil:
		return nil, err
	}
	s := &sample{length: n, time: time.Now(), data: append([]byte(nil), buf[:min(n, len(buf))]...)}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		s.outgoing = ll.Pkttype == unix.PACKET_OUTGOING
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return s, nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			s.time = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return s, nil
}

// drain returns all that the tap holds.
func (t *tap) drain() []*sample {
	var all []*sample
	buf := make([]byte, 2048)
	for {
		s, err := t.read(buf)
		if s == nil || err != nil {
			return all
		}
		all = append(all, s)
	}
}

func (t *tap) Close() error { return unix.Close(t.fd) }

// keep is the end of a filter: so many bytes of what matched, nothing of all else.
func keep(bytes int32, matched ...string) asm.Instructions {
	var ins asm.Instructions
	for _, label := range matched {
		ins = append(ins, asm.Mov.Imm(asm.R0, bytes).WithSymbol(label), asm.Return())
	}
	return append(ins, asm.Mov.Imm(asm.R0, 0).WithSymbol(noMatch), asm.Return())
}

// filter lets one flow through.
func (m matcher) filter(base int32) asm.Instructions {
	ins := m.begin(base, noMatch)
	ins = append(ins, m.code(loadSkb)...)
	return append(ins, keep(0xffff, toClient, fromClient)...)
}

// lost returns how many packets the kernel could not keep for the tap.
func (t *tap) lost() int {
	stats, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return int(stats.Drops)
}
