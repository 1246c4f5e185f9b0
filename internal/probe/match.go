//go:build linux

package probe

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A matcher tells one flow's packets from all others, in eBPF. It is part of every program of this
// package: of those that take replies off, of the filters of the copies, of the drop reasons.
//
// A packet is the flow's if one end is the client and the other one the server, or if it is an ICMP error
// to the client that quotes such a packet. After translation the server's end is the container's; so the
// client's end, whose address nobody else has or whose port is this socket's own, is what counts.
type matcher struct {
	v6     bool
	proto  uint8      // IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6
	client netip.Addr // zero: any, and then servers is compared as well
	port   uint16     // of the client, or the identifier of an echo
	server []uint16   // ports of the other end
}

// newMatcher returns the matcher of a flow. Its client's address is the zero one where the kernel chooses
// it.
func newMatcher(f Flow, servers []uint16) matcher {
	m := matcher{v6: f.Server.Addr().Is6(), port: f.Client.Port(), server: servers}
	if addr := f.Client.Addr(); addr.IsValid() && !addr.IsUnspecified() {
		m.client = addr
	}
	switch f.Proto {
	case "tcp":
		m.proto = unix.IPPROTO_TCP
	case "udp":
		m.proto = unix.IPPROTO_UDP
	default:
		m.proto = unix.IPPROTO_ICMP
		if m.v6 {
			m.proto = unix.IPPROTO_ICMPV6
		}
	}
	return m
}

// anyClient is the matcher of the same flow whatever the client's address has become: by the ports of both
// ends. Other flows may have the same, and are sorted out afterwards.
func (m matcher) anyClient() matcher {
	m.client = netip.Addr{}
	return m
}

// echo says whether the flow is one of ICMP echo messages.
func (m matcher) echo() bool { return m.proto == unix.IPPROTO_ICMP || m.proto == unix.IPPROTO_ICMPV6 }

// owns says whether a decoded packet is the flow's: what the programs say, outside of the kernel.
func (m matcher) owns(f *frame) bool {
	if f == nil {
		return false
	}
	at := func(own, other netip.AddrPort) bool {
		if m.client.IsValid() {
			return own.Addr() == m.client && own.Port() == m.port
		}
		return own.Port() == m.port && slices.Contains(m.server, other.Port())
	}
	switch {
	case f.quoted != nil:
		return m.owns(f.quoted)
	case m.echo():
		return f.proto == "icmp" && f.id == m.port
	}
	return f.proto == map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[m.proto] && (at(f.src, f.dst) || at(f.dst, f.src))
}

// Labels that the matcher jumps to. The program around it defines them.
const (
	toClient   = "to_client"
	fromClient = "from_client"
	noMatch    = "no_match"
)

// Registers of every program: the packet's context or pointer, its IP header, and what is behind that.
const (
	regPacket = asm.R6
	regIP     = asm.R8
	regL4     = asm.R9
)

// Places on the stack that the matcher uses; programs around it stay below.
const (
	stackIP    = -40 // 40 bytes
	stackL4    = -48 // 8 bytes
	stackInner = -88 // 40 bytes
	stackFree  = -96
)

// A loader copies bytes of the packet to the stack: size bytes from reg+at.
type loader func(reg asm.Register, at int32, stack int16, size int32) asm.Instructions

// loadSkb reads by the helper of traffic control and socket filters; regIP is an offset.
func loadSkb(reg asm.Register, at int32, stack int16, size int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Reg(asm.R2, reg),
		asm.Add.Imm(asm.R2, at),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, int32(stack)),
		asm.Mov.Imm(asm.R4, size),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, noMatch),
	}
}

// loadKernel reads the kernel's memory; regIP is an address.
func loadKernel(reg asm.Register, at int32, stack int16, size int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, int32(stack)),
		asm.Mov.Imm(asm.R2, size),
		asm.Mov.Reg(asm.R3, reg),
		asm.Add.Imm(asm.R3, at),
		asm.FnProbeReadKernel.Call(),
		asm.JNE.Imm(asm.R0, 0, noMatch),
	}
}

// word is an immediate that equals, in a register, the bytes loaded as one word of memory.
func word(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }

// half is the same of two bytes.
func half(n uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}

