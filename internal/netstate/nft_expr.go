package netstate

// An NftReg is a register, or none.
//
// Its number is its byte offset in the kernel's register file (struct nft_regs): 80 bytes, of which the first 16
// are the verdict's and 64 are for data. So data registers are 16, 20, … 76. The wire has two names for them:
// the old 16-byte registers 1 to 4 are 16, 32, 48 and 64; the 32-bit registers 8 to 23 are 16, 20, … 76. An
// expression says how many bytes it uses; they run on over the registers behind the first.
//
// A register holds bytes. What comes from the packet is in network order and starts at the first byte; numbers
// from the kernel (a mark, an interface index, a length, ct state, but not meta protocol, which is in network
// order) are in the machine's order (Ruleset.BigEndian) and fill 1, 2, 4 or 8 bytes; names are padded with NULs.
// A load that is no multiple of 4 long zeroes the rest of its last 4 bytes. All Data fields are such bytes.
type NftReg uint8

// Registers that hold no data.
const (
	NoReg      NftReg = 0 // the expression does not use one
	VerdictReg NftReg = 1 // stands for the verdict, whose place is at offset 0
)

// An NftExpr is one step of a rule: a pointer to one of the types below. Words in their fields are nft's own
// where it has one. Name returns the kernel's name of the type.
type NftExpr interface{ Name() string }

// NftExprs is a list of expressions. In JSON each is an object of one key, the kernel's name.
type NftExprs []NftExpr

// An NftPayload loads bytes of the packet into Dreg, or writes those of Sreg into it. A load beyond the
// packet's end breaks off the rule.
type NftPayload struct {
	Base       string `json:"base"` // "link", "network", "transport", "inner", "tunnel"
	Offset     uint32 `json:"offset"`
	Len        uint32 `json:"len"`
	Dreg       NftReg `json:"dreg,omitempty"`
	Sreg       NftReg `json:"sreg,omitempty"`
	Csum       string `json:"csum,omitempty"` // of a write: the checksum to mend: "inet", "sctp"
	CsumOffset uint32 `json:"csum_offset,omitempty"`
	CsumPseudo bool   `json:"csum_pseudo,omitempty"` // the pseudo header's as well
}

// An NftMeta loads what the kernel knows of the packet into Dreg, or sets it from Sreg. Its keys: "len", "protocol",
// "priority", "mark", "iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "skuid", "skgid", "nftrace",
// "rtclassid", "secmark", "nfproto", "l4proto", "ibrname", "obrname", "pkttype", "cpu", "iifgroup", "oifgroup",
// "cgroup", "prandom", "secpath", "iifkind", "oifkind", "ibrpvid", "ibrvproto", "time", "day", "hour", "sdif",
// "sdifname", "broute".
type NftMeta struct {
	Key  string `json:"key"`
	Dreg NftReg `json:"dreg,omitempty"`
	Sreg NftReg `json:"sreg,omitempty"`
}

// An NftCt loads what connection tracking knows of the packet into Dreg, or sets it from Sreg. A load breaks
// off the rule when the packet has no connection, except of the state. Its keys: "state", "direction", "status",
// "mark", "secmark", "expiration", "helper", "l3proto", "saddr", "daddr" (of either family), "protocol", "proto-src",
// "proto-dst", "label", "packets", "bytes", "avgpkt", "zone", "event", "ip saddr", "ip daddr", "ip6 saddr",
// "ip6 daddr", "id".
type NftCt struct {
	Key  string `json:"key"`
	Dir  string `json:"dir,omitempty"` // "original" or "reply"
	Dreg NftReg `json:"dreg,omitempty"`
	Sreg NftReg `json:"sreg,omitempty"`
}

// An NftCmp goes on if the bytes in Sreg stand so to Data, byte by byte as memcmp.
type NftCmp struct {
	Op   string `json:"op"` // "==", "!=", "<", "<=", ">", ">="
	Sreg NftReg `json:"sreg"`
	Data Hex    `json:"data"`
}

