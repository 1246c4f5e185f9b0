package netstate

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Bounds of what one document may describe. They are far beyond any host, and keep work that grows with
// the square of a number bearable.
const (
	mostContainers = 10_000
	mostNetworks   = 10_000
	mostLinks      = 100_000
	mostBindings   = 100_000 // of all containers
)

// Validate says whether the packages that judge a snapshot can rely on it, and if not, where: names and
// indexes that things are found by are there and no two are the same, what must point forward does, and
// numbers are in the range that the kernel has for them. What Collect makes is valid.
//
// It does not say that the snapshot makes sense: what it refers to may be missing, chains may call each
// other in a circle, and a rule may be nonsense. The readers expect that.
func (s *Snapshot) Validate() error {
	if s.Engine == nil && s.Why(Key{Part: Engine}) == "" {
		return errors.New("engine: there is none, although it was asked for and is not missing")
	}
	if n := len(s.Containers); n > mostContainers {
		return fmt.Errorf("containers: %d are more than %d", n, mostContainers)
	}
	if n := len(s.Networks); n > mostNetworks {
		return fmt.Errorf("networks: %d are more than %d", n, mostNetworks)
	}
	if err := cmp.Or(first(s.Containers, "containers", validContainer), first(s.Networks, "networks", validNetwork)); err != nil {
		return err
	}
	bindings := 0
	for _, c := range s.Containers {
		bindings += len(c.Published) + len(c.Configured)
	}
	if bindings > mostBindings {
		return fmt.Errorf("containers: %d published ports are more than %d", bindings, mostBindings)
	}
	if err := unique(s.Containers, "containers", "id", func(c Container) string { return c.ID }); err != nil {
		return err
	}
	if err := unique(s.Networks, "networks", "id", func(n Network) string { return n.ID }); err != nil {
		return err
	}
	if err := unique(s.Asked, "asked", "ID", func(id string) string { return id }); err != nil {
		return err
	}
	for i, id := range s.Asked {
		if s.Container(id) == nil {
			return fmt.Errorf("asked[%d]: %s is none of the containers", i, quoteShort(id))
		}
	}
	if err := s.Host.validate("host"); err != nil {
		return err
	}
	for _, id := range sorted(s.Sandboxes) {
		path := "sandboxes[" + quoteShort(id) + "]"
		if s.Sandboxes[id] == nil {
			return fmt.Errorf("%s is null", path)
		}
		if err := s.Sandboxes[id].validate(path); err != nil {
			return err
		}
	}
	return nil
}

func validContainer(c Container) error {
	for _, b := range slices.Concat(c.Published, c.Configured) {
		if b.Port == (Port{}) {
			return errors.New("a published port has no number")
		}
	}
	for _, e := range c.Endpoints {
		if err := cmp.Or(inFamily("ipv4", e.IPv4.Addr(), IPv4), inFamily("ipv6", e.IPv6.Addr(), IPv6)); err != nil {
			return err
		}
	}
	return named("id", c.ID)
}

func validNetwork(n Network) error {
	for _, m := range n.Members {
		if err := cmp.Or(inFamily("members: ipv4", m.IPv4.Addr(), IPv4), inFamily("members: ipv6", m.IPv6.Addr(), IPv6)); err != nil {
			return err
		}
	}
	for _, subnet := range n.Subnets {
		if !subnet.Prefix.IsValid() {
			return errors.New("a subnet has no prefix")
		}
	}
	return named("id", n.ID)
}

