package packet

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// An nftTable is a table of nf_tables, made ready.
type nftTable struct {
	ns      *netns
	state   *netstate.NftTable
	printer netstate.NftPrinter
	order   binary.ByteOrder // of the machine
	chains  map[string]*chain
	sets    map[string]*nftSet
	rewrite bool // some rule changes the packet itself
}

// compileNft makes the native tables ready, but for those that iptables' text covers.
func (n *netns) compileNft() []hooked {
	var all []hooked
	if n.state.Nft == nil {
		return nil
	}
	for i := range n.state.Nft.Tables {
		t := &n.state.Nft.Tables[i]
		if t.Dormant || n.textOf(t) != nil {
			continue
		}
		all = append(all, n.nftTable(t).bases(i)...)
	}
	return all
}

// textOf returns the table of iptables-nft that shows t, or nil.
func (n *netns) textOf(t *netstate.NftTable) *netstate.IptablesTable {
	switch t.Family {
	case "ip":
		return n.state.IptablesSet("nft", netstate.IPv4).Table(t.Name)
	case "ip6":
		return n.state.IptablesSet("nft", netstate.IPv6).Table(t.Name)
	}
	return nil
}

func (n *netns) newNftTable(t *netstate.NftTable) *nftTable {
	if n.printer.Links == nil {
		n.printer = n.state.NftPrinter()
	}
	table := &nftTable{ns: n, state: t, printer: n.printer, order: binary.LittleEndian, sets: map[string]*nftSet{}}
	if n.state.Nft.BigEndian {
		table.order = binary.BigEndian
	}
	for i := range t.Chains {
		for j := range t.Chains[i].Rules {
			for _, e := range t.Chains[i].Rules[j].Exprs {
				if p, ok := e.(*netstate.NftPayload); ok && p.Sreg != netstate.NoReg {
					table.rewrite = true
				}
			}
		}
	}
	return table
}

// nftTable makes a table ready with its own chains.
func (n *netns) nftTable(t *netstate.NftTable) *nftTable {
	table := n.newNftTable(t)
	family := netstate.Family(0)
	switch t.Family {
	case "ip":
		family = netstate.IPv4
	case "ip6":
		family = netstate.IPv6
	}
	owner := ownerOf(t.Name, "")
	table.chains = make(map[string]*chain, len(t.Chains))
	for i := range t.Chains {
		from := &t.Chains[i]
		c := &chain{label: t.Family + " " + t.Name, table: t.Name, name: from.Name, family: family, nft: true, count: len(from.Rules), plain: table.rewrite}
		if c.owner = owner; owner == "" {
			c.owner = ownerOf("", from.Name)
		}
		c.load = func() { c.rules = table.rules(c, from) }
		table.chains[from.Name] = c
	}
	return table
}

func (t *nftTable) rules(c *chain, from *netstate.NftChain) []rule {
	rules := make([]rule, len(from.Rules))
	for i := range from.Rules {
		rules[i] = t.rule(c, &from.Rules[i], i)
	}
	return rules
}

// rule makes one rule ready.
func (t *nftTable) rule(c *chain, r *netstate.NftRule, at int) rule {
	made := rule{chain: c, number: at + 1, handle: r.Handle, comment: r.Comment, nft: t.state.Family + " " + t.state.Name,
		text: func() string { return t.printer.Rule(t.state, r) }}
	body := &nftRule{table: t, exprs: r.Exprs, last: -1}
	for i, e := range r.Exprs {
		if effect(e) {
			body.last = i
		}
		if counter, ok := e.(*netstate.NftCounter); ok {
			made.packets, made.bytes = counter.Packets, counter.Bytes
		}
	}
	made.run, made.selector = body, t.selects(r.Exprs)
	return made
}

// effect says whether the expression can have a say in a packet's fate, other than by breaking off the rule.
func effect(e netstate.NftExpr) bool {
	switch e := e.(type) {
	case *netstate.NftCounter, *netstate.NftLog, *netstate.NftLast, *netstate.NftDup, *netstate.NftFlowOffload,
		*netstate.NftCmp, *netstate.NftRange, *netstate.NftBitwise, *netstate.NftByteorder, *netstate.NftFib, *netstate.NftRt,
		*netstate.NftSocket, *netstate.NftNumgen, *netstate.NftHash, *netstate.NftLimit, *netstate.NftQuota, *netstate.NftConnlimit,
		*netstate.NftObjref, *netstate.NftOsf, *netstate.NftTunnel, *netstate.NftXfrm, *netstate.NftInner, *netstate.NftMatch:
		return false
	case *netstate.NftDynset:
		return false // it changes a set after the snapshot was taken
	case *netstate.NftPayload:
		return e.Sreg != netstate.NoReg
	case *netstate.NftMeta:
		return e.Sreg != netstate.NoReg && (e.Key == "mark" || e.Key == "pkttype")
	case *netstate.NftCt:
		return e.Sreg != netstate.NoReg && (e.Key == "mark" || e.Key == "zone")
	case *netstate.NftExthdr:
		return false
	case *netstate.NftLookup:
		return e.Dreg == netstate.VerdictReg
	case *netstate.NftImmediate:
		return e.Dreg == netstate.VerdictReg
	case *netstate.NftTarget:
		return !idleTargets[e.Target]
	}
	return true
}

// idleTargets say nothing about a packet's fate.
var idleTargets = map[string]bool{"LOG": true, "NFLOG": true, "TRACE": true, "AUDIT": true, "TCPMSS": true, "CHECKSUM": true, "CLASSIFY": true,
	"SECMARK": true, "CONNSECMARK": true, "TEE": true, "RATEEST": true, "LED": true, "IDLETIMER": true, "SET": true, "TCPOPTSTRIP": true}

