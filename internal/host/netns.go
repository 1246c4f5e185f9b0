//go:build linux

package host

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// A netns is a network namespace that is open for reading.
type netns struct {
	file *os.File // nil: the namespace that the program runs in
	id   string   // "net:[4026531840]"; "" not known
}

// openNetns opens the network namespace of the process pid.
func (m machine) openNetns(pid int) (netns, error) {
	file, err := os.Open(m.path("proc", strconv.Itoa(pid), "ns/net"))
	if err != nil {
		return netns{}, err
	}
	id, err := netnsID(int(file.Fd()))
	if err != nil {
		file.Close()
		return netns{}, err
	}
	return netns{file, id}, nil
}

// netnsID returns the name that /proc gives the open namespace: device and inode stand for it.
func netnsID(fd int) (string, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return "", err
	}
	return fmt.Sprintf("net:[%d]", stat.Ino), nil
}

// fd is the descriptor for mdlayher/netlink's Config.NetNS, where 0 means the caller's own namespace.
func (n netns) fd() int {
	if n.file == nil {
		return 0
	}
	return int(n.file.Fd())
}

func (n netns) Close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// do runs f on an operating system thread that is in the namespace: what f opens below /proc/sys/net
// and /proc/thread-self/net is the namespace's, and so is the namespace of a process that f starts.
//
// A thread that cannot go back is never used again: it stays locked to a goroutine that ends, and the
// runtime ends the thread with it.
func (n netns) do(f func() error) error {
	if n.file == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer own.Close()
		if err := unix.Setns(n.fd(), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter %s: %w", n.id, err)
			return
		}
		err = f()
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
