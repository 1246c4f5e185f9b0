//go:build linux

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A tracer has the kernel tell every rule that the flow meets: by a table of its own, whose only rules
// set the trace mark on the flow's packets before any other rule sees them.
type tracer struct {
	table  string
	rules  *netlink.Conn // owns the table: the kernel removes it when this is closed
	events *netlink.Conn
	owned  bool
}

// tracePriority is before all others: raw is -300, what is before defragmentation -450.
const tracePriority = -500

// nftables' numbers that x/sys does not have, from linux/netfilter/nf_tables.h and nfnetlink.h.
const (
	nftTableFlagOwner = 2
	nfnlgrpNftrace    = 9
	nftMsgTrace       = 17

	nftaTraceTable, nftaTraceChain, nftaTraceHandle, nftaTraceType, nftaTraceVerdict = 1, 2, 3, 4, 5
	nftaTraceID, nftaTraceNetwork, nftaTraceTransport, nftaTracePolicy               = 6, 8, 9, 16
)

func newTracer(table string, m matcher) (_ *tracer, err error) {
	t := &tracer{table: table}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if t.events, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		return nil, err
	}
	if err := t.events.JoinGroup(nfnlgrpNftrace); err != nil {
		return nil, fmt.Errorf("nftrace: %w", err)
	}
	t.events.SetReadBuffer(4 << 20) // others may trace as well
	if t.rules, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		return nil, err
	}
	t.owned = true
	err = t.install(m, nftTableFlagOwner)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // before Linux 5.12
		t.owned = false
		err = t.install(m, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("nft table inet %s: %w", table, err)
	}
	return t, nil
}

// install makes the table in one transaction.
func (t *tracer) install(m matcher, flags uint32) error {
	b := &nftBatch{}
	b.add(unix.NFT_MSG_NEWTABLE, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_TABLE_NAME, t.table)
		e.Uint32(unix.NFTA_TABLE_FLAGS, flags)
	})
	for _, hook := range []struct {
		name   string
		number uint32
	}{{"prerouting", unix.NF_INET_PRE_ROUTING}, {"output", unix.NF_INET_LOCAL_OUT}} {
		b.add(unix.NFT_MSG_NEWCHAIN, func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_CHAIN_TABLE, t.table)
			e.String(unix.NFTA_CHAIN_NAME, hook.name)
			e.String(unix.NFTA_CHAIN_TYPE, "filter")
			e.Nested(unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) error {
				e.ByteOrder = binary.BigEndian
				priority := int32(tracePriority)
				e.Uint32(unix.NFTA_HOOK_HOOKNUM, hook.number)
				e.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
				return nil
			})
		})
		for _, rule := range m.nftRules() {
			b.add(unix.NFT_MSG_NEWRULE, func(e *netlink.AttributeEncoder) {
				e.String(unix.NFTA_RULE_TABLE, t.table)
				e.String(unix.NFTA_RULE_CHAIN, hook.name)
				e.Nested(unix.NFTA_RULE_EXPRESSIONS, rule.encode)
			})
		}
	}
	return b.send(t.rules)
}

func (t *tracer) Close() error {
	var errs []error
	if t.rules != nil {
		if !t.owned {
			errs = append(errs, removeTable(t.table))
		}
		errs = append(errs, t.rules.Close())
	}
	if t.events != nil {
		errs = append(errs, t.events.Close())
	}
	return errors.Join(errs...)
}

// An nftBatch is one transaction of nf_tables on family inet.
type nftBatch struct {
	messages []netlink.Message
	err      error
}

func (b *nftBatch) add(kind uint16, body func(*netlink.AttributeEncoder)) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	body(e)
	data, err := e.Encode()
	b.err = errors.Join(b.err, err)
	flags := netlink.Request | netlink.Acknowledge
	if kind != unix.NFT_MSG_DELTABLE {
		flags |= netlink.Create
	}
	if kind == unix.NFT_MSG_NEWRULE {
		flags |= netlink.Append
	}
	b.messages = append(b.messages, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: flags},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	})
}

