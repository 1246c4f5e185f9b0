//go:build linux

package host

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// readRootlessKit reads how RootlessKit joins a rootless engine's namespace with the host, from the arguments
// of the process of it that started dockerd.
func (m machine) readRootlessKit(dockerd int) *netstate.RootlessKit {
	for pid := dockerd; pid > 1; pid = m.parent(pid) {
		words, err := m.arguments(pid)
		if err != nil {
			return nil
		}
		kit := &netstate.RootlessKit{Net: option(words, "--net"), PortDriver: option(words, "--port-driver")}
		if kit.PortDriver != "" {
			return kit
		}
	}
	return nil
}

// option returns the last value of an option among a program's arguments, written --x=VALUE or --x VALUE, or "".
func option(words []string, name string) (value string) {
	for i, word := range words {
		if after, ok := strings.CutPrefix(word, name+"="); ok {
			value = after
		} else if word == name && i+1 < len(words) {
			value = words[i+1]
		}
	}
	return value
}

// delivered puts published ports where RootlessKit's builtin port driver delivers what comes to them: it
// connects to a loopback address in the engine's namespace, and that is what the engine programs from 28.0 on.
// Source: moby, daemon/libnetwork/internal/rlkclient, ChildHostIP.
func delivered(c *netstate.Container) {
	for i := range c.Published {
		switch host := &c.Published[i].Host; {
		case host.Is4():
			*host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		case host.Is6():
			*host = netip.IPv6Loopback()
		}
	}
}

// inUserNamespace says whether this program may be in another user namespace than the first one, in which
// every user is who he is.
func (m machine) inUserNamespace() bool {
	text, err := m.read("proc/self/uid_map")
	return err != nil || !slices.Equal(strings.Fields(text), []string{"0", "0", "4294967295"})
}
