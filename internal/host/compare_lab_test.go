//go:build linux

package host

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/google/go-cmp/cmp"
)

// What Collect reads is what the host's own programs show, and reading changes nothing.
func TestCollectAgrees(t *testing.T) {
	for _, suite := range []string{lab.Bookworm, lab.Forky} {
		t.Run(suite, func(t *testing.T) {
			h := lab.New(t, lab.Options{Suite: suite, Firewalld: true, IPv6: true, Clients: 2})
			furnish(t, h)
			before, err := h.State(t.Context(), "web", "guest", "peer")
			if err != nil {
				t.Fatal(err)
			}
			answer := collectIn(t, h, collectRequest{Containers: []string{"web", "guest", "peer", "onhost"}, Parts: netstate.All})
			if answer.Error != "" {
				t.Fatal(answer.Error)
			}
			after, err := h.State(t.Context(), "web", "guest", "peer")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("reading changes the host: %s", diff)
			}
			s := answer.Snapshot
			if len(s.Missing) != 0 {
				t.Errorf("missing: %v", s.Missing)
			}
			web, err := h.Container(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			peer, err := h.Container(t.Context(), "peer")
			if err != nil {
				t.Fatal(err)
			}
			for _, place := range []struct {
				name string
				in   *lab.Netns
				ns   *netstate.Namespace
			}{
				{"host", h.Netns, &s.Host},
				{"web", web, s.Sandboxes[containerID(s, "web")]},
				{"peer", peer, s.Sandboxes[containerID(s, "peer")]},
			} {
				t.Run(place.name, func(t *testing.T) {
					if place.ns == nil {
						t.Fatal("not read")
					}
					compareLinks(t, place.in, place.ns)
					compareRoutes(t, place.in, place.ns)
					compareSysctls(t, place.in, place.ns)
					compareSockets(t, place.in, place.ns)
					compareIptables(t, place.in, place.ns)
				})
			}
			compareFirewalld(t, h, s.Firewalld)
			compareContainers(t, h, s)
		})
	}
}

