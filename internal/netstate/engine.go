package netstate

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// EngineState is what is known of the Docker engine itself.
type EngineState struct {
	Version     string       `json:"version"` // "28.5.2"
	API         string       `json:"api"`     // highest API version that it offers: "1.51"
	Name        string       `json:"name,omitempty"`
	OS          string       `json:"os,omitempty"`      // OperatingSystem of /info
	Context     string       `json:"context,omitempty"` // docker context that was asked
	Driver      string       `json:"driver,omitempty"`  // /info FirewallBackend.Driver, API 1.49 and later
	Rootless    bool         `json:"rootless,omitempty"`
	RootlessKit *RootlessKit `json:"rootlesskit,omitempty"` // what joins a rootless engine's namespace, which Host is then, with the machine; nil: was not seen
	Userns      bool         `json:"userns,omitempty"`
	Swarm       string       `json:"swarm,omitempty"` // LocalNodeState: "inactive", "active", …
	LiveRestore bool         `json:"live_restore,omitempty"`
	PID         int          `json:"pid,omitempty"`         // of dockerd; 0: not known
	Started     string       `json:"started,omitempty"`     // start of that process, clock ticks since boot; a guard, no date
	Local       bool         `json:"local"`                 // dockerd's network namespace is the one that Host was read from: shown by evidence
	ReloadedAt  string       `json:"reloaded_at,omitempty"` // last firewalld reload that it saw
	Config      EngineConfig `json:"config"`
	Warnings    []string     `json:"warnings,omitempty"`
}

// RootlessKit is how a rootless engine's network namespace is joined with the machine's. What is delivered to
// published ports comes from it: Container.Published says where.
type RootlessKit struct {
	Net        string `json:"net"`         // "slirp4netns", "pasta", "vpnkit", "lxc-user-nic"
	PortDriver string `json:"port_driver"` // "builtin", "slirp4netns", "implicit"
}

// EngineConfig is how dockerd was told to program the host. A nil field is not known. What was inferred, from
// hairpin mode or running processes, is in it too; From names the source of each.
type EngineConfig struct {
	Iptables           *bool             `json:"iptables,omitempty"`
	Ip6tables          *bool             `json:"ip6tables,omitempty"`
	UserlandProxy      *bool             `json:"userland_proxy,omitempty"`
	IPForward          *bool             `json:"ip_forward,omitempty"`
	IPForwardNoDrop    *bool             `json:"ip_forward_no_drop,omitempty"`
	IPMasq             *bool             `json:"ip_masq,omitempty"`
	ICC                *bool             `json:"icc,omitempty"`
	AllowDirectRouting *bool             `json:"allow_direct_routing,omitempty"`
	NoIptablesRaw      *bool             `json:"no_iptables_raw,omitempty"` // DOCKER_INSECURE_NO_IPTABLES_RAW
	FirewallBackend    string            `json:"firewall_backend,omitempty"`
	BridgeAcceptFwmark string            `json:"bridge_accept_fwmark,omitempty"`
	Bridge             string            `json:"bridge,omitempty"`
	IP                 string            `json:"ip,omitempty"`     // default host address of published ports
	DNS                []string          `json:"dns,omitempty"`    // name servers for containers
	Unread             string            `json:"unread,omitempty"` // why dockerd's arguments or its file could not be read: no default is assumed then
	From               map[string]string `json:"from,omitempty"`   // JSON name of a field above → "daemon.json", "dockerd argument", "info", "hairpin mode", "default"
}

// Builtin says whether RootlessKit's builtin port driver delivers what comes to published ports: by connections
// of its own, from within the namespace.
func (e *EngineState) Builtin() bool {
	return e.RootlessKit != nil && e.RootlessKit.PortDriver == "builtin"
}

// AtLeast says whether the engine's version is major.minor.patch or later; a version that cannot be
// read is taken for the newest.
func (e *EngineState) AtLeast(major, minor, patch int) bool {
	want := [3]int{major, minor, patch}
	text, _, _ := strings.Cut(strings.TrimPrefix(e.Version, "v"), "-")
	text, _, _ = strings.Cut(text, "+")
	for i, field := range strings.SplitN(text, ".", 3) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return true
		}
		if n != want[i] {
			return n > want[i]
		}
	}
	return true
}

