//go:build linux

package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/godbus/dbus/v5"
)

const getProperties = "org.freedesktop.DBus.Properties.GetAll"

// readFirewalld asks a running firewalld; it starts none. No bus, or nobody of that name on it, is
// known absence.
//
// Each call takes firewalld about a millisecond, one after the other, for it asks polkit. Rules of its that
// stop a packet stand among the host's; what they come of is asked for only where the reading is thorough, and
// not all of it: of the runtime it reads the zones that are active, the default zone and "docker", and the
// active policies. The others hold no link and no source and touch no packet. Of a policy that concerns only
// what the host itself receives it knows the zones alone: its Target is "". The permanent configuration, whole,
// is read from its files.
func (c *collection) readFirewalld() {
	key := netstate.Key{Part: netstate.Firewalld}
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(c.ctx))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.missing(key, fmt.Errorf("system bus: %w", err))
		}
		return
	}
	defer conn.Close()
	ask := func(method string, answer any) error {
		return conn.BusObject().CallWithContext(c.ctx, "org.freedesktop.DBus."+method, 0, firewalld).Store(answer)
	}
	var pid uint32
	if err := ask("GetConnectionUnixProcessID", &pid); err != nil { // of nobody, or it may not be told
		var running bool
		if err := ask("NameHasOwner", &running); err != nil {
			c.missing(key, fmt.Errorf("system bus: %w", err))
			return
		}
		if !running {
			return
		}
	}
	f := &netstate.FirewalldState{}
	r := firewalldReader{c.ctx, conn, f, nil}
	options := c.m.firewalldConf()
	if c.o.Thorough || options == nil {
		r.read(options)
		if err := c.m.readPermanent(f); err != nil {
			r.errs = append(r.errs, err)
		}
	} else {
		r.options(options)
	}
	if pid != 0 {
		f.Started = fmt.Sprintf("%d@%s", pid, c.m.started(int(pid)))
	}
	c.s.Firewalld = f
	c.missing(key, errors.Join(r.errs...))
}

// A firewalldReader fills in what firewalld says of its runtime state.
type firewalldReader struct {
	ctx  context.Context
	conn *dbus.Conn
	f    *netstate.FirewalldState
	errs []error
}

// call sends a call, and does not wait for its answer. A firewalld that ends now is not started again.
func (r *firewalldReader) call(path dbus.ObjectPath, method string, arguments ...any) *dbus.Call {
	return r.conn.Object(firewalld, path).GoWithContext(r.ctx, method, dbus.FlagNoAutoStart, make(chan *dbus.Call, 1), arguments...)
}

// store waits for an answer and says whether there is one. A method that this firewalld does not have,
// or a zone that it does not know, is none.
func (r *firewalldReader) store(call *dbus.Call, into any) bool {
	<-call.Done
	err := call.Store(into)
	if err == nil {
		return true
	}
	var answer dbus.Error
	if errors.As(err, &answer) {
		switch {
		case answer.Name == "org.freedesktop.DBus.Error.UnknownMethod",
			strings.HasPrefix(answer.Error(), "INVALID_ZONE"), strings.HasPrefix(answer.Error(), "INVALID_POLICY"):
			return false
		}
	}
	r.errs = append(r.errs, fmt.Errorf("firewalld: %s: %w", call.Method[strings.LastIndexByte(call.Method, '.')+1:], err))
	return false
}

// members are the interfaces and sources of a zone, or the zones of a policy.
type members map[string]map[string][]string

