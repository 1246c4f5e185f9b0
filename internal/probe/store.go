//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	rtnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Store is the store of what probes make: steps of kind "probe", by names as Request.Installs has them.
//
// To add a thing changes nothing: Observe makes it. To remove it removes whatever of it is left.
type Store struct{}

// Look implements remediate.Store. The step is bound to this boot and network namespace.
func (Store) Look(_ context.Context, step remediate.Step) (remediate.Step, bool, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	own, err := ownNetns()
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	defer own.Close()
	step = step.Guarded(remediate.GuardBoot, strings.TrimSpace(string(boot))).Guarded(remediate.GuardNetns, own.id)
	return step, false, nil
}

// Swap implements remediate.Store.
func (Store) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		if step.New == nil {
			if err := removeThing(step.Name); err != nil {
				return changed, fmt.Errorf("%s: %w", step.Object(), err)
			}
		}
		changed[i] = true
	}
	return changed, nil
}

func removeThing(name string) error {
	switch {
	case strings.HasPrefix(name, linkThing+"nc"):
		return removeLink(strings.TrimPrefix(name, linkThing))
	case strings.HasPrefix(name, tableThing+"netcheck-"):
		return removeTable(strings.TrimPrefix(name, tableThing))
	case strings.HasPrefix(name, filterThing+"netcheck-"):
		return removeFilters(strings.TrimPrefix(name, filterThing))
	}
	return errors.New("is nothing that a probe makes")
}

// removeLink removes a link of a probe, if it is there. A link with that name which is not a probe's is
// somebody's own.
func removeLink(name string) error {
	l, err := rtnetlink.LinkByName(name)
	if errors.As(err, &rtnetlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.Type() != "veth" || l.Attrs().HardwareAddr.String() != hostMAC.String() {
		return remediate.ErrChanged
	}
	return rtnetlink.LinkDel(l)
}

// removeTable removes a table of family inet, if it is there.
func removeTable(name string) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := &nftBatch{}
	b.add(unix.NFT_MSG_DELTABLE, func(e *netlink.AttributeEncoder) { e.String(unix.NFTA_TABLE_NAME, name) })
	if err := b.send(conn); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nft table inet %s: %w", name, err)
	}
	return nil
}

// removeFilters removes traffic control filters of that name from all links, and the clsact discipline
// that has no others: where there is no tcx, a probe makes both.
func removeFilters(name string) error {
	links, err := rtnetlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		mine, others := 0, 0
		for _, parent := range []uint32{rtnetlink.HANDLE_MIN_INGRESS, rtnetlink.HANDLE_MIN_EGRESS} {
			filters, err := rtnetlink.FilterList(l, parent)
			if err != nil {
				continue // the link has no such discipline
			}
			for _, f := range filters {
				bpf, ok := f.(*rtnetlink.BpfFilter)
				if !ok || bpf.Name != name {
					others++
					continue
				}
				mine++
				if err := rtnetlink.FilterDel(f); err != nil {
					return fmt.Errorf("link %s: filter: %w", l.Attrs().Name, err)
				}
			}
		}
		if mine == 0 || others > 0 {
			continue
		}
		if err := rtnetlink.QdiscDel(clsact(l)); err != nil {
			return fmt.Errorf("link %s: qdisc clsact: %w", l.Attrs().Name, err)
		}
	}
	return nil
}
