// Package netstate is the host as a document: what was read of one machine, its engine and its
// containers' network namespaces, as plain values that can be saved, read back and judged anywhere.
//
// It does no I/O. internal/host fills a Snapshot; packet and checks read it.
package netstate

import (
	"fmt"
	"strings"
	"time"
)

// Schema names the document format of a saved Snapshot.
const Schema = "netcheck.snapshot/v1"

// A Part is one kind of state, or a set of kinds, that can be read from a host.
type Part uint

// The parts. Each names the fields that it fills; a part is read for the host's namespace and for the
// namespace of every asked container, unless it says otherwise.
const (
	Engine    Part = 1 << iota // Snapshot.Engine, Containers, Networks, Proxies (host only)
	Links                      // Namespace.Links, Addrs, Neighs
	Routes                     // Namespace.Routes, Rules, Nexthops
	Sysctls                    // Namespace.Sysctls
	Sockets                    // Namespace.Sockets
	Iptables                   // Namespace.Iptables, Ipsets
	Nftables                   // Namespace.Nft
	Firewalld                  // Snapshot.Firewalld (host only)
	Conntrack                  // Namespace.Flows (host only)
	Traffic                    // Namespace.Qdiscs: tc and XDP (host only)
	Files                      // Snapshot.Files: the few configuration files that checks quote (host only)

	lastPart
)

// All is every part.
const All = lastPart - 1

var partNames = []string{"engine", "links", "routes", "sysctls", "sockets", "iptables", "nftables", "firewalld", "conntrack", "traffic", "files"}

// Each returns the single parts of p, in their order.
func (p Part) Each() []Part {
	var each []Part
	for one := Part(1); one < lastPart; one <<= 1 {
		if p&one != 0 {
			each = append(each, one)
		}
	}
	return each
}

