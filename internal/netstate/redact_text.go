package netstate

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
)

// text replaces the addresses in a text, with what stands behind them: "1.2.3.0/24", "1.2.3.4-1.2.3.9",
// "[2001::1]:80".
func (r *redactor) text(text string) string {
	if !strings.ContainsAny(text, ".:") {
		return text
	}
	var b strings.Builder
	for at := 0; at < len(text); {
		if !inAddr(text[at]) {
			b.WriteByte(text[at])
			at++
			continue
		}
		end := at
		for end < len(text) && inAddr(text[end]) {
			end++
		}
		// What touches a word belongs to it, up to a colon: "v1.2.3.4", but "tcp:1.2.3.4".
		token, before, after := text[at:end], "", ""
		if at > 0 && inWord(text[at-1]) {
			colon := strings.IndexByte(token, ':') + 1
			before, token = token[:colon], token[colon:]
			if colon == 0 {
				before, token = token, ""
			}
		}
		if end < len(text) && inWord(text[end]) {
			colon := max(0, strings.LastIndexByte(token, ':'))
			token, after = token[:colon], token[colon:]
		}
		if before != "" || after != "" {
			b.WriteString(before + r.dotted(token) + after)
			at = end
			continue
		}
		at += r.token(&b, token, text[end:])
	}
	return b.String()
}

func inAddr(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == ':' || c == '.'
}

func inWord(c byte) bool { return c >= 'g' && c <= 'z' || c >= 'G' && c <= 'Z' }

var (
	behindLength = lazyregexp.New(`^/([0-9]{1,3})([^0-9.]|$)`)
	behindMask   = lazyregexp.New(`^/[0-9]+(\.[0-9]+){3}`)
	behindRange  = lazyregexp.New(`^-([0-9A-Fa-f:.]+)`)
	dotted       = lazyregexp.New(`(^|[^0-9.])([0-9]{1,3}(?:\.[0-9]{1,3}){3})($|[^0-9.])`)
)

// token writes a token that may be an address, and what belongs to it of the rest. It returns how long
// that was.
func (r *redactor) token(b *strings.Builder, token, rest string) int {
	if mac, err := net.ParseMAC(token); err == nil && len(mac) == 6 && len(token) == 17 && token[2] == ':' {
		b.WriteString(r.mac(token, false))
		return len(token)
	}
	bare := strings.TrimRight(token, ".:")
	if strings.HasSuffix(token, "::") {
		bare = token
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		b.WriteString(r.dotted(token)) // "1.2.3.4:80"
		return len(token)
	}
	if bare != token {
		b.WriteString(r.addr(addr).String() + token[len(bare):])
		return len(token)
	}
	if length := behindLength().FindStringSubmatch(rest); length != nil {
		if bits, err := strconv.Atoi(length[1]); err == nil && bits <= addr.BitLen() {
			if to := r.prefix(netip.PrefixFrom(addr, bits)).Addr(); to != addr {
				bare = to.String()
			}
			b.WriteString(bare + "/" + length[1])
			return len(token) + 1 + len(length[1])
		}
	}
	if other := behindRange().FindStringSubmatch(rest); other != nil {
		if last, err := netip.ParseAddr(strings.TrimRight(other[1], ".:")); err == nil && last.BitLen() == addr.BitLen() {
			behind := "-" + strings.TrimRight(other[1], ".:")
			if from, to := r.span(addr, last); from != addr || to != last {
				b.WriteString(from.String() + "-" + to.String())
			} else {
				b.WriteString(bare + behind)
			}
			return len(token) + len(behind)
		}
	}
	mask := behindMask().FindString(rest)
	b.WriteString(r.written(addr, bare) + mask)
	return len(token) + len(mask)
}

// dotted replaces IPv4 addresses alone.
func (r *redactor) dotted(text string) string {
	return dotted().ReplaceAllStringFunc(text, func(found string) string {
		parts := dotted().FindStringSubmatch(found)
		if addr, err := netip.ParseAddr(parts[2]); err == nil {
			parts[2] = r.addr(addr).String()
		}
		return parts[1] + parts[2] + parts[3]
	})
}

// written returns the replacement of an address, or what stood there if it stays: ::0 need not become ::.
func (r *redactor) written(addr netip.Addr, was string) string {
	if to := r.addr(addr); to != addr {
		return to.String()
	}
	return was
}

// mac replaces a hardware address that is somebody's; hardware says that it is although it does not look so.
func (r *redactor) mac(text string, hardware bool) string {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return text
	}
	to := net.HardwareAddr(r.macOf(mac, hardware))
	switch {
	case bytes.Equal(to, mac):
		return text
	case strings.ToUpper(text) == text && strings.ToLower(text) != text: // as iptables writes it
		return strings.ToUpper(to.String())
	}
	return to.String()
}

func (r *redactor) macBytes(mac []byte) []byte { return r.macOf(mac, false) }

func (r *redactor) macOf(mac net.HardwareAddr, hardware bool) []byte {
	const group, local = 1, 2
	if mac[0]&group != 0 || mac.String() == "00:00:00:00:00:00" {
		return mac
	}
	key := mac.String()
	if r.noting {
		if hardware || mac[0]&local == 0 {
			r.macs[key] = key
		}
		return mac
	}
	if to, ok := r.macs[key]; ok {
		replaced, _ := net.ParseMAC(to)
		return replaced
	}
	return mac
}

// documentationMAC returns the nth hardware address for documentation (RFC 7042), and beyond those 256
// one that is locally administered.
func documentationMAC(n int) string {
	if n < 256 {
		return fmt.Sprintf("00:00:5e:00:53:%02x", n)
	}
	return fmt.Sprintf("02:00:5e:%02x:%02x:%02x", n>>16&0xff, n>>8&0xff, n&0xff)
}
