// Package probe makes one live connection and sees what becomes of it: at every hop, at every rule, and
// with the kernel's own reason where it is dropped.
//
// A connection from outside needs no outside machine. Its client is a network namespace of our own,
// whose frames enter the host's uplink as though they came from the wire; the replies are taken off
// before they leave, so that nothing of the probe is ever on the real segment. Nothing is added to the
// host's own tables: no address, no route, no rule, no neighbour, since with any of them the probe could
// succeed where a client fails.
//
// A connection out of a container needs no machine there either: the probe takes the part of one that has an
// address that is nobody's, and answers in its stead.
//
// What is installed meanwhile belongs to this process (BPF links, a namespace without a name, an
// nftables table with an owner), and the kernel takes it away with the process, however that ends. On
// kernels that lack one of these, and for the record, Request.Installs names all of it and Store removes
// it.
//
// What a probe from outside does not traverse: the network card and its offloads, native XDP, GRO, the
// hooks of a bridge's or bond's ports, and everything beyond the uplink.
package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// ErrRefused means that no probe is made because it would disturb somebody, or would say nothing about a
// real client.
var ErrRefused = errors.New("no live probe")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// Timeout is how long a Request waits for an answer, unless it says otherwise. It leaves room for a
// second SYN.
const Timeout = 2500 * time.Millisecond

// A Request is one connection to make. NewRequest derives it from a snapshot; it does not change the
// snapshot and does not look at the machine.
type Request struct {
	Target netstate.Target
	Server netip.AddrPort // where the connection goes: the concrete address

	// Of a probe from outside, and of one to outside.
	Client  netip.Addr // the address outside: the client's, or the server's
	Uplink  string     // link by which its packets come in
	NextHop string     // MAC of the machine that a real client's frames would come from; "": not known

	// ICMP makes an echo request of it, instead of what the target's port asks for.
	ICMP bool
	// HTTP, of TCP, sends a GET for "/" and reads the first line of the answer. Without it nothing is sent
	// beyond the handshake.
	HTTP bool

	Timeout time.Duration
	Tag     string // 8 hexadecimal digits that all names of this probe end in

	places []place      // where copies are taken, in the order of the way in
	peer   place        // of a peer: the container that connects
	shared []string     // Docker's bridges: what leaves by them stays on the machine
	names  naming       // of rules
	ports  []uint16     // of the server's side, before and after translation
	host   string       // the host's network namespace: "net:[4026531840]"
	taken  []uint16     // the client's ports in connections that the host knows: the probe's is another
	known  []netip.Addr // of a probe to outside: the addresses that the machine there knows a way to
	lacks  []string     // for tests: what this kernel is taken to lack: "tcx", "btf", "tracefs"
}

// A place is a link where copies of the probe's packets are taken.
type place struct {
	hop       packet.Hop
	link      string
	container string // full ID; "" for the host
	name      string // of the container
	pid       int    // of the container
	id        string // of the container's namespace

	// Of a capture's file.
	mac string
	raw bool // its packets have no Ethernet header
}

// where names the place's namespace for people: "host" or "container web".
func (p place) where() string {
	if p.container == "" {
		return "host"
	}
	return "container " + p.name
}

// Link is the name of the probe's own link in the host's namespace.
//
// It begins with neither e nor veth, so that no firewall rule or network manager takes it for an uplink
// or a container's.
func (r *Request) Link() string { return "nc" + r.Tag }

// Table is the name of the nftables table, of family inet, that marks the probe's packets for tracing.
func (r *Request) Table() string { return "netcheck-" + r.Tag }

// Kind is the kind of the steps that Store carries out.
const Kind = "probe"

// installed is what a thing of a probe holds while it is there.
const installed = "made by docker netcheck for one live connection"

// The beginnings of the names of a Store's things; what follows is the name of the link, table or filter.
const (
	linkThing   = "link "
	tableThing  = "nft table inet "
	filterThing = "tc filters "
)

// Installs are the steps that announce to a journal what the probe makes on the host. They are to be
// applied before Observe, and undone after it: the kernel takes these things away with the process, and the
// journal is the second line for kernels that do not, and for the record.
func (r *Request) Installs() []remediate.Step {
	steps := []remediate.Step{remediate.Add(Kind, tableThing+r.Table(), installed)}
	if r.Client.IsValid() {
		steps = append(steps, remediate.Add(Kind, linkThing+r.Link(), installed), remediate.Add(Kind, filterThing+r.Table(), installed))
	}
	return steps
}
