package netstate

import "encoding/hex"

// A Ruleset is all that nf_tables holds in one network namespace, as the kernel holds it: chains of
// expressions over registers, not the text that somebody typed. What iptables-nft made is in it too.
//
// Nothing is left out. An expression that is not known, or that has an attribute that is not known, is an
// NftOpaque; attributes of other things that are not known stand in their Opaque field. Both mean that
// what the kernel does there cannot be told.
type Ruleset struct {
	Generation uint32     `json:"generation"`           // the kernel's number of this state; every change adds one
	BigEndian  bool       `json:"big_endian,omitempty"` // byte order of the machine: see NftReg
	Tables     []NftTable `json:"tables,omitempty"`     // in the kernel's order
}

// Hex is bytes that JSON shows as hexadecimal digits.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler. No digits are nil.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h = nil
	if len(text) > 0 {
		*h, err = hex.AppendDecode(nil, text)
	}
	return err
}

// An NftTable is one table with all that is in it.
type NftTable struct {
	Family     string         `json:"family"` // "ip", "ip6", "inet", "arp", "bridge" or "netdev"
	Name       string         `json:"name"`
	Handle     uint64         `json:"handle"`
	Dormant    bool           `json:"dormant,omitempty"` // its base chains are not hooked: nothing in it runs
	Owner      uint32         `json:"owner,omitempty"`   // netlink port of the program that alone may change it; 0: nobody
	Persist    bool           `json:"persist,omitempty"` // it stays when its owner ends
	Comment    string         `json:"comment,omitempty"`
	Userdata   Hex            `json:"userdata,omitempty"`
	Chains     []NftChain     `json:"chains,omitempty"` // in the kernel's order
	Sets       []NftSet       `json:"sets,omitempty"`   // sets and maps, anonymous ones included
	Objects    []NftObject    `json:"objects,omitempty"`
	Flowtables []NftFlowtable `json:"flowtables,omitempty"`
	Opaque     Hex            `json:"opaque,omitempty"` // netlink attributes that are not known
}

// An NftChain is one chain with its rules in the order in which they run.
type NftChain struct {
	Name     string    `json:"name"`
	Handle   uint64    `json:"handle"`
	Hook     *NftHook  `json:"hook,omitempty"`    // of a base chain
	Bound    bool      `json:"bound,omitempty"`   // without a name of its own: written inside the one rule that jumps to it
	Offload  bool      `json:"offload,omitempty"` // in hardware as well
	Comment  string    `json:"comment,omitempty"`
	Userdata Hex       `json:"userdata,omitempty"`
	Rules    []NftRule `json:"rules,omitempty"`
	Opaque   Hex       `json:"opaque,omitempty"`
}

// An NftHook is where a base chain is called.
type NftHook struct {
	Type     string   `json:"type"`              // "filter", "nat" or "route"
	Name     string   `json:"name"`              // "prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"
	Priority int32    `json:"priority"`          // as declared; the nat type runs elsewhere
	Devices  []string `json:"devices,omitempty"` // of ingress and egress; "eth*" is a prefix
	Policy   string   `json:"policy"`            // "accept" or "drop"
	Packets  uint64   `json:"packets,omitempty"` // that met the policy, where the chain counts them
	Bytes    uint64   `json:"bytes,omitempty"`
}

// An NftRule is one rule: expressions that run one after another until one breaks off or gives a verdict.
type NftRule struct {
	Handle   uint64     `json:"handle"`
	Exprs    NftExprs   `json:"exprs,omitempty"`
	Comment  string     `json:"comment,omitempty"`  // of Userdata
	Compat   *NftCompat `json:"compat,omitempty"`   // of a rule that iptables-nft made with xt extensions
	Userdata Hex        `json:"userdata,omitempty"` // whole
}

// NftCompat is what xt extensions in a rule are told of it.
type NftCompat struct {
	Proto  uint32 `json:"proto"` // of -p: an IP protocol number
	Invert bool   `json:"invert,omitempty"`
}

