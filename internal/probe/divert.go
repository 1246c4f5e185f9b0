//go:build linux

package probe

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A diversion leads the probe's frames into the uplink, and takes whatever would leave the machine off
// every link.
type diversion struct {
	counts  *ebpf.Map // two a device: to the client, from the client; the last: injected
	devices []netlink.Link
	links   []link.Link
	qdiscs  []netlink.Qdisc // clsact, where there is no tcx
}

// Verdicts of traffic control programs, from linux/pkt_cls.h. tcx gives the same numbers the same meaning.
const (
	actUnspec = -1 // the next program decides
	actShot   = 2
)

// bpfLicense is what the kernel is told: some of its functions ask for it.
const bpfLicense = "Dual MIT/GPL"

// An injector is what divert needs to know.
type injector struct {
	match  matcher
	own    netlink.Link // the probe's link in the host's namespace
	client net.HardwareAddr
	uplink netlink.Link
	from   net.HardwareAddr // who the frames come from: the machine next to the host
	leaves []netlink.Link   // every L3 device by which a packet leaves the machine
	name   string           // of the filters, where they have one
	older  bool             // do not try tcx
}

// divert installs everything, or nothing.
func divert(in injector) (_ *diversion, err error) {
	d := &diversion{devices: in.leaves}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	d.counts, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "netcheck_counts", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(2*len(in.leaves) + 1),
	})
	if err != nil {
		return nil, fmt.Errorf("bpf map: %w", err)
	}
	// First what takes replies off, then what sends: nothing may leave, not even between the two.
	for i, dev := range in.leaves {
		if err := d.attach(in, dev, netlink.HANDLE_MIN_EGRESS, d.takeOff(in, dev, i)); err != nil {
			return nil, fmt.Errorf("link %s: %w", dev.Attrs().Name, err)
		}
	}
	if err := d.attach(in, in.own, netlink.HANDLE_MIN_INGRESS, d.inject(in)); err != nil {
		return nil, fmt.Errorf("link %s: %w", in.own.Attrs().Name, err)
	}
	return d, nil
}

// errForeign means that a link has a clsact or ingress discipline that is not ours, and the kernel is too
// old to run a program beside it.
var errForeign = errors.New("somebody else's traffic control programs are there")

// attach loads a program and hangs it on one direction of a link, before all others.
func (d *diversion) attach(in injector, dev netlink.Link, parent uint32, code asm.Instructions) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "netcheck", Type: ebpf.SchedCLS, License: bpfLicense, Instructions: code,
	})
	if err != nil {
		return fmt.Errorf("bpf program: %w", err)
	}
	defer program.Close() // what it hangs on holds it
	if in.older {
		return d.attachOlder(in, dev, parent, program)
	}
	at := ebpf.AttachTCXEgress
	if parent == netlink.HANDLE_MIN_INGRESS {
		at = ebpf.AttachTCXIngress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: program, Attach: at, Anchor: link.Head()})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return d.attachOlder(in, dev, parent, program)
	}
	if err != nil {
		return err
	}
	d.links = append(d.links, l)
	return nil
}

// attachOlder does the same before Linux 6.6. There the link's clsact discipline is needed, and one that
// somebody else made is not touched.
func (d *diversion) attachOlder(in injector, dev netlink.Link, parent uint32, program *ebpf.Program) error {
	qdiscs, err := netlink.QdiscList(dev)
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT {
			return errForeign
		}
	}
	if err := netlink.QdiscAdd(clsact(dev)); err != nil {
		return fmt.Errorf("qdisc clsact: %w", err)
	}
	d.qdiscs = append(d.qdiscs, clsact(dev))
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: dev.Attrs().Index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          program.FD(), Name: in.name, DirectAction: true,
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	return nil
}

