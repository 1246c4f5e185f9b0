package checks

import (
	"net/netip"
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// hypotheticalID stands for the container that Hypothetical adds.
const hypotheticalID = "hypothetical"

// Hypothetical returns the host as it would be if a container without a name ran in the default network and
// published 80/tcp: its link, its namespace, and the rules that the engine would make for it. All else is as
// it was read, so whatever stops that container's packets would stop any. There is none, and a reason, where
// no network is there for it or none of its addresses is free, or its engine's rules cannot be computed.
func Hypothetical(s *netstate.Snapshot) (*netstate.Snapshot, string) {
	network := defaultNetwork(s)
	if network == nil {
		return nil, "the engine has no bridge network whose bridge is there: nothing can be said before a container runs"
	}
	after := *s
	subnet, _ := network.Subnet(netstate.IPv4)
	subnet.Gateway = gatewayOf(s, network, subnet)
	free := freeAddr(network, subnet)
	if !free.IsValid() {
		return nil, "the network " + network.Name + " has no free address for a container"
	}
	addr := netip.PrefixFrom(free, subnet.Prefix.Bits())
	c := netstate.Container{
		ID: hypotheticalID, Status: "running", Running: true, NetworkMode: "default",
		Published: []netstate.Binding{{Port: netstate.Port{Number: 80, Proto: "tcp"}, Host: netip.IPv4Unspecified(), HostPort: freePort(s)}},
		Endpoints: []netstate.Endpoint{{Network: network.Name, NetworkID: network.ID, IPv4: addr, Gateway4: subnet.Gateway, MAC: "02:42:00:00:00:01"}},
	}
	after.Containers, after.Asked = append(slices.Clone(s.Containers), c), []string{c.ID}
	plug(&after, network.Bridge(), &c)
	program := dockerd.Expected(&after)
	others := func(d dockerd.Difference) bool { return d.Rule == nil || d.Rule.Container != c.ID }
	own := slices.DeleteFunc(program.Compare(&after), others)
	edited := dockerd.Edited(&after, program.Restore(&after, own))
	if left := slices.DeleteFunc(program.Compare(edited), others); len(left) > 0 {
		return nil, "what the engine would make for a container cannot be put in its place: " + left[0].Object()
	}
	if nft := edited.Host.Nft; nft != nil && !program.Nftables {
		// iptables' own tables as nf_tables has them lack the new rules: its text says all.
		copied := *nft
		copied.Tables = slices.DeleteFunc(slices.Clone(nft.Tables), func(t netstate.NftTable) bool {
			return (t.Family == "ip" || t.Family == "ip6") && slices.Contains([]string{"filter", "nat", "mangle", "raw", "security"}, t.Name)
		})
		edited.Host.Nft = &copied
	}
	return edited, ""
}

// defaultNetwork returns the engine's default network, or another bridge network that gets out, or nil.
func defaultNetwork(s *netstate.Snapshot) *netstate.Network {
	var found *netstate.Network
	for i := range s.Networks {
		n := &s.Networks[i]
		subnet, ok := n.Subnet(netstate.IPv4)
		if !ok || n.Internal || n.Bridge() == "" || s.Host.Link(n.Bridge()) == nil || !gatewayOf(s, n, subnet).IsValid() || n.GatewayMode(netstate.IPv4) != "nat" {
			continue
		}
		if found == nil || n.Name == "bridge" {
			found = n
		}
	}
	return found
}

// gatewayOf returns the gateway of a network: what inspect says, or what the bridge has in its subnet.
func gatewayOf(s *netstate.Snapshot, n *netstate.Network, subnet netstate.Subnet) netip.Addr {
	for _, a := range s.Host.Addrs {
		if a.Link == n.Bridge() && subnet.Prefix.Contains(a.Prefix.Addr()) && !subnet.Gateway.IsValid() {
			return a.Prefix.Addr()
		}
	}
	return subnet.Gateway
}

// freeAddr returns the highest address of the subnet that nobody has, or the zero Addr: it is full.
func freeAddr(n *netstate.Network, subnet netstate.Subnet) netip.Addr {
	first := subnet.Prefix.Masked().Addr() // nobody's
	for addr := broadcast(subnet.Prefix).Prev(); first.Less(addr); addr = addr.Prev() {
		if addr != subnet.Gateway && !slices.ContainsFunc(n.Members, func(m netstate.Member) bool { return m.IPv4.Addr() == addr }) {
			return addr
		}
	}
	return netip.Addr{}
}

// freePort returns a host port that nothing holds.
func freePort(s *netstate.Snapshot) uint16 {
	for _, port := range []uint16{80, 8080, 8888} {
		if !slices.ContainsFunc(s.Host.Sockets, func(k netstate.Socket) bool { return k.Local.Port() == port }) {
			return port
		}
	}
	return 48080
}