func (n *Namespace) validate(path string) error {
	if count := len(n.Links); count > mostLinks {
		return fmt.Errorf("%s.links: %d are more than %d", path, count, mostLinks)
	}
	for _, err := range []error{
		first(n.Links, path+".links", validLink),
		unique(n.Links, path+".links", "index", func(l Link) int { return l.Index }),
		unique(n.Links, path+".links", "name", func(l Link) string { return l.Name }),
		n.masters(path + ".links"),
		first(n.Addrs, path+".addrs", func(a Addr) error {
			if !a.Prefix.IsValid() {
				return errors.New("has no prefix")
			}
			return named("link", a.Link)
		}),
		first(n.Neighs, path+".neighs", func(n Neigh) error { return named("link", n.Link) }),
		first(n.Routes, path+".routes", validRoute),
		first(n.Rules, path+".rules", validRule),
		first(n.Nexthops, path+".nexthops", func(h Nexthop) error {
			if h.ID == 0 {
				return errors.New("has no id")
			}
			return nil
		}),
		unique(n.Nexthops, path+".nexthops", "id", func(h Nexthop) uint32 { return h.ID }),
		first(n.Sockets, path+".sockets", func(s Socket) error {
			if !s.Local.Addr().IsValid() {
				return errors.New("has no local address")
			}
			return named("proto", s.Proto)
		}),
		first(n.Iptables, path+".iptables", validIptables),
		unique(n.Iptables, path+".iptables", "command", func(s IptablesSet) string { return s.Command() }),
		first(n.Ipsets, path+".ipsets", func(s Ipset) error { return named("name", s.Name) }),
		unique(n.Ipsets, path+".ipsets", "name", func(s Ipset) string { return s.Name }),
		n.Nft.validate(path + ".nft"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func validLink(l Link) error {
	for _, number := range []struct {
		name  string
		value int
		least int
		most  int
	}{
		{"index", l.Index, 1, 1<<31 - 1}, {"mtu", l.MTU, 0, 1<<31 - 1}, {"master", l.Master, 0, 1<<31 - 1},
		{"peer", l.Peer, 0, 1<<31 - 1}, {"vlan", l.VLAN, 0, 4095},
	} {
		if number.value < number.least || number.value > number.most {
			return fmt.Errorf("%s is %d, want %d to %d", number.name, number.value, number.least, number.most)
		}
	}
	return named("name", l.Name)
}

// masters refuses links that are, over others, their own master: the kernel does.
func (n *Namespace) masters(path string) error {
	master := make(map[int]int, len(n.Links))
	for _, l := range n.Links {
		master[l.Index] = l.Master
	}
	sound := make(map[int]bool, len(n.Links)) // no circle from there on
	for _, l := range n.Links {
		var way []int
		onWay := map[int]bool{}
		for at := l.Index; at != 0 && !sound[at]; at = master[at] {
			if onWay[at] {
				return fmt.Errorf("%s: %s is its own master, over others", path, quoteShort(l.Name))
			}
			onWay[at], way = true, append(way, at)
		}
		for _, at := range way {
			sound[at] = true
		}
	}
	return nil
}

func validRoute(r Route) error {
	if !r.Dst.IsValid() {
		return errors.New("has no dst")
	}
	if r.MTU < 0 {
		return fmt.Errorf("mtu is %d", r.MTU)
	}
	return cmp.Or(inFamily("dst", r.Dst.Addr(), r.Family), inFamily("src", r.Src.Addr(), r.Family), inFamily("prefsrc", r.PrefSrc, r.Family))
}

func validRule(r Rule) error {
	if r.Action == "goto" && r.Goto <= r.Priority {
		return fmt.Errorf("goto %d does not lead forward from %d", r.Goto, r.Priority)
	}
	return cmp.Or(inFamily("src", r.Src.Addr(), r.Family), inFamily("dst", r.Dst.Addr(), r.Family))
}

func validIptables(s IptablesSet) error {
	if s.Variant != "nft" && s.Variant != "legacy" {
		return fmt.Errorf("variant is %s, want nft or legacy", quoteShort(s.Variant))
	}
	if s.Family != IPv4 && s.Family != IPv6 {
		return errors.New("has no family")
	}
	if err := unique(s.Tables, "tables", "name", func(t IptablesTable) string { return t.Name }); err != nil {
		return err
	}
	return first(s.Tables, "tables", func(t IptablesTable) error {
		if err := unique(t.Chains, "chains", "name", func(c IptablesChain) string { return c.Name }); err != nil {
			return err
		}
		return first(t.Chains, "chains", func(c IptablesChain) error { return named("name", c.Name) })
	})
}

// A misfit is what is wrong at a path of a document.
type misfit struct {
	path string
	err  error
}

func (m *misfit) Error() string { return m.path + ": " + m.err.Error() }
func (m *misfit) Unwrap() error { return m.err }

// within puts a path before that of err.
func within(path string, err error) error {
	var inner *misfit
	if errors.As(err, &inner) {
		return &misfit{path + "." + inner.path, inner.err}
	}
	return &misfit{path, err}
}

// first returns the first error of a list's elements, with the element's path.
func first[T any](list []T, path string, valid func(T) error) error {
	for i := range list {
		if err := valid(list[i]); err != nil {
			return within(fmt.Sprintf("%s[%d]", path, i), err)
		}
	}
	return nil
}

// unique refuses two elements with the same key.
func unique[T any, K comparable](list []T, path, what string, key func(T) K) error {
	seen := make(map[K]int, len(list))
	for i := range list {
		k := key(list[i])
		if other, twice := seen[k]; twice {
			return within(fmt.Sprintf("%s[%d]", path, i), fmt.Errorf("has the same %s as [%d]: %s", what, other, quoteShort(fmt.Sprint(k))))
		}
		seen[k] = i
	}
	return nil
}

func named(what, name string) error {
	if name == "" {
		return errors.New("has no " + what)
	}
	return nil
}

// inFamily refuses an address of another family; no address is of any.
func inFamily(what string, addr netip.Addr, family Family) error {
	if addr.IsValid() && (family == IPv4) != addr.Is4() {
		return fmt.Errorf("%s: %s is not of family %s", what, addr, family)
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