// compareAddr jumps to differ unless the address on the stack is the client's.
func (m matcher) compareAddr(stack int16, differ string) asm.Instructions {
	var ins asm.Instructions
	raw := m.client.AsSlice()
	for i := 0; i < len(raw); i += 4 {
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.RFP, stack+int16(i), asm.Word),
			asm.JNE.Imm32(asm.R1, word(raw[i:]), differ))
	}
	return ins
}

// code returns the instructions. regIP holds the IP header's place before it.
func (m matcher) code(load loader) asm.Instructions {
	src, dst, icmp := int16(stackIP+12), int16(stackIP+16), int32(unix.IPPROTO_ICMP)
	size, version := int32(20), int32(0x40)
	if m.v6 {
		src, dst, icmp = stackIP+8, stackIP+24, unix.IPPROTO_ICMPV6
		size, version = 40, 0x60
	}
	ins := load(regIP, 0, stackIP, size)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, stackIP, asm.Byte),
		asm.And.Imm(asm.R1, 0xf0),
		asm.JNE.Imm(asm.R1, version, noMatch))

	// R7 is the direction: 1 to the client, 0 from it.
	if m.client.IsValid() {
		ins = append(ins, asm.Mov.Imm(asm.R7, 1))
		ins = append(ins, m.compareAddr(dst, "not_to")...)
		ins = append(ins, asm.Ja.Label("addressed"))
		from := m.compareAddr(src, noMatch)
		from[0] = from[0].WithSymbol("not_to")
		ins = append(ins, from...)
		ins = append(ins, asm.Mov.Imm(asm.R7, 0))
	} else {
		ins = append(ins, asm.Mov.Imm(asm.R7, 2)) // the ports will tell
	}

	// A fragment behind the first has no ports: of a client's own address it is taken for the flow's.
	if m.v6 {
		ins = append(ins,
			asm.LoadMem(asm.R2, asm.RFP, stackIP+6, asm.Byte).WithSymbol("addressed"),
			asm.JEq.Imm(asm.R2, unix.IPPROTO_FRAGMENT, m.fragment()),
			asm.Mov.Reg(regL4, regIP),
			asm.Add.Imm(regL4, 40))
	} else {
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.RFP, stackIP+6, asm.Half).WithSymbol("addressed"),
			asm.And.Imm(asm.R1, half(0x1fff)),
			asm.JNE.Imm(asm.R1, 0, m.fragment()),
			asm.LoadMem(asm.R1, asm.RFP, stackIP, asm.Byte),
			asm.And.Imm(asm.R1, 0x0f),
			asm.LSh.Imm(asm.R1, 2),
			asm.Mov.Reg(regL4, regIP),
			asm.Add.Reg(regL4, asm.R1),
			asm.LoadMem(asm.R2, asm.RFP, stackIP+9, asm.Byte))
	}
	ins = append(ins, asm.JEq.Imm(asm.R2, icmp, "icmp"))
	if m.proto != uint8(icmp) {
		ins = append(ins, asm.JNE.Imm(asm.R2, int32(m.proto), noMatch))
		ins = append(ins, load(regL4, 0, stackL4, 4)...)
		ins = append(ins, m.ports(stackL4, "ports")...)
	} else {
		ins = append(ins, asm.Ja.Label(noMatch))
	}
	ins = append(ins, m.icmp(load)...)
	if m.client.IsValid() {
		ins = append(ins,
			asm.JEq.Imm(asm.R7, 1, toClient).WithSymbol("fragment"),
			asm.Ja.Label(fromClient))
	}
	return ins
}

// fragment is where a packet without ports goes.
func (m matcher) fragment() string {
	if m.client.IsValid() {
		return "fragment"
	}
	return noMatch
}

