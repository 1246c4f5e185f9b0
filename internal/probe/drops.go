//go:build linux

package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// A dropWatch has the kernel tell which packets of the flow it throws away, where and why: tracepoint
// skb:kfree_skb, which has a reason since Linux 5.17.
type dropWatch struct {
	kernel *kernelTypes
	ring   *ebpf.Map
	reader *ringbuf.Reader
	link   link.Link
}

// A dropRecord is what the program writes.
type dropRecord struct {
	Location uint64
	Reason   uint32
	Netns    uint32 // inode; 0: not known
	Ifindex  uint64
	Header   [64]byte // from the IP header on
}

const dropRecordSize = 88

// newDropWatch starts watching. An error means that this kernel cannot tell.
func newDropWatch(m matcher) (_ *dropWatch, err error) {
	w := &dropWatch{}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.kernel, err = readKernelTypes(); err != nil {
		return nil, err
	}
	if w.ring, err = ebpf.NewMap(&ebpf.MapSpec{Name: "netcheck_drops", Type: ebpf.RingBuf, MaxEntries: 1 << 16}); err != nil {
		return nil, fmt.Errorf("bpf ring buffer: %w", err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "netcheck", Type: ebpf.RawTracepoint, License: bpfLicense, Instructions: w.code(m),
	})
	if err != nil {
		return nil, fmt.Errorf("bpf program: %w", err)
	}
	defer program.Close() // the link holds it
	if w.reader, err = ringbuf.NewReader(w.ring); err != nil {
		return nil, err
	}
	if w.link, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "kfree_skb", Program: program}); err != nil {
		return nil, fmt.Errorf("tracepoint kfree_skb: %w", err)
	}
	return w, nil
}

func (w *dropWatch) Close() error {
	var errs []error
	if w.link != nil {
		errs = append(errs, w.link.Close())
	}
	if w.reader != nil {
		errs = append(errs, w.reader.Close())
	}
	if w.ring != nil {
		errs = append(errs, w.ring.Close())
	}
	return errors.Join(errs...)
}

// code is the program. Its context is the tracepoint's arguments: skb, location, reason.
func (w *dropWatch) code(m matcher) asm.Instructions {
	const (
		scratch = stackFree - 8 // 8 bytes
		record  = scratch - dropRecordSize
	)
	k := w.kernel
	var ins asm.Instructions
	// read copies size bytes from reg+at to scratch, or goes to fail.
	read := func(symbol string, reg asm.Register, at uint32, size int32, fail string) {
		start := asm.Mov.Reg(asm.R1, asm.RFP)
		if symbol != "" {
			start = start.WithSymbol(symbol)
		}
		ins = append(ins,
			start,
			asm.Add.Imm(asm.R1, scratch),
			asm.Mov.Imm(asm.R2, size),
			asm.Mov.Reg(asm.R3, reg),
			asm.Add.Imm(asm.R3, int32(at)),
			asm.FnProbeReadKernel.Call(),
			asm.JNE.Imm(asm.R0, 0, fail))
	}
	ins = append(ins,
		asm.Mov.Reg(regPacket, asm.R1),
		asm.LoadMem(asm.R7, regPacket, 0, asm.DWord))
	read("", asm.R7, k.head, 8, noMatch)
	ins = append(ins, asm.LoadMem(regIP, asm.RFP, scratch, asm.DWord))
	read("", asm.R7, k.networkHeader, 2, noMatch)
	ins = append(ins, asm.LoadMem(asm.R1, asm.RFP, scratch, asm.Half), asm.Add.Reg(regIP, asm.R1))
	ins = append(ins, m.code(loadKernel)...)

	// The matcher has used R7: the packet is taken from the context again.
	ins = append(ins,
		asm.Mov.Imm(asm.R0, 0).WithSymbol(toClient),
		asm.LoadMem(asm.R7, regPacket, 0, asm.DWord).WithSymbol(fromClient),
		asm.LoadMem(asm.R1, regPacket, 8, asm.DWord),
		asm.StoreMem(asm.RFP, record, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, regPacket, 16, asm.DWord),
		asm.StoreMem(asm.RFP, record+8, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, record+12, 0, asm.Word))
	ins = append(ins, asm.Mov.Imm(asm.R1, 0))
	for i := int16(16); i < dropRecordSize; i += 8 {
		ins = append(ins, asm.StoreMem(asm.RFP, record+i, asm.R1, asm.DWord))
	}
	// Its link, and by that its namespace; else by its socket.
	read("", asm.R7, k.dev, 8, "write")
	ins = append(ins,
		asm.LoadMem(regL4, asm.RFP, scratch, asm.DWord),
		asm.JEq.Imm(regL4, 0, "socket"))
	read("", regL4, k.ifindex, 4, "socket")
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, scratch, asm.Word),
		asm.StoreMem(asm.RFP, record+16, asm.R1, asm.DWord))
	read("", regL4, k.devNet, 8, "write")
	ins = append(ins, asm.Ja.Label("net"))
	read("socket", asm.R7, k.sk, 8, "write")
	ins = append(ins,
		asm.LoadMem(regL4, asm.RFP, scratch, asm.DWord),
		asm.JEq.Imm(regL4, 0, "write"))
	read("", regL4, k.skNet, 8, "write")
	ins = append(ins, asm.LoadMem(regL4, asm.RFP, scratch, asm.DWord).WithSymbol("net"))
	read("", regL4, k.inum, 4, "write")
	ins = append(ins,
		asm.LoadMem(asm.R1, asm.RFP, scratch, asm.Word),
		asm.StoreMem(asm.RFP, record+12, asm.R1, asm.Word))

	ins = append(ins,
		asm.Mov.Reg(asm.R1, asm.RFP).WithSymbol("write"),
		asm.Add.Imm(asm.R1, record+24),
		asm.Mov.Imm(asm.R2, 64),
		asm.Mov.Reg(asm.R3, regIP),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMapPtr(asm.R1, w.ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, record),
		asm.Mov.Imm(asm.R3, dropRecordSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call())
	return append(ins, asm.Mov.Imm(asm.R0, 0).WithSymbol(noMatch), asm.Return())
}

