package netstate

// An IptablesSet is what one plain iptables-save of one variant and family printed.
type IptablesSet struct {
	Family  Family          `json:"family"`
	Variant string          `json:"variant"`           // "nft" or "legacy"
	Version string          `json:"version,omitempty"` // of the program: "1.8.9"
	Tables  []IptablesTable `json:"tables,omitempty"`
}

// An IptablesTable is one table: filter, nat, mangle, raw or security.
type IptablesTable struct {
	Name   string          `json:"name"`
	Chains []IptablesChain `json:"chains"`
	// Somebody else's base chains are in the table too, which iptables cannot show: only Namespace.Nft
	// has them. What iptables says of it, verbatim.
	Incomplete string `json:"incomplete,omitempty"`
}

// An IptablesChain is one chain with its rules in their order.
type IptablesChain struct {
	Name    string         `json:"name"`
	Policy  string         `json:"policy,omitempty"`  // "ACCEPT" or "DROP" of a built-in chain, "" of any other
	Packets uint64         `json:"packets,omitempty"` // counters of the policy
	Bytes   uint64         `json:"bytes,omitempty"`
	Rules   []IptablesRule `json:"rules,omitempty"`
}

// An IptablesRule is one rule as iptables-save prints it, without "-A CHAIN" and counters.
type IptablesRule struct {
	Text    string `json:"text"`
	Packets uint64 `json:"packets,omitempty"`
	Bytes   uint64 `json:"bytes,omitempty"`
}

// Command returns how the program of that variant and family is called in an Object:
// "iptables", "iptables-legacy", "ip6tables" or "ip6tables-legacy".
func (s *IptablesSet) Command() string {
	command := "iptables"
	if s.Family == IPv6 {
		command = "ip6tables"
	}
	if s.Variant == "legacy" {
		command += "-legacy"
	}
	return command
}

// IptablesSet returns the tables of that variant and family, or nil.
func (n *Namespace) IptablesSet(variant string, family Family) *IptablesSet {
	for i := range n.Iptables {
		if s := &n.Iptables[i]; s.Variant == variant && s.Family == family {
			return s
		}
	}
	return nil
}

// Table returns the table of that name, or nil. It may be called on nil.
func (s *IptablesSet) Table(name string) *IptablesTable {
	if s == nil {
		return nil
	}
	for i := range s.Tables {
		if s.Tables[i].Name == name {
			return &s.Tables[i]
		}
	}
	return nil
}

// Chain returns the chain of that name, or nil. It may be called on nil.
func (t *IptablesTable) Chain(name string) *IptablesChain {
	if t == nil {
		return nil
	}
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// An Ipset is one set of the ip_set subsystem.
type Ipset struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"` // "hash:ip", "hash:net,port", "bitmap:port", "list:set", …
	Family  Family   `json:"family,omitempty"`
	Entries []string `json:"entries,omitempty"` // as `ipset save` prints them, "nomatch" included; without timeout and counters
	Opaque  bool     `json:"opaque,omitempty"`  // the entries could not be read whole
}