// A Port is a port and its protocol, as docker writes it: "80/tcp".
type Port struct {
	Number uint16
	Proto  string // "tcp", "udp" or "sctp"
}

// String returns "80/tcp".
func (p Port) String() string {
	if p == (Port{}) {
		return ""
	}
	return fmt.Sprintf("%d/%s", p.Number, p.Proto)
}

// ParsePort reads "80/tcp"; "80" is tcp.
func ParsePort(text string) (Port, error) {
	number, proto, found := strings.Cut(text, "/")
	if !found {
		proto = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return Port{}, fmt.Errorf("%q is no port: a number from 1 to 65535, with /tcp, /udp or /sctp", text)
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return Port{}, fmt.Errorf("%q is no port: its protocol is none of tcp, udp, sctp", text)
	}
	return Port{uint16(n), proto}, nil
}

// MarshalText makes a port its text in JSON.
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Port) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*p = Port{}
		return nil
	}
	*p, err = ParsePort(string(text))
	return err
}

// A Binding publishes a container's port at a host address.
type Binding struct {
	Port     Port       `json:"port"`                // the container's
	Host     netip.Addr `json:"host,omitzero"`       // 0.0.0.0, :: or one address; zero: not said
	HostPort uint16     `json:"host_port,omitempty"` // 0: ephemeral, or none (routed mode)
}

// A Container is what netcheck keeps of docker inspect: no environment, labels or command lines.
type Container struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"` // without the leading slash
	Image       string     `json:"image,omitempty"`
	Status      string     `json:"status"` // "running", "exited", "paused", "restarting", "created", "dead"
	Running     bool       `json:"running"`
	Paused      bool       `json:"paused,omitempty"`
	Restarting  bool       `json:"restarting,omitempty"`
	OOMKilled   bool       `json:"oom_killed,omitempty"`
	ExitCode    int        `json:"exit_code,omitempty"`
	Error       string     `json:"error,omitempty"` // State.Error
	Health      string     `json:"health,omitempty"`
	PID         int        `json:"pid,omitempty"` // of its first process, in the engine's PID namespace; 0: stopped
	StartedAt   string     `json:"started_at,omitempty"`
	NetworkMode string     `json:"network_mode"` // "default", "bridge", "host", "none", "container:ID", a network's name
	SandboxID   string     `json:"sandbox_id,omitempty"`
	SandboxKey  string     `json:"sandbox_key,omitempty"`
	Published   []Binding  `json:"published,omitempty"`  // NetworkSettings.Ports: the live result; routed mode has HostPort 0
	Configured  []Binding  `json:"configured,omitempty"` // HostConfig.PortBindings: what was asked
	Exposed     []Port     `json:"exposed,omitempty"`
	PublishAll  bool       `json:"publish_all,omitempty"`
	Endpoints   []Endpoint `json:"endpoints,omitempty"`
	DNS         []string   `json:"dns,omitempty"`         // HostConfig.Dns
	ResolvConf  []string   `json:"resolv_conf,omitempty"` // lines of its own /etc/resolv.conf that name servers: "nameserver ADDR", and engine 25's "# ExtServers: […]" of those that 127.0.0.11 asks; nil: not read
	AutoRemove  bool       `json:"auto_remove,omitempty"`
	Project     string     `json:"project,omitempty"` // Compose's project and service: the only labels kept
	Service     string     `json:"service,omitempty"`
}

// An Endpoint is a container's place in one network.
type Endpoint struct {
	Network    string            `json:"network"` // name
	NetworkID  string            `json:"network_id"`
	EndpointID string            `json:"endpoint_id,omitempty"`
	IPv4       netip.Prefix      `json:"ipv4,omitzero"`
	Gateway4   netip.Addr        `json:"gateway4,omitzero"`
	IPv6       netip.Prefix      `json:"ipv6,omitzero"`
	Gateway6   netip.Addr        `json:"gateway6,omitzero"`
	MAC        string            `json:"mac,omitempty"`
	GwPriority int               `json:"gw_priority,omitempty"`
	Options    map[string]string `json:"options,omitempty"` // DriverOpts, com.docker.network.* only
	Aliases    []string          `json:"aliases,omitempty"`
}

