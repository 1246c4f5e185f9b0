//go:build linux

package host

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"
)

// engineState keeps what is used of /info.
func engineState(info system.Info, e *netstate.EngineState) {
	e.Version = info.ServerVersion
	e.Name = info.Name
	e.OS = info.OperatingSystem
	e.Swarm = string(info.Swarm.LocalNodeState)
	e.LiveRestore = info.LiveRestoreEnabled
	e.Warnings = slices.Concat(info.Warnings)
	for _, option := range info.SecurityOptions {
		// "name=seccomp,profile=builtin"
		name, _, _ := strings.Cut(strings.TrimPrefix(option, "name="), ",")
		e.Rootless = e.Rootless || name == "rootless"
		e.Userns = e.Userns || name == "userns"
	}
	if info.FirewallBackend == nil {
		return
	}
	e.Driver = info.FirewallBackend.Driver
	for _, pair := range info.FirewallBackend.Info {
		switch pair[0] {
		case "ReloadedAt":
			e.ReloadedAt = pair[1]
		case "EnableUserlandProxy":
			setBool(&e.Config, "userland-proxy", pair[1], "info")
		}
	}
}

// containerState keeps what is used of docker inspect.
func containerState(in container.InspectResponse) netstate.Container {
	var c netstate.Container
	if in.ContainerJSONBase != nil {
		c.ID = in.ID
		c.Name = strings.TrimPrefix(in.Name, "/")
		if s := in.State; s != nil {
			c.Status = string(s.Status)
			c.Running, c.Paused, c.Restarting, c.OOMKilled = s.Running, s.Paused, s.Restarting, s.OOMKilled
			c.ExitCode, c.Error, c.PID, c.StartedAt = s.ExitCode, s.Error, s.Pid, s.StartedAt
			if s.Health != nil {
				c.Health = string(s.Health.Status)
			}
		}
		if h := in.HostConfig; h != nil {
			c.NetworkMode = string(h.NetworkMode)
			c.Configured = bindings(h.PortBindings)
			c.PublishAll = h.PublishAllPorts
			c.DNS = slices.Concat(h.DNS) // an empty list is nil, as a document says it
			c.AutoRemove = h.AutoRemove
		}
	}
	if g := in.Config; g != nil {
		c.Image = g.Image
		c.Project, c.Service = g.Labels["com.docker.compose.project"], g.Labels["com.docker.compose.service"]
		for port := range g.ExposedPorts {
			if p, err := netstate.ParsePort(string(port)); err == nil {
				c.Exposed = append(c.Exposed, p)
			}
		}
		slices.SortFunc(c.Exposed, comparePorts)
	}
	if s := in.NetworkSettings; s != nil {
		c.SandboxID, c.SandboxKey = s.SandboxID, s.SandboxKey
		c.Published = bindings(s.Ports)
		for _, name := range slices.Sorted(maps.Keys(s.Networks)) {
			if e := s.Networks[name]; e != nil {
				c.Endpoints = append(c.Endpoints, endpoint(name, e))
			}
		}
	}
	return c
}

func endpoint(name string, e *network.EndpointSettings) netstate.Endpoint {
	return netstate.Endpoint{
		Network: name, NetworkID: e.NetworkID, EndpointID: e.EndpointID,
		IPv4: lengthened(e.IPAddress, e.IPPrefixLen), Gateway4: parseAddrOrZero(e.Gateway),
		IPv6: lengthened(e.GlobalIPv6Address, e.GlobalIPv6PrefixLen), Gateway6: parseAddrOrZero(e.IPv6Gateway),
		MAC: e.MacAddress, GwPriority: e.GwPriority,
		Options: networkOptions(e.DriverOpts), Aliases: slices.Concat(e.Aliases),
	}
}

// bindings lists a port map in order. A range of host ports that was asked for has no host port yet.
func bindings(ports nat.PortMap) []netstate.Binding {
	var all []netstate.Binding
	for port, list := range ports {
		p, err := netstate.ParsePort(string(port))
		if err != nil {
			continue
		}
		for _, b := range list {
			number, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				number = 0
			}
			all = append(all, netstate.Binding{Port: p, Host: parseAddrOrZero(b.HostIP), HostPort: uint16(number)})
		}
	}
	slices.SortFunc(all, func(a, b netstate.Binding) int {
		return cmp.Or(comparePorts(a.Port, b.Port), a.Host.Compare(b.Host), cmp.Compare(a.HostPort, b.HostPort))
	})
	return all
}

func comparePorts(a, b netstate.Port) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), strings.Compare(a.Proto, b.Proto))
}

// networkState keeps what is used of docker network inspect. An engine before API 1.48 does not say
// whether a network has IPv4: it has.
func networkState(in network.Inspect, api string) netstate.Network {
	n := netstate.Network{
		ID: in.ID, Name: in.Name, Driver: in.Driver, Scope: in.Scope,
		Internal: in.Internal, Ingress: in.Ingress, ConfigOnly: in.ConfigOnly,
		IPv4: in.EnableIPv4 || versions.LessThan(api, "1.48"), IPv6: in.EnableIPv6,
		Options: networkOptions(in.Options),
	}
	for _, c := range in.IPAM.Config {
		if subnet, err := netip.ParsePrefix(c.Subnet); err == nil {
			// Some drivers give the gateway with its length.
			gateway, _, _ := strings.Cut(c.Gateway, "/")
			n.Subnets = append(n.Subnets, netstate.Subnet{Prefix: subnet, Gateway: parseAddrOrZero(gateway)})
		}
	}
	for id, c := range in.Containers {
		n.Members = append(n.Members, netstate.Member{
			ID: id, Name: c.Name, MAC: c.MacAddress,
			IPv4: parsePrefixOrZero(c.IPv4Address), IPv6: parsePrefixOrZero(c.IPv6Address),
		})
	}
	slices.SortFunc(n.Members, func(a, b netstate.Member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return n
}

// networkOptions keeps Docker's own options and those of macvlan and ipvlan: others may be anything.
func networkOptions(options map[string]string) map[string]string {
	var kept map[string]string
	for name, value := range options {
		switch name {
		case "parent", "macvlan_mode", "ipvlan_mode", "ipvlan_flag", "encrypted":
		default:
			if !strings.HasPrefix(name, "com.docker.network.") {
				continue
			}
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[name] = value
	}
	return kept
}

func parseAddrOrZero(text string) netip.Addr {
	a, _ := netip.ParseAddr(text)
	return a
}

func parsePrefixOrZero(text string) netip.Prefix {
	p, _ := netip.ParsePrefix(text)
	return p
}

func lengthened(address string, bits int) netip.Prefix {
	a := parseAddrOrZero(address)
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, bits)
}
