package dockerd

import (
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Edited returns a snapshot that is as s will be when the edits are made, as far as they are iptables' or put
// a container's rules into the chains of the nftables backend. It shares what is not edited.
func Edited(s *netstate.Snapshot, edits []Edit) *netstate.Snapshot {
	after := *s
	after.Host.Iptables = slices.Clone(s.Host.Iptables)
	for i := range after.Host.Iptables {
		set := &after.Host.Iptables[i]
		set.Tables = slices.Clone(set.Tables)
		for j := range set.Tables {
			set.Tables[j].Chains = slices.Clone(set.Tables[j].Chains)
			for k := range set.Tables[j].Chains {
				set.Tables[j].Chains[k].Rules = slices.Clone(set.Tables[j].Chains[k].Rules)
			}
		}
	}
	for _, e := range edits {
		if e.Variant == "" {
			continue
		}
		chain := chainOf(&after.Host, e)
		at := e.Number - 1
		if e.Op != NewChain && (at < 0 || at > len(chain.Rules)) || e.Op != NewChain && e.Op != Insert && at == len(chain.Rules) {
			continue // no edit of this snapshot
		}
		switch e.Op {
		case Insert:
			chain.Rules = slices.Insert(chain.Rules, at, netstate.IptablesRule{Text: e.Text})
		case Replace:
			chain.Rules[at] = netstate.IptablesRule{Text: e.Text}
		case Delete:
			chain.Rules = slices.Delete(chain.Rules, at, at+1)
		}
	}
	editNft(&after, edits)
	return &after
}

// chainOf returns the chain that an edit changes, made if need be.
func chainOf(n *netstate.Namespace, e Edit) *netstate.IptablesChain {
	set := n.IptablesSet(e.Variant, e.Family)
	if set == nil {
		n.Iptables = append(n.Iptables, netstate.IptablesSet{Family: e.Family, Variant: e.Variant})
		set = &n.Iptables[len(n.Iptables)-1]
	}
	table := set.Table(e.Table)
	if table == nil {
		set.Tables = append(set.Tables, netstate.IptablesTable{Name: e.Table})
		table = &set.Tables[len(set.Tables)-1]
	}
	chain := table.Chain(e.Chain)
	if chain == nil {
		table.Chains = append(table.Chains, netstate.IptablesChain{Name: e.Chain})
		chain = &table.Chains[len(table.Chains)-1]
		if builtIn(e.Chain) {
			chain.Policy = "ACCEPT"
		}
	}
	return chain
}
