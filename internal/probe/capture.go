package probe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// The bounds of a capture that names none.
const (
	CaptureCount    = 1000
	CaptureDuration = time.Minute
	CaptureSnaplen  = 65535
)

// CaptureNeeds is what NewCapture reads of a snapshot.
const CaptureNeeds = netstate.Engine | netstate.Links | netstate.Routes

// CaptureOptions say what of one container's traffic is captured, and how much.
type CaptureOptions struct {
	Container string        // full ID
	Port      netstate.Port // of the container; zero: all
	Client    netip.Addr    // only what has this other end; zero: all
	Iface     string        // the uplink; "": that of the default route
	Hops      []packet.Hop  // of Uplink, Bridge, Veth and Container; none: all of them
	Count     int           // packets, of all hops together; 0: CaptureCount
	Duration  time.Duration // 0: CaptureDuration
	Snaplen   int           // bytes of a packet that are kept; 0: CaptureSnaplen
	Ready     func()        // called once all hops are open; may be nil
}

// A Capture is tcpdump at all hops of one container's traffic at once. It sees nothing of other traffic:
// the kernel gives it copies of the container's own packets alone, on both sides of address translation.
type Capture struct {
	options CaptureOptions
	places  []place
	what    selection
	host    string
	seen    []HopCount
}

// A selection says which packets are a container's.
type selection struct {
	addrs  []netip.Addr    // of the container
	port   uint16          // of the container; 0: all
	outer  []publishedPort // on the host's side
	client netip.Addr      // only with this other end; zero: all
}

// A publishedPort is a port of the host that leads to the container.
type publishedPort struct {
	proto uint8
	addrs []netip.Addr
	port  uint16
}

// NewCapture prepares a capture of a container of the snapshot. It does not look at the machine.
func NewCapture(s *netstate.Snapshot, o CaptureOptions) (*Capture, error) {
	container := s.Container(o.Container)
	inside := s.Sandboxes[o.Container]
	switch {
	case container == nil:
		return nil, fmt.Errorf("container %s: is not in the snapshot", o.Container)
	case s.Engine != nil && !s.Engine.Local:
		return nil, fmt.Errorf("container %s: its engine runs on another machine", container.Name)
	case inside == nil:
		return nil, fmt.Errorf("container %s: has no network namespace of its own to capture in", container.Name)
	}
	if o.Count <= 0 {
		o.Count = CaptureCount
	}
	if o.Duration <= 0 {
		o.Duration = CaptureDuration
	}
	if o.Snaplen <= 0 || o.Snaplen > CaptureSnaplen {
		o.Snaplen = CaptureSnaplen
	}
	c := &Capture{options: o, host: s.Host.ID}
	c.what = selection{port: o.Port.Number, client: o.Client.Unmap()}
	for _, a := range inside.Addrs {
		if addr := a.Prefix.Addr(); !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			c.what.addrs = append(c.what.addrs, addr)
		}
	}
	if len(c.what.addrs) == 0 {
		return nil, fmt.Errorf("container %s: has no address", container.Name)
	}
	for _, b := range container.Published {
		if b.HostPort != 0 && (o.Port == netstate.Port{} || o.Port == b.Port) {
			c.what.outer = append(c.what.outer, published(&s.Host, b))
		}
	}
	for _, uplink := range uplinks(s, o.Iface) {
		c.places = append(c.places, place{hop: packet.Uplink, link: uplink})
	}
	c.places = append(c.places, placesOf(s, o.Container)...)
	if len(o.Hops) > 0 {
		c.places = slices.DeleteFunc(c.places, func(p place) bool { return !slices.Contains(o.Hops, p.hop) })
	}
	if len(c.places) == 0 {
		return nil, fmt.Errorf("container %s: none of its hops is a link on this host", container.Name)
	}
	for i := range c.places {
		p, ns := &c.places[i], &s.Host
		if p.container != "" {
			ns = inside
		}
		if l := ns.Link(p.link); l != nil {
			p.mac = l.MAC
			p.raw = !l.Loopback && len(l.MAC) != len("02:00:00:00:00:00")
		}
	}
	return c, nil
}