// An NftRange goes on if the bytes in Sreg are between From and To, both included, or with "!=" are not.
type NftRange struct {
	Op   string `json:"op"` // "==", "!="
	Sreg NftReg `json:"sreg"`
	From Hex    `json:"from"`
	To   Hex    `json:"to"`
}

// An NftBitwise writes Sreg, changed, into Dreg. "mask-xor" is (Sreg & Mask) ^ Xor. "<<" and ">>" are by Shift, over
// Len bytes as 32-bit words in the machine's order, the first highest. "and", "or" and "xor" are with Sreg2, or with
// Mask if that is NoReg.
type NftBitwise struct {
	Op    string `json:"op"` // "mask-xor", "<<", ">>", "and", "or", "xor"
	Sreg  NftReg `json:"sreg"`
	Sreg2 NftReg `json:"sreg2,omitempty"`
	Dreg  NftReg `json:"dreg"`
	Len   uint32 `json:"len"`
	Mask  Hex    `json:"mask,omitempty"`
	Xor   Hex    `json:"xor,omitempty"`
	Shift uint32 `json:"shift,omitempty"` // bits
}

// An NftByteorder swaps each Size bytes of Len from Sreg into Dreg.
type NftByteorder struct {
	Op   string `json:"op"` // "ntoh", "hton"
	Sreg NftReg `json:"sreg"`
	Dreg NftReg `json:"dreg"`
	Len  uint32 `json:"len"`
	Size uint32 `json:"size"` // 2, 4 or 8
}

// An NftLookup goes on if the set of the same table has Sreg's bytes (Invert: has not); a map then writes
// what it has for them into Dreg, which may be the verdict.
type NftLookup struct {
	Set    string `json:"set"`
	Sreg   NftReg `json:"sreg"`
	Dreg   NftReg `json:"dreg,omitempty"`
	Invert bool   `json:"invert,omitempty"`
}

// An NftImmediate writes Data into Dreg; with VerdictReg it gives the verdict.
type NftImmediate struct {
	Dreg    NftReg      `json:"dreg"`
	Data    Hex         `json:"data,omitempty"`
	Verdict *NftVerdict `json:"verdict,omitempty"`
}

// An NftVerdict is what becomes of the packet.
type NftVerdict struct {
	Code  string `json:"code"`            // "accept", "drop", "continue" (with the next rule), "break" (the same), "return", "jump", "goto", "queue"
	Chain string `json:"chain,omitempty"` // of jump and goto
	Queue uint16 `json:"queue,omitempty"`
}

// An NftFib asks the routing table; Dreg gets the answer. With Present that is 1 if there is a route, else 0: 4 bytes in
// the machine's order, of which nft 1.1.4 and later compare the first alone.
type NftFib struct {
	Result  string   `json:"result"` // "oif" (index), "oifname", "type" (RTN_*)
	Flags   []string `json:"flags"`  // what it asks with: "saddr" or "daddr", "mark", "iif", "oif"
	Present bool     `json:"present,omitempty"`
	Dreg    NftReg   `json:"dreg"`
}

// An NftRt loads what the packet's route knows.
type NftRt struct {
	Key  string `json:"key"` // "classid", "nexthop4", "nexthop6", "tcpmss", "ipsec"
	Dreg NftReg `json:"dreg"`
}

// An NftSocket loads a property of the local socket that the packet would reach; without one the rule breaks off.
type NftSocket struct {
	Key   string `json:"key"`             // "transparent", "mark", "wildcard", "cgroupv2"
	Level uint32 `json:"level,omitempty"` // of cgroupv2
	Dreg  NftReg `json:"dreg"`
}

// An NftNumgen writes a number from Offset to Offset+Mod-1 into Dreg.
type NftNumgen struct {
	Type   string `json:"type"` // "inc", "random"
	Mod    uint32 `json:"mod"`
	Offset uint32 `json:"offset,omitempty"`
	Dreg   NftReg `json:"dreg"`
}

// An NftHash writes a hash, from Offset to Offset+Mod-1, into Dreg.
type NftHash struct {
	Type   string  `json:"type"` // "jhash" of Len bytes in Sreg; "symhash" of the flow
	Sreg   NftReg  `json:"sreg,omitempty"`
	Len    uint32  `json:"len,omitempty"`
	Mod    uint32  `json:"mod"`
	Offset uint32  `json:"offset,omitempty"`
	Seed   *uint32 `json:"seed,omitempty"` // nil: the kernel's own
	Dreg   NftReg  `json:"dreg"`
}