// An NftSet is one set or map, named or anonymous.
//
// An interval set of one field holds its ranges as two elements: one with the first key, and one with
// IntervalEnd and the first key behind the range (no end: up to the largest key). A concatenation
// (Fields) holds each range in one element, from Key to KeyEnd, field by field.
type NftSet struct {
	Name       string       `json:"name"`
	Handle     uint64       `json:"handle"`
	Anonymous  bool         `json:"anonymous,omitempty"`
	Constant   bool         `json:"constant,omitempty"`
	Interval   bool         `json:"interval,omitempty"`
	Map        bool         `json:"map,omitempty"`         // its elements have Data or a Verdict
	Timed      bool         `json:"timed,omitempty"`       // its elements may have a timeout
	Dynamic    bool         `json:"dynamic,omitempty"`     // rules add to it
	Stateful   bool         `json:"stateful,omitempty"`    // its elements have expressions of their own, made from Exprs
	KeyType    uint32       `json:"key_type"`              // nft's own number of the type; 6 bits a field, the last field lowest
	KeyLen     uint32       `json:"key_len"`               // bytes
	HostKey    bool         `json:"host_key,omitempty"`    // integers in keys are in the machine's order, as nft noted for itself
	HostData   bool         `json:"host_data,omitempty"`   // those in data
	Fields     []uint32     `json:"fields,omitempty"`      // bytes of each field of a concatenation, before they are padded to 4
	DataType   uint32       `json:"data_type,omitempty"`   // as KeyType
	DataLen    uint32       `json:"data_len,omitempty"`    // bytes; 0 for verdicts
	Verdicts   bool         `json:"verdicts,omitempty"`    // a map to verdicts
	ObjectType string       `json:"object,omitempty"`      // a map to objects of that type: see NftObject
	Timeout    uint64       `json:"timeout,omitempty"`     // of elements without their own, ms
	Size       uint32       `json:"size,omitempty"`        // most elements that it may have; 0: any
	Policy     string       `json:"policy,omitempty"`      // "memory"; "" is performance
	GCInterval uint32       `json:"gc_interval,omitempty"` // ms
	Exprs      NftExprs     `json:"exprs,omitempty"`
	Comment    string       `json:"comment,omitempty"`
	Userdata   Hex          `json:"userdata,omitempty"`
	Elements   []NftElement `json:"elements,omitempty"` // in the kernel's order, which means nothing
	Opaque     Hex          `json:"opaque,omitempty"`
}

// An NftElement is one element of a set or map.
type NftElement struct {
	Key         Hex         `json:"key,omitempty"`     // KeyLen bytes; none of a catch-all
	KeyEnd      Hex         `json:"key_end,omitempty"` // of a range in a concatenation: its last key
	IntervalEnd bool        `json:"interval_end,omitempty"`
	CatchAll    bool        `json:"catch_all,omitempty"` // is found when no other is
	Data        Hex         `json:"data,omitempty"`
	Verdict     *NftVerdict `json:"verdict,omitempty"`
	Object      string      `json:"object,omitempty"`     // name, of a map to objects
	Timeout     uint64      `json:"timeout,omitempty"`    // ms
	Expiration  uint64      `json:"expiration,omitempty"` // ms left
	Exprs       NftExprs    `json:"exprs,omitempty"`      // counter, limit, …
	Comment     string      `json:"comment,omitempty"`
	Userdata    Hex         `json:"userdata,omitempty"`
	Opaque      Hex         `json:"opaque,omitempty"`
}

// An NftObject is a named object, which rules call by NftObjref.
type NftObject struct {
	Name    string `json:"name"`
	Handle  uint64 `json:"handle"`
	Type    string `json:"type"` // "counter", "quota", "ct helper", "limit", "connlimit", "tunnel", "ct timeout", "secmark", "ct expectation", "synproxy"
	Comment string `json:"comment,omitempty"`
	// Exprs is one expression, which says what it is and its state: an NftCounter, NftQuota, NftLimit,
	// NftConnlimit, NftSynproxy, NftCtHelper, NftCtTimeout, NftCtExpect, NftSecmark or NftOpaque.
	Exprs    NftExprs `json:"exprs,omitempty"`
	Userdata Hex      `json:"userdata,omitempty"`
	Opaque   Hex      `json:"opaque,omitempty"`
}

// An NftFlowtable is a short cut past the forward hook for flows that a rule put into it.
type NftFlowtable struct {
	Name     string   `json:"name"`
	Handle   uint64   `json:"handle"`
	Hook     string   `json:"hook"` // "ingress"
	Priority int32    `json:"priority"`
	Devices  []string `json:"devices,omitempty"`
	Offload  bool     `json:"offload,omitempty"`
	Counter  bool     `json:"counter,omitempty"`
	Opaque   Hex      `json:"opaque,omitempty"`
}

// Table returns the table of that family ("ip", "inet", …) and name, or nil. It may be called on nil.
func (r *Ruleset) Table(family, name string) *NftTable {
	if r == nil {
		return nil
	}
	for i := range r.Tables {
		if t := &r.Tables[i]; t.Family == family && t.Name == name {
			return t
		}
	}
	return nil
}

// Chain returns the chain of that name, or nil. It may be called on nil.
func (t *NftTable) Chain(name string) *NftChain {
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

// Set returns the set or map of that name, or nil. It may be called on nil.
func (t *NftTable) Set(name string) *NftSet {
	if t == nil {
		return nil
	}
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	return nil
}