// uplinks returns the links by which the host's default routes lead.
func uplinks(s *netstate.Snapshot, iface string) []string {
	if iface != "" {
		return []string{iface}
	}
	var links []string
	for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		if l := defaultLink(&s.Host, family); l != "" && !slices.Contains(links, l) {
			links = append(links, l)
		}
	}
	return links
}

// published returns the host's side of a binding: with all addresses of the host if it has none of its
// own.
func published(host *netstate.Namespace, b netstate.Binding) publishedPort {
	p := publishedPort{proto: 6, port: b.HostPort} // IP protocol numbers
	switch b.Port.Proto {
	case "udp":
		p.proto = 17
	case "sctp":
		p.proto = 132
	}
	if b.Host.IsValid() && !b.Host.IsUnspecified() {
		p.addrs = []netip.Addr{b.Host.Unmap()}
		return p
	}
	for _, a := range host.Addrs {
		addr := a.Prefix.Addr()
		if !addr.IsLoopback() && (!b.Host.IsValid() || netstate.FamilyOf(addr) == netstate.FamilyOf(b.Host)) {
			p.addrs = append(p.addrs, addr)
		}
	}
	return p
}

// A Packet is one packet as one hop saw it.
type Packet struct {
	Time   time.Time `json:"time"`
	Place  int       `json:"place"`  // index into Capture.Counts
	In     bool      `json:"in"`     // toward the container
	Length int       `json:"length"` // on the wire
	Data   []byte    `json:"data"`
	Text   string    `json:"text"` // in words; printable
}

// Line writes the packet as tcpdump does, with the hop in front.
func (c *Capture) Line(p Packet) string {
	place := c.places[p.Place]
	arrow := "→"
	if !p.In {
		arrow = "←"
	}
	return fmt.Sprintf("%s %-9s %s %-15s %s", p.Time.Format("15:04:05.000000"), place.hop, arrow, printable(place.link), printable(p.Text))
}

// A HopCount is how many packets one hop saw, toward the container and from it.
type HopCount struct {
	Hop     packet.Hop `json:"hop"`
	Link    string     `json:"link"`
	Where   string     `json:"where"`
	In      int        `json:"in"`
	Out     int        `json:"out"`
	Lost    int        `json:"lost,omitempty"`    // that the kernel could not give us
	Missing string     `json:"missing,omitempty"` // why nothing was captured there
}

// Table returns the table hop × packets: where a number is smaller than the one before it, packets have
// vanished between the two.
func (c *Capture) Table() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "HOP\tLINK\tWHERE\tTO CONTAINER\tFROM CONTAINER\t")
	for _, n := range c.seen {
		note := ""
		switch {
		case n.Missing != "":
			fmt.Fprintf(w, "%s\t%s\t%s\t?\t?\tnot captured: %s\n", n.Hop, printable(n.Link), printable(n.Where), printable(n.Missing))
			continue
		case n.Lost > 0:
			note = fmt.Sprintf("and %d that were lost to the capture", n.Lost)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", n.Hop, printable(n.Link), printable(n.Where), n.In, n.Out, note)
	}
	w.Flush()
	var lines []string
	for line := range strings.Lines(text.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n") + "\n"
}

// Counts returns what the table shows.
func (c *Capture) Counts() []HopCount { return slices.Clone(c.seen) }

// Options returns what the capture was made with, bounds filled in.
func (c *Capture) Options() CaptureOptions { return c.options }

// SetCounts takes the counts of the same capture that ran elsewhere.
func (c *Capture) SetCounts(counts []HopCount) error {
	if len(counts) != len(c.places) {
		return fmt.Errorf("the capture has %d hops, not the %d that were read", len(counts), len(c.places))
	}
	for i, n := range counts {
		if n.Hop != c.places[i].hop || n.Link != c.places[i].link {
			return fmt.Errorf("the capture has the hop %s %s, not %s %s as was read", n.Hop, n.Link, c.places[i].hop, c.places[i].link)
		}
	}
	c.seen = slices.Clone(counts)
	return nil
}

// Has says whether the packet is of one of the capture's hops: one from elsewhere may not be.
func (c *Capture) Has(p Packet) bool { return p.Place >= 0 && p.Place < len(c.places) }
