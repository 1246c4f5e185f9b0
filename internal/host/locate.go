//go:build linux

package host

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Locate finds out whether the engine is on this host. The address says nothing of that: a socket may
// be a forwarded one, or that of an engine in a container. What counts is the process that holds the
// socket at the other end of a connection: it must be a dockerd that this program sees, in the same
// network, PID and user namespace, and the root directory must be the host's. What cannot be shown is not so.
//
// An engine that does not answer is taken to be here if its address is of this host, for Collect to say
// what is wrong with it.
func Locate(ctx context.Context, engine Dialer) Place {
	return machine{}.locate(ctx, engine)
}

func (m machine) locate(ctx context.Context, engine Dialer) Place {
	conn, err := engine.Dialer()(ctx)
	if err != nil {
		return Place{Here: true, Why: err.Error()}
	}
	defer conn.Close()
	inner := conn
	if t, ok := conn.(*tls.Conn); ok {
		inner = t.NetConn()
	}
	var pid int
	switch c := inner.(type) {
	case *net.UnixConn:
		pid, err = m.unixServer(c)
	case *net.TCPConn:
		pid, err = m.tcpServer(ctx, conn, c)
	default:
		err = errors.New("the engine is reached through another program") // ssh
	}
	if err != nil {
		why := err.Error()
		if os.Geteuid() != 0 {
			return Place{Why: why} // somebody who may not look sees nothing
		}
		return Place{Why: why, Elsewhere: why}
	}
	if os.Geteuid() != 0 {
		return Place{Why: "reading the host needs root"}
	}
	for _, ns := range []struct{ kind, what string }{
		{"net", "network namespace"}, {"pid", "PID namespace"}, {"user", "user namespace"},
	} {
		switch m.sameNamespace(pid, ns.kind) {
		case localNo:
			why := "dockerd runs in another " + ns.what + " than this program"
			if ns.kind == "net" {
				return Place{Why: why, Elsewhere: why}
			}
			return Place{Why: why}
		case localUnknown:
			return Place{Why: "it cannot be told whether dockerd runs in our " + ns.what}
		}
	}
	// A dockerd in a snap has a root directory of its own, and that of the first process is the host's.
	same, err := m.sameRoot(pid)
	if err == nil && !same {
		same, err = m.sameRoot(1)
	}
	switch {
	case err != nil:
		return Place{Why: "it cannot be told whether dockerd has our root directory: " + err.Error()}
	case !same:
		return Place{Why: "this program has another root directory than the host"}
	}
	return Place{Here: true, PID: pid}
}

// unixServer returns the dockerd that serves a connection to a Unix socket.
func (m machine) unixServer(c *net.UnixConn) (int, error) {
	pid := credentials(c)
	switch {
	case m.isDockerd(pid):
		return pid, nil
	case pid == 0:
		return 0, errors.New("the engine's socket is served by a process outside of our PID namespace")
	case pid != 1:
		return 0, fmt.Errorf("the engine's socket is served by %s (PID %d), not by dockerd", cmp.Or(m.comm(pid), "a program that has ended"), pid)
	}
	// The service manager made the socket, and handed it to dockerd.
	inode, err := m.listeningInode(c.RemoteAddr().String())
	if err != nil {
		return 0, err
	}
	return m.dockerdWith(inode)
}

// EngineSockets returns the paths of the Unix sockets that dockerds on this host listen on.
func EngineSockets() []string {
	var m machine
	text, err := m.read("proc/thread-self/net/unix")
	if err != nil {
		return nil
	}
	held := map[string]bool{}
	for pid := range m.processes() {
		if m.isDockerd(pid) {
			for _, open := range m.descriptors(pid) {
				held[open] = true
			}
		}
	}
	var paths []string
	for path, inode := range listening(text) {
		if held["socket:["+inode+"]"] {
			paths = append(paths, path)
		}
	}
	return paths
}