// drain returns the drops in the namespaces of the experiment.
func (w *dropWatch) drain(e *experiment) []Drop {
	var drops []Drop
	w.reader.SetDeadline(time.Unix(1, 0)) // what is there, and no more
	for {
		raw, err := w.reader.Read()
		if err != nil {
			return drops
		}
		var r dropRecord
		if binary.Read(bytes.NewReader(raw.RawSample), binary.NativeEndian, &r) != nil {
			continue
		}
		f := decode(r.Header[:], false)
		client, own := e.clientEnd(f)
		if !own {
			continue
		}
		ns := e.seen[r.Netns]
		if ns == nil && r.Netns != 0 {
			continue // the client's own, or nobody's
		}
		d := Drop{Where: "host", Reason: w.kernel.reason(r.Reason), Function: kernelFunction(r.Location)}
		if ns != nil {
			d.Where, d.Link = ns.name, ns.linkName(int(r.Ifindex))
		}
		d.Hop, d.Text = dropHop(d), f.String()
		if d.Hop != "" && f.toward(client) {
			d.Hop = d.Hop.Reply()
		}
		drops = append(drops, d)
	}
}

// dropHops tell the hop of a drop by the kernel's function and reason; the first word that is found in
// either counts. Source: net/core, net/ipv4, net/ipv6 and net/bridge of Linux 6.x.
var dropHops = []struct {
	word string
	hop  packet.Hop
}{
	{"SOCKET", packet.Socket}, {"tcp_v", packet.Socket}, {"TCP_", packet.Socket}, {"udp", packet.Socket}, {"icmp", packet.Socket},
	{"TC_INGRESS", packet.Uplink}, {"XDP", packet.Uplink}, {"NEIGH", packet.Bridge}, {"neigh", packet.Bridge}, {"arp_", packet.Bridge},
	{"br_", packet.Bridge}, {"BRIDGE", packet.Bridge}, {"veth", packet.Veth},
	{"RPFILTER", packet.Route}, {"IP_INADDRERRORS", packet.Route}, {"NOROUTES", packet.Route}, {"INVALID_SOURCE", packet.Route},
	{"LOCALNET", packet.Route}, {"LOCAL_SOURCE", packet.Route}, {"INVALID_DEST", packet.Route}, {"ip_error", packet.Route},
	{"ip_rcv", packet.Route}, {"forward", packet.Route}, {"pkt_drop", packet.Route}, {"pkt_discard", packet.Route}, {"pkt_prohibit", packet.Route},
}

// dropHop returns "" where a rule dropped: the rules tell.
func dropHop(d Drop) packet.Hop {
	if strings.Contains(d.Reason, "NETFILTER") || strings.HasPrefix(d.Function, "nf_") {
		if d.inside() {
			return packet.Container
		}
		return ""
	}
	for _, h := range dropHops {
		if strings.Contains(d.Reason, h.word) || strings.Contains(d.Function, h.word) {
			if d.inside() && h.hop != packet.Socket && !strings.Contains(d.Reason, "NEIGH") { // a neighbour is outside
				return packet.Container
			}
			return h.hop
		}
	}
	if d.inside() {
		return packet.Container
	}
	return ""
}
