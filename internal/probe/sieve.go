//go:build linux

package probe

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A sieve lets one container's traffic through, in eBPF, and nothing else of the host's.
//
// On the container's side of address translation that is what has one of its addresses. On the other
// side it is what has one of its published ports; and what it has itself sent out is known by the far
// end's address and port and its own port, which masquerading keeps: the filters on the inner side, which
// such packets meet first, write these down.
type sieve struct {
	selection
	snap int32     // bytes of a packet that are kept
	sent *ebpf.Map // sieveKey → a byte: connections that the container has
}

// sieveKeySize is that of struct { far [16]byte; farPort, ownPort uint16; proto uint32 }.
const sieveKeySize = 24

// newSieve makes the map that the filters share.
func newSieve(what selection, snaplen int) (*sieve, error) {
	sent, err := ebpf.NewMap(&ebpf.MapSpec{Name: "netcheck_sent", Type: ebpf.LRUHash, KeySize: sieveKeySize, ValueSize: 1, MaxEntries: 4096})
	if err != nil {
		return nil, fmt.Errorf("bpf map: %w", err)
	}
	return &sieve{what, int32(snaplen), sent}, nil
}

func (s *sieve) Close() error { return s.sent.Close() }

// Places on the stack: the two ends of the packet as 16 bytes each (an IPv4 address in the first four),
// its ports in network order, and the key of the map.
const (
	sieveSrc   = -112
	sieveDst   = -128
	sievePorts = -132 // source, destination
	sieveProto = -136
	sieveKey   = -136 - sieveKeySize
	sieveOne   = -136 - sieveKeySize - 8
)

// innerFilter is the filter on the container's side.
func (s *sieve) innerFilter(base int32) asm.Instructions { return s.filter(base, s.matchInner) }

// outerFilter is the filter on the host's side.
func (s *sieve) outerFilter(base int32) asm.Instructions { return s.filter(base, s.matchOuter) }

// filter looks at a packet, and at what an ICMP error quotes: an error belongs to the connection that it
// is about.
func (s *sieve) filter(base int32, match func(pass string) asm.Instructions) asm.Instructions {
	ins := asm.Instructions{
		asm.Mov.Reg(regPacket, asm.R1),
		asm.LoadMem(asm.R7, regPacket, skbProtocol, asm.Word),
		asm.Mov.Imm(regIP, base),
		asm.JEq.Imm(asm.R7, half(unix.ETH_P_IP), "outer_ip4"),
		asm.JEq.Imm(asm.R7, half(unix.ETH_P_IPV6), "outer_ip6"),
		asm.Ja.Label(noMatch),
	}
	ins = append(ins, s.parse("outer")...)
	ins = append(ins, match("outer")...)

	// Not the packet itself: perhaps what it quotes.
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, sieveProto, asm.Byte).WithSymbol("outer_miss"),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_ICMP, "quotes4"),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_ICMPV6, "quotes6"),
		asm.Ja.Label(noMatch))
	kind := loadSkb(regL4, 0, stackL4, 8)
	kind[0] = kind[0].WithSymbol("quotes4")
	ins = append(ins, kind...)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, stackL4, asm.Byte),
		asm.Mov.Reg(regIP, regL4),
		asm.Add.Imm(regIP, 8),
		asm.JEq.Imm(asm.R1, 3, "quoted_ip4"),
		asm.JEq.Imm(asm.R1, 11, "quoted_ip4"),
		asm.JEq.Imm(asm.R1, 12, "quoted_ip4"),
		asm.Ja.Label(noMatch))
	kind = loadSkb(regL4, 0, stackL4, 8)
	kind[0] = kind[0].WithSymbol("quotes6")
	ins = append(ins, kind...)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, stackL4, asm.Byte),
		asm.Mov.Reg(regIP, regL4),
		asm.Add.Imm(regIP, 8),
		asm.JLT.Imm(asm.R1, 128, "quoted_ip6"),
		asm.Ja.Label(noMatch))
	ins = append(ins, s.parse("quoted")...)
	ins = append(ins, match("quoted")...)
	ins = append(ins, asm.Ja.Label(noMatch).WithSymbol("quoted_miss"))
	return append(ins, keep(s.snap, "match")...)
}

