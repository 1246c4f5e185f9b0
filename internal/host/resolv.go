//go:build linux

package host

import (
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// largestResolvConf is more than any resolver reads.
const largestResolvConf = 64 << 10

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
