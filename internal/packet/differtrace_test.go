//go:build linux

package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// What decided about a packet is written the same way by the kernel and by the walk: one text for each
// verdict that a rule or a policy gave it, sorted. Of nf_tables the kernel tells it by nftrace:
//
//	host ip filter FORWARD 7 jump
//	host inet t0 b1 policy accept
//
// Of iptables-legacy the counters tell which rules it met:
//
//	host legacy ip filter FORWARD 3
//
// Rules that let the packet go on (marks, logs) are in neither.
type decisions []string

func (d decisions) String() string {
	slices.Sort(d)
	return "{" + strings.Join(d, ", ") + "}"
}

// The test's own tables. What they decide is nobody's business: they set the trace mark before anything
// else sees the packet, and keep off what the kernels say by themselves, so that counters move for the
// test's packets alone. The test's own ICMP errors have codes that no kernel here sends.
const (
	ownTable  = "quiet"
	ownError  = 10 // code of destination unreachable
	ownError6 = 6
)

const quiet = `table inet quiet {
	chain in { type filter hook prerouting priority -500; meta nftrace set 1; }
	chain out {
		type filter hook output priority -500
		tcp flags & rst == rst drop
		icmp type destination-unreachable icmp code != 10 drop
		icmp type { time-exceeded, redirect, parameter-problem } drop
		icmpv6 type destination-unreachable icmpv6 code != 6 drop
		icmpv6 type { packet-too-big, time-exceeded, parameter-problem, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect, mld-listener-query, mld-listener-report, mld2-listener-report } drop
		meta nftrace set 1
	}
}
`

// quietDevices is of the host alone: bridges and links themselves have hooks too.
const quietDevices = `table netdev quiet {
	chain in { type filter hook ingress devices = { eth0, eth1, v0, v1, v2 } priority -500; meta nftrace set 1; }
}
`

// Numbers of nfnetlink that x/sys does not have. Source: linux/netfilter/nf_tables.h.
const (
	groupNftrace = 9
	msgTrace     = unix.NFNL_SUBSYS_NFTABLES<<8 | 17

	traceTable, traceChain, traceHandle, traceType, traceVerdict = 1, 2, 3, 4, 5
	traceID, traceNetwork, traceTransport, tracePolicy           = 6, 8, 9, 16

	traceOfPolicy, traceOfRule = 1, 3
)

// listenTraces opens what the kernel tells of traced packets in the present namespace.
func (w *world) listenTraces() int {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	must(w.t, err)
	must(w.t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	must(w.t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (groupNftrace - 1)}))
	return fd
}

// decisions returns what was decided about the shot since the last time.
func (w *world) decisions(s *shot) decisions {
	var all decisions
	buf := make([]byte, 1<<16)
	for place, fd := range w.traces {
		ours := map[uint32]bool{} // trace ids
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err == unix.EAGAIN {
				break
			}
			must(w.t, err) // ENOBUFS: something is lost
			messages, err := syscall.ParseNetlinkMessage(buf[:n])
			must(w.t, err)
			for _, m := range messages {
				if m.Header.Type == msgTrace && len(m.Data) > 4 {
					if text := traced(m.Data, s, ours); text != "" {
						all = append(all, place+" "+text)
					}
				}
			}
		}
	}
	now := w.legacyCounters(s)
	for rule, packets := range now {
		// A table that was loaded anew counts from nothing.
		for n := w.counted[rule]; n < packets; n++ {
			all = append(all, "host "+rule)
		}
	}
	w.counted = now
	return all
}

// traced reads one message. ours says which of the traced packets are the shot; the first message of each
// base chain has the headers.
func traced(data []byte, s *shot, ours map[uint32]bool) string {
	family := map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge"}[data[0]]
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return ""
	}
	ad.ByteOrder = binary.BigEndian
	var table, chain string
	var handle uint64
	var kind, id uint32
	var verdict, policy int32
	var network, transport []byte
	for ad.Next() {
		switch ad.Type() {
		case traceTable:
			table = ad.String()
		case traceChain:
			chain = ad.String()
		case traceHandle:
			handle = ad.Uint64()
		case traceType:
			kind = ad.Uint32()
		case traceVerdict:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case unix.NFTA_VERDICT_CODE:
						verdict = int32(ad.Uint32())
					}
				}
				return nil
			})
		case traceID:
			id = ad.Uint32()
		case traceNetwork:
			network = ad.Bytes()
		case traceTransport:
			transport = ad.Bytes()
		case tracePolicy:
			policy = int32(ad.Uint32())
		}
	}
	if network != nil {
		seen, ok := parseIP(append(bytes.Clone(network), transport...))
		ours[id] = ok && seen.id&0xffff == s.id&0xffff
	}
	if !ours[id] || table == ownTable {
		return ""
	}
	words := map[int32]string{0: "drop", 1: "accept", unix.NFT_JUMP: "jump", unix.NFT_GOTO: "goto", unix.NFT_RETURN: "return"}
	switch kind {
	case traceOfPolicy:
		return fmt.Sprintf("%s %s %s policy %s", family, table, chain, words[policy&0xff])
	case traceOfRule:
		if verdict > 0 {
			verdict &= 0xff
		}
		if word := words[verdict]; word != "" {
			return fmt.Sprintf("%s %s %s %d %s", family, table, chain, handle, word)
		}
	}
	return ""
}

