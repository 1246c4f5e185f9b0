package packet

import (
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// tracks says whether the namespace tracks connections of the family: the kernel does so from the first rule
// on that asks for it, and without it no nat chain is run. Source: the callers of nf_ct_netns_get.
func (n *netns) tracks(family netstate.Family) bool {
	if on, known := n.tracked[family]; known {
		return on
	}
	if n.tracked == nil {
		n.tracked = map[netstate.Family]bool{}
	}
	on := n.why(netstate.Nftables, 0, "") != "" || n.why(netstate.Iptables, family, "") != "" ||
		n.nftTracks(family) || slices.ContainsFunc(n.state.Iptables, func(set netstate.IptablesSet) bool { return set.Family == family && textTracks(&set) })
	n.tracked[family] = on
	return on
}

// trackers are the matches and targets of xtables that need connection tracking.
var trackers = []string{"conntrack", "state", "connmark", "connbytes", "connlabel", "connlimit", "helper", "cluster",
	"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "CT", "CONNMARK", "CONNSECMARK", "SYNPROXY", "CLUSTERIP", "SAME"}

func textTracks(set *netstate.IptablesSet) bool {
	for i := range set.Tables {
		for j := range set.Tables[i].Chains {
			for k := range set.Tables[i].Chains[j].Rules {
				if asksTracking(set.Tables[i].Chains[j].Rules[k].Text) {
					return true
				}
			}
		}
	}
	return false
}

// asksTracking looks for "-m NAME" and "-j NAME".
func asksTracking(text string) bool {
	for {
		at := strings.IndexByte(text, '-')
		if at < 0 || at+3 >= len(text) {
			return false
		}
		if text = text[at+1:]; (text[0] == 'm' || text[0] == 'j') && text[1] == ' ' {
			name, rest, _ := strings.Cut(text[2:], " ")
			if slices.Contains(trackers, name) && rest != "--notrack" {
				return true
			}
		}
	}
}

func (n *netns) nftTracks(family netstate.Family) bool {
	if n.state.Nft == nil {
		return false
	}
	for i := range n.state.Nft.Tables {
		t := &n.state.Nft.Tables[i]
		if t.Family != ipFamily(family) && t.Family != "inet" {
			continue
		}
		for j := range t.Chains {
			for k := range t.Chains[j].Rules {
				for _, e := range t.Chains[j].Rules[k].Exprs {
					if exprTracks(e, ipFamily(family)) {
						return true
					}
				}
			}
		}
	}
	return false
}

func exprTracks(e netstate.NftExpr, family string) bool {
	switch e := e.(type) {
	case *netstate.NftNat:
		return e.Family == family || e.Family == "inet" // of a table for both, the address says which
	case *netstate.NftCt, *netstate.NftMasq, *netstate.NftRedir, *netstate.NftConnlimit, *netstate.NftSynproxy,
		*netstate.NftFlowOffload, *netstate.NftOpaque:
		return true
	case *netstate.NftObjref:
		return strings.HasPrefix(e.Type, "ct ") || e.Type == "synproxy"
	case *netstate.NftMatch:
		return slices.Contains(trackers, e.Match)
	case *netstate.NftTarget:
		notrack := e.Target == "CT" && len(e.Info) > 0 && e.Info[0]&1 == 1 // XT_CT_NOTRACK
		return slices.Contains(trackers, e.Target) && !notrack
	}
	return false
}
