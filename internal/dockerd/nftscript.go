package dockerd

import (
	"fmt"
	"strings"
)

// NftScript writes the edits of the nftables backend for `nft -f`, which makes them in one transaction.
// It refuses texts that nft might read as something else.
func NftScript(edits []Edit) (string, error) {
	var b strings.Builder
	for _, e := range edits {
		if e.Variant != "" {
			continue
		}
		for _, text := range []string{e.Chain, e.Text, e.Old} {
			if i := strings.IndexFunc(text, func(r rune) bool { return r == '\\' || r < ' ' || r == 0x7f }); i >= 0 || strings.Count(text, `"`)%2 != 0 {
				return "", fmt.Errorf("%q cannot be written for nft", text)
			}
		}
		table := nftFamily(e.Family) + " " + e.Table
		chain := table + " " + e.Chain
		switch {
		case e.Op == WakeTable:
			fmt.Fprintf(&b, "add table %s\n", table)
		case e.Op == NewMap:
			fmt.Fprintf(&b, "add map %s { type ifname : verdict; }\n", chain)
		case e.Op == Rehook:
			fmt.Fprintf(&b, "flush chain %s\ndelete chain %[1]s\nadd chain %[1]s { %s }\n", chain, e.Text)
		case e.Op == NewChain && e.Text == "":
			fmt.Fprintf(&b, "add chain %s\n", chain)
		case e.Op == NewChain:
			fmt.Fprintf(&b, "add chain %s { %s }\n", chain, e.Text)
		case e.Op == Insert && e.Element:
			fmt.Fprintf(&b, "add element %s { %s }\n", chain, e.Text)
		case e.Op == Delete && e.Element:
			key, _, _ := strings.Cut(e.Old, " : ")
			fmt.Fprintf(&b, "delete element %s { %s }\n", chain, key)
		case e.Op == Delete:
			fmt.Fprintf(&b, "delete rule %s handle %d\n", chain, e.Handle)
		case e.Op == Insert && e.Handle != 0:
			fmt.Fprintf(&b, "insert rule %s handle %d %s\n", chain, e.Handle, e.Text)
		case e.Op == Insert:
			fmt.Fprintf(&b, "add rule %s %s\n", chain, e.Text)
		default:
			return "", fmt.Errorf("%s %s: no edit of nftables", e.Op, chain)
		}
	}
	return b.String(), nil
}
