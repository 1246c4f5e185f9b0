//go:build linux

package probe

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A netns is an open network namespace. It lives as long as it is open, if nothing else holds it.
type netns struct {
	file *os.File
	id   string // "net:[4026531840]"
}

// ownNetns opens the namespace that the program runs in: the host's.
func ownNetns() (*netns, error) { return openNetns("/proc/thread-self/ns/net") }

// containerNetns opens the namespace of a process.
func containerNetns(pid int) (*netns, error) {
	return openNetns(fmt.Sprintf("/proc/%d/ns/net", pid))
}

func openNetns(path string) (*netns, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		file.Close()
		return nil, err
	}
	return &netns{file, fmt.Sprintf("net:[%d]", stat.Ino)}, nil
}

// newNetns makes a namespace that nothing but the returned value holds.
func newNetns() (n *netns, err error) {
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		n, err = openNetns("/proc/thread-self/ns/net")
		return err
	})
	return n, err
}

// inode is the number in the namespace's id.
func (n *netns) inode() (inode uint32) {
	fmt.Sscanf(n.id, "net:[%d]", &inode)
	return inode
}

func (n *netns) fd() int { return int(n.file.Fd()) }

func (n *netns) Close() error { return n.file.Close() }

// do runs f on a thread that is in the namespace. What f starts on other goroutines is not in it; sockets
// that f makes stay in it wherever they are used.
func (n *netns) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", n.id, err)
		}
		return f()
	})
}

// onThread runs f, which may change the thread's network namespace, on a thread that no other goroutine
// uses meanwhile. A thread that cannot be put back into its namespace ends with f.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := ownNetns()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer own.Close()
		err = f()
		if unix.Setns(own.fd(), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
