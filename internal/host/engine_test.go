//go:build linux

package host

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/google/go-cmp/cmp"
)

// What docker inspect says is kept without environment, command and labels.
func TestContainerState(t *testing.T) {
	const inspect = `{
 "Id": "0123", "Name": "/web", "Path": "sh", "Args": ["-c", "secret"],
 "State": {"Status": "running", "Running": true, "Pid": 77, "StartedAt": "2026-11-20T03:00:00Z", "Health": {"Status": "healthy", "Log": []}},
 "HostConfig": {"NetworkMode": "front", "PublishAllPorts": true, "Dns": ["192.0.2.53"],
  "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}], "443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "443"}]}},
 "Config": {"Image": "web:1", "Env": ["PASSWORD=secret"], "Cmd": ["secret"], "ExposedPorts": {"443/tcp": {}, "80/tcp": {}, "9000-9001/tcp": {}},
  "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "other": "secret"}},
 "NetworkSettings": {"SandboxID": "s", "SandboxKey": "/var/run/docker/netns/s",
  "Ports": {"80/tcp": [{"HostIp": "::", "HostPort": "8003"}, {"HostIp": "0.0.0.0", "HostPort": "8003"}], "443/tcp": null, "53/udp": [{"HostIp": "0.0.0.0", "HostPort": ""}]},
  "Networks": {"front": {"NetworkID": "n1", "EndpointID": "e1", "IPAddress": "172.18.0.2", "IPPrefixLen": 16, "Gateway": "172.18.0.1",
    "GlobalIPv6Address": "fd00::2", "GlobalIPv6PrefixLen": 64, "IPv6Gateway": "fd00::1", "MacAddress": "02:42:ac:12:00:02", "GwPriority": 5,
    "DriverOpts": {"com.docker.network.endpoint.ifname": "lan0", "password": "secret"}}, "back": null}}}`
	var in container.InspectResponse
	if err := json.Unmarshal([]byte(inspect), &in); err != nil {
		t.Fatal(err)
	}
	http, https, dns := netstate.Port{Number: 80, Proto: "tcp"}, netstate.Port{Number: 443, Proto: "tcp"}, netstate.Port{Number: 53, Proto: "udp"}
	want := netstate.Container{
		ID: "0123", Name: "web", Image: "web:1", Status: "running", Running: true, Health: "healthy", PID: 77, StartedAt: "2026-11-20T03:00:00Z",
		NetworkMode: "front", SandboxID: "s", SandboxKey: "/var/run/docker/netns/s", PublishAll: true, DNS: []string{"192.0.2.53"},
		Published: []netstate.Binding{
			{Port: dns, Host: netip.IPv4Unspecified()},
			{Port: http, Host: netip.IPv4Unspecified(), HostPort: 8003}, {Port: http, Host: netip.IPv6Unspecified(), HostPort: 8003}},
		Configured: []netstate.Binding{{Port: http}, {Port: https, Host: netip.MustParseAddr("127.0.0.1"), HostPort: 443}},
		Exposed:    []netstate.Port{http, https},
		Project:    "shop", Service: "web",
		Endpoints: []netstate.Endpoint{{
			Network: "front", NetworkID: "n1", EndpointID: "e1", MAC: "02:42:ac:12:00:02", GwPriority: 5,
			IPv4: netip.MustParsePrefix("172.18.0.2/16"), Gateway4: netip.MustParseAddr("172.18.0.1"),
			IPv6: netip.MustParsePrefix("fd00::2/64"), Gateway6: netip.MustParseAddr("fd00::1"),
			Options: map[string]string{"com.docker.network.endpoint.ifname": "lan0"},
		}},
	}
	if diff := cmp.Diff(want, containerState(in), addresses); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(netstate.Container{}, containerState(container.InspectResponse{}), addresses); diff != "" {
		t.Errorf("of an empty answer: %s", diff)
	}
}

// An engine that cannot say whether a network has IPv4 has it.
func TestNetworkState(t *testing.T) {
	const inspect = `{"Name": "front", "Id": "n1", "Scope": "local", "Driver": "bridge", "EnableIPv6": true,
 "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, {"Subnet": "fd00::/64", "Gateway": "fd00::1/64"}, {"Subnet": "x"}]},
 "Containers": {"id2": {"Name": "b", "IPv4Address": "172.18.0.3/16"}, "id1": {"Name": "a", "IPv4Address": "172.18.0.2/16", "IPv6Address": "fd00::2/64", "MacAddress": "02:42:ac:12:00:02"}},
 "Options": {"com.docker.network.bridge.name": "br0", "parent": "eth0", "password": "secret"}}`
	var in network.Inspect
	if err := json.Unmarshal([]byte(inspect), &in); err != nil {
		t.Fatal(err)
	}
	want := netstate.Network{
		ID: "n1", Name: "front", Driver: "bridge", Scope: "local", IPv4: true, IPv6: true,
		Subnets: []netstate.Subnet{
			{Prefix: netip.MustParsePrefix("172.18.0.0/16"), Gateway: netip.MustParseAddr("172.18.0.1")},
			{Prefix: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1")}},
		Options: map[string]string{"com.docker.network.bridge.name": "br0", "parent": "eth0"},
		Members: []netstate.Member{
			{ID: "id1", Name: "a", IPv4: netip.MustParsePrefix("172.18.0.2/16"), IPv6: netip.MustParsePrefix("fd00::2/64"), MAC: "02:42:ac:12:00:02"},
			{ID: "id2", Name: "b", IPv4: netip.MustParsePrefix("172.18.0.3/16")}},
	}
	if diff := cmp.Diff(want, networkState(in, "1.41"), addresses); diff != "" {
		t.Error(diff)
	}
	if networkState(in, "1.51").IPv4 {
		t.Error("an engine that says no IPv4 is not believed")
	}
}

func TestEngineState(t *testing.T) {
	const info = `{"ServerVersion": "29.7.2", "Name": "h", "OperatingSystem": "Debian", "LiveRestoreEnabled": true, "Swarm": {"LocalNodeState": "inactive"},
 "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"], "Warnings": ["w"],
 "FirewallBackend": {"Driver": "nftables+firewalld", "Info": [["ReloadedAt", "2026-11-20T03:00:00Z"], ["EnableUserlandProxy", "false"]]}}`
	var in system.Info
	if err := json.Unmarshal([]byte(info), &in); err != nil {
		t.Fatal(err)
	}
	no := false
	want := netstate.EngineState{
		Version: "29.7.2", Name: "h", OS: "Debian", LiveRestore: true, Swarm: "inactive", Rootless: true, Warnings: []string{"w"},
		Driver: "nftables+firewalld", ReloadedAt: "2026-11-20T03:00:00Z",
		Config: netstate.EngineConfig{UserlandProxy: &no, From: map[string]string{"userland_proxy": "info"}},
	}
	var got netstate.EngineState
	engineState(in, &got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
