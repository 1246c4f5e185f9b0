package netstate

import "net/netip"

// The directions of a target.
const (
	In   = "in"   // a client to a published port
	Out  = "out"  // the container to the world
	Peer = "peer" // the container to another one
)

// Where the packet starts.
const (
	FromOutside   = "outside"
	FromHost      = "host"      // a process on the host, to one of the host's addresses
	FromLocalhost = "localhost" // a process on the host, to a loopback address
	FromContainer = "container"
)

// A Target is one direction of one container and address family: what a report judges.
type Target struct {
	Container string         `json:"container"` // name
	ID        string         `json:"id"`
	Direction string         `json:"direction"`              // In, Out or Peer
	From      string         `json:"from"`                   // FromOutside, …
	Port      Port           `json:"port"`                   // the container's; zero for Out
	Host      netip.AddrPort `json:"host,omitzero"`          // In: the published address, 0.0.0.0 for all of them
	Family    Family         `json:"family"`                 // of the host's side; docker-proxy may change it on the way
	Client    netip.Addr     `json:"client,omitzero"`        // In from outside: the client; Out and Peer: where to is in To
	SPort     uint16         `json:"client_port,omitempty"`  // of Client: the packet is of that connection; 0: of a new one from any port
	Assumed   bool           `json:"assumed"`                // nobody named the client or destination
	Iface     string         `json:"iface,omitempty"`        // In from outside: the link by which the packet comes in; "" by the route back to Client
	To        netip.AddrPort `json:"to,omitzero"`            // Out and Peer: the destination; port 0: none named
	ToName    string         `json:"to_container,omitempty"` // Peer: the other container
	ToID      string         `json:"to_id,omitempty"`
	DNS       bool           `json:"dns,omitempty"` // Out: name resolution is judged as well
}