// ports compares the ports at a place on the stack, by the direction in R7, and leaves.
func (m matcher) ports(stack int16, label string) asm.Instructions {
	own := half(m.port)
	from, to := label+"_from", label+"_to"
	var ins asm.Instructions
	one := func(symbol string, mine, other int16, hit, miss string) {
		if m.client.IsValid() {
			ins = append(ins,
				asm.LoadMem(asm.R1, asm.RFP, stack+mine, asm.Half).WithSymbol(symbol),
				asm.JEq.Imm(asm.R1, own, hit),
				asm.Ja.Label(noMatch))
			return
		}
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.RFP, stack+mine, asm.Half).WithSymbol(symbol),
			asm.JNE.Imm(asm.R1, own, miss),
			asm.LoadMem(asm.R1, asm.RFP, stack+other, asm.Half))
		for _, port := range m.server {
			ins = append(ins, asm.JEq.Imm(asm.R1, half(port), hit))
		}
		ins = append(ins, asm.Ja.Label(miss))
	}
	ins = append(ins, asm.JEq.Imm(asm.R7, 1, to))
	one(from, 0, 2, fromClient, to)
	one(to, 2, 0, toClient, noMatch)
	return ins
}

// icmp matches an echo of the flow, and errors that quote it.
func (m matcher) icmp(load loader) asm.Instructions {
	ins := load(regL4, 0, stackL4, 8)
	ins[0] = ins[0].WithSymbol("icmp")
	ins = append(ins, asm.LoadMem(asm.R1, asm.RFP, stackL4, asm.Byte))

	request, reply := int32(8), int32(0)
	errorTypes := []int32{3, 11, 12, 5}
	src, size, version := int16(stackInner+12), int32(20), int32(0x40)
	if m.v6 {
		request, reply = 128, 129
		errorTypes = []int32{1, 2, 3, 4}
		src, size, version = stackInner+8, 40, 0x60
	}
	if m.echo() {
		ins = append(ins,
			asm.JEq.Imm(asm.R1, request, "echo_request"),
			asm.JEq.Imm(asm.R1, reply, "echo_reply"))
	}
	for _, t := range errorTypes {
		ins = append(ins, asm.JEq.Imm(asm.R1, t, "icmp_error"))
	}
	ins = append(ins, asm.Ja.Label(noMatch))
	if m.echo() {
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.RFP, stackL4+4, asm.Half).WithSymbol("echo_request"),
			asm.JEq.Imm(asm.R1, half(m.port), fromClient),
			asm.Ja.Label(noMatch),
			asm.LoadMem(asm.R1, asm.RFP, stackL4+4, asm.Half).WithSymbol("echo_reply"),
			asm.JEq.Imm(asm.R1, half(m.port), toClient),
			asm.Ja.Label(noMatch))
	}
	// What is quoted went from the client; the error goes back.
	ins = append(ins, asm.JEq.Imm(asm.R7, 0, noMatch).WithSymbol("icmp_error"))
	ins = append(ins, load(regL4, 8, stackInner, size)...)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, stackInner, asm.Byte),
		asm.And.Imm(asm.R1, 0xf0),
		asm.JNE.Imm(asm.R1, version, noMatch))
	if m.client.IsValid() {
		ins = append(ins, m.compareAddr(src, noMatch)...)
	}
	if m.v6 {
		ins = append(ins,
			asm.LoadMem(asm.R2, asm.RFP, stackInner+6, asm.Byte),
			asm.Add.Imm(regL4, 48))
	} else {
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.RFP, stackInner, asm.Byte),
			asm.And.Imm(asm.R1, 0x0f),
			asm.LSh.Imm(asm.R1, 2),
			asm.LoadMem(asm.R2, asm.RFP, stackInner+9, asm.Byte),
			asm.Add.Reg(regL4, asm.R1),
			asm.Add.Imm(regL4, 8))
	}
	ins = append(ins, asm.JNE.Imm(asm.R2, int32(m.proto), noMatch))
	ins = append(ins, load(regL4, 0, stackL4, 8)...)
	port, other := int16(stackL4), int16(stackL4+2)
	if m.echo() {
		port = stackL4 + 4
	}
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, port, asm.Half),
		asm.JNE.Imm(asm.R1, half(m.port), noMatch))
	if !m.client.IsValid() && port == stackL4 {
		ins = append(ins, asm.LoadMem(asm.R1, asm.RFP, other, asm.Half))
		for _, server := range m.server {
			ins = append(ins, asm.JEq.Imm(asm.R1, half(server), toClient))
		}
		return append(ins, asm.Ja.Label(noMatch))
	}
	return append(ins, asm.Ja.Label(toClient))
}
