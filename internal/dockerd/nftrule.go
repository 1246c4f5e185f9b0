package dockerd

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// The registers that nft uses: the first, and the third of 16 bytes for the ports of a translation.
const (
	nftReg  netstate.NftReg = 16
	nftReg3 netstate.NftReg = 32
)

// nftRule returns a rule of the nftables backend that has to do with one container as the kernel would hold it:
// iifname, ip saddr and daddr, a protocol's dport, counter, accept, drop, masquerade, dnat to, comment. It is an error
// if the text says anything else.
func nftRule(family netstate.Family, text string) (netstate.NftRule, error) {
	var rule netstate.NftRule
	words := Words(text)
	next := func() string {
		if len(words) == 0 {
			return ""
		}
		word := words[0]
		words = words[1:]
		return word
	}
	add := func(exprs ...netstate.NftExpr) { rule.Exprs = append(rule.Exprs, exprs...) }
	compare := func(load netstate.NftExpr, data []byte) {
		op := "=="
		if len(words) > 0 && words[0] == "!=" {
			op = next()
		}
		add(load, &netstate.NftCmp{Op: op, Sreg: nftReg, Data: data})
	}
	for len(words) > 0 {
		switch word := next(); word {
		case "counter":
			add(&netstate.NftCounter{})
		case "accept", "drop":
			add(&netstate.NftImmediate{Dreg: netstate.VerdictReg, Verdict: &netstate.NftVerdict{Code: word}})
		case "masquerade":
			add(&netstate.NftMasq{})
		case "comment":
			rule.Comment = next()
		case "iifname":
			name := make([]byte, 16)
			load := &netstate.NftMeta{Key: word, Dreg: nftReg}
			if i := slices.IndexFunc(words, func(w string) bool { return w != "!=" }); i >= 0 {
				copy(name, words[i])
				compare(load, name)
				next()
			}
		case "ip", "ip6":
			side := next()
			addr, err := netip.ParseAddr(next())
			offset := map[string]uint32{"ip saddr": 12, "ip daddr": 16, "ip6 saddr": 8, "ip6 daddr": 24}[word+" "+side]
			if err != nil || offset == 0 {
				return rule, fmt.Errorf("%s: is not understood at %s %s", text, word, side)
			}
			compare(&netstate.NftPayload{Base: "network", Offset: offset, Len: uint32(addr.BitLen() / 8), Dreg: nftReg}, addr.AsSlice())
		case "tcp", "udp", "sctp":
			side := next()
			port, err := strconv.ParseUint(next(), 10, 16)
			if err != nil || side != "dport" {
				return rule, fmt.Errorf("%s: is not understood at %s %s", text, word, side)
			}
			compare(&netstate.NftMeta{Key: "l4proto", Dreg: nftReg}, []byte{map[string]byte{"tcp": 6, "udp": 17, "sctp": 132}[word]})
			compare(&netstate.NftPayload{Base: "transport", Offset: 2, Len: 2, Dreg: nftReg}, binary.BigEndian.AppendUint16(nil, uint16(port)))
		case "dnat":
			next() // to
			to, err := netip.ParseAddrPort(next())
			if err != nil {
				return rule, fmt.Errorf("%s: %w", text, err)
			}
			add(&netstate.NftImmediate{Dreg: nftReg, Data: to.Addr().AsSlice()},
				&netstate.NftImmediate{Dreg: nftReg3, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
				&netstate.NftNat{Type: "dnat", Family: nftFamily(family), AddrMin: nftReg, AddrMax: nftReg, PortMin: nftReg3, PortMax: nftReg3, Flags: []string{"specified"}})
		default:
			return rule, fmt.Errorf("%s: is not understood at %s", text, word)
		}
	}
	return rule, nil
}

// editNft makes the edits that put rules into chains of the nftables backend, in a copy of what the snapshot has.
// Others, and what is not understood, are left out.
func editNft(s *netstate.Snapshot, edits []Edit) {
	if s.Host.Nft == nil || !slices.ContainsFunc(edits, func(e Edit) bool { return e.Variant == "" }) {
		return
	}
	ruleset := *s.Host.Nft
	ruleset.Tables = slices.Clone(ruleset.Tables)
	s.Host.Nft = &ruleset
	for i := range ruleset.Tables {
		table := &ruleset.Tables[i]
		if table.Name != nftTable {
			continue
		}
		table.Chains = slices.Clone(table.Chains)
		for j := range table.Chains {
			chain := &table.Chains[j]
			for _, e := range edits {
				rule, err := nftRule(e.Family, e.Text)
				if err != nil || e.Variant != "" || e.Op != Insert || e.Element || e.Chain != chain.Name || nftFamily(e.Family) != table.Family {
					continue
				}
				if at := e.Number - 1; at >= 0 && at <= len(chain.Rules) {
					chain.Rules = slices.Insert(slices.Clone(chain.Rules), at, rule)
				}
			}
		}
	}
}
