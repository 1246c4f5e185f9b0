//go:build linux

package lab

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netState prints the configuration of a network namespace. Saves alone are
// used: iptables -L would make the tables that it lists.
const netState = `
show() { echo "# $*"; "$@" 2>/dev/null || :; }
show ip -o link
show bridge -d link
show ip -o addr
show ip -4 route show table all
show ip -6 route show table all
show ip -4 rule
show ip -6 rule
show ip nexthop
show ip -4 neigh show nud permanent
show ip -6 neigh show nud permanent
show ip -4 neigh show proxy
show ip -6 neigh show proxy
show tc qdisc
for dev in $(tc qdisc | sed -nE 's/^qdisc (clsact|ingress) .* dev ([^ ]+) .*/\2/p'); do
	show tc filter show dev "$dev" ingress
	show tc filter show dev "$dev" egress
done
show bpftool net
show iptables-nft-save
show ip6tables-nft-save
show iptables-legacy-save
show ip6tables-legacy-save
show nft --stateless list ruleset
show ipset save -sorted
show sysctl -a -r '^net\.'
`

// firewalldState prints what firewalld has at run time, sorted, in one process
// instead of five firewall-cmd of 200 ms each, and its permanent files.
const firewalldState = `
echo "# firewalld"
python3 - <<'END'
from firewall.client import FirewallClient
import json
fw = FirewallClient()
def show(kind, name, settings):
    print(kind, name, json.dumps(settings, sort_keys=True, default=str))
def plain(v):
    if isinstance(v, (list, tuple)):
        return sorted((plain(x) for x in v), key=str)
    return str(v) if not isinstance(v, (bool, int, dict)) else v
for z in sorted(fw.getZones()):
    show("zone", z, {k: plain(v) for k, v in fw.getZoneSettings(z).getSettingsDict().items()})
for p in sorted(fw.getPolicies()):
    show("policy", p, {k: plain(v) for k, v in fw.getPolicySettings(p).getSettingsDict().items()})
show("default zone", fw.getDefaultZone(), {})
show("panic", fw.queryPanicMode(), {})
show("direct chains", "", plain(fw.getAllChains()))
show("direct rules", "", plain(fw.getAllRules()))
show("direct passthroughs", "", plain(fw.getAllPassthroughs()))
END
grep -r '' /etc/firewalld --exclude='*.old' | sort
`

// State returns the host's network configuration as text, and that of the
// containers named. Two states are equal when nothing was changed in between:
// what changes by itself (timestamps, counters, handles, lifetimes) is left
// out, and addresses that are still tentative are waited for.
func (h *Host) State(ctx context.Context, containers ...string) (string, error) {
	var b strings.Builder
	add := func(n *Netns, title, script string) error {
		n.settle(ctx)
		out, err := n.Sh(ctx, script)
		if err != nil {
			return fmt.Errorf("state of %s: %w", title, err)
		}
		fmt.Fprintf(&b, "## %s\n%s", title, normalise(out))
		return nil
	}
	if err := add(h.Netns, "host", netState); err != nil {
		return "", err
	}
	if h.runs("firewalld") {
		if err := add(h.Netns, "firewalld", firewalldState); err != nil {
			return "", err
		}
	}
	for _, name := range containers {
		n, err := h.Container(ctx, name)
		if err != nil {
			return "", err
		}
		err = add(n, "container "+name, netState)
		n.close()
		if err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func (h *Host) runs(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.daemons[name]
	return d != nil && !d.hasEnded()
}

// settle waits until no link that is up has a tentative address.
func (n *Netns) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	n.configure(func(nl *netlink.Handle) error {
		return poll(ctx, func() error {
			links, err := nl.LinkList()
			if err != nil {
				return err
			}
			for _, link := range links {
				if link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
					continue
				}
				addrs, err := nl.AddrList(link, netlink.FAMILY_V6)
				if err != nil {
					return err
				}
				for _, a := range addrs {
					if a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_DADFAILED == 0 {
						return fmt.Errorf("%s is tentative", a.IPNet)
					}
				}
			}
			return nil
		})
	})
}

var (
	// Whole lines: the stamps of the saves; what counts, or is the machine's.
	volatileLines = regexp.MustCompile(`(?m)^(# (Generated|Completed) .*|net\.netfilter\.nf_conntrack_(count|max|buckets) .*)\n`)
	packetCounts  = regexp.MustCompile(`(?m)^(:.*)\[\d+:\d+\]$`)
	setTimeouts   = regexp.MustCompile(`(?m)^(add .*) timeout \d+`)
	lifetimes     = regexp.MustCompile(` (expires|valid_lft|preferred_lft) \d\w*`)
)

func normalise(s string) string {
	s = volatileLines.ReplaceAllString(s, "")
	s = packetCounts.ReplaceAllString(s, "$1[0:0]")
	s = setTimeouts.ReplaceAllString(s, "$1")
	return lifetimes.ReplaceAllString(s, "")
}
