//go:build linux

package host

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linux/rtnetlink.h and linux/pkt_sched.h
const (
	sizeofTcMsg = 20

	tcaKind    = 1
	tcaOptions = 2
	tcaStats2  = 7
	tcaBPFName = 7

	statsQueue = 3

	tcRoot          = 0xffffffff
	tcIngress       = 0xfffffff1 // parent of the qdiscs ingress and clsact
	tcFilterIngress = 0xfffffff2
	tcFilterEgress  = 0xfffffff3
	tcIngressHandle = 0xffff0000
)

// readQdiscs dumps the queueing disciplines and their filters, and the BPF programs on tcx.
func readQdiscs(c *netlink.Conn, names linkNames) ([]netstate.Qdisc, error) {
	answers, err := dump(c, unix.RTM_GETQDISC, make([]byte, sizeofTcMsg))
	if err != nil {
		return nil, fmt.Errorf("qdiscs: %w", err)
	}
	var all []netstate.Qdisc
	for _, answer := range answers {
		if answer.Header.Type != unix.RTM_NEWQDISC {
			continue
		}
		q, handle, index, err := parseQdisc(answer.Data, names)
		if err != nil {
			return nil, fmt.Errorf("qdiscs: %w", err)
		}
		all = append(all, q)
		var parents []uint32
		switch q.Kind {
		case "clsact":
			parents = []uint32{tcFilterIngress, tcFilterEgress}
		case "ingress":
			parents = []uint32{tcIngressHandle}
		case "noqueue", "pfifo_fast", "pfifo", "bfifo", "fq", "fq_codel", "codel", "cake", "mq", "netem", "tbf": // no filters of note
		default:
			parents = []uint32{handle}
		}
		for _, parent := range parents {
			filters, err := readFilters(c, q.Link, index, parent)
			if err != nil {
				return nil, fmt.Errorf("filters of %s: %w", q.Link, err)
			}
			all = append(all, filters...)
		}
	}
	programs, err := readTCX(names)
	return append(all, programs...), err
}

// parseQdisc decodes one RTM_NEWQDISC.
func parseQdisc(data []byte, names linkNames) (q netstate.Qdisc, handle uint32, index int, err error) {
	err = eachAttribute(data, sizeofTcMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case tcaKind:
			q.Kind = ad.String()
		case tcaStats2:
			ad.Nested(func(stats *netlink.AttributeDecoder) error {
				for stats.Next() {
					// struct gnet_stats_queue: length, backlog, drops, requeues, overlimits
					if b := stats.Bytes(); stats.Type() == statsQueue && len(b) >= 12 {
						q.Drops = uint64(binary.NativeEndian.Uint32(b[8:]))
					}
				}
				return nil
			})
		}
	})
	if err != nil {
		return q, 0, 0, err
	}
	index = int(int32(binary.NativeEndian.Uint32(data[4:])))
	q.Link = names.name(index)
	q.Parent = tcParent(binary.NativeEndian.Uint32(data[12:]))
	return q, binary.NativeEndian.Uint32(data[8:]), index, nil
}

// readFilters dumps the classifiers at one parent. A filter appears once for itself and once for each
// of its handles; the same line is kept once.
func readFilters(c *netlink.Conn, name string, index int, parent uint32) ([]netstate.Qdisc, error) {
	request := make([]byte, sizeofTcMsg)
	binary.NativeEndian.PutUint32(request[4:], uint32(index))
	binary.NativeEndian.PutUint32(request[12:], parent)
	answers, err := dump(c, unix.RTM_GETTFILTER, request)
	if err != nil {
		return nil, err
	}
	var filters []netstate.Qdisc
	seen := map[string]bool{}
	for _, answer := range answers {
		if answer.Header.Type != unix.RTM_NEWTFILTER {
			continue
		}
		kind, program := "", ""
		err := eachAttribute(answer.Data, sizeofTcMsg, func(ad *netlink.AttributeDecoder) {
			switch ad.Type() {
			case tcaKind:
				kind = ad.String()
			case tcaOptions:
				if kind != "bpf" {
					return
				}
				ad.Nested(func(options *netlink.AttributeDecoder) error {
					for options.Next() {
						if options.Type() == tcaBPFName {
							program = " " + options.String()
						}
					}
					return nil
				})
			}
		})
		if err != nil {
			return nil, err
		}
		if text := kind + program; !seen[text] {
			seen[text] = true
			filters = append(filters, netstate.Qdisc{Link: name, Kind: "filter", Parent: tcParent(parent), Filter: text})
		}
	}
	return filters, nil
}

func tcParent(parent uint32) string {
	switch parent {
	case tcRoot:
		return "root"
	case tcIngress, tcFilterIngress, tcIngressHandle:
		return "ingress"
	case tcFilterEgress:
		return "egress"
	}
	return fmt.Sprintf("%x:%x", parent>>16, parent&0xffff)
}

// readTCX lists the BPF programs on the links' tcx hooks, kernel 6.6 and later.
func readTCX(names linkNames) ([]netstate.Qdisc, error) {
	var all []netstate.Qdisc
	for index, name := range names {
		for _, hook := range []struct {
			attach ebpf.AttachType
			parent string
		}{{ebpf.AttachTCXIngress, "ingress"}, {ebpf.AttachTCXEgress, "egress"}} {
			result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: hook.attach})
			switch {
			case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV):
				continue
			case err != nil:
				return all, fmt.Errorf("tcx of %s: %w", name, err)
			}
			for _, program := range result.Programs {
				all = append(all, netstate.Qdisc{Link: name, Kind: "tcx", Parent: hook.parent, Filter: "bpf " + programName(program.ID)})
			}
		}
	}
	return all, nil
}

// programName returns the name of a BPF program, or its number.
func programName(id ebpf.ProgramID) string {
	if program, err := ebpf.NewProgramFromID(id); err == nil {
		defer program.Close()
		if info, err := program.Info(); err == nil && info.Name != "" {
			return info.Name
		}
	}
	return fmt.Sprintf("program %d", id)
}
