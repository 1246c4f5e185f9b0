//go:build linux

package host

import (
	"context"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/nftwire"
)

// ReadNft reads all of nf_tables in the namespace of c, a connection of NETLINK_NETFILTER that nobody else uses
// meanwhile. It takes CAP_NET_ADMIN there. A ruleset that changes each time that it is read is an error.
func ReadNft(ctx context.Context, c *netlink.Conn) (*netstate.Ruleset, error) {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) }) // wakes a call that waits
	defer stop()
	ruleset, err := nftwire.Read(c.Execute)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("nf_tables: %w", err)
	}
	return ruleset, nil
}

// dialNetfilter opens nfnetlink in the namespace.
func dialNetfilter(n netns) (*netlink.Conn, error) {
	c, err := dial(n, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("nfnetlink: %w", err)
	}
	return c, nil
}

// nftGeneration asks for the number of the ruleset's present state, which every change of it moves on.
func nftGeneration(c *netlink.Conn) (uint32, error) { return nftwire.Generation(c.Execute) }