// send makes the transaction. The kernel answers each of its messages, with the first error alone that
// of the cause.
func (b *nftBatch) send(conn *netlink.Conn) error {
	if b.err != nil {
		return b.err
	}
	edge := func(kind uint16) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
			Data:   []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	all := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, b.messages...)
	if _, err := conn.SendMessages(append(all, edge(unix.NFNL_MSG_BATCH_END))); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	for got := 0; got < len(b.messages); {
		answers, err := conn.Receive()
		if err != nil {
			return err
		}
		got += max(1, len(answers))
	}
	return nil
}

// nftCompares are the loads and comparisons of one rule of ours.
type nftCompares []nftCompare

type nftCompare struct {
	key    uint32 // of meta; 0: it is of the payload
	base   uint32
	offset uint32
	data   []byte
}

// nftRules are the rules that match the flow: one a direction, and one a port of the server where the
// client's address is not known.
func (m matcher) nftRules() []nftCompares {
	nfproto, network := byte(unix.NFPROTO_IPV4), []uint32{12, 16}
	if m.v6 {
		nfproto, network = unix.NFPROTO_IPV6, []uint32{8, 24}
	}
	start := nftCompares{{key: unix.NFT_META_NFPROTO, data: []byte{nfproto}}, {key: unix.NFT_META_L4PROTO, data: []byte{m.proto}}}
	port := func(offset uint32, n uint16) nftCompare {
		return nftCompare{base: unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset: offset, data: binary.BigEndian.AppendUint16(nil, n)}
	}
	var rules []nftCompares
	add := func(more ...nftCompare) { rules = append(rules, append(start[:2:2], more...)) }
	for direction := range uint32(2) { // 0: from the client; its port is the source's
		var addr []nftCompare
		if m.client.IsValid() {
			addr = []nftCompare{{base: unix.NFT_PAYLOAD_NETWORK_HEADER, offset: network[direction], data: m.client.AsSlice()}}
		}
		switch {
		case m.echo():
			add(append(addr, port(4, m.port))...)
		case m.client.IsValid():
			add(append(addr, port(2*direction, m.port))...)
		default:
			for _, server := range m.server {
				add(port(2*direction, m.port), port(2-2*direction, server))
			}
		}
	}
	return rules
}

func (r nftCompares) encode(list *netlink.AttributeEncoder) error {
	expr := func(name string, body func(*netlink.AttributeEncoder)) {
		list.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
			e.String(unix.NFTA_EXPR_NAME, name)
			e.Nested(unix.NFTA_EXPR_DATA, func(e *netlink.AttributeEncoder) error {
				e.ByteOrder = binary.BigEndian
				body(e)
				return nil
			})
			return nil
		})
	}
	data := func(e *netlink.AttributeEncoder, kind uint16, value []byte) {
		e.Nested(kind, func(e *netlink.AttributeEncoder) error {
			e.Bytes(unix.NFTA_DATA_VALUE, value)
			return nil
		})
	}
	for _, c := range r {
		if c.key != 0 {
			expr("meta", func(e *netlink.AttributeEncoder) {
				e.Uint32(unix.NFTA_META_KEY, c.key)
				e.Uint32(unix.NFTA_META_DREG, unix.NFT_REG_1)
			})
		} else {
			expr("payload", func(e *netlink.AttributeEncoder) {
				e.Uint32(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
				e.Uint32(unix.NFTA_PAYLOAD_BASE, c.base)
				e.Uint32(unix.NFTA_PAYLOAD_OFFSET, c.offset)
				e.Uint32(unix.NFTA_PAYLOAD_LEN, uint32(len(c.data)))
			})
		}
		expr("cmp", func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
			e.Uint32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
			data(e, unix.NFTA_CMP_DATA, c.data)
		})
	}
	expr("immediate", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1)
		data(e, unix.NFTA_IMMEDIATE_DATA, []byte{1, 0, 0, 0})
	})
	expr("meta", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_META_KEY, unix.NFT_META_NFTRACE)
		e.Uint32(unix.NFTA_META_SREG, unix.NFT_REG_1)
	})
	return nil
}