// listening yields path and inode of the listening Unix sockets in a /proc/net/unix.
func listening(text string) iter.Seq2[string, string] {
	return func(yield func(path, inode string) bool) {
		for line := range strings.Lines(text) {
			// Num RefCount Protocol Flags Type St Inode Path; bit 16 of Flags: it listens (__SO_ACCEPTCON).
			field := strings.Fields(line)
			if len(field) == 8 && field[3] == "00010000" && strings.HasPrefix(field[7], "/") && !yield(field[7], field[6]) {
				return
			}
		}
	}
}

// credentials returns the PID of the process that listens at the other end (SO_PEERCRED); 0 if it is not
// in our PID namespace.
func credentials(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// listeningInode returns the inode of the one listening Unix socket at that path.
func (m machine) listeningInode(path string) (string, error) {
	text, err := m.read("proc/thread-self/net/unix")
	if err != nil {
		return "", err
	}
	resolved := func(path string) string {
		if real, err := filepath.EvalSymlinks(m.path(path)); err == nil {
			return real
		}
		return m.path(path)
	}
	want, found := resolved(path), ""
	for name, inode := range listening(text) {
		if resolved(name) != want {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("two sockets are called %s", path)
		}
		found = inode
	}
	if found == "" {
		return "", fmt.Errorf("no socket of this host is called %s", path)
	}
	return found, nil
}

// tcpServer returns the dockerd that serves a TCP connection, of which conn is the innermost layer.
func (m machine) tcpServer(ctx context.Context, conn net.Conn, c *net.TCPConn) (int, error) {
	// Only an answer shows that the connection was accepted, and by whom.
	if err := ping(ctx, conn); err != nil {
		return 0, err
	}
	sockets, err := readSockets(netns{}, true, func() linkNames { return nil })
	if err != nil {
		return 0, err
	}
	// Both ends of a connection within a namespace are sockets of it.
	local, remote := endOf(c.LocalAddr()), endOf(c.RemoteAddr())
	for _, s := range sockets {
		if s.Proto == "tcp" && s.Inode != 0 && plain(s.Local) == remote && plain(s.Remote) == local {
			return m.dockerdWith(strconv.FormatUint(uint64(s.Inode), 10))
		}
	}
	return 0, fmt.Errorf("the engine is on another host, %s", remote)
}

// ping makes the engine answer on the connection.
func ping(ctx context.Context, conn net.Conn) error {
	deadline, ok := ctx.Deadline()
	if soon := time.Now().Add(5 * time.Second); !ok || deadline.After(soon) {
		deadline = soon
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func endOf(a net.Addr) netip.AddrPort {
	if a, ok := a.(*net.TCPAddr); ok {
		return plain(a.AddrPort())
	}
	return netip.AddrPort{}
}

// plain writes an IPv4 address the same way whether or not an IPv6 socket holds it.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// dockerdWith returns the dockerd that has the socket open.
func (m machine) dockerdWith(inode string) (int, error) {
	if pid := m.dockerdOfFile(); pid != 0 && m.holds(pid, inode) {
		return pid, nil
	}
	for pid := range m.processes() {
		if m.isDockerd(pid) && m.holds(pid, inode) {
			return pid, nil
		}
	}
	return 0, errors.New("the engine's socket is held by no dockerd that we see")
}

func (m machine) holds(pid int, inode string) bool {
	for _, open := range m.descriptors(pid) {
		if open == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

// sameRoot says whether the process has our root directory.
func (m machine) sameRoot(pid int) (bool, error) {
	var own, theirs unix.Stat_t
	if err := unix.Stat(m.path("/"), &own); err != nil {
		return false, err
	}
	if err := unix.Stat(m.path("proc", strconv.Itoa(pid), "root")+"/", &theirs); err != nil {
		return false, err
	}
	return own.Dev == theirs.Dev && own.Ino == theirs.Ino, nil
}
