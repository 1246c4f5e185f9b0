package dockerd

import (
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A Generation is a range of engine releases that program the host alike.
type Generation int

// The generations, and what each brought.
const (
	V20     Generation = iota // 20.10: per-network rules in FORWARD; DOCKER-USER for IPv4 alone
	V23                       // 23.0–26.1: DOCKER-USER for IPv6 too
	V27                       // 27.0: ip6tables by default, gateway modes nat and routed
	V28Sets                   // 28.0.0 alone: ipsets in FORWARD
	V28                       // 28.0.1: DOCKER-FORWARD, DOCKER-CT, DOCKER-BRIDGE; raw DROP for each published port
	V28Raw                    // 28.2.0: raw DROP for each endpoint
	V29                       // 29.0: DOCKER-INTERNAL in place of the isolation chains; nftables on request
)

// String returns the generation's releases.
func (g Generation) String() string {
	return [...]string{"20.10", "23.0 to 26.1", "27", "28.0.0", "28.0.1 to 28.1", "28.2 to 28.5", "29"}[g]
}

// GenerationOf returns the generation of an engine; a version that cannot be read is taken for the newest.
func GenerationOf(e *netstate.EngineState) Generation {
	switch {
	case e.AtLeast(29, 0, 0):
		return V29
	case e.AtLeast(28, 2, 0):
		return V28Raw
	case e.AtLeast(28, 0, 1):
		return V28
	case e.AtLeast(28, 0, 0):
		return V28Sets
	case e.AtLeast(27, 0, 0):
		return V27
	case e.AtLeast(23, 0, 0):
		return V23
	}
	return V20
}

// A Setting is a switch of the engine, and what says how it stands.
type Setting struct {
	On   bool
	From string // "daemon.json", "docker-proxy runs", …; "default" when nothing says it
}

// userlandProxy says whether the engine runs docker-proxy.
func userlandProxy(s *netstate.Snapshot) Setting {
	if on := s.Engine.Config.UserlandProxy; on != nil {
		return Setting{*on, s.Engine.Config.From["userland_proxy"]}
	}
	if len(s.Proxies) > 0 {
		return Setting{true, "docker-proxy runs"}
	}
	// With the proxy off, and only then, dockerd sets hairpin mode on the ports of its bridges.
	ports := false
	for _, n := range s.Networks {
		bridge := s.Host.Link(n.Bridge())
		if bridge == nil || n.Internal {
			continue
		}
		for _, link := range s.Host.Links {
			if link.Master == bridge.Index && link.Port != nil {
				if link.Port.Hairpin {
					return Setting{false, "hairpin mode of " + link.Name}
				}
				ports = true
			}
		}
	}
	if ports {
		return Setting{true, "no hairpin mode"}
	}
	for _, set := range s.Host.Iptables {
		output := set.Table("nat").Chain("OUTPUT")
		if output == nil {
			continue
		}
		for _, rule := range output.Rules {
			if r := parse(rule.Text); r.target.name == "DOCKER" {
				return Setting{r.get("-d") != "", "rule of nat OUTPUT"}
			}
		}
	}
	return Setting{true, "default"}
}

// ip6tables says whether the engine programs IPv6.
func ip6tables(s *netstate.Snapshot) Setting {
	if on := s.Engine.Config.Ip6tables; on != nil {
		return Setting{*on, s.Engine.Config.From["ip6tables"]}
	}
	if noIPv6(s) {
		return Setting{false, "no IPv6 on this host"}
	}
	for _, set := range s.Host.Iptables {
		if set.Family == netstate.IPv6 && set.Table("filter").Chain("DOCKER") != nil {
			return Setting{true, "chain DOCKER of ip6tables"}
		}
	}
	return Setting{GenerationOf(s.Engine) >= V27, "default"}
}

// noIPv6 says whether the host's kernel runs without IPv6, so that it has none of its sysctls.
func noIPv6(s *netstate.Snapshot) bool {
	if len(s.Host.Sysctls) == 0 {
		return false
	}
	for name := range s.Host.Sysctls {
		if strings.HasPrefix(name, "net.ipv6.") {
			return false
		}
	}
	return true
}

// nftables says whether the engine programs nftables rather than iptables.
func nftables(e *netstate.EngineState) bool {
	if e.Driver != "" {
		return strings.HasPrefix(e.Driver, "nftables")
	}
	return e.Config.FirewallBackend == "nftables" && GenerationOf(e) >= V29
}

// set says whether a setting is known and on.
func set(b *bool) bool { return b != nil && *b }

// unset says whether a setting is known and off.
func unset(b *bool) bool { return b != nil && !*b }
