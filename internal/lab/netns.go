//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Timeout ends every exchange of a Netns whose context does not end before.
const Timeout = 2 * time.Second

// A Netns is a network namespace to dial from and to listen in: a client's, the
// host's, a container's. It exists as long as it is open, and is closed with
// its host.
//
// Sockets are made on a thread that entered the namespace (see onThread), and
// may be used anywhere. Addresses must be literal, as names would be resolved
// on other threads, and so outside.
type Netns struct {
	host *Host
	from string // address to dial from, "" for the kernel's choice

	*nsFile
}

// nsFile is an open namespace and what listens in it.
type nsFile struct {
	mu        sync.Mutex
	file      *os.File // nil when closed
	listeners map[io.Closer]struct{}
}

// newNetns makes a network namespace that only the returned value holds.
func (h *Host) newNetns() (*Netns, error) {
	var n *Netns
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		n, err = h.openNetns("/proc/thread-self/ns/net")
		return err
	})
	return n, err
}

// openNetns opens the network namespace at path until the host is closed.
func (h *Host) openNetns(path string) (*Netns, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	n := &Netns{host: h, nsFile: &nsFile{file: f, listeners: map[io.Closer]struct{}{}}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.netns = append(h.netns, n)
	return n, nil
}

// close ends all listeners and lets go of the namespace.
func (n *Netns) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.listeners {
		l.Close()
	}
	n.listeners = nil
	if n.file != nil {
		n.file.Close()
		n.file = nil
	}
}

// path names the namespace to other programs.
func (n *Netns) path() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return "/closed"
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// Do calls f on a thread inside the namespace. f must not hand work to other
// goroutines: they are outside.
func (n *Netns) Do(f func() error) error {
	return onThread(func() error {
		n.mu.Lock()
		if n.file == nil {
			n.mu.Unlock()
			return os.ErrClosed
		}
		err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET)
		n.mu.Unlock()
		if err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// From is the same namespace, dialling from one of its addresses.
func (n *Netns) From(addr string) *Netns {
	m := *n
	m.from = addr
	return &m
}

// Command is a command of the host's root and PID namespace, but in this
// network namespace. When ctx ends, it is killed with its children.
func (n *Netns) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	pid := n.host.pid()
	cmd := exec.CommandContext(ctx, "nsenter", append(append(n.enter(pid), name), args...)...)
	if pid == 0 {
		cmd.Err = errClosed // and never enter a process that has got the same number
	}
	cmd.Env = n.host.env()
	cmd.Cancel = func() error { return killInside(cmd.Process.Pid) }
	cmd.WaitDelay = time.Second
	return cmd
}

// enter are the arguments of nsenter.
func (n *Netns) enter(pid int) []string {
	return []string{"-t", strconv.Itoa(pid), "-m", "-p", "-u", "-i", "-r", "-w", "--net=" + n.path(), "--"}
}

// Enter is the command line that leads a person into the namespace.
func (n *Netns) Enter() string { return "nsenter " + strings.Join(n.enter(n.host.pid()), " ") }

// Run runs a command and returns its standard output. The error of a command
// that fails wraps an *exec.ExitError and shows its standard error.
func (n *Netns) Run(ctx context.Context, name string, args ...string) (string, error) {
	return output(n.Command(ctx, name, args...), strings.Join(append([]string{name}, args...), " "))
}

// Sh runs a shell script, with -e. For tests' own texts only.
func (n *Netns) Sh(ctx context.Context, script string) (string, error) {
	return output(n.Command(ctx, "sh", "-ec", script), script)
}

func output(cmd *exec.Cmd, title string) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", title, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Dial connects to a literal address.
func (n *Netns) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	d := net.Dialer{FallbackDelay: -1}
	d.SetMultipathTCP(false)
	if n.from != "" {
		ip := net.ParseIP(n.from)
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = &net.UDPAddr{IP: ip}
		} else {
			d.LocalAddr = &net.TCPAddr{IP: ip}
		}
	}
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Connect makes a TCP connection and ends it.
func (n *Netns) Connect(ctx context.Context, addr string) error {
	conn, err := n.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Get fetches a URL on a connection of its own. An answer other than 200 is an
// error.
func (n *Netns) Get(ctx context.Context, url string) (body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	tr := &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return string(b), fmt.Errorf("get %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return string(b), fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return string(b), nil
}

// Exchange sends a UDP datagram and returns the answer. It sends once more
// after half of the time.
func (n *Netns) Exchange(ctx context.Context, addr, message string) (answer string, err error) {
	conn, err := n.Dial(ctx, "udp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for range 2 {
		conn.SetDeadline(time.Now().Add(Timeout / 2))
		if _, err = io.WriteString(conn, message); err != nil {
			return "", err
		}
		var m int
		if m, err = conn.Read(buf); err == nil {
			return string(buf[:m]), nil
		}
		if ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return "", err
}

// Listen listens on a literal TCP address until the host is closed.
func (n *Netns) Listen(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	var l net.Listener
	err := n.Do(func() (err error) {
		l, err = lc.Listen(context.Background(), "tcp", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, n.track(l)
}

// ListenPacket listens on a literal UDP address until the host is closed.
func (n *Netns) ListenPacket(addr string) (net.PacketConn, error) {
	var c net.PacketConn
	err := n.Do(func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, n.track(c)
}

// track has l closed with the namespace.
func (n *Netns) track(l io.Closer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		l.Close()
		return os.ErrClosed
	}
	n.listeners[l] = struct{}{}
	return nil
}

func (n *Netns) untrack(l io.Closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, l)
	l.Close()
}

// Serve runs a web server in this process until stop is called or the host is
// closed. A nil handler answers with the address that the client came from.
func (n *Netns) Serve(addr string, handler http.Handler) (stop func(), err error) {
	if handler == nil {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintln(w, host)
		})
	}
	l, err := n.Listen(addr)
	if err != nil {
		return nil, err
	}
	go http.Serve(l, handler)
	return func() { n.untrack(l) }, nil
}

// Echo answers UDP datagrams with what they hold, until stop is called or the
// host is closed.
func (n *Netns) Echo(addr string) (stop func(), err error) {
	c, err := n.ListenPacket(addr)
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			m, peer, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteTo(buf[:m], peer)
			}
		}
	}()
	return func() { n.untrack(c) }, nil
}

// Outcome names what became of a Connect, Get or Exchange as a user would: ok,
// timeout, refused, unreachable, reset, empty (closed without an answer),
// denied, or else the error's text.
func Outcome(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "denied"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "empty"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}

// killInside kills the command that an nsenter waits for, and all that it
// started. nsenter must live to reap it: otherwise that falls to the machine's
// init, and the host cannot end before it has.
func killInside(nsenter int) error {
	inside := children(nsenter)
	if len(inside) == 0 {
		return unix.Kill(nsenter, unix.SIGKILL) // not yet inside
	}
	for _, pid := range inside {
		killTree(pid)
	}
	return nil
}

// killTree kills a process and its descendants.
func killTree(pid int) {
	for _, child := range children(pid) {
		killTree(child)
	}
	unix.Kill(pid, unix.SIGKILL)
}

// children are the children of the main thread of a process.
func children(pid int) []int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	var pids []int
	for _, s := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(s); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
