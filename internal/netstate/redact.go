package netstate

import (
	"net/netip"
	"reflect"
	"strings"
)

// Redact returns a copy of s without what says whose host it is, and of which the same is true.
//
// Replaced, each thing by the same wherever it stands (in texts such as rules, sets and files as well,
// and in the bytes that nf_tables compares):
//   - public addresses and prefixes, by ones of the ranges for benchmarks and documentation. Prefixes keep
//     their length; what was in a prefix or range is in its replacement, and what was not is not.
//   - hardware addresses that are somebody's: globally unique ones, and those of the host's own hardware,
//     in link-local addresses made from them too.
//   - the engine's name (a host's name), the name of a docker context, comments in files, the domains
//     of resolv.conf, and of systemd-networkd's files all but the links that they are for and the switches
//     of forwarding.
//
// Kept are names that people gave: of containers, networks, images, interfaces, chains and sets, and comments
// in rules. Kept are private, link-local and other special addresses, and prefixes or ranges so wide that they
// name nobody (IPv4 shorter than /8, IPv6 than /24, or with special addresses in them).
//
// The result depends on s alone.
func (s *Snapshot) Redact() *Snapshot {
	redacted := mapStrings(s, func(text string) string { return text })
	r := &redactor{plan: newAddrPlan(), macs: map[string]string{}, noting: true}
	for _, l := range redacted.Host.Links {
		if l.Kind == "" && !l.Loopback && !l.NoARP {
			r.mac(strings.ToLower(l.MAC), true)
		}
	}
	// What is there is found in the same way in which it is replaced.
	r.snapshot(redacted)
	r.settle()
	r.noting = false
	r.snapshot(redacted)
	return redacted
}

// A redactor takes note of what is to be replaced, and then replaces it.
type redactor struct {
	plan   *addrPlan
	macs   map[string]string // to be replaced → replacement
	noting bool
}

func (r *redactor) settle() {
	r.plan.settle()
	for i, mac := range sorted(r.macs) {
		r.macs[mac] = documentationMAC(i)
	}
}

func (r *redactor) snapshot(s *Snapshot) {
	if s.Engine != nil && !r.noting {
		s.Engine.Name = replaceName(s.Engine.Name, "", "host")
		s.Engine.Context = replaceName(s.Engine.Context, "default", "context")
	}
	for path, text := range s.Files {
		s.Files[path] = redactFile(path, text)
	}
	r.walk(reflect.ValueOf(s).Elem())
	r.ruleset(s.Host.Nft)
	for _, id := range sorted(s.Sandboxes) {
		r.ruleset(s.Sandboxes[id].Nft)
	}
}

func replaceName(name, kept, by string) string {
	if name == "" || name == kept {
		return name
	}
	return by
}

// verbatim are fields whose texts look like addresses at most, and are none.
var verbatim = map[string]bool{"Schema": true, "Kernel": true, "BootID": true, "Version": true, "API": true}

// walk replaces in every address and text of v. The bytes of nf_tables are left to ruleset.
func (r *redactor) walk(v reflect.Value) {
	switch at := v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(r.addr(at)))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(r.prefix(at)))
		return
	case netip.AddrPort:
		if at.Addr().IsValid() {
			v.Set(reflect.ValueOf(netip.AddrPortFrom(r.addr(at.Addr()), at.Port())))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(r.text(v.String()))
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			r.walk(v.Elem())
		}
	case reflect.Struct:
		if whole[v.Type()] {
			return
		}
		for i := range v.NumField() {
			if !verbatim[v.Type().Field(i).Name] {
				r.walk(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				r.walk(v.Index(i))
			}
		}
	case reflect.Map:
		entries := map[string]reflect.Value{} // by a key that is text
		for m := v.MapRange(); m.Next(); {
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(m.Value())
			r.walk(value)
			if m.Key().Kind() == reflect.String {
				entries[m.Key().String()] = value
			} else {
				v.SetMapIndex(m.Key(), value)
			}
		}
		if v.Type().Key().Kind() == reflect.String && !v.IsNil() {
			v.Clear()
			for _, key := range sorted(entries) {
				v.SetMapIndex(reflect.ValueOf(r.text(key)), entries[key])
			}
		}
	}
}

// addr replaces one address.
func (r *redactor) addr(a netip.Addr) netip.Addr {
	switch {
	case !a.IsValid():
		return a
	case a.Zone() != "":
		return r.addr(a.WithZone("")).WithZone(a.Zone())
	case a.Is4In6():
		return netip.AddrFrom16(r.addr(a.Unmap()).As16())
	case nat64.Contains(a):
		b := a.As16()
		v4 := r.addr(netip.AddrFrom4([4]byte(b[12:]))).As4()
		copy(b[12:], v4[:])
		return netip.AddrFrom16(b)
	case sixToFour.Contains(a):
		return r.prefix(netip.PrefixFrom(a, a.BitLen())).Addr()
	case isPublic(a):
		return r.plan.prefix(netip.PrefixFrom(a, a.BitLen()), r.noting).Addr()
	}
	r.plan.avoid(netip.PrefixFrom(a, a.BitLen()), r.noting)
	return r.interfaceID(a)
}

// IPv6 addresses with an IPv4 address in them, as their last and as their second and third words.
var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
)

// prefix replaces a prefix, or an address with its network's length.
func (r *redactor) prefix(p netip.Prefix) netip.Prefix {
	switch {
	case !p.IsValid():
		return p
	case sixToFour.Contains(p.Addr()) && p.Bits() >= sixToFour.Bits():
		b := p.Addr().As16()
		v4 := r.prefix(netip.PrefixFrom(netip.AddrFrom4([4]byte(b[2:6])), min(32, p.Bits()-sixToFour.Bits()))).Addr().As4()
		copy(b[2:6], v4[:])
		return netip.PrefixFrom(netip.AddrFrom16(b), p.Bits())
	case isWide(p):
		r.plan.keep(prefixFirst(p), prefixLast(p), r.noting)
		if p == p.Masked() {
			return p
		}
		return netip.PrefixFrom(r.addr(p.Addr()), p.Bits())
	}
	network := p.Masked()
	if isPublic(network.Addr()) {
		replaced := r.plan.prefix(network, r.noting)
		if network == p {
			return replaced
		}
	} else {
		r.plan.avoid(network, r.noting)
	}
	return netip.PrefixFrom(r.addr(p.Addr()), p.Bits())
}

// span replaces the ends of a range, both included.
func (r *redactor) span(first, last netip.Addr) (netip.Addr, netip.Addr) {
	if first == last {
		a := r.addr(first)
		return a, a
	}
	common := commonPrefix(first, last)
	switch {
	case last.Less(first) || !common.IsValid() || !isPublic(first) || !isPublic(last) || isWide(common):
		if common.IsValid() && first.Less(last) && isWide(common) {
			r.plan.keep(first, last, r.noting)
		}
		return first, last
	case prefixFirst(common) == first && prefixLast(common) == last:
		p := r.prefix(common)
		return prefixFirst(p), prefixLast(p)
	}
	r.prefix(common)
	return r.addr(first), r.addr(last)
}

// interfaceID replaces the hardware address from which an interface made its address (EUI-64).
func (r *redactor) interfaceID(a netip.Addr) netip.Addr {
	b := a.As16()
	if !a.Is6() || b[11] != 0xff || b[12] != 0xfe {
		return a
	}
	mac := []byte{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
	copy(mac, r.macBytes(mac))
	b[8], b[9], b[10], b[13], b[14], b[15] = mac[0]^2, mac[1], mac[2], mac[3], mac[4], mac[5]
	return netip.AddrFrom16(b)
}