// legacyCounters returns how many packets each deciding rule of iptables-legacy has met:
// "legacy ip filter FORWARD 3", "legacy ip filter FORWARD policy".
func (w *world) legacyCounters(s *shot) map[string]uint64 {
	all := map[string]uint64{}
	for i, family := range []string{"ip", "ip6"} {
		if w.dirty[i] && ipFamily(s.family) == family { // of the other, kernels talk now and then
			for _, table := range []string{"raw", "mangle", "nat", "filter"} {
				w.readCounters(i, "legacy "+family+" "+table+" ", table, all)
			}
		}
	}
	return all
}

// A layout is where struct ipt_entry and struct ip6t_entry hold what is read of them.
type layout struct{ target, next, counters, level int }

var layouts = [2]layout{{88, 90, 96, unix.IPPROTO_IP}, {140, 142, 152, unix.IPPROTO_IPV6}}

// The socket options by which iptables-legacy reads. Source: IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, which those
// of IPv6 equal.
const (
	optionInfo    = 64
	optionEntries = 65
)

var legacyHooks = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

func (w *world) readCounters(family int, prefix, table string, all map[string]uint64) {
	at, order := layouts[family], binary.NativeEndian
	info := make([]byte, 84)
	copy(info, table)
	must(w.t, getsockopt(w.legacy[family], at.level, optionInfo, info))
	hooks, underflow := map[int]string{}, map[int]bool{}
	for i, name := range legacyHooks {
		if order.Uint32(info[32:])>>i&1 == 1 {
			hooks[int(order.Uint32(info[36+4*i:]))] = name
			underflow[int(order.Uint32(info[56+4*i:]))] = true
		}
	}
	size := int(order.Uint32(info[80:]))
	data := make([]byte, 40+size)
	copy(data, table)
	order.PutUint32(data[32:], uint32(size))
	must(w.t, getsockopt(w.legacy[family], at.level, optionEntries, data))
	data = data[40:]
	chain, number, user, last := "", 0, false, ""
	end := func() {
		if user && last != "" {
			delete(all, last) // the return at its end, which no rule is
		}
	}
	for from := 0; from < size; {
		entry := data[from:]
		behind := from + int(order.Uint16(entry[at.next:]))
		target := entry[order.Uint16(entry[at.target:]):]
		name, _, _ := strings.Cut(string(target[2:31]), "\x00")
		if hook := hooks[from]; hook != "" {
			end()
			chain, number, user = hook, 0, false
		}
		if name == "ERROR" {
			end()
			chain, _, _ = strings.Cut(string(target[32:62]), "\x00")
			number, user, last = 0, true, ""
		} else {
			number++
			last = fmt.Sprintf("%s%s %d", prefix, chain, number)
			if underflow[from] {
				last = prefix + chain + " policy"
			}
			switch {
			case name == "" && int(order.Uint32(target[32:])) == behind: // a rule without a target goes on
			case slices.Contains([]string{"", "REJECT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT"}, name):
				all[last] = order.Uint64(entry[at.counters:])
			}
		}
		from = behind
	}
}

func getsockopt(fd, level, option int, value []byte) error {
	length := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// decisionText writes what the walk tells of a verdict, in the kernel's words; "" for the test's own tables.
func decisionText(n *netns, b *base, r *rule, v code) string {
	place := placeOf(n.name)
	if b.table == ownTable {
		return ""
	}
	if b.legacy {
		at := "policy"
		if r != nil {
			at = fmt.Sprint(r.number)
		}
		from := b.chain
		if r != nil {
			from = r.chain
		}
		return fmt.Sprintf("%s legacy %s %s %s %s", place, ipFamily(b.family), b.table, from.name, at)
	}
	family := ipFamily(b.family)
	if b.nft {
		family, _, _ = strings.Cut(b.label, " ")
	}
	if r == nil {
		return fmt.Sprintf("%s %s %s %s policy %s", place, family, b.table, b.name, strings.ToLower(cmpOwner(b.policy, "accept")))
	}
	handle := r.handle
	if r.nft == "" {
		handle = n.state.Nft.Table(family, b.table).Chain(r.chain.name).Rules[r.number-1].Handle
	}
	return fmt.Sprintf("%s %s %s %s %d %s", place, family, b.table, r.chain.name, handle, codeWords[v])
}

var codeWords = map[code]string{accept: "accept", bound: "accept", stolen: "accept", dropIt: "drop", rejectIt: "drop", jump: "jump", gotoIt: "goto", returnIt: "return"}

// listen makes a walker tell its decisions up to where the packet is lost.
func (w *walker) listen(to *decisions, also func(*netns, *base, *rule, code, *skb)) {
	w.decided = func(n *netns, b *base, r *rule, v code, p *skb) {
		// What has no neighbour waits for it, and meets neither links nor bridges.
		waits := (b.hook == hookEgress || b.bridge()) && p.gateway.IsValid() && !n.hasNeighbour(p.gateway)
		if text := decisionText(n, b, r, v); text != "" && !w.lostIt() && !waits {
			*to = append(*to, text)
			if also != nil {
				also(n, b, r, v, p)
			}
		}
	}
}

// lostIt says whether the packet is lost already: the walk goes on beyond.
func (w *walker) lostIt() bool {
	return slices.ContainsFunc(w.trace.Stops, func(s Stop) bool { return s.Kind != NoListener && s.Verdict.Stops() })
}

func (b *base) bridge() bool { return strings.HasPrefix(b.label, "bridge ") }

func (n *netns) hasNeighbour(addr netip.Addr) bool {
	return slices.ContainsFunc(n.state.Neighs, func(e netstate.Neigh) bool { return e.Addr == addr && e.State == "permanent" })
}