// An NftLimit goes on while the rate is kept; Over: while it is exceeded.
type NftLimit struct {
	Type  string `json:"type"` // "packets", "bytes"
	Rate  uint64 `json:"rate"` // per Unit
	Unit  uint64 `json:"unit"` // seconds
	Burst uint32 `json:"burst,omitempty"`
	Over  bool   `json:"over,omitempty"`
}

// An NftQuota goes on until Bytes were used; Over: once they are.
type NftQuota struct {
	Bytes    uint64 `json:"bytes"`
	Used     uint64 `json:"used,omitempty"`
	Over     bool   `json:"over,omitempty"`
	Depleted bool   `json:"depleted,omitempty"`
}

// An NftConnlimit goes on up to Count connections; Over: above it.
type NftConnlimit struct {
	Count uint32 `json:"count"`
	Over  bool   `json:"over,omitempty"`
}

// An NftCounter counts.
type NftCounter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// An NftLast remembers when it last ran.
type NftLast struct {
	Used  bool   `json:"used,omitempty"`
	Msecs uint64 `json:"msecs,omitempty"` // ago
}

// An NftLog logs and goes on.
type NftLog struct {
	Prefix    string  `json:"prefix,omitempty"`
	Level     *uint32 `json:"level,omitempty"` // syslog's; 8 is audit
	Flags     uint32  `json:"flags,omitempty"` // NF_LOG_*: 1 tcp sequence, 2 tcp options, 4 ip options, 8 skuid, 32 ether
	Group     *uint16 `json:"group,omitempty"` // nfnetlink_log's
	Snaplen   uint32  `json:"snaplen,omitempty"`
	Threshold uint16  `json:"threshold,omitempty"`
}

// An NftReject answers and drops.
type NftReject struct {
	Type string `json:"type"` // "icmp" (type of the table's family), "icmpx" (either family), "tcp reset"
	Code uint8  `json:"code,omitempty"`
}

// An NftNat translates the connection and accepts. Registers hold addresses and ports in network order.
type NftNat struct {
	Type    string   `json:"type"`   // "snat", "dnat"
	Family  string   `json:"family"` // "ip", "ip6", "inet"
	AddrMin NftReg   `json:"addr_min,omitempty"`
	AddrMax NftReg   `json:"addr_max,omitempty"`
	PortMin NftReg   `json:"port_min,omitempty"`
	PortMax NftReg   `json:"port_max,omitempty"`
	Flags   []string `json:"flags,omitempty"` // "random", "persistent", "fully-random", "netmap", "specified" (ports)
}

// An NftMasq is snat to the address of the outgoing link.
type NftMasq struct {
	PortMin NftReg   `json:"port_min,omitempty"`
	PortMax NftReg   `json:"port_max,omitempty"`
	Flags   []string `json:"flags,omitempty"` // as NftNat's
}

// An NftRedir is dnat to the host itself.
type NftRedir struct {
	PortMin NftReg   `json:"port_min,omitempty"`
	PortMax NftReg   `json:"port_max,omitempty"`
	Flags   []string `json:"flags,omitempty"`
}

// An NftTproxy hands the packet to a local socket without changing it; without one the rule breaks off.
type NftTproxy struct {
	Family string `json:"family"` // "ip", "ip6", "inet"
	Addr   NftReg `json:"addr,omitempty"`
	Port   NftReg `json:"port,omitempty"`
}

// An NftNotrack keeps the packet from connection tracking.
type NftNotrack struct{}

// An NftDynset adds, updates or deletes an element of a set; it goes on if that was done (Invert: was not).
type NftDynset struct {
	Op      string   `json:"op"` // "add", "update", "delete"
	Set     string   `json:"set"`
	Key     NftReg   `json:"key"`
	Data    NftReg   `json:"data,omitempty"`
	Timeout uint64   `json:"timeout,omitempty"` // ms
	Invert  bool     `json:"invert,omitempty"`
	Exprs   NftExprs `json:"exprs,omitempty"` // of the new element; run for it as well
}

