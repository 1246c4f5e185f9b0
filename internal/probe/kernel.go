//go:build linux

package probe

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// kernelTypes is what the running kernel's type information (BTF) tells.
type kernelTypes struct {
	head, networkHeader, dev, sk uint32 // in struct sk_buff
	ifindex, devNet              uint32 // in struct net_device
	skNet                        uint32 // in struct sock
	inum                         uint32 // in struct net
	reasons                      map[uint32]string
}

// readKernelTypes reads it once.
var readKernelTypes = sync.OnceValues(func() (*kernelTypes, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("the kernel's type information (BTF): %w", err)
	}
	k := &kernelTypes{reasons: map[uint32]string{}}
	for _, f := range []struct {
		at   *uint32
		path []string
	}{
		{&k.head, []string{"sk_buff", "head"}}, {&k.networkHeader, []string{"sk_buff", "network_header"}},
		{&k.dev, []string{"sk_buff", "dev"}}, {&k.sk, []string{"sk_buff", "sk"}},
		{&k.ifindex, []string{"net_device", "ifindex"}}, {&k.devNet, []string{"net_device", "nd_net", "net"}},
		{&k.skNet, []string{"sock", "__sk_common", "skc_net", "net"}}, {&k.inum, []string{"net", "ns", "inum"}},
	} {
		var t *btf.Struct
		if err := spec.TypeByName(f.path[0], &t); err != nil {
			return nil, fmt.Errorf("struct %s: %w", f.path[0], err)
		}
		at, ok := memberOffset(t, f.path[1:])
		if !ok {
			return nil, fmt.Errorf("struct %s has no %s", f.path[0], strings.Join(f.path[1:], "."))
		}
		*f.at = at
	}
	var reasons *btf.Enum
	if err := spec.TypeByName("skb_drop_reason", &reasons); err != nil {
		return nil, errors.New("the kernel gives no drop reasons: it is older than 5.17")
	}
	for _, v := range reasons.Values {
		k.reasons[uint32(v.Value)] = strings.TrimPrefix(v.Name, "SKB_DROP_REASON_")
	}
	return k, nil
})

// memberOffset finds a member, in anonymous members as well, in bytes.
func memberOffset(t btf.Type, path []string) (uint32, bool) {
	if len(path) == 0 {
		return 0, true
	}
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		next := path
		if m.Name == path[0] {
			next = path[1:]
		} else if m.Name != "" {
			continue
		}
		if at, ok := memberOffset(m.Type, next); ok {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}

// reason names a drop reason as the kernel does, without what all names begin with.
func (k *kernelTypes) reason(n uint32) string {
	if name := k.reasons[n]; name != "" {
		return name
	}
	return fmt.Sprintf("reason %d", n)
}

type kernelSymbol struct {
	at   uint64
	name string
}

// kernelSymbols are the kernel's functions in the order of their addresses; none where they are hidden.
var kernelSymbols = sync.OnceValue(func() []kernelSymbol {
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil
	}
	defer file.Close()
	var all []kernelSymbol
	for scan := bufio.NewScanner(file); scan.Scan(); {
		field := strings.Fields(scan.Text())
		if len(field) < 3 || !strings.Contains("tTwW", field[1]) {
			continue
		}
		if at, err := strconv.ParseUint(field[0], 16, 64); err == nil && at != 0 {
			all = append(all, kernelSymbol{at, field[2]})
		}
	}
	slices.SortStableFunc(all, func(a, b kernelSymbol) int {
		if a.at < b.at {
			return -1
		}
		return int(min(1, a.at-b.at))
	})
	return all
})

// kernelFunction names the function that an address is in, or returns the address.
func kernelFunction(at uint64) string {
	all := kernelSymbols()
	i, exact := slices.BinarySearchFunc(all, at, func(s kernelSymbol, at uint64) int {
		switch {
		case s.at < at:
			return -1
		case s.at > at:
			return 1
		}
		return 0
	})
	if !exact {
		i--
	}
	if i < 0 {
		return fmt.Sprintf("%#x", at)
	}
	return all[i].name
}