// parse brings the packet at regIP into its places on the stack. It starts at pass_ip4 or pass_ip6.
func (s *sieve) parse(pass string) asm.Instructions {
	ports, start := pass+"_ports", pass+"_match"
	var ins asm.Instructions
	zero := func(symbol string) {
		ins = append(ins, asm.Mov.Imm(asm.R1, 0).WithSymbol(symbol))
		for _, at := range []int16{sieveSrc, sieveSrc + 8, sieveDst, sieveDst + 8} {
			ins = append(ins, asm.StoreMem(asm.RFP, at, asm.R1, asm.DWord))
		}
		ins = append(ins,
			asm.StoreMem(asm.RFP, sievePorts, asm.R1, asm.Word),
			asm.StoreMem(asm.RFP, sieveProto, asm.R1, asm.Word))
	}
	move := func(from, to int16, size asm.Size) {
		ins = append(ins, asm.LoadMem(asm.R1, asm.RFP, from, size), asm.StoreMem(asm.RFP, to, asm.R1, size))
	}

	zero(pass + "_ip4")
	ins = append(ins, loadSkb(regIP, 0, stackIP, 20)...)
	move(stackIP+12, sieveSrc, asm.Word)
	move(stackIP+16, sieveDst, asm.Word)
	move(stackIP+9, sieveProto, asm.Byte)
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, stackIP, asm.Byte),
		asm.And.Imm(asm.R1, 0x0f),
		asm.LSh.Imm(asm.R1, 2),
		asm.Mov.Reg(regL4, regIP),
		asm.Add.Reg(regL4, asm.R1),
		asm.LoadMem(asm.R1, asm.RFP, stackIP+6, asm.Half),
		asm.And.Imm(asm.R1, half(0x1fff)),
		asm.JNE.Imm(asm.R1, 0, start), // a fragment behind the first: it has no ports
		asm.Ja.Label(ports))

	zero(pass + "_ip6")
	ins = append(ins, loadSkb(regIP, 0, stackIP, 40)...)
	move(stackIP+8, sieveSrc, asm.DWord)
	move(stackIP+16, sieveSrc+8, asm.DWord)
	move(stackIP+24, sieveDst, asm.DWord)
	move(stackIP+32, sieveDst+8, asm.DWord)
	move(stackIP+6, sieveProto, asm.Byte)
	ins = append(ins,
		asm.Mov.Reg(regL4, regIP),
		asm.Add.Imm(regL4, 40))

	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, sieveProto, asm.Byte).WithSymbol(ports),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_TCP, pass+"_load"),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_UDP, pass+"_load"),
		asm.Ja.Label(start))
	load := loadSkb(regL4, 0, sievePorts, 4)
	load[0] = load[0].WithSymbol(pass + "_load")
	ins = append(ins, load...)
	return append(ins, asm.Mov.Imm(asm.R0, 0).WithSymbol(start))
}

// equal jumps to miss unless the address at a place on the stack is addr.
func equal(at int16, addr netip.Addr, miss string) asm.Instructions {
	var raw [16]byte
	copy(raw[:], addr.AsSlice())
	var ins asm.Instructions
	for i := 0; i < 16; i += 4 {
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.RFP, at+int16(i), asm.Word),
			asm.JNE.Imm32(asm.R1, word(raw[i:]), miss))
	}
	return ins
}

// A direction names the places of one end and of the other.
type direction struct {
	name                       string
	own, far, ownPort, farPort int16
}

var directions = []direction{
	{"to", sieveDst, sieveSrc, sievePorts + 2, sievePorts},
	{"from", sieveSrc, sieveDst, sievePorts, sievePorts + 2},
}

// farEnd adds the condition that the far end is the one asked for.
func (s *sieve) farEnd(d direction, miss string) asm.Instructions {
	if !s.client.IsValid() {
		return nil
	}
	return equal(d.far, s.client, miss)
}

// labelled gives the first of some instructions a name; if there are none, an instruction that does
// nothing has it.
func labelled(name string, ins asm.Instructions) asm.Instructions {
	return append(asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol(name)}, ins...)
}

