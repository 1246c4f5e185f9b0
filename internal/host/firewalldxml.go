//go:build linux

package host

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Where firewalld keeps its permanent configuration: a file in the first hides its namesake in the
// others. Source: firewalld.zone(5).
var firewalldDirectories = []string{"etc/firewalld", "usr/lib/firewalld"}

// readPermanent reads firewalld's zones and policies from their files: through D-Bus each would take as
// long as all files together. Their rich rules are XML, as there.
func (m machine) readPermanent(f *netstate.FirewalldState) error {
	return errors.Join(
		m.firewalldFiles("zones", func(name string, data []byte) error {
			zone, err := parseZone(name, data)
			f.Permanent = append(f.Permanent, zone)
			return err
		}),
		m.firewalldFiles("policies", func(name string, data []byte) error {
			policy, err := parsePolicy(name, data)
			f.PermanentPolicies = append(f.PermanentPolicies, policy)
			return err
		}))
}

// firewalldFiles calls each for the files of a kind, in the order of their names.
func (m machine) firewalldFiles(kind string, each func(name string, data []byte) error) error {
	paths := map[string]string{}
	var names []string
	for _, directory := range firewalldDirectories {
		directory = m.path(directory, kind)
		entries, err := os.ReadDir(directory)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			name, ok := strings.CutSuffix(entry.Name(), ".xml")
			if _, hidden := paths[name]; ok && !hidden {
				paths[name] = filepath.Join(directory, entry.Name())
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		data, err := os.ReadFile(paths[name])
		if err == nil {
			if err = each(name, data); err != nil {
				err = fmt.Errorf("%s: %w", paths[name], err)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type named struct {
	Name string `xml:"name,attr"`
}

type richRule struct {
	Attrs []xml.Attr `xml:",any,attr"`
	Inner string     `xml:",innerxml"`
}

// String writes the rule as one line of XML.
func (r richRule) String() string {
	var b strings.Builder
	b.WriteString("<rule")
	for _, attr := range r.Attrs {
		fmt.Fprintf(&b, " %s=%q", attr.Name.Local, attr.Value)
	}
	return b.String() + ">" + strings.Join(strings.Fields(r.Inner), " ") + "</rule>"
}

func richRules(rules []richRule) []string {
	var all []string
	for _, r := range rules {
		all = append(all, r.String())
	}
	return all
}

// parseZone reads a zone's file: firewalld.zone(5).
func parseZone(name string, data []byte) (netstate.Zone, error) {
	var file struct {
		XMLName    xml.Name `xml:"zone"`
		Target     string   `xml:"target,attr"`
		Interfaces []named  `xml:"interface"`
		Sources    []struct {
			Address string `xml:"address,attr"`
			MAC     string `xml:"mac,attr"`
			Ipset   string `xml:"ipset,attr"`
		} `xml:"source"`
		Services []named `xml:"service"`
		Ports    []struct {
			Port     string `xml:"port,attr"`
			Protocol string `xml:"protocol,attr"`
		} `xml:"port"`
		ForwardPorts []struct {
			Port     string `xml:"port,attr"`
			Protocol string `xml:"protocol,attr"`
			ToPort   string `xml:"to-port,attr"`
			ToAddr   string `xml:"to-addr,attr"`
		} `xml:"forward-port"`
		Masquerade *struct{}  `xml:"masquerade"`
		Forward    *struct{}  `xml:"forward"`
		Rules      []richRule `xml:"rule"`
	}
	zone := netstate.Zone{Name: name}
	if err := xml.Unmarshal(data, &file); err != nil {
		return zone, err
	}
	if zone.Target = file.Target; zone.Target == "" {
		zone.Target = "default"
	}
	for _, i := range file.Interfaces {
		zone.Interfaces = append(zone.Interfaces, i.Name)
	}
	for _, s := range file.Sources {
		switch {
		case s.Address != "":
			zone.Sources = append(zone.Sources, s.Address)
		case s.MAC != "":
			zone.Sources = append(zone.Sources, s.MAC)
		default:
			zone.Sources = append(zone.Sources, "ipset:"+s.Ipset)
		}
	}
	for _, s := range file.Services {
		zone.Services = append(zone.Services, s.Name)
	}
	for _, p := range file.Ports {
		zone.Ports = append(zone.Ports, p.Port+"/"+p.Protocol)
	}
	for _, p := range file.ForwardPorts {
		zone.ForwardPorts = append(zone.ForwardPorts, forwardPort(p.Port, p.Protocol, p.ToPort, p.ToAddr))
	}
	zone.Masquerade, zone.Forward = file.Masquerade != nil, file.Forward != nil
	zone.RichRules = richRules(file.Rules)
	return zone, nil
}

// parsePolicy reads a policy's file: firewalld.policy(5).
func parsePolicy(name string, data []byte) (netstate.Policy, error) {
	var file struct {
		XMLName    xml.Name   `xml:"policy"`
		Target     string     `xml:"target,attr"`
		Priority   string     `xml:"priority,attr"`
		Ingress    []named    `xml:"ingress-zone"`
		Egress     []named    `xml:"egress-zone"`
		Masquerade *struct{}  `xml:"masquerade"`
		Rules      []richRule `xml:"rule"`
	}
	policy := netstate.Policy{Name: name}
	if err := xml.Unmarshal(data, &file); err != nil {
		return policy, err
	}
	if policy.Target = file.Target; policy.Target == "" {
		policy.Target = "CONTINUE"
	}
	policy.Priority = -1 // firewalld's default
	if file.Priority != "" {
		priority, err := strconv.Atoi(file.Priority)
		if err != nil {
			return policy, fmt.Errorf("priority %q is no number", file.Priority)
		}
		policy.Priority = priority
	}
	for _, z := range file.Ingress {
		policy.IngressZones = append(policy.IngressZones, z.Name)
	}
	for _, z := range file.Egress {
		policy.EgressZones = append(policy.EgressZones, z.Name)
	}
	policy.Masquerade = file.Masquerade != nil
	policy.RichRules = richRules(file.Rules)
	return policy, nil
}
