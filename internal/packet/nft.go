package packet

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"

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
	rewrite func() bool // whether some rule changes the packet itself
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
	table.rewrite = sync.OnceValue(func() bool { return rewrites(t) })
	return table
}

func rewrites(t *netstate.NftTable) bool {
	for i := range t.Chains {
		for j := range t.Chains[i].Rules {
			for _, e := range t.Chains[i].Rules[j].Exprs {
				if p, ok := e.(*netstate.NftPayload); ok && p.Sreg != netstate.NoReg {
					return true
				}
			}
		}
	}
	return false
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
		c := &chain{label: t.Family + " " + t.Name, table: t.Name, name: from.Name, family: family, nft: true}
		if c.owner = owner; owner == "" {
			c.owner = ownerOf("", from.Name)
		}
		table.fill(c, from)
		table.chains[from.Name] = c
	}
	return table
}

// fill gives the chain the rules of one of nf_tables.
func (t *nftTable) fill(c *chain, from *netstate.NftChain) {
	c.count, c.plain = len(from.Rules), t.rewrite
	c.ready = func(at int) *rule { return t.rule(c, &from.Rules[at], at) }
	c.tells = func(at int) selector { return t.selects(from.Rules[at].Exprs) }
}

// rule makes one rule ready.
func (t *nftTable) rule(c *chain, r *netstate.NftRule, at int) *rule {
	made := &rule{chain: c, number: at + 1, handle: r.Handle, comment: r.Comment, nft: t.state.Family + " " + t.state.Name,
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
	made.run = body
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
		return clamping(e)
	case *netstate.NftLookup:
		return e.Dreg == netstate.VerdictReg
	case *netstate.NftImmediate:
		return e.Dreg == netstate.VerdictReg
	case *netstate.NftTarget:
		return !idleTargets[e.Target]
	}
	return true
}

// clamping says whether the expression writes the TCP option maxseg.
func clamping(e *netstate.NftExthdr) bool {
	return e.Op == "tcp" && e.Type == 2 && e.Dreg == netstate.NoReg && !e.Strip
}

// idleTargets say nothing about a packet's fate.
var idleTargets = map[string]bool{"LOG": true, "NFLOG": true, "TRACE": true, "AUDIT": true, "CHECKSUM": true, "CLASSIFY": true,
	"SECMARK": true, "CONNSECMARK": true, "TEE": true, "RATEEST": true, "LED": true, "IDLETIMER": true, "SET": true, "TCPOPTSTRIP": true}

// selects reads a selector from a rule's comparisons: what a register was loaded with, masked and compared.
func (t *nftTable) selects(exprs netstate.NftExprs) (s selector) {
	var regs known
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
			regs.load(e.Dreg, loaded{})
			v4, v6 := family == netstate.IPv4 && e.Len <= 4, family == netstate.IPv6 && e.Len <= 16
			switch {
			case e.Base == "network" && (v4 && e.Offset == 12 || v6 && e.Offset == 8):
				regs.load(e.Dreg, loaded{what: selectSrc, length: addrLen(v6)})
			case e.Base == "network" && (v4 && e.Offset == 16 || v6 && e.Offset == 24):
				regs.load(e.Dreg, loaded{what: selectDst, length: addrLen(v6)})
			case e.Base == "transport" && e.Offset == 2 && e.Len == 2:
				regs.load(e.Dreg, loaded{what: selectPort, length: 2})
			}
		case *netstate.NftMeta:
			regs.load(e.Dreg, loaded{})
			switch e.Key {
			case "iifname":
				regs.load(e.Dreg, loaded{what: selectIn, length: 16})
			case "oifname":
				regs.load(e.Dreg, loaded{what: selectOut, length: 16})
			case "nfproto":
				regs.load(e.Dreg, loaded{what: selectFamily})
			}
		case *netstate.NftCt:
			regs.load(e.Dreg, loaded{})
		case *netstate.NftBitwise:
			l := regs.at(e.Sreg)
			regs.load(e.Dreg, loaded{})
			if e.Op == "mask-xor" && allZero(e.Xor) && (l.what == selectSrc || l.what == selectDst) && len(e.Mask) == l.length && l.mask == nil {
				l.mask = e.Mask
				regs.load(e.Dreg, l)
			}
		case *netstate.NftCmp:
			l := regs.at(e.Sreg)
			if l.what == selectAny || e.Op != "==" {
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
			regs.load(e.Dreg, loaded{})
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

// A loaded value is what a register holds, as far as selectors go. The zero value tells nothing.
type loaded struct {
	what   selectWhat
	length int
	mask   netstate.Hex
}

// known is what the registers that hold data are known to hold.
type known [16]loaded

const firstReg, lastReg = netstate.NftReg(16), netstate.NftReg(76)

func (r *known) load(reg netstate.NftReg, l loaded) {
	if firstReg <= reg && reg <= lastReg {
		r[(reg-firstReg)/4] = l
	}
}

func (r *known) at(reg netstate.NftReg) loaded {
	if firstReg <= reg && reg <= lastReg {
		return r[(reg-firstReg)/4]
	}
	return loaded{}
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
		var full [16]byte
		copy(full[:], data)
		addr := netip.AddrFrom16(full)
		if l.length == 4 {
			addr = netip.AddrFrom4([4]byte(full[:4]))
		}
		prefix := netip.PrefixFrom(addr, bits)
		return selector{what: l.what, prefix: prefix}, prefix.Masked() == prefix
	case selectPort:
		if len(data) != 2 {
			return selector{}, false
		}
		return selector{what: selectPort, port: port(binary.BigEndian.Uint16(data)), ported: true}, true
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