func (s *sieve) matchInner(pass string) asm.Instructions {
	var ins asm.Instructions
	for i, addr := range s.addrs {
		for _, d := range directions {
			next := fmt.Sprintf("%s_%s_after_%d", pass, d.name, i)
			ins = append(ins, equal(d.own, addr, next)...)
			ins = append(ins, s.farEnd(d, next)...)
			if s.port != 0 {
				ins = append(ins,
					asm.LoadMem(asm.R1, asm.RFP, sievePorts, asm.Word),
					asm.JEq.Imm(asm.R1, 0, pass+"_"+d.name+"_any_"+fmt.Sprint(i)), // it has no ports
					asm.LoadMem(asm.R1, asm.RFP, d.ownPort, asm.Half),
					asm.JNE.Imm(asm.R1, half(s.port), next))
				ins = append(ins, labelled(pass+"_"+d.name+"_any_"+fmt.Sprint(i), nil)...)
			}
			ins = append(ins, s.remember(d)...)
			ins = append(ins, asm.Ja.Label("match"))
			ins = append(ins, labelled(next, nil)...)
		}
	}
	return append(ins, asm.Ja.Label(pass+"_miss"))
}

// key writes the key of a connection to the stack.
func key(d direction) asm.Instructions {
	var ins asm.Instructions
	move := func(from, to int16, size asm.Size) {
		ins = append(ins, asm.LoadMem(asm.R1, asm.RFP, from, size), asm.StoreMem(asm.RFP, to, asm.R1, size))
	}
	move(d.far, sieveKey, asm.DWord)
	move(d.far+8, sieveKey+8, asm.DWord)
	move(d.farPort, sieveKey+16, asm.Half)
	move(d.ownPort, sieveKey+18, asm.Half)
	move(sieveProto, sieveKey+20, asm.Word)
	return ins
}

// remember writes the connection down for the filters on the other side.
func (s *sieve) remember(d direction) asm.Instructions {
	return append(key(d),
		asm.StoreImm(asm.RFP, sieveOne, 1, asm.Byte),
		asm.LoadMapPtr(asm.R1, s.sent.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, sieveKey),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, sieveOne),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call())
}

func (s *sieve) matchOuter(pass string) asm.Instructions {
	ins := s.matchInnerAddrs(pass)
	for i, p := range s.outer {
		for j, addr := range p.addrs {
			for _, d := range directions {
				next := fmt.Sprintf("%s_%s_published_%d_%d", pass, d.name, i, j)
				ins = append(ins,
					asm.LoadMem(asm.R1, asm.RFP, sieveProto, asm.Byte),
					asm.JNE.Imm(asm.R1, int32(p.proto), next),
					asm.LoadMem(asm.R1, asm.RFP, d.ownPort, asm.Half),
					asm.JNE.Imm(asm.R1, half(p.port), next))
				ins = append(ins, equal(d.own, addr, next)...)
				ins = append(ins, s.farEnd(d, next)...)
				ins = append(ins, asm.Ja.Label("match"))
				ins = append(ins, labelled(next, nil)...)
			}
		}
	}
	for _, d := range directions {
		ins = append(ins, key(d)...)
		ins = append(ins,
			asm.LoadMapPtr(asm.R1, s.sent.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, sieveKey),
			asm.FnMapLookupElem.Call(),
			asm.JNE.Imm(asm.R0, 0, "match"))
	}
	return append(ins, asm.Ja.Label(pass+"_miss"))
}

// matchInnerAddrs lets through what has the container's own address outside too: routed mode, and what
// should have been translated and was not.
func (s *sieve) matchInnerAddrs(pass string) asm.Instructions {
	var ins asm.Instructions
	for i, addr := range s.addrs {
		for _, d := range directions {
			next := fmt.Sprintf("%s_%s_untranslated_%d", pass, d.name, i)
			ins = append(ins, equal(d.own, addr, next)...)
			ins = append(ins, s.farEnd(d, next)...)
			ins = append(ins, asm.Ja.Label("match"))
			ins = append(ins, labelled(next, nil)...)
		}
	}
	return ins
}
