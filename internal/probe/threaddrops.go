//go:build linux

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"unsafe"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"golang.org/x/sys/unix"
)

// A threadWatch tells of drops where BPF or the kernel's types (BTF) are missing: by perf, from the same
// tracepoint skb:kfree_skb as tracefs describes it.
//
// The tracepoint says why and where a packet was dropped, but not whose it was. So only what is dropped on
// the calling thread is told: the kernel takes a packet all its way, through the virtual links, on the thread
// that sends it. What is sent again later, or on another thread, is not seen; and what others' packets meet in
// a softirq that interrupts the thread is. So each drop is unsure.
type threadWatch struct {
	fd     int
	ring   []byte
	format dropFormat
}

// A dropFormat is where the tracepoint's fields are in a record, in bytes, and the names of reasons.
type dropFormat struct {
	id                         uint64
	location, protocol, reason int
	reasons                    map[uint32]string
}

// tracefsDirs are where tracefs is mounted.
var tracefsDirs = []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}

var errNoTracefs = errors.New("tracefs is not there")

// readDropFormat reads tracefs' description of the tracepoint.
func readDropFormat() (dropFormat, error) {
	for _, dir := range tracefsDirs {
		text, err := os.ReadFile(dir + "/events/skb/kfree_skb/format")
		if err == nil {
			return parseDropFormat(string(text))
		}
		if !os.IsNotExist(err) {
			return dropFormat{}, fmt.Errorf("tracefs: %w", err)
		}
	}
	return dropFormat{}, errNoTracefs
}

var (
	formatID     = lazyregexp.New(`(?m)^ID: (\d+)$`)
	formatField  = lazyregexp.New(`(?m)^\tfield:[^;]*?(\w+);\toffset:(\d+);`)
	formatReason = lazyregexp.New(`\{ (\w+), "(\w+)" \}`)
)

func parseDropFormat(text string) (dropFormat, error) {
	f := dropFormat{reasons: map[uint32]string{}}
	at := map[string]int{}
	for _, field := range formatField().FindAllStringSubmatch(text, -1) {
		at[field[1]], _ = strconv.Atoi(field[2])
	}
	for name, to := range map[string]*int{"location": &f.location, "protocol": &f.protocol, "reason": &f.reason} {
		if *to = at[name]; *to == 0 {
			return f, fmt.Errorf("tracefs: tracepoint skb:kfree_skb has no %s", name)
		}
	}
	if id := formatID().FindStringSubmatch(text); id != nil {
		f.id, _ = strconv.ParseUint(id[1], 10, 64)
	}
	for _, r := range formatReason().FindAllStringSubmatch(text, -1) {
		if n, err := strconv.ParseUint(r[1], 0, 32); err == nil {
			f.reasons[uint32(n)] = r[2]
		}
	}
	return f, nil
}

// threadRing is the size of the buffer of records; before it the kernel has a page of its own.
const threadRing = 1 << 16

// newThreadWatch starts watching the calling thread, which has to be locked.
func newThreadWatch() (_ *threadWatch, err error) {
	w := &threadWatch{fd: -1}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.format, err = readDropFormat(); err != nil {
		return nil, err
	}
	w.fd, err = unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_TRACEPOINT, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: w.format.id,
		Sample: 1, Sample_type: unix.PERF_SAMPLE_RAW,
	}, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("perf: %w", err)
	}
	if w.ring, err = unix.Mmap(w.fd, 0, os.Getpagesize()+threadRing, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("perf: %w", err)
	}
	return w, nil
}

func (w *threadWatch) Close() error {
	if w.ring != nil {
		unix.Munmap(w.ring)
		w.ring = nil
	}
	if w.fd < 0 {
		return nil
	}
	err := unix.Close(w.fd)
	w.fd = -1
	return err
}

// drain returns the drops of IP packets.
func (w *threadWatch) drain(e *experiment) []Drop {
	page := (*unix.PerfEventMmapPage)(unsafe.Pointer(&w.ring[0]))
	data := w.ring[os.Getpagesize():]
	head := atomic.LoadUint64(&page.Data_head)
	var drops []Drop
	for tail := page.Data_tail; tail < head; {
		var header [8]byte // struct perf_event_header: type, misc, size
		copyRing(header[:], data, tail)
		size := uint64(binary.NativeEndian.Uint16(header[6:]))
		if size < 8 {
			break
		}
		if binary.NativeEndian.Uint32(header[:]) == unix.PERF_RECORD_SAMPLE && size > 12 {
			record := make([]byte, size-12) // behind the header and its own length
			copyRing(record, data, tail+12)
			if d, ok := w.format.drop(record, newMatcher(e.o.Flow, nil).etherType()); ok {
				drops = append(drops, d)
			}
		}
		tail += size
	}
	atomic.StoreUint64(&page.Data_tail, head)
	return drops
}

// copyRing copies from a ring at a position that only grows.
func copyRing(to, ring []byte, at uint64) {
	n := copy(to, ring[at%uint64(len(ring)):])
	copy(to[n:], ring)
}

// drop reads one record. ok is false if it is none of that protocol.
func (f dropFormat) drop(record []byte, etherType uint16) (d Drop, ok bool) {
	if len(record) < max(f.location+8, f.protocol+2, f.reason+4) || binary.NativeEndian.Uint16(record[f.protocol:]) != etherType {
		return d, false
	}
	n := binary.NativeEndian.Uint32(record[f.reason:])
	d.Reason, d.Function = f.reasons[n], kernelFunction(binary.NativeEndian.Uint64(record[f.location:]))
	if d.Reason == "" {
		d.Reason = fmt.Sprintf("reason %d", n)
	}
	d.Hop, d.Unsure = dropHop(d), true
	return d, d.Reason != "TCP_RESET" // that is the client's own: the reset came to it
}