// read sends all calls that need no other's answer, then those for the settings of what came out.
// options are those of firewalld.conf, nil if they could not be read.
func (r *firewalldReader) read(options map[string]string) {
	const direct = firewalld + ".direct"
	var (
		activeZones  = r.call(firewalldPath, firewalld+".zone.getActiveZones")
		policies     = r.call(firewalldPath, firewalld+".policy.getActivePolicies")
		properties   = r.call(firewalldPath, getProperties, firewalld)
		panicMode    = r.call(firewalldPath, firewalld+".queryPanicMode")
		rules        = r.call(firewalldPath, direct+".getAllRules")
		passthroughs = r.call(firewalldPath, direct+".getAllPassthroughs")
	)
	f := r.f
	if options == nil {
		var properties map[string]dbus.Variant
		r.store(r.call(firewalldConfig, getProperties, firewalld+".config"), &properties)
		options = map[string]string{}
		for name, value := range properties {
			options[name] = text(value)
		}
	}
	var zones members
	r.store(activeZones, &zones)
	names := slices.Sorted(maps.Keys(zones))
	for _, name := range []string{options["DefaultZone"], "docker"} {
		if !slices.Contains(names, name) && name != "" {
			names = append(names, name)
		}
	}
	var zoneCalls, policyCalls []*dbus.Call
	for _, name := range names {
		zoneCalls = append(zoneCalls, r.call(firewalldPath, firewalld+".zone.getZoneSettings2", name))
	}
	var active members
	r.store(policies, &active)
	policyNames := slices.Sorted(maps.Keys(active))
	for _, name := range policyNames {
		var settings *dbus.Call
		if !slices.Equal(active[name]["egress_zones"], []string{"HOST"}) {
			settings = r.call(firewalldPath, firewalld+".policy.getPolicySettings", name)
		}
		policyCalls = append(policyCalls, settings)
	}
	var general map[string]dbus.Variant
	if r.store(properties, &general) {
		f.Version, f.State = text(general["version"]), text(general["state"])
	}
	r.options(options)
	r.store(panicMode, &f.Panic)
	r.direct(rules, passthroughs)
	for i, name := range names {
		var settings map[string]dbus.Variant
		if r.store(zoneCalls[i], &settings) {
			zone := zoneSettings(name, settings)
			zone.Interfaces, zone.Sources = slices.Concat(zones[name]["interfaces"]), slices.Concat(zones[name]["sources"])
			f.Zones = append(f.Zones, zone)
		}
	}
	for i, name := range policyNames {
		policy := netstate.Policy{Name: name}
		var settings map[string]dbus.Variant
		if policyCalls[i] != nil && r.store(policyCalls[i], &settings) {
			policy = policySettings(name, settings)
		}
		policy.IngressZones, policy.EgressZones = active[name]["ingress_zones"], active[name]["egress_zones"]
		policy.Active = true
		f.Policies = append(f.Policies, policy)
	}
}

// options keeps firewalld.conf. StrictForwardPorts came with 2.3, and is off unless the file has it.
func (r *firewalldReader) options(options map[string]string) {
	f := r.f
	f.Options = map[string]string{}
	for name, value := range options {
		switch name {
		case "DefaultZone": // set at runtime and permanently at once
			f.DefaultZone = value
		case "FirewallBackend":
			f.Backend = value
		case "LogDenied":
			f.LogDenied = value
		case "IPv6_rpfilter", "IPv6_rpfilter2", "StrictForwardPorts":
		default:
			f.Options[name] = value
		}
	}
	// The second is what D-Bus calls the first since it has more values than "yes" and "no".
	f.RPFilter = cmp.Or(options["IPv6_rpfilter2"], options["IPv6_rpfilter"])
	if value, ok := options["StrictForwardPorts"]; ok || versionAtLeast(f.Version, 2, 3) {
		strict := isYes(value)
		f.StrictForwardPorts = &strict
	}
}

func isYes(value string) bool {
	value = strings.ToLower(value)
	return value == "yes" || value == "true"
}

// versionAtLeast compares a version such as "2.3.1"; one that cannot be read is not.
func versionAtLeast(version string, major, minor int) bool {
	var have [2]int
	if _, err := fmt.Sscanf(version, "%d.%d", &have[0], &have[1]); err != nil {
		return false
	}
	return have[0] > major || have[0] == major && have[1] >= minor
}