// furnish gives a host something of each kind.
func furnish(t *testing.T, h *lab.Host) {
	t.Helper()
	if err := h.Web(t.Context(), "web", "-p", "80:80"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Docker(t.Context(), "network", "create", "-o", "com.docker.network.bridge.name=br.user", "user"); err != nil {
		t.Fatal(err)
	}
	for name, arguments := range map[string][]string{
		"guest":  {"--network", "container:web", lab.Image, "sleep", "1000"},
		"onhost": {"--network", "host", lab.Image, "sleep", "1000"},
		"peer":   {"--network", "user", "-p", "127.0.0.1:8080:80", lab.Image, "sleep", "1000"},
	} {
		if err := h.RunContainer(t.Context(), name, arguments...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Sh(t.Context(), `
ip route add 203.0.113.128/25 metric 7 nexthop via 198.51.100.2 weight 2 nexthop via 198.51.100.3 dev eth0
ip route add blackhole 10.99.0.0/16
ip route add 10.98.0.0/16 via 198.51.100.2 table 100 metric 5 mtu 1400 proto static
ip nexthop add id 7 via 198.51.100.2 dev eth0
ip nexthop add id 8 blackhole
ip route add 10.97.0.0/16 nhid 7
ip -6 route add 2001:db8:7::/48 via 2001:db8::2 dev eth0 metric 9
ip -6 route add unreachable 2001:db8:8::/48
ip route add 10.96.0.0/16 via inet6 2001:db8::2 dev eth0
ip rule add pref 1000 from 10.0.0.0/8 fwmark 0x1/0xff lookup 100
ip rule add pref 1001 not iif eth0 ipproto tcp dport 80-90 lookup 100
ip rule add pref 1002 lookup main suppress_prefixlength 0
ip -6 rule add pref 1003 to 2001:db8:9::/48 prohibit
ip neigh add 198.51.100.77 lladdr 02:00:00:00:00:77 dev eth0
ip neigh add proxy 198.51.100.78 dev eth0
ip addr add 192.0.2.1 peer 192.0.2.2/32 dev eth0
ip link add v0 type veth peer name v1
ip link set v0 master docker0
bridge link set dev v0 hairpin on isolated on guard on
ip link set docker0 type bridge nf_call_iptables 1
sysctl -qw net.ipv4.conf.br/user.rp_filter=2 net.ipv4.conf.eth0.log_martians=1 net.ipv4.conf.docker0.route_localnet=1
ip6tables -A FORWARD -s 2001:db8:77::/48 -m comment --comment "a \"b\" 'c'" -j DROP
iptables -t mangle -A POSTROUTING -p tcp -j TCPMSS --clamp-mss-to-pmtu
`); err != nil {
		t.Fatal(err)
	}
}

func containerID(s *netstate.Snapshot, name string) string {
	for _, c := range s.Containers {
		if c.Name == name {
			return c.ID
		}
	}
	return ""
}

// ipJSON runs ip with JSON output.
func ipJSON[T any](t *testing.T, in *lab.Netns, arguments ...string) []T {
	t.Helper()
	out, err := in.Run(t.Context(), "ip", append([]string{"-j", "-d"}, arguments...)...)
	if err != nil {
		t.Fatal(err)
	}
	var all []T
	if strings.TrimSpace(out) == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("ip %v: %v: %s", arguments, err, out)
	}
	return all
}

// same compares two lists without regard to their order.
func same(t *testing.T, what string, want, got []string) {
	t.Helper()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
	if len(want) == 0 {
		t.Logf("%s: none", what)
	}
}

func compareLinks(t *testing.T, in *lab.Netns, ns *netstate.Namespace) {
	type ipLink struct {
		Index   int    `json:"ifindex"`
		Name    string `json:"ifname"`
		MTU     int
		Address string
		State   string `json:"operstate"`
		Master  string
		Peer    int    `json:"link_index"`
		PeerNS  *int   `json:"link_netnsid"`
		PeerIn  string `json:"link"`
		Flags   []string
		Info    struct {
			Kind string `json:"info_kind"`
			Data struct {
				Call int `json:"nf_call_iptables"`
			} `json:"info_data"`
			Port struct {
				State    string
				Hairpin  bool
				Guard    bool
				Isolated bool
			} `json:"info_slave_data"`
		} `json:"linkinfo"`
		Addrs []struct {
			Local  string
			Peer   string `json:"address"`
			Length int    `json:"prefixlen"`
			Scope  string
		} `json:"addr_info"`
	}
	var want, got, wantAddrs, gotAddrs []string
	for _, l := range ipJSON[ipLink](t, in, "addr") {
		peer := l.Peer
		if l.PeerIn != "" {
			peer = ns.Link(l.PeerIn).Index
		}
		want = append(want, fmt.Sprint(l.Index, l.Name, l.MTU, l.Address, strings.ToLower(l.State), l.Master, peer, number(l.PeerNS),
			slices.Contains(l.Flags, "UP"), slices.Contains(l.Flags, "LOWER_UP"), l.Info.Kind, l.Info.Data.Call,
			l.Info.Port.State, l.Info.Port.Hairpin, l.Info.Port.Guard, l.Info.Port.Isolated))
		for _, a := range l.Addrs {
			length := a.Length
			if a.Peer != "" {
				length = 32
				a.Peer += "/" + strconv.Itoa(a.Length)
			}
			wantAddrs = append(wantAddrs, fmt.Sprintf("%s %s/%d %s %s", l.Name, a.Local, length, a.Peer, a.Scope))
		}
	}
	for _, l := range ns.Links {
		master, call, port := "", 0, netstate.BridgePort{}
		if m := ns.LinkAt(l.Master); m != nil {
			master = m.Name
		}
		if l.Bridge != nil && l.Bridge.CallIptables {
			call = 1
		}
		if l.Port != nil {
			port = *l.Port
		}
		got = append(got, fmt.Sprint(l.Index, l.Name, l.MTU, l.MAC, l.State, master, l.Peer, number(l.PeerNS), l.Up, l.Carrier, l.Kind, call,
			port.State, port.Hairpin, port.Guard, port.Isolated))
	}
	same(t, "links", want, got)
	for _, a := range ns.Addrs {
		peer := ""
		if a.Peer.IsValid() {
			peer = a.Peer.String()
		}
		gotAddrs = append(gotAddrs, fmt.Sprintf("%s %s %s %s", a.Link, a.Prefix, peer, a.Scope))
	}
	same(t, "addresses", wantAddrs, gotAddrs)
	type ipNeigh struct {
		Dst, Dev, LLAddr string
		State            []string
	}
	var wantNeighs, gotNeighs []string
	for _, n := range ipJSON[ipNeigh](t, in, "neigh") {
		wantNeighs = append(wantNeighs, fmt.Sprint(n.Dst, n.Dev, n.LLAddr))
	}
	for _, n := range ipJSON[ipNeigh](t, in, "neigh", "show", "proxy") {
		wantNeighs = append(wantNeighs, fmt.Sprint(n.Dst, n.Dev, "proxy"))
	}
	for _, n := range ns.Neighs {
		switch {
		case n.Proxy:
			gotNeighs = append(gotNeighs, fmt.Sprint(n.Addr, n.Link, "proxy"))
		case n.Addr.IsValid():
			gotNeighs = append(gotNeighs, fmt.Sprint(n.Addr, n.Link, n.MAC))
		}
	}
	same(t, "neighbours", wantNeighs, gotNeighs)
}

func number(n *int) string {
	if n == nil {
		return "-"
	}
	return strconv.Itoa(*n)
}

func compareRoutes(t *testing.T, in *lab.Netns, ns *netstate.Namespace) {
	type ipHop struct {
		Gateway string
		Via     struct{ Host string }
		Dev     string
		Weight  int
	}
	type ipRoute struct {
		Type, Dst, Table, Protocol, Scope, PrefSrc string
		Metric                                     uint32
		NexthopID                                  uint32 `json:"nhid"`
		Metrics                                    []struct{ MTU int }
		Nexthops                                   []ipHop
		ipHop
	}
	tables := map[string]uint32{"": 254, "main": 254, "local": 255, "default": 253}
	hop := func(gateway, dev string, weight int) string {
		return fmt.Sprint(" via ", gateway, " dev ", dev, " ", weight)
	}
	var want, got []string
	for family, option := range map[netstate.Family]string{netstate.IPv4: "-4", netstate.IPv6: "-6"} {
		for _, r := range ipJSON[ipRoute](t, in, option, "route", "show", "table", "all") {
			table, ok := tables[r.Table]
			if !ok {
				n, _ := strconv.Atoi(r.Table)
				table = uint32(n)
			}
			mtu := 0
			for _, m := range r.Metrics {
				mtu = m.MTU
			}
			text := fmt.Sprint(family, table, r.Type, prefixOf(r.Dst, family), r.Protocol, r.PrefSrc, r.Metric, mtu, r.NexthopID)
			for _, h := range r.Nexthops {
				text += hop(h.Gateway+h.Via.Host, h.Dev, h.Weight)
			}
			if r.Dev != "" {
				text += hop(r.Gateway+r.Via.Host, r.Dev, 0)
			}
			want = append(want, text)
		}
	}
	for _, r := range ns.Routes {
		src := ""
		if r.PrefSrc.IsValid() {
			src = r.PrefSrc.String()
		}
		text := fmt.Sprint(r.Family, r.Table, r.Type, r.Dst, r.Protocol, src, r.Metric, r.MTU, r.Nexthop)
		for _, h := range r.Hops {
			gateway := ""
			if h.Gateway.IsValid() {
				gateway = h.Gateway.String()
			}
			text += hop(gateway, h.Dev, h.Weight)
		}
		got = append(got, text)
	}
	same(t, "routes", want, got)

	type ipRule struct {
		Priority        uint32
		Src, Dst, Table string
		SrcLen          int
		DstLen          int
		Fwmark, Fwmask  string
		Iif, IPProto    string
		Action          string
		Not             json.RawMessage // null where it is
	}
	var wantRules, gotRules []string
	for _, option := range []string{"-4", "-6"} {
		for _, r := range ipJSON[ipRule](t, in, option, "rule") {
			if r.Src == "all" {
				r.Src = ""
			}
			mark, _ := strconv.ParseUint(r.Fwmark, 0, 32)
			table := tables[r.Table]
			if r.Table == "100" {
				table = 100
			}
			if r.Action != "" {
				table = 0
			}
			wantRules = append(wantRules, fmt.Sprint(option, r.Priority, r.Src, " ", r.Dst, " ", mark, r.Iif, table, len(r.Not) != 0))
		}
	}
	for _, r := range ns.Rules {
		option, src, dst := "-4", "", ""
		if r.Family == netstate.IPv6 {
			option = "-6"
		}
		if r.Src.IsValid() {
			src = r.Src.Addr().String()
		}
		if r.Dst.IsValid() {
			dst = r.Dst.Addr().String()
		}
		if len(r.Opaque) != 0 {
			t.Errorf("rule %d: %v", r.Priority, r.Opaque)
		}
		gotRules = append(gotRules, fmt.Sprint(option, r.Priority, src, " ", dst, " ", r.Mark, r.Iif, r.Table, r.Not))
	}
	same(t, "rules", wantRules, gotRules)
	type ipNexthop struct {
		ID        uint32
		Gateway   string
		Dev       string
		Blackhole json.RawMessage
	}
	var wantHops, gotHops []string
	for _, n := range ipJSON[ipNexthop](t, in, "nexthop") {
		wantHops = append(wantHops, fmt.Sprint(n.ID, n.Gateway, n.Dev, len(n.Blackhole) != 0))
	}
	for _, n := range ns.Nexthops {
		gateway := ""
		if n.Gateway.IsValid() {
			gateway = n.Gateway.String()
		}
		gotHops = append(gotHops, fmt.Sprint(n.ID, gateway, n.Dev, n.Blackhole))
	}
	same(t, "nexthops", wantHops, gotHops)
}

// prefixOf reads a destination as ip prints it.
func prefixOf(text string, family netstate.Family) netip.Prefix {
	switch {
	case text == "default" && family == netstate.IPv4:
		text = "0.0.0.0/0"
	case text == "default":
		text = "::/0"
	case !strings.Contains(text, "/"):
		a, _ := netip.ParseAddr(text)
		return netip.PrefixFrom(a, a.BitLen())
	}
	p, _ := netip.ParsePrefix(text)
	return p
}

func compareSysctls(t *testing.T, in *lab.Netns, ns *netstate.Namespace) {
	out, err := in.Sh(t.Context(), "sysctl -a 2>/dev/null || true") // some may not be read
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " = ")
		want[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(ns.Sysctls)) {
		if value, ok := want[name]; name != "net.netfilter.nf_conntrack_count" && value != ns.Sysctls[name] {
			t.Errorf("%s = %q, sysctl: %q %v", name, ns.Sysctls[name], value, ok)
		}
	}
	// Whatever sysctl shows of the fields that are kept is kept.
	for name := range want {
		for prefix, fields := range map[string][]confField{"net.ipv4.conf.": ipv4Conf, "net.ipv6.conf.": ipv6Conf} {
			rest, ok := strings.CutPrefix(name, prefix)
			if !ok {
				continue
			}
			_, field, _ := strings.Cut(rest, ".")
			kept := slices.ContainsFunc(fields, func(f confField) bool { return f.name == field })
			if _, ok := ns.Sysctls[name]; kept && !ok {
				t.Errorf("%s was not read", name)
			}
		}
	}
}

func compareSockets(t *testing.T, in *lab.Netns, ns *netstate.Namespace) {
	out, err := in.Run(t.Context(), "ss", "-Hntual")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for line := range strings.Lines(out) {
		field := strings.Fields(line)
		// ss writes * for an IPv6 socket that takes IPv4 too.
		local := strings.ReplaceAll(field[4], "*:", "[::]:")
		local, dev, _ := strings.Cut(local, "%")
		if dev != "" {
			_, port, _ := strings.Cut(dev, ":")
			local += ":" + port
		}
		want = append(want, fmt.Sprint(field[0], " ", local, " v4 too: ", strings.HasPrefix(field[4], "*:")))
	}
	for _, s := range ns.Sockets {
		if s.State == "listen" || s.State == "unconnected" {
			got = append(got, fmt.Sprint(s.Proto, " ", s.Local, " v4 too: ", s.V6Only != nil && !*s.V6Only && s.Local.Addr() == netip.IPv6Unspecified()))
		}
	}
	same(t, "sockets", want, got)
}

func compareIptables(t *testing.T, in *lab.Netns, ns *netstate.Namespace) {
	for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		command := map[netstate.Family]string{netstate.IPv4: "iptables-nft-save", netstate.IPv6: "ip6tables-nft-save"}[family]
		out, err := in.Run(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "-A ") {
				want = append(want, strings.TrimSpace(line))
			}
		}
		if set := ns.IptablesSet("nft", family); set != nil {
			for _, table := range set.Tables {
				for _, chain := range table.Chains {
					for _, rule := range chain.Rules {
						got = append(got, strings.TrimSpace("-A "+chain.Name+" "+rule.Text))
					}
				}
			}
		}
		same(t, command, want, got)
	}
}