// An NftObjref calls an object: the one of that type and name, or the one that the map Set has for Sreg.
type NftObjref struct {
	Type   string `json:"type,omitempty"` // as NftObject's
	Object string `json:"object,omitempty"`
	Set    string `json:"set,omitempty"`
	Sreg   NftReg `json:"sreg,omitempty"`
}

// An NftFlowOffload puts the connection into a flowtable.
type NftFlowOffload struct {
	Table string `json:"table"`
}

// An NftExthdr loads from an extension header or option into Dreg, or writes Sreg into it. Without
// that header the rule breaks off; with Present Dreg gets one byte, 1 if it is there.
type NftExthdr struct {
	Op      string `json:"op"`   // "ipv6", "tcp", "ipv4", "sctp", "dccp"
	Type    uint8  `json:"type"` // number of the header, option or chunk
	Offset  uint32 `json:"offset"`
	Len     uint32 `json:"len"`
	Present bool   `json:"present,omitempty"`
	Dreg    NftReg `json:"dreg,omitempty"`
	Sreg    NftReg `json:"sreg,omitempty"`
	Strip   bool   `json:"strip,omitempty"` // neither: the TCP option is removed
}

// An NftOsf loads the name of the sender's operating system, as its SYN shows it.
type NftOsf struct {
	TTL     uint8  `json:"ttl"` // 0 as it is, 1 less or equal, 2 ignored
	Version bool   `json:"version,omitempty"`
	Dreg    NftReg `json:"dreg"`
}

// An NftDup sends a copy elsewhere.
type NftDup struct {
	Addr NftReg `json:"addr,omitempty"`
	Dev  NftReg `json:"dev,omitempty"` // interface index
}

// An NftFwd sends the packet out of a link, from ingress, and ends it here.
type NftFwd struct {
	Dev    NftReg `json:"dev"` // interface index
	Addr   NftReg `json:"addr,omitempty"`
	Family string `json:"family,omitempty"` // of Addr: "ip", "ip6"
}

// An NftSynproxy answers a SYN in the server's place.
type NftSynproxy struct {
	MSS    uint16 `json:"mss,omitempty"`
	Wscale uint8  `json:"wscale,omitempty"`
	Flags  uint32 `json:"flags,omitempty"` // 1 mss, 2 wscale, 4 sack-perm, 8 timestamp
}

// An NftTunnel loads from the packet's tunnel metadata.
type NftTunnel struct {
	Key  string `json:"key"`            // "path" (there is one), "id"
	Mode string `json:"mode,omitempty"` // "rx", "tx"; "" either
	Dreg NftReg `json:"dreg"`
}

// An NftXfrm loads from the packet's IPsec state.
type NftXfrm struct {
	Key  string `json:"key"` // "daddr4", "daddr6", "saddr4", "saddr6", "reqid", "spi"
	Dir  string `json:"dir"` // "in", "out"
	Num  uint32 `json:"num,omitempty"`
	Dreg NftReg `json:"dreg"`
}

// An NftInner runs one expression, an NftPayload or NftMeta, on the packet inside a tunnel's.
type NftInner struct {
	Type    string   `json:"type"` // "vxlan", "geneve", "other"
	Flags   uint32   `json:"flags"`
	HdrSize uint32   `json:"hdr_size"`
	Exprs   NftExprs `json:"exprs"` // the one
}

// An NftQueue hands the packet to a program.
type NftQueue struct {
	Num    uint16 `json:"num"`
	Total  uint16 `json:"total,omitempty"`
	Sreg   NftReg `json:"sreg,omitempty"`   // holds the number instead
	Bypass bool   `json:"bypass,omitempty"` // without a program it goes on
	Fanout bool   `json:"fanout,omitempty"`
}

// An NftMatch runs an xt match: goes on if it holds.
type NftMatch struct {
	Match string `json:"match"` // "addrtype", "conntrack", …
	Rev   uint32 `json:"rev"`
	Info  Hex    `json:"info,omitempty"` // the match's own struct of that revision, as the kernel has it
}

