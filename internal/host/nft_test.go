//go:build linux

package host

import (
	"context"
	"errors"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestReadNft reads a new namespace, which has no rules. What the messages mean is nftwire's to test.
func TestReadNft(t *testing.T) {
	lab.OwnNetns(t)
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ruleset, err := ReadNft(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	generation, err := nftGeneration(c)
	if err != nil || ruleset.Generation != generation || len(ruleset.Tables) != 0 {
		t.Errorf("%+v, generation %d, %v", ruleset, generation, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ReadNft(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