// firewalldConf reads firewalld.conf, which firewalld itself only passes on over D-Bus. It is nil if it
// cannot be read or leaves out what decides.
func (m machine) firewalldConf() map[string]string {
	content, err := m.read("etc/firewalld/firewalld.conf")
	if err != nil {
		return nil
	}
	options := map[string]string{}
	for line := range strings.Lines(content) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(name, "#") {
			options[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	if options["DefaultZone"] == "" || options["FirewallBackend"] == "" {
		return nil
	}
	return options
}

// direct keeps the rules and tracked passthroughs of the direct interface, and its chains where there
// is one of them: a chain alone does nothing.
func (r *firewalldReader) direct(rules, passthroughs *dbus.Call) {
	var rule []struct {
		IPV, Table, Chain string
		Priority          int32
		Arguments         []string
	}
	r.store(rules, &rule)
	for _, d := range rule {
		r.f.DirectRules = append(r.f.DirectRules,
			fmt.Sprintf("%s %s %s %d %s", d.IPV, d.Table, d.Chain, d.Priority, strings.Join(d.Arguments, " ")))
	}
	var passthrough []struct {
		IPV       string
		Arguments []string
	}
	r.store(passthroughs, &passthrough)
	for _, p := range passthrough {
		r.f.DirectPassthroughs = append(r.f.DirectPassthroughs, p.IPV+" "+strings.Join(p.Arguments, " "))
	}
	if len(rule)+len(passthrough) == 0 {
		return
	}
	var chain []struct{ IPV, Table, Chain string }
	r.store(r.call(firewalldPath, firewalld+".direct.getAllChains"), &chain)
	for _, c := range chain {
		r.f.DirectChains = append(r.f.DirectChains, c.IPV+" "+c.Table+" "+c.Chain)
	}
}

// zoneSettings reads what getZoneSettings2 answers; settings that are empty may be left out of it.
func zoneSettings(name string, settings map[string]dbus.Variant) netstate.Zone {
	zone := netstate.Zone{
		Name:      name,
		Target:    text(settings["target"]),
		Services:  texts(settings["services"]),
		RichRules: texts(settings["rules_str"]),
	}
	zone.Forward, _ = settings["forward"].Value().(bool)
	zone.Masquerade, _ = settings["masquerade"].Value().(bool)
	for _, port := range tuples(settings["ports"]) {
		zone.Ports = append(zone.Ports, strings.Join(port, "/"))
	}
	for _, p := range tuples(settings["forward_ports"]) {
		if len(p) == 4 {
			zone.ForwardPorts = append(zone.ForwardPorts, forwardPort(p[0], p[1], p[2], p[3]))
		}
	}
	return zone
}

// forwardPort writes a forwarded port as firewall-cmd(1) does.
func forwardPort(port, proto, toPort, toAddr string) string {
	return "port=" + port + ":proto=" + proto + ":toport=" + toPort + ":toaddr=" + toAddr
}

// policySettings reads what getPolicySettings answers.
func policySettings(name string, settings map[string]dbus.Variant) netstate.Policy {
	policy := netstate.Policy{
		Name:         name,
		Target:       text(settings["target"]),
		IngressZones: texts(settings["ingress_zones"]),
		EgressZones:  texts(settings["egress_zones"]),
		RichRules:    texts(settings["rich_rules"]),
	}
	if policy.Target == "" {
		policy.Target = "CONTINUE"
	}
	policy.Masquerade, _ = settings["masquerade"].Value().(bool)
	priority, _ := settings["priority"].Value().(int32)
	policy.Priority = int(priority)
	return policy
}

// text returns a variant as text; an absent one is "".
func text(v dbus.Variant) string {
	switch value := v.Value().(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

// texts returns a variant as a list; an empty one is nil, as a document says it.
func texts(v dbus.Variant) []string {
	list, _ := v.Value().([]string)
	return slices.Concat(list)
}

// tuples returns an array of structures of strings.
func tuples(v dbus.Variant) [][]string {
	list, _ := v.Value().([][]any)
	var all [][]string
	for _, tuple := range list {
		var fields []string
		for _, field := range tuple {
			s, _ := field.(string)
			fields = append(fields, s)
		}
		all = append(all, fields)
	}
	return all
}
