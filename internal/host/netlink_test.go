//go:build linux

package host

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A reader that waits ends at its deadline, and says only that.
func TestNetlinkDeadline(t *testing.T) {
	c, err := dial(netns{}, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	_, err = c.Receive()
	if !errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q", err)
	}
}

// An answer that is longer than the buffer is read whole: the kernel sends an error back with the request that it is of.
func TestNetlinkLongAnswer(t *testing.T) {
	c, err := dial(netns{}, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const unknown = 0xff0
	for _, size := range []int{1, 2, 3, largestDump + 1, 3 * largestDump} {
		_, err := c.Send(netlink.Message{Header: netlink.Header{Type: unknown, Flags: netlink.Request}, Data: make([]byte, size)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Receive(); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
