package netstate

import (
	"fmt"
	"slices"
	"strings"
)

// addrKind returns the type of addresses of a nat family, and whether nft writes the family.
func (p *nftRuleText) addrKind(family string) (*nftType, string) {
	kind := nftIPv4
	if family == "ip6" || family == "inet" && p.network == "ip6" {
		kind = nftIPv6
	}
	if p.table.Family == "inet" && family != "inet" && family != "" {
		return kind, " " + family
	}
	return kind, ""
}

func (p *nftRuleText) nat(e *NftNat) (string, bool) {
	text := e.Type
	kind, family := p.addrKind(e.Family)
	if v := p.regs[e.AddrMin]; v != nil && v.data == nil && v.size > nftSizes[kind] {
		family = " " + e.Family // a map to addresses with something more
	}
	if e.AddrMin != NoReg || e.PortMin != NoReg {
		text += family
		if slices.Contains(e.Flags, "netmap") {
			text += " prefix"
		}
		text += " to"
	}
	addr, bare, ok := p.bounds(e.AddrMin, e.AddrMax, kind, slices.Contains(e.Flags, "netmap"))
	if !ok {
		return "", false
	}
	// A map may give both the address and the port behind it.
	portMin := e.PortMin
	if v := p.regs[e.AddrMin]; e.AddrMin != NoReg && portMin > e.AddrMin && v != nil && uint32(portMin-e.AddrMin) < v.size {
		portMin = NoReg
	}
	port, _, ok := p.bounds(portMin, e.PortMax, nftPort, false)
	if !ok {
		return "", false
	}
	if addr != "" {
		if kind == nftIPv6 && port != "" && bare {
			addr = "[" + strings.ReplaceAll(addr, "-", "]-[") + "]"
		}
		text += " " + addr
	} else if port != "" {
		text += " "
	}
	if port != "" {
		text += ":" + port
	}
	return text + natFlags(e.Flags), true
}

// bounds writes one or two registers; bare says that they are constants.
func (p *nftRuleText) bounds(from, to NftReg, kind *nftType, prefix bool) (text string, bare, ok bool) {
	if from == NoReg {
		return "", false, true
	}
	v := p.regs[from]
	if text, ok = p.operandAt(from, kind); !ok {
		return "", false, false
	}
	bare = v.data != nil
	if to == NoReg || to == from || to > from && uint32(to-from) < v.size {
		return text, bare, true
	}
	end := p.regs[to]
	second, ok := p.operandAt(to, kind)
	if !ok {
		return "", false, false
	}
	if bare && end.data != nil {
		switch length, is := prefixOf(v.data, end.data); {
		case string(v.data) == string(end.data) && !prefix:
			return text, true, true
		case is && prefix:
			return fmt.Sprintf("%s/%d", text, length), true, true
		}
	}
	return text + "-" + second, bare, true
}

func natFlags(flags []string) string {
	var words []string
	for _, word := range []string{"random", "fully-random", "persistent"} {
		if slices.Contains(flags, word) {
			words = append(words, word)
		}
	}
	if words == nil {
		return ""
	}
	return " " + strings.Join(words, ",")
}

func (p *nftRuleText) ports(name string, from, to NftReg, flags []string) (string, bool) {
	port, _, ok := p.bounds(from, to, nftPort, false)
	if port != "" {
		name += " to :" + port
	}
	return name + natFlags(flags), ok
}

func (p *nftRuleText) tproxy(e *NftTproxy) (string, bool) {
	kind, family := p.addrKind(e.Family)
	addr, port, ok := "", "", true
	if e.Addr != NoReg {
		if addr, ok = p.operandAt(e.Addr, kind); !ok {
			return "", false
		}
		if v := p.regs[e.Addr]; kind == nftIPv6 && v.data != nil {
			addr = "[" + addr + "]"
		}
	}
	if e.Port != NoReg {
		if port, ok = p.operandAt(e.Port, nftPort); !ok {
			return "", false
		}
		port = ":" + port
	}
	return "tproxy" + family + " to " + addr + port, true
}

func (p *nftRuleText) dup(e *NftDup) (string, bool) {
	text, ok := "dup to ", true
	if e.Addr != NoReg {
		kind := nftIPv4
		if p.table.Family == "ip6" {
			kind = nftIPv6
		}
		addr, known := p.operandAt(e.Addr, kind)
		text, ok = text+addr, known
	}
	if e.Dev != NoReg && ok {
		dev, known := p.operandAt(e.Dev, nftIfindex)
		if e.Addr != NoReg {
			dev = " device " + dev
		}
		text, ok = text+dev, known
	}
	return text, ok
}