// Addr returns the endpoint's address of that family, or the zero address.
func (e *Endpoint) Addr(family Family) netip.Addr {
	if family == IPv6 {
		return e.IPv6.Addr()
	}
	return e.IPv4.Addr()
}

// Gateway returns the endpoint's gateway of that family, or the zero address. A nil endpoint has none.
func (e *Endpoint) Gateway(family Family) netip.Addr {
	switch {
	case e == nil:
		return netip.Addr{}
	case family == IPv6:
		return e.Gateway6
	}
	return e.Gateway4
}

// A Network is what netcheck keeps of docker network inspect.
type Network struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Driver     string            `json:"driver"` // "bridge", "host", "null", "macvlan", "ipvlan", "overlay"
	Scope      string            `json:"scope"`
	Internal   bool              `json:"internal,omitempty"`
	Ingress    bool              `json:"ingress,omitempty"`
	ConfigOnly bool              `json:"config_only,omitempty"`
	IPv4       bool              `json:"ipv4"`
	IPv6       bool              `json:"ipv6,omitempty"`
	Subnets    []Subnet          `json:"subnets,omitempty"`
	Options    map[string]string `json:"options,omitempty"` // com.docker.network.* and macvlan's/ipvlan's own; absent means default
	Members    []Member          `json:"members,omitempty"` // running endpoints, asked for or not
}

// A Subnet is one IPAM configuration of a network.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

// A Member is a container in a network, as network inspect lists it.
type Member struct {
	ID   string       `json:"id"`
	Name string       `json:"name"`
	IPv4 netip.Prefix `json:"ipv4,omitzero"`
	IPv6 netip.Prefix `json:"ipv6,omitzero"`
	MAC  string       `json:"mac,omitempty"`
}

// A Proxy is one running docker-proxy process.
type Proxy struct {
	PID       int            `json:"pid"`
	Proto     string         `json:"proto"`
	Host      netip.AddrPort `json:"host"`
	Container netip.AddrPort `json:"container"`
	Parent    int            `json:"parent,omitempty"` // dockerd's PID unless it is an orphan
}

// Bridge returns the name of the Linux bridge behind a bridge network, or "" for any other driver.
// Source: option com.docker.network.bridge.name, else "br-" and the first 12 digits of the ID.
func (n *Network) Bridge() string {
	if n.Driver != "bridge" {
		return ""
	}
	if name := n.Options["com.docker.network.bridge.name"]; name != "" {
		return name
	}
	return "br-" + n.ID[:min(12, len(n.ID))]
}

// option returns a boolean option of the bridge driver, or the default when it is absent or no boolean.
func (n *Network) option(name string, byDefault bool) bool {
	if value, err := strconv.ParseBool(n.Options["com.docker.network.bridge."+name]); err == nil {
		return value
	}
	return byDefault
}

// ICC says whether containers of the network may talk to each other.
func (n *Network) ICC() bool { return n.option("enable_icc", true) }

// Masquerade says whether the engine hides the network's containers behind the host's address.
func (n *Network) Masquerade() bool { return n.option("enable_ip_masquerade", true) }

// GatewayMode returns "nat", "routed", "nat-unprotected" or "isolated" (engine 27 and later).
func (n *Network) GatewayMode(family Family) string {
	mode := n.Options["com.docker.network.bridge.gateway_mode_"+family.String()]
	if mode == "" {
		return "nat"
	}
	return mode
}

// Subnet returns the network's prefix of that family and whether it has one.
func (n *Network) Subnet(family Family) (Subnet, bool) {
	for _, subnet := range n.Subnets {
		if FamilyOf(subnet.Prefix.Addr()) == family {
			return subnet, true
		}
	}
	return Subnet{}, false
}

// Container returns the container with that full ID, or nil.
func (s *Snapshot) Container(id string) *Container {
	for i := range s.Containers {
		if s.Containers[i].ID == id {
			return &s.Containers[i]
		}
	}
	return nil
}

// Network returns the network with that ID, or nil.
func (s *Snapshot) Network(id string) *Network {
	for i := range s.Networks {
		if s.Networks[i].ID == id {
			return &s.Networks[i]
		}
	}
	return nil
}