// clsact is the discipline of a link that filters of both directions hang on.
func clsact(dev netlink.Link) netlink.Qdisc {
	return &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// Close takes everything away again, what sends first.
func (d *diversion) Close() error {
	var errs []error
	for _, l := range slices.Backward(d.links) {
		errs = append(errs, l.Close())
	}
	for _, q := range slices.Backward(d.qdiscs) {
		errs = append(errs, netlink.QdiscDel(q)) // with its filter
	}
	if d.counts != nil {
		errs = append(errs, d.counts.Close())
	}
	return errors.Join(errs...)
}

// left returns the links by which packets to the client, and from it, would have left the machine.
func (d *diversion) left() (replies, requests []string) {
	for i, dev := range d.devices {
		for direction, names := range []*[]string{&replies, &requests} {
			var n uint64
			if err := d.counts.Lookup(uint32(2*i+direction), &n); err == nil && n > 0 {
				*names = append(*names, dev.Attrs().Name)
			}
		}
	}
	return replies, requests
}

// header is how many bytes stand before the IP header on a link: those of Ethernet, or none.
func header(l netlink.Link) int32 {
	a := l.Attrs()
	if a.EncapType == "ether" || a.EncapType == "loopback" || a.EncapType == "" && len(a.HardwareAddr) == 6 {
		return 14
	}
	return 0
}

// etherType is what a program finds in __sk_buff.protocol for the flow.
func (m matcher) etherType() uint16 {
	if m.v6 {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// skbProtocol is the offset of __sk_buff.protocol.
const skbProtocol = 16

// begin starts a program on packets of a link. Another protocol goes to the label other.
func (m matcher) begin(base int32, other string) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(regPacket, asm.R1),
		asm.LoadMem(asm.R1, regPacket, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, half(m.etherType()), other),
		asm.Mov.Imm(regIP, base),
	}
}

// count adds one to an element of the map. at labels the first instruction.
func (d *diversion) count(at string, element int) asm.Instructions {
	after := fmt.Sprintf("counted_%d", element)
	return asm.Instructions{
		asm.StoreImm(asm.RFP, stackFree, int64(element), asm.Word).WithSymbol(at),
		asm.LoadMapPtr(asm.R1, d.counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackFree),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, after),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol(after),
	}
}

// putBytes stores bytes, an even number, into the packet from its beginning.
func putBytes(b []byte) asm.Instructions {
	const at = stackFree - 16
	var ins asm.Instructions
	for i := 0; i < len(b); i += 2 {
		ins = append(ins, asm.StoreImm(asm.RFP, int16(at+i), int64(half(uint16(b[i])<<8|uint16(b[i+1]))), asm.Half))
	}
	return append(ins,
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, at),
		asm.Mov.Imm(asm.R4, int32(len(b))),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call())
}

func redirect(to netlink.Link, flags int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(to.Attrs().Index)),
		asm.Mov.Imm(asm.R2, flags),
		asm.FnRedirect.Call(),
		asm.Return(),
	}
}

func verdict(at string, act int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, act).WithSymbol(at), asm.Return()}
}

// redirectIngress makes bpf_redirect put a packet into a link's ingress (BPF_F_INGRESS).
const redirectIngress = 1

// inject is the program on the probe's own link: the flow's frames enter the uplink, addressed to it; all
// else that the namespace says (neighbour and router discovery) is dropped.
//
// The kernel looks at the frame anew there, and takes it for the host's because of its address.
func (d *diversion) inject(in injector) asm.Instructions {
	ins := in.match.begin(14, noMatch)
	ins = append(ins, in.match.code(loadSkb)...)
	ins = append(ins, d.count(fromClient, 2*len(in.leaves))...)
	if header(in.uplink) > 0 {
		ins = append(ins, putBytes(slices.Concat(in.uplink.Attrs().HardwareAddr, in.from))...)
	}
	ins = append(ins, redirect(in.uplink, redirectIngress)...)
	ins = append(ins, verdict(toClient, actShot)...)
	return append(ins, verdict(noMatch, actShot)...)
}

// takeOff is the program on every link by which packets leave: those to the client go to it, those that
// came from it, and requests for its hardware address, are dropped.
func (d *diversion) takeOff(in injector, dev netlink.Link, number int) asm.Instructions {
	base := header(dev)
	ins := in.match.begin(base, "other")
	ins = append(ins, in.match.code(loadSkb)...)
	ins = append(ins, d.count(toClient, 2*number)...)
	if base == 0 {
		ins = append(ins,
			asm.Mov.Reg(asm.R1, regPacket),
			asm.Mov.Imm(asm.R2, 14),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnSkbChangeHead.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"))
	}
	etherType := in.match.etherType()
	ins = append(ins, putBytes(slices.Concat(in.client, in.own.Attrs().HardwareAddr, []byte{byte(etherType >> 8), byte(etherType)}))...)
	ins = append(ins, redirect(in.own, 0)...)
	ins = append(ins, d.count(fromClient, 2*number+1)...)
	ins = append(ins, verdict("drop", actShot)...)
	ins = append(ins, in.match.question(base)...)
	return append(ins, verdict(noMatch, actUnspec)...)
}

// question drops ARP requests for the client's address: no real machine is to hear of it. It starts at
// the label "other".
func (m matcher) question(base int32) asm.Instructions {
	if m.v6 || base == 0 {
		return asm.Instructions{asm.Ja.Label(noMatch).WithSymbol("other")}
	}
	ins := asm.Instructions{
		asm.JNE.Imm(asm.R1, half(unix.ETH_P_ARP), noMatch).WithSymbol("other"),
		asm.Mov.Imm(regIP, base),
	}
	ins = append(ins, loadSkb(regIP, 24, stackL4, 4)...)
	ins = append(ins, m.compareAddr(stackL4, noMatch)...)
	return append(ins, asm.Ja.Label("drop"))
}