// An NftTarget runs an xt target.
type NftTarget struct {
	Target string `json:"target"` // "DNAT", "LOG", …
	Rev    uint32 `json:"rev"`
	Info   Hex    `json:"info,omitempty"`
}

// An NftCtHelper is the object of that type.
type NftCtHelper struct {
	Helper string `json:"helper"`
	L3     string `json:"l3"` // "ip", "ip6", "inet"
	L4     uint8  `json:"l4"` // IP protocol
}

// An NftCtTimeout is the object of that type.
type NftCtTimeout struct {
	L3     string            `json:"l3"`
	L4     uint8             `json:"l4"`
	Policy map[uint16]uint32 `json:"policy,omitempty"` // state of that protocol, as the kernel numbers its attribute → seconds
}

// An NftCtExpect is the object of that type.
type NftCtExpect struct {
	L3      string `json:"l3"`
	L4      uint8  `json:"l4"`
	Port    uint16 `json:"port"`
	Timeout uint32 `json:"timeout"` // ms
	Size    uint8  `json:"size"`
}

// An NftSecmark is the object of that type.
type NftSecmark struct {
	Context string `json:"context"`
}

// An NftOpaque is an expression that is not understood: what it does is not known.
type NftOpaque struct {
	Expr string `json:"expr"`          // the kernel's name of it
	Raw  Hex    `json:"raw,omitempty"` // its netlink attributes
}

// Name implements NftExpr; so for all of them.
func (*NftPayload) Name() string     { return "payload" }
func (*NftMeta) Name() string        { return "meta" }
func (*NftCt) Name() string          { return "ct" }
func (*NftCmp) Name() string         { return "cmp" }
func (*NftRange) Name() string       { return "range" }
func (*NftBitwise) Name() string     { return "bitwise" }
func (*NftByteorder) Name() string   { return "byteorder" }
func (*NftLookup) Name() string      { return "lookup" }
func (*NftImmediate) Name() string   { return "immediate" }
func (*NftFib) Name() string         { return "fib" }
func (*NftRt) Name() string          { return "rt" }
func (*NftSocket) Name() string      { return "socket" }
func (*NftNumgen) Name() string      { return "numgen" }
func (*NftHash) Name() string        { return "hash" }
func (*NftLimit) Name() string       { return "limit" }
func (*NftQuota) Name() string       { return "quota" }
func (*NftConnlimit) Name() string   { return "connlimit" }
func (*NftCounter) Name() string     { return "counter" }
func (*NftLast) Name() string        { return "last" }
func (*NftLog) Name() string         { return "log" }
func (*NftReject) Name() string      { return "reject" }
func (*NftNat) Name() string         { return "nat" }
func (*NftMasq) Name() string        { return "masq" }
func (*NftRedir) Name() string       { return "redir" }
func (*NftTproxy) Name() string      { return "tproxy" }
func (*NftNotrack) Name() string     { return "notrack" }
func (*NftDynset) Name() string      { return "dynset" }
func (*NftObjref) Name() string      { return "objref" }
func (*NftFlowOffload) Name() string { return "flow_offload" }
func (*NftExthdr) Name() string      { return "exthdr" }
func (*NftOsf) Name() string         { return "osf" }
func (*NftDup) Name() string         { return "dup" }
func (*NftFwd) Name() string         { return "fwd" }
func (*NftSynproxy) Name() string    { return "synproxy" }
func (*NftTunnel) Name() string      { return "tunnel" }
func (*NftXfrm) Name() string        { return "xfrm" }
func (*NftInner) Name() string       { return "inner" }
func (*NftQueue) Name() string       { return "queue" }
func (*NftMatch) Name() string       { return "match" }
func (*NftTarget) Name() string      { return "target" }
func (*NftCtHelper) Name() string    { return "ct helper" }
func (*NftCtTimeout) Name() string   { return "ct timeout" }
func (*NftCtExpect) Name() string    { return "ct expectation" }
func (*NftSecmark) Name() string     { return "secmark" }
func (*NftOpaque) Name() string      { return "opaque" }
