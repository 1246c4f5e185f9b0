package netstate

// FirewalldState is what a running firewalld says over D-Bus.
type FirewalldState struct {
	Version            string            `json:"version"`
	State              string            `json:"state"`   // "RUNNING", "FAILED", "INIT"
	Backend            string            `json:"backend"` // FirewallBackend: "nftables" or "iptables"
	DefaultZone        string            `json:"default_zone"`
	Panic              bool              `json:"panic,omitempty"`
	StrictForwardPorts *bool             `json:"strict_forward_ports,omitempty"` // nil: this firewalld has no such option (before 2.3)
	RPFilter           string            `json:"rpfilter,omitempty"`             // IPv6_rpfilter
	LogDenied          string            `json:"log_denied,omitempty"`
	Options            map[string]string `json:"options,omitempty"`         // the other properties of org.fedoraproject.FirewallD1.config
	Started            string            `json:"started,omitempty"`         // unique bus name's owner: PID and start time, "PID@ticks"; changes with a restart
	Zones              []Zone            `json:"zones,omitempty"`           // runtime
	Permanent          []Zone            `json:"permanent_zones,omitempty"` // what a reload would bring
	Policies           []Policy          `json:"policies,omitempty"`
	PermanentPolicies  []Policy          `json:"permanent_policies,omitempty"`
	DirectChains       []string          `json:"direct_chains,omitempty"`
	DirectRules        []string          `json:"direct_rules,omitempty"`        // "ipv4 filter FORWARD 0 -j DROP"
	DirectPassthroughs []string          `json:"direct_passthroughs,omitempty"` // tracked ones only
}

// A Zone is one firewalld zone.
type Zone struct {
	Name         string   `json:"name"`
	Target       string   `json:"target"` // "default", "ACCEPT", "DROP", "%%REJECT%%"
	Interfaces   []string `json:"interfaces,omitempty"`
	Sources      []string `json:"sources,omitempty"`
	Forward      bool     `json:"forward,omitempty"` // intra-zone forwarding
	Masquerade   bool     `json:"masquerade,omitempty"`
	Services     []string `json:"services,omitempty"`
	Ports        []string `json:"ports,omitempty"`
	ForwardPorts []string `json:"forward_ports,omitempty"`
	RichRules    []string `json:"rich_rules,omitempty"`
}

// A Policy is one firewalld policy (traffic between zones; firewalld 0.9 and later).
type Policy struct {
	Name         string   `json:"name"`
	Target       string   `json:"target"` // "CONTINUE", "ACCEPT", "DROP", "REJECT"
	Priority     int      `json:"priority"`
	IngressZones []string `json:"ingress_zones,omitempty"`
	EgressZones  []string `json:"egress_zones,omitempty"`
	Masquerade   bool     `json:"masquerade,omitempty"`
	RichRules    []string `json:"rich_rules,omitempty"`
	Active       bool     `json:"active,omitempty"`
}

// Zone returns the runtime zone of that name, or nil.
func (f *FirewalldState) Zone(name string) *Zone {
	for i := range f.Zones {
		if f.Zones[i].Name == name {
			return &f.Zones[i]
		}
	}
	return nil
}

// ZoneOf returns the runtime zone that holds the interface by name, or nil: then the default zone has it.
func (f *FirewalldState) ZoneOf(link string) *Zone {
	for i := range f.Zones {
		for _, name := range f.Zones[i].Interfaces {
			if name == link {
				return &f.Zones[i]
			}
		}
	}
	return nil
}
