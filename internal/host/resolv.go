//go:build linux

package host

import (
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"golang.org/x/sys/unix"
)

// largestResolvConf is more than any resolver reads.
const largestResolvConf = 64 << 10

// startResolvConf reads a container's /etc/resolv.conf beside the rest. Nobody waits for it in the end: on a file
// system that the container serves itself, or whose server is gone, a file may never open.
func (c *collection) startResolvConf(id string, pid int) {
	read := make(chan []string, 1)
	go func() { read <- c.m.resolvConf(pid) }()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resolv == nil {
		c.resolv = map[string]<-chan []string{}
	}
	c.resolv[id] = read
}

// finishResolvConf keeps what startResolvConf reads, as long as the context lasts.
func (c *collection) finishResolvConf() {
	for id, read := range c.resolv {
		select {
		case <-c.ctx.Done():
		case lines := <-read:
			c.keepResolvConf(id, lines)
			continue
		}
		select {
		case lines := <-read: // it was there in time
			c.keepResolvConf(id, lines)
		default:
			c.lacks(netstate.Key{Part: netstate.Files, Container: id}, "not read in time")
		}
	}
}

func (c *collection) keepResolvConf(id string, lines []string) {
	if kept := c.s.Container(id); kept != nil {
		kept.ResolvConf = lines
	}
}

// resolvConf returns the lines of a process's /etc/resolv.conf that name servers, nil if it cannot be read. What the
// container's programs made of its files leads nowhere out of it: links are resolved in its root, and only a regular
// file is read (openat2, Linux 5.6).
func (m machine) resolvConf(pid int) []string {
	root, err := unix.Open(m.path("proc", strconv.Itoa(pid), "root"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, "etc/resolv.conf", &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), "resolv.conf")
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(file, largestResolvConf))
	if err != nil {
		return nil
	}
	return resolvLines(string(data))
}

// resolvLines keeps what names servers; search domains say whose host it is.
func resolvLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if field := strings.Fields(line); len(field) > 1 && field[0] == "nameserver" {
			lines = append(lines, field[0]+" "+field[1])
		} else if strings.HasPrefix(line, "# ExtServers: ") {
			lines = append(lines, line)
		}
	}
	return lines
}