func compareFirewalld(t *testing.T, h *lab.Host, f *netstate.FirewalldState) {
	if f == nil {
		t.Fatal("firewalld was not read")
	}
	ask := func(arguments ...string) string {
		out, err := h.Run(t.Context(), "firewall-cmd", arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	check := func(what, want, got string) {
		if want != got {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("version", ask("--version"), f.Version)
	check("state", strings.ToUpper(ask("--state")), f.State)
	check("default zone", ask("--get-default-zone"), f.DefaultZone)
	zone := f.Zone("docker")
	if zone == nil {
		t.Fatal("no zone docker")
	}
	check("interfaces of docker", ask("--zone=docker", "--list-interfaces"), strings.Join(zone.Interfaces, " "))
	check("services of public", ask("--zone=public", "--list-services"), strings.Join(inOrder(f.Zone("public").Services), " "))
	var names []string
	for _, z := range f.Permanent {
		names = append(names, z.Name)
		check("permanent target of "+z.Name, ask("--permanent", "--zone="+z.Name, "--get-target"), strings.Trim(z.Target, "%"))
		check("permanent services of "+z.Name, ask("--permanent", "--zone="+z.Name, "--list-services"), strings.Join(inOrder(z.Services), " "))
	}
	check("permanent zones", ask("--permanent", "--get-zones"), strings.Join(names, " "))
	names = nil
	for _, p := range f.PermanentPolicies {
		names = append(names, p.Name)
		check("permanent priority of "+p.Name, ask("--permanent", "--policy="+p.Name, "--get-priority"), strconv.Itoa(p.Priority))
	}
	check("permanent policies", ask("--permanent", "--get-policies"), strings.Join(names, " "))
	for _, p := range f.Policies {
		if p.Target != "" {
			check("priority of "+p.Name, ask("--permanent", "--policy="+p.Name, "--get-priority"), strconv.Itoa(p.Priority))
		}
	}
}

func inOrder(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

func compareContainers(t *testing.T, h *lab.Host, s *netstate.Snapshot) {
	if len(s.Containers) != 4 {
		t.Fatalf("%d containers", len(s.Containers))
	}
	if web, guest := s.Sandboxes[containerID(s, "web")], s.Sandboxes[containerID(s, "guest")]; web.ID != guest.ID {
		t.Errorf("guest is in %s, web in %s", guest.ID, web.ID)
	}
	if s.Sandboxes[containerID(s, "onhost")] != nil {
		t.Error("a container with the host's network has a sandbox")
	}
	// The host's veth of a container is found by its peer and namespace id.
	for _, name := range []string{"web", "peer"} {
		ns := s.Sandboxes[containerID(s, name)]
		eth0 := ns.Link("eth0")
		if eth0 == nil || ns.NSID == nil {
			t.Errorf("%s: eth0 %v, id %v", name, eth0, ns.NSID)
			continue
		}
		veth := s.Host.LinkAt(eth0.Peer)
		if veth == nil || veth.Peer != eth0.Index || veth.PeerNS == nil || *veth.PeerNS != *ns.NSID {
			t.Errorf("%s: eth0 %+v has the peer %+v", name, eth0, veth)
		}
	}
	if !s.Engine.Local || s.Engine.PID == 0 {
		t.Errorf("engine: %+v", s.Engine)
	}
	if len(s.Proxies) == 0 || s.Proxies[0].Parent != s.Engine.PID {
		t.Errorf("proxies: %+v", s.Proxies)
	}
	for _, socket := range s.Host.Sockets {
		if socket.Local.Port() == 80 && socket.State == "listen" && socket.Program != "docker-proxy" {
			t.Errorf("port 80 is held by %q", socket.Program)
		}
	}
	for _, socket := range s.Sandboxes[containerID(s, "web")].Sockets {
		if socket.Local.Port() == 80 && socket.State == "listen" && socket.Program != "httpd" {
			t.Errorf("port 80 of web is held by %q", socket.Program)
		}
	}
	version, err := h.Docker(t.Context(), "version", "--format", "{{.Server.Version}} {{.Server.APIVersion}}")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Engine.Version + " " + s.Engine.API; got != strings.TrimSpace(version) {
		t.Errorf("engine %s, docker says %s", got, version)
	}
}
