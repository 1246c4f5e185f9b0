package netstate

import "net/netip"

// A Socket is one TCP or UDP socket, as inet_diag gives it.
type Socket struct {
	Proto   string         `json:"proto"` // "tcp", "udp", "sctp"
	State   string         `json:"state"` // "listen", "established", … ; of UDP "unconnected" or "established"
	Local   netip.AddrPort `json:"local"` // 0.0.0.0 or :: for any
	Remote  netip.AddrPort `json:"remote,omitzero"`
	V6Only  *bool          `json:"v6only,omitempty"` // of an IPv6 socket; nil: not known
	Dev     string         `json:"dev,omitempty"`    // SO_BINDTODEVICE
	RecvQ   uint32         `json:"recvq,omitempty"`  // of a listener: connections waiting to be accepted
	SendQ   uint32         `json:"sendq,omitempty"`  // of a listener: its backlog
	Inode   uint32         `json:"inode,omitempty"`
	PID     int            `json:"pid,omitempty"`     // 0: not known
	Program string         `json:"program,omitempty"` // comm of the process; "" not known
	Mark    uint32         `json:"mark,omitempty"`
}

// A Flow is one entry of the connection tracking table.
type Flow struct {
	Family   Family `json:"family"`
	Proto    string `json:"proto"` // "tcp", "udp", "icmp", …
	Original Tuple  `json:"original"`
	Reply    Tuple  `json:"reply"`
	Mark     uint32 `json:"mark,omitempty"`
	Zone     uint16 `json:"zone,omitempty"`
	Status   uint32 `json:"status"`          // enum ip_conntrack_status bits
	State    string `json:"state,omitempty"` // of TCP
	Timeout  uint32 `json:"timeout"`         // seconds left
}

// A Tuple is one direction of a flow.
type Tuple struct {
	Src netip.AddrPort `json:"src"`
	Dst netip.AddrPort `json:"dst"`
}