// String returns the names of the parts, joined by "+".
func (p Part) String() string {
	var names []string
	for i, name := range partNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// ParsePart is the inverse of Part.String.
func ParsePart(text string) (Part, error) {
	var p Part
	if text == "" {
		return 0, nil
	}
next:
	for name := range strings.SplitSeq(text, "+") {
		for i, known := range partNames {
			if name == known {
				p |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("%q is no part of a snapshot", name)
	}
	return p, nil
}

// MarshalText and UnmarshalText make a part its name in JSON.
func (p Part) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Part) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePart(string(text))
	return err
}

// A Key says which piece of a part is meant. A zero field means all of that kind: Key{Part: Iptables}
// is the part as a whole, Key{Iptables, IPv6, "legacy", ""} one table set of the host, Key{Part: Links,
// Container: id} the links in one container's namespace.
type Key struct {
	Part      Part
	Family    Family
	Variant   string // of iptables: "nft" or "legacy"
	Container string // full ID; "" for the host
}

// MarshalText writes a key as part/family/variant/container.
func (k Key) MarshalText() ([]byte, error) {
	return []byte(strings.Join([]string{k.Part.String(), k.Family.String(), k.Variant, k.Container}, "/")), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Key) UnmarshalText(text []byte) error {
	field := strings.Split(string(text), "/")
	if len(field) != 4 {
		return fmt.Errorf("%q is no key of a snapshot", text)
	}
	part, err := ParsePart(field[0])
	if err != nil {
		return err
	}
	family, err := ParseFamily(field[1])
	if err != nil {
		return err
	}
	*k = Key{part, family, field[2], field[3]}
	return nil
}

// covers says whether what k names includes any of what asked names.
func (k Key) covers(asked Key) bool {
	return k.Part&asked.Part != 0 &&
		(k.Family == 0 || asked.Family == 0 || k.Family == asked.Family) &&
		(k.Variant == "" || asked.Variant == "" || k.Variant == asked.Variant) &&
		k.Container == asked.Container
}

// A Snapshot is everything that was read of one host at one time.
//
// What is absent and not listed in Missing was looked for and is not there; what could not be read
// stands in Missing with the reason, and no check may take it for well.
type Snapshot struct {
	Schema     string                `json:"schema"`
	Read       time.Time             `json:"read"`               // when reading ended
	Parts      Part                  `json:"parts"`              // what was asked for
	Thorough   bool                  `json:"thorough,omitempty"` // read with what only helps to name a fault and to mend it: other containers, firewalld's settings, all of Engine, Host.Flows, TCP sockets that do not listen, conf.default
	Missing    map[Key]string        `json:"missing,omitempty"`  // what of it could not be read, and why
	Kernel     string                `json:"kernel"`             // release, as uname -r
	BootID     string                `json:"boot_id"`            // /proc/sys/kernel/random/boot_id
	Engine     *EngineState          `json:"engine,omitempty"`
	Containers []Container           `json:"containers,omitempty"`
	Asked      []string              `json:"asked,omitempty"` // full IDs of the containers that were asked for, in that order; others are their donors
	Networks   []Network             `json:"networks,omitempty"`
	Proxies    []Proxy               `json:"proxies,omitempty"`
	Host       Namespace             `json:"host"`
	Sandboxes  map[string]*Namespace `json:"sandboxes,omitempty"` // by full container ID; of asked, running containers
	Firewalld  *FirewalldState       `json:"firewalld,omitempty"` // nil when no firewalld is on the bus
	Files      map[string]string     `json:"files,omitempty"`     // path → content, secrets left out; of a link that enables a service, where it leads
	Ignored    []string              `json:"-"`                   // of one that Decode read: paths of fields that this program does not know
}

// A Namespace is what was read of one network namespace.
type Namespace struct {
	ID       string            `json:"id"`             // inode of the namespace: "net:[4026531840]"
	NSID     *int              `json:"nsid,omitempty"` // of a sandbox: the id that the host's namespace gave it, which Link.PeerNS of the host's veths holds
	Links    []Link            `json:"links,omitempty"`
	Addrs    []Addr            `json:"addrs,omitempty"`
	Neighs   []Neigh           `json:"neighs,omitempty"`
	Routes   []Route           `json:"routes,omitempty"`
	Rules    []Rule            `json:"rules,omitempty"` // in the kernel's order: by family, then priority
	Nexthops []Nexthop         `json:"nexthops,omitempty"`
	Sysctls  map[string]string `json:"sysctls,omitempty"` // "net.ipv4.ip_forward" → "1"; a dot inside an interface name is "/"
	Sockets  []Socket          `json:"sockets,omitempty"`
	Iptables []IptablesSet     `json:"iptables,omitempty"` // at most one a variant and family
	Ipsets   []Ipset           `json:"ipsets,omitempty"`
	Nft      *Ruleset          `json:"nft,omitempty"` // native nf_tables, those that iptables-nft made included
	Flows    []Flow            `json:"flows,omitempty"`
	Qdiscs   []Qdisc           `json:"qdiscs,omitempty"`
}

// Only returns a view of s that shows the given parts alone. The view shares s's memory: it is for
// reading.
func (s *Snapshot) Only(parts Part) *Snapshot {
	view := *s
	view.Parts &= parts
	if parts&Engine == 0 {
		view.Engine, view.Containers, view.Networks, view.Proxies = nil, nil, nil, nil
	}
	if parts&Firewalld == 0 {
		view.Firewalld = nil
	}
	if parts&Files == 0 {
		view.Files = nil
	}
	view.Host = *s.Host.only(parts)
	view.Sandboxes = make(map[string]*Namespace, len(s.Sandboxes))
	for id, ns := range s.Sandboxes {
		view.Sandboxes[id] = ns.only(parts)
	}
	return &view
}

func (n *Namespace) only(parts Part) *Namespace {
	view := Namespace{ID: n.ID, NSID: n.NSID}
	if parts&Links != 0 {
		view.Links, view.Addrs, view.Neighs = n.Links, n.Addrs, n.Neighs
	}
	if parts&Routes != 0 {
		view.Routes, view.Rules, view.Nexthops = n.Routes, n.Rules, n.Nexthops
	}
	if parts&Sysctls != 0 {
		view.Sysctls = n.Sysctls
	}
	if parts&Sockets != 0 {
		view.Sockets = n.Sockets
	}
	if parts&Iptables != 0 {
		view.Iptables, view.Ipsets = n.Iptables, n.Ipsets
	}
	if parts&Nftables != 0 {
		view.Nft = n.Nft
	}
	if parts&Conntrack != 0 {
		view.Flows = n.Flows
	}
	if parts&Traffic != 0 {
		view.Qdiscs = n.Qdiscs
	}
	return &view
}

// Why returns the reason why what key names could not be read whole, or "" if it was. A part that was
// never asked for is not known either.
func (s *Snapshot) Why(key Key) string {
	if never := key.Part &^ s.Parts; never != 0 {
		return never.String() + ": not asked for"
	}
	// The order of a map is chance; the answer must not be.
	why, from := "", ""
	for missing, reason := range s.Missing {
		if missing.covers(key) {
			if text, _ := missing.MarshalText(); why == "" || string(text) < from {
				why, from = reason, string(text)
			}
		}
	}
	return why
}

// Lacks records that what key names could not be read.
func (s *Snapshot) Lacks(key Key, why string) {
	if s.Missing == nil {
		s.Missing = map[Key]string{}
	}
	s.Missing[key] = why
}