// selects reads a selector from a rule's comparisons: what a register was loaded with, masked and compared.
func (t *nftTable) selects(exprs netstate.NftExprs) (s selector) {
	regs := map[netstate.NftReg]loaded{}
	family := netstate.Family(0) // that the rule is for, as far as it said
	switch t.state.Family {
	case "ip":
		family = netstate.IPv4
	case "ip6":
		family = netstate.IPv6
	}
	for _, e := range exprs {
		switch e := e.(type) {
		case *netstate.NftPayload:
			delete(regs, e.Dreg)
			v4, v6 := family == netstate.IPv4 && e.Len <= 4, family == netstate.IPv6 && e.Len <= 16
			switch {
			case e.Base == "network" && (v4 && e.Offset == 12 || v6 && e.Offset == 8):
				regs[e.Dreg] = loaded{what: selectSrc, length: addrLen(v6)}
			case e.Base == "network" && (v4 && e.Offset == 16 || v6 && e.Offset == 24):
				regs[e.Dreg] = loaded{what: selectDst, length: addrLen(v6)}
			case e.Base == "transport" && e.Offset == 2 && e.Len == 2:
				regs[e.Dreg] = loaded{what: selectPort, length: 2}
			}
		case *netstate.NftMeta:
			delete(regs, e.Dreg)
			switch e.Key {
			case "iifname":
				regs[e.Dreg] = loaded{what: selectIn, length: 16}
			case "oifname":
				regs[e.Dreg] = loaded{what: selectOut, length: 16}
			case "nfproto":
				regs[e.Dreg] = loaded{what: selectFamily}
			}
		case *netstate.NftCt:
			delete(regs, e.Dreg)
		case *netstate.NftBitwise:
			l, ok := regs[e.Sreg]
			delete(regs, e.Dreg)
			if ok && e.Op == "mask-xor" && allZero(e.Xor) && (l.what == selectSrc || l.what == selectDst) && len(e.Mask) == l.length && l.mask == nil {
				l.mask = e.Mask
				regs[e.Dreg] = l
			}
		case *netstate.NftCmp:
			l, ok := regs[e.Sreg]
			if !ok || e.Op != "==" {
				continue
			}
			if l.what == selectFamily {
				switch {
				case len(e.Data) == 1 && e.Data[0] == nfprotoIPv4:
					family = netstate.IPv4
				case len(e.Data) == 1 && e.Data[0] == nfprotoIPv6:
					family = netstate.IPv6
				}
				continue
			}
			if one, ok := l.selector(e.Data); ok {
				s.narrow(one)
			}
		case *netstate.NftImmediate:
			delete(regs, e.Dreg)
		case *netstate.NftOpaque:
			return s // it may write anything anywhere
		case *netstate.NftCounter:
		default:
			// What else writes registers is rare before the comparisons; nothing behind it is used.
			return s
		}
	}
	return s
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// A loaded value is what a register holds, as far as selectors go.
type loaded struct {
	what   selectWhat
	length int
	mask   netstate.Hex
}

// selector returns what the comparison of the value with data asks for.
func (l loaded) selector(data []byte) (selector, bool) {
	switch l.what {
	case selectSrc, selectDst:
		if len(data) > l.length || len(data) == 0 {
			return selector{}, false
		}
		// nft compares the first bytes alone where a prefix ends at a byte.
		bits := 8 * len(data)
		if l.mask != nil {
			if bits = prefixBits(l.mask); bits < 0 || len(data) != l.length {
				return selector{}, false
			}
		}
		full := make([]byte, l.length)
		copy(full, data)
		addr, ok := netip.AddrFromSlice(full)
		prefix := netip.PrefixFrom(addr, bits)
		return selector{what: l.what, prefix: prefix}, ok && prefix.Masked() == prefix
	case selectPort:
		if len(data) != 2 {
			return selector{}, false
		}
		return selector{what: selectPort, port: port(binary.BigEndian.Uint16(data))}, true
	default:
		name, _, ended := strings.Cut(string(data), "\x00")
		return selector{what: l.what, name: name}, ended || len(data) == l.length
	}
}

// prefixBits returns how many bits a mask has, or -1: it is not the mask of a prefix.
func prefixBits(mask []byte) int {
	bits, over := 0, false
	for _, b := range mask {
		for i := 7; i >= 0; i-- {
			one := b>>i&1 == 1
			if one && over {
				return -1
			}
			if one {
				bits++
			} else {
				over = true
			}
		}
	}
	return bits
}

func (t *nftTable) bases(order int) []hooked {
	var all []hooked
	for i := range t.state.Chains {
		c := &t.state.Chains[i]
		if c.Hook == nil {
			continue
		}
		b := &base{chain: t.chains[c.Name], hook: c.Hook.Name, kind: c.Hook.Type, priority: int(c.Hook.Priority), order: order<<16 + i,
			policy: strings.ToLower(c.Hook.Policy), packets: c.Hook.Packets, bytes: c.Hook.Bytes, devices: c.Hook.Devices}
		var families []string
		switch t.state.Family {
		case "ip", "ip6", "bridge", "netdev":
			families = []string{t.state.Family}
		case "inet":
			families = []string{"ip", "ip6"}
			if c.Hook.Name == hookIngress || c.Hook.Name == hookEgress {
				families = []string{"inet-ip", "inet-ip6"}
			}
		}
		for _, family := range families {
			all = append(all, hooked{hookKey{family, c.Hook.Name}, b})
		}
	}
	return all
}

func addrLen(v6 bool) int {
	if v6 {
		return 16
	}
	return 4
}