// A traceEvent is one message of the kernel: one rule or policy that one packet met.
type traceEvent struct {
	family  uint8 // NFPROTO_*, of the table
	table   string
	chain   string
	handle  uint64 // 0: the policy
	kind    uint32 // tracePolicy, or another
	verdict int32
	jump    string // chain of a jump or goto
	id      uint32 // of the packet
	header  []byte // the packet from the network layer on, in its first message of a hook
}

// tracePolicy is the kind of a message about a chain's policy (NFT_TRACETYPE_POLICY).
const tracePolicy = 1

// parseTrace reads one message. ok is false if it is none.
func parseTrace(kind uint16, body []byte) (ev traceEvent, ok bool) {
	if kind != unix.NFNL_SUBSYS_NFTABLES<<8|nftMsgTrace || len(body) < 4 {
		return ev, false
	}
	ev.family = body[0]
	d, err := netlink.NewAttributeDecoder(body[4:])
	if err != nil {
		return ev, false
	}
	d.ByteOrder = binary.BigEndian
	var transport []byte
	for d.Next() {
		switch d.Type() {
		case nftaTraceTable:
			ev.table = d.String()
		case nftaTraceChain:
			ev.chain = d.String()
		case nftaTraceHandle:
			ev.handle = d.Uint64()
		case nftaTraceType:
			ev.kind = d.Uint32()
		case nftaTraceVerdict:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				d.ByteOrder = binary.BigEndian
				for d.Next() {
					switch d.Type() {
					case unix.NFTA_VERDICT_CODE:
						ev.verdict = int32(d.Uint32())
					case unix.NFTA_VERDICT_CHAIN:
						ev.jump = d.String()
					}
				}
				return nil
			})
		case nftaTraceID:
			ev.id = d.Uint32()
		case nftaTraceNetwork:
			ev.header = d.Bytes()
		case nftaTraceTransport:
			transport = d.Bytes()
		case nftaTracePolicy:
			ev.verdict = int32(d.Uint32())
		}
	}
	if len(ev.header) > 0 {
		ev.header = append(ev.header[:len(ev.header):len(ev.header)], transport...)
	}
	return ev, d.Err() == nil && ev.table != "" && ev.chain != ""
}

// drain returns what the packets that the tracer marked have met, in order. lost says that the kernel had
// to throw messages away.
func (t *tracer) drain(m matcher) (events []traceEvent, lost bool) {
	raw, err := t.events.SyscallConn()
	if err != nil {
		return nil, true
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := 0, error(nil)
		control := raw.Control(func(fd uintptr) {
			n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		})
		switch {
		case control != nil:
			return t.ours(events, m), true
		case errors.Is(err, unix.ENOBUFS):
			lost = true
		case err != nil && !errors.Is(err, unix.EINTR), err == nil && n == 0:
			return t.ours(events, m), lost
		case err == nil:
			events = append(events, splitTraces(buf[:n])...)
		}
	}
}

// splitTraces reads one datagram of netlink messages.
func splitTraces(b []byte) []traceEvent {
	var events []traceEvent
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			break
		}
		body := append([]byte(nil), b[unix.NLMSG_HDRLEN:size]...)
		if ev, ok := parseTrace(binary.NativeEndian.Uint16(b[4:]), body); ok {
			events = append(events, ev)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return events
}

// ours returns the events of the flow's packets, those of the tracer's own table included: they hold the
// packet as it came. A packet is known by the table that marked it; since the kernel may number it anew
// on its way, also by its addresses.
func (t *tracer) ours(all []traceEvent, m matcher) []traceEvent {
	marked := map[uint32]bool{}
	var events []traceEvent
	for _, ev := range all {
		if ev.table == t.table && ev.family == unix.NFPROTO_INET || m.owns(decode(ev.header, false)) {
			marked[ev.id] = true
		}
		if marked[ev.id] {
			events = append(events, ev)
		}
	}
	return events
}
