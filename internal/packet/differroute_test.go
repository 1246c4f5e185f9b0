//go:build linux

package packet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A question is one to the FIB. Without a link the packet starts on the host.
type question struct {
	src, dst netip.Addr // src zero: not chosen yet
	iif      string
	mark     uint32
}

func (q question) String() string {
	return fmt.Sprintf("from %s to %s iif %q mark %d", q.src, q.dst, q.iif, q.mark)
}

// questions are asked of every setting.
func questions() (all []question) {
	for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		far, inside, other, client, own := addrs(family, "203.0.113.9", "2001:db8:f::9"), addrs(family, "172.17.0.2", "fd00::2"), addrs(family, "172.18.0.2", "fd01::2"),
			addrs(family, "192.0.2.2", "2001:db8:1::2"), addrs(family, "198.51.100.15", "2001:db8::15")
		for _, mark := range []uint32{0, 1, 2, 3} {
			for _, dst := range []netip.Addr{far, inside, other, client, own, addrs(family, "10.9.9.9", "2001:db8:9::9")} {
				all = append(all, question{dst: dst, mark: mark}, question{src: own, dst: dst, mark: mark},
					question{src: inside, dst: dst, iif: "br0", mark: mark}, question{src: far, dst: dst, iif: "eth0", mark: mark})
			}
		}
	}
	return all
}

// askRoutes holds the walk's FIB against what the kernel answers to RTM_GETROUTE, and returns how many
// questions both answered. With a link the kernel also looks at the source: what it then refuses is no
// matter of the FIB.
func (w *world) askRoutes(t *testing.T, name string, x *Index, s *setting) (asked int) {
	if slices.ContainsFunc(s.ip, func(line string) bool {
		return strings.Contains(line, "port ") || strings.Contains(line, "ipproto") || strings.Contains(line, "tos")
	}) {
		return 0 // the question has none of these
	}
	for _, q := range questions() {
		options := &netlink.RouteGetOptions{Iif: q.iif, Mark: q.mark, FIBMatch: true}
		if q.src.IsValid() {
			options.SrcAddr = net.IP(q.src.AsSlice())
		}
		answers, err := netlink.RouteGetWithOptions(net.IP(q.dst.AsSlice()), options)
		if err != nil && q.iif != "" {
			continue
		}
		kernel := kernelDecision(answers, err)
		var walk []string
		x.explore(netstate.Target{}, func(w *walker) {
			f := flow{src: q.src, dst: q.dst, mark: q.mark, proto: unix.IPPROTO_UDP}
			if q.iif != "" {
				f.iif = x.host.links[q.iif]
			}
			walk = append(walk, walkDecision(x.host.fib(netstate.FamilyOf(q.dst)).lookup(w, f)))
		})
		if !slices.Contains(walk, kernel) {
			t.Errorf("%s: %s\n  kernel: %s\n  walk:   %s\n%s", name, q, kernel, strings.Join(walk, "\n          "), strings.Join(s.ip, "\n"))
			return asked
		}
		asked++
	}
	return asked
}

// kernelDecision is the kernel's answer, written as walkDecision writes the walk's.
func kernelDecision(routes []netlink.Route, err error) string {
	switch {
	case errors.Is(err, syscall.ENETUNREACH):
		return "none"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.EACCES):
		return "prohibit"
	case errors.Is(err, syscall.EINVAL):
		return "blackhole"
	case err != nil || len(routes) == 0:
		return fmt.Sprint("error ", err)
	}
	r := routes[0]
	if r.Table == unix.RT_TABLE_MAIN && (r.Type == unix.RTN_LOCAL || r.Type == unix.RTN_BROADCAST) {
		r.Table = unix.RT_TABLE_LOCAL // both are one trie until a rule is added, and it answers as main
	}
	dst := "default"
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones > 0 {
			dst = r.Dst.String()
		}
	}
	return fmt.Sprintf("%s table %d type %d metric %d", dst, r.Table, r.Type, r.Priority)
}

func walkDecision(d decision) string {
	switch {
	case d.forbidden == "unreachable" && d.route == nil: // by a rule: ENETUNREACH (fib4_rule_action), as without a route
		return "none"
	case d.forbidden != "":
		return d.forbidden
	case d.route == nil:
		return "none"
	}
	types := map[string]int{"unicast": unix.RTN_UNICAST, "local": unix.RTN_LOCAL, "broadcast": unix.RTN_BROADCAST, "anycast": unix.RTN_ANYCAST}
	dst := "default"
	if d.route.Dst.Bits() > 0 {
		dst = d.route.Dst.String()
	}
	return fmt.Sprintf("%s table %d type %d metric %d", dst, d.route.Table, types[d.route.Type], d.route.Metric)
}
