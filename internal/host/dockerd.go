//go:build linux

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// engineSocket returns the path of the Unix socket behind a daemon's address, or "".
func engineSocket(daemonHost string) string {
	path, ok := strings.CutPrefix(daemonHost, "unix://")
	if !ok {
		return ""
	}
	return path
}

// sameHost says whether the engine at that address can be on this machine at all.
func sameHost(daemonHost string) bool {
	if engineSocket(daemonHost) != "" {
		return true
	}
	address, ok := strings.CutPrefix(daemonHost, "tcp://")
	if !ok {
		return false
	}
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		name = address
	}
	a, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && a.IsLoopback()
}

// findDockerd returns the PID of the engine at that address, or 0: the process behind its socket, or where
// the service manager made that or the connection is TCP, the one in the PID file, or the only one of that
// name.
func (m machine) findDockerd(daemonHost string) int {
	if path := engineSocket(daemonHost); path != "" {
		c, err := net.DialTimeout("unix", m.path(path), time.Second)
		if err != nil {
			return 0
		}
		defer c.Close()
		pid := credentials(c.(*net.UnixConn))
		if pid != 1 && !m.isDockerd(pid) { // forwarded, or of another PID namespace
			return 0
		}
		if pid, err := m.unixServer(c.(*net.UnixConn)); err == nil {
			return pid
		}
	}
	if pid := m.dockerdOfFile(); pid != 0 {
		return pid
	}
	only := 0
	for pid := range m.processes() {
		if m.isDockerd(pid) {
			if only != 0 {
				return 0
			}
			only = pid
		}
	}
	return only
}

// dockerdOfFile returns the dockerd that the usual PID file names, or 0. It spares a look at every process.
func (m machine) dockerdOfFile() int {
	text, err := m.read("run/docker.pid")
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || !m.isDockerd(pid) {
		return 0
	}
	return pid
}

func (m machine) isDockerd(pid int) bool {
	return pid > 0 && m.comm(pid) == "dockerd"
}

// A locality says whether the engine runs in this network namespace, and whether it numbers processes
// as this program does.
type locality int

const (
	localUnknown locality = iota
	localYes
	localNo
)

// sameNamespace compares a namespace of the process with the program's own.
func (m machine) sameNamespace(pid int, kind string) locality {
	own, err1 := os.Readlink(m.path("proc/thread-self/ns", kind))
	theirs, err2 := os.Readlink(m.path("proc", strconv.Itoa(pid), "ns", kind))
	switch {
	case pid == 0 || err1 != nil || err2 != nil:
		return localUnknown
	case own == theirs:
		return localYes
	}
	return localNo
}

// The settings that are kept, by their names in daemon.json and, behind "--", in dockerd's arguments.
// In JSON a "_" stands for each "-".
var (
	boolSettings = map[string]func(*netstate.EngineConfig) **bool{
		"iptables":             func(c *netstate.EngineConfig) **bool { return &c.Iptables },
		"ip6tables":            func(c *netstate.EngineConfig) **bool { return &c.Ip6tables },
		"userland-proxy":       func(c *netstate.EngineConfig) **bool { return &c.UserlandProxy },
		"ip-forward":           func(c *netstate.EngineConfig) **bool { return &c.IPForward },
		"ip-forward-no-drop":   func(c *netstate.EngineConfig) **bool { return &c.IPForwardNoDrop },
		"ip-masq":              func(c *netstate.EngineConfig) **bool { return &c.IPMasq },
		"icc":                  func(c *netstate.EngineConfig) **bool { return &c.ICC },
		"allow-direct-routing": func(c *netstate.EngineConfig) **bool { return &c.AllowDirectRouting },
		"no-iptables-raw":      func(c *netstate.EngineConfig) **bool { return &c.NoIptablesRaw }, // only DOCKER_INSECURE_NO_IPTABLES_RAW
	}
	stringSettings = map[string]func(*netstate.EngineConfig) *string{
		"firewall-backend":     func(c *netstate.EngineConfig) *string { return &c.FirewallBackend },
		"bridge-accept-fwmark": func(c *netstate.EngineConfig) *string { return &c.BridgeAcceptFwmark },
		"bridge":               func(c *netstate.EngineConfig) *string { return &c.Bridge },
		"ip":                   func(c *netstate.EngineConfig) *string { return &c.IP },
	}
)

// setBool records a switch, unless a better source did; the value is as strconv.ParseBool takes it.
func setBool(c *netstate.EngineConfig, name, value, from string) {
	field := boolSettings[name](c)
	on, err := strconv.ParseBool(value)
	if err != nil || *field != nil {
		return
	}
	*field = &on
	setFrom(c, name, from)
}

func setString(c *netstate.EngineConfig, name, value, from string) {
	if field := stringSettings[name](c); *field == "" && value != "" {
		*field = value
		setFrom(c, name, from)
	}
}

func setFrom(c *netstate.EngineConfig, name, from string) {
	if c.From == nil {
		c.From = map[string]string{}
	}
	c.From[strings.ReplaceAll(name, "-", "_")] = from
}

// Sources of a setting, as EngineConfig.From has them.
const (
	fromArgument    = "dockerd argument"
	fromDaemonJSON  = "daemon.json"
	fromEnvironment = "dockerd environment"
	fromProxies     = "docker-proxy processes"
	fromHairpin     = "hairpin mode"
	fromDefault     = "default"
)

// configFromArguments reads dockerd's arguments and returns the path of its configuration file. As
// dockerd does, it takes the value of a switch only behind "=".
func configFromArguments(c *netstate.EngineConfig, arguments []string) (configFile string) {
	configFile = "/etc/docker/daemon.json"
	for i := 1; i < len(arguments); i++ {
		name, value, valued := strings.Cut(arguments[i], "=")
		switch {
		case name == "-b":
			name = "bridge"
		case strings.HasPrefix(name, "--"):
			name = name[2:]
		default:
			continue
		}
		if _, ok := boolSettings[name]; ok && name != "no-iptables-raw" {
			if !valued {
				value = "true"
			}
			setBool(c, name, value, fromArgument)
			continue
		}
		_, known := stringSettings[name]
		if !known && name != "config-file" && name != "dns" {
			continue
		}
		if !valued && i+1 < len(arguments) {
			i++
			value = arguments[i]
		}
		switch {
		case known:
			setString(c, name, value, fromArgument)
		case name == "dns":
			c.DNS = append(c.DNS, value)
			setFrom(c, name, fromArgument)
		default:
			configFile = value
		}
	}
	return configFile
}

// configFromJSON reads daemon.json. Only the named settings are looked at.
func configFromJSON(c *netstate.EngineConfig, text string) error {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return err
	}
	for name := range boolSettings {
		setBool(c, name, strings.Trim(string(settings[name]), `"`), fromDaemonJSON)
	}
	for name := range stringSettings {
		var value string
		if json.Unmarshal(settings[name], &value) == nil {
			setString(c, name, value, fromDaemonJSON)
		}
	}
	var servers []string
	if json.Unmarshal(settings["dns"], &servers) == nil && len(servers) > 0 && c.DNS == nil {
		c.DNS = servers
		setFrom(c, "dns", fromDaemonJSON)
	}
	return nil
}

// configFromDefaults fills in what nobody set. Source: dockerd's own defaults by version.
func configFromDefaults(e *netstate.EngineState) {
	for name, on := range map[string]bool{
		"iptables": true, "ip6tables": e.AtLeast(27, 0, 0), "userland-proxy": true, "ip-forward": true,
		"ip-forward-no-drop": false, "ip-masq": true, "icc": true, "allow-direct-routing": false,
	} {
		setBool(&e.Config, name, strconv.FormatBool(on), fromDefault)
	}
	setString(&e.Config, "firewall-backend", "iptables", fromDefault)
}

// readConfig finds out how dockerd was told to program the host, from the best source to the worst:
// its answer to /info (already in e), what it runs, its arguments, its file, its defaults. A default
// counts only where arguments and file could be read. The error says which could not.
func (m machine) readConfig(e *netstate.EngineState, proxies []netstate.Proxy, hairpin bool) error {
	c := &e.Config
	if slices.ContainsFunc(proxies, func(p netstate.Proxy) bool { return p.Parent == e.PID && e.PID != 0 }) {
		setBool(c, "userland-proxy", "true", fromProxies)
	} else if hairpin {
		setBool(c, "userland-proxy", "false", fromHairpin)
	}
	for _, warning := range e.Warnings {
		if strings.Contains(warning, "DOCKER_INSECURE_NO_IPTABLES_RAW") {
			setBool(c, "no-iptables-raw", "true", "info")
		}
	}
	if e.PID == 0 {
		return errors.New("dockerd's process was not found: its arguments are not known")
	}
	arguments, err := m.arguments(e.PID)
	if err != nil {
		return fmt.Errorf("dockerd's arguments: %w", err)
	}
	file := configFromArguments(c, arguments)
	if environment, err := m.read("proc", strconv.Itoa(e.PID), "environ"); err == nil {
		raw := "false"
		for variable := range strings.SplitSeq(environment, "\x00") {
			if value, ok := strings.CutPrefix(variable, "DOCKER_INSECURE_NO_IPTABLES_RAW="); ok && value == "1" {
				raw = "true"
			}
		}
		setBool(c, "no-iptables-raw", raw, fromEnvironment)
	}
	text, err := m.read(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := configFromJSON(c, text); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	configFromDefaults(e)
	return nil
}

// readProxies returns the running docker-proxy processes: dockerd's children, and those that lost it
// and belong to the first process now.
func (m machine) readProxies(dockerd int) []netstate.Proxy {
	var proxies []netstate.Proxy
	for pid := range m.proxyCandidates(dockerd) {
		if m.comm(pid) != "docker-proxy" {
			continue
		}
		arguments, err := m.arguments(pid)
		if err != nil {
			continue
		}
		if proxy, ok := parseProxy(arguments); ok {
			proxy.PID = pid
			if parent := m.parent(pid); parent == dockerd {
				proxy.Parent = parent
			}
			proxies = append(proxies, proxy)
		}
	}
	return proxies
}

// proxyCandidates yields the children of dockerd and of the first process; where the kernel does not list
// children (CONFIG_PROC_CHILDREN), every process.
func (m machine) proxyCandidates(dockerd int) iter.Seq[int] {
	if _, err := os.Stat(m.path("proc/thread-self/children")); err != nil {
		return m.processes()
	}
	candidates := m.children(1)
	if dockerd != 0 {
		candidates = append(m.children(dockerd), candidates...)
	}
	return slices.Values(candidates)
}

// parseProxy reads docker-proxy's arguments, which are the same in every engine: -proto tcp
// -host-ip 0.0.0.0 -host-port 8080 -container-ip 192.0.2.2 -container-port 80 [-use-listen-fd].
func parseProxy(arguments []string) (netstate.Proxy, bool) {
	value := map[string]string{}
	for i := 1; i+1 < len(arguments); i++ {
		if strings.HasPrefix(arguments[i], "-") {
			value[strings.TrimLeft(arguments[i], "-")] = arguments[i+1]
		}
	}
	host, ok1 := addrPort(value["host-ip"], value["host-port"])
	container, ok2 := addrPort(value["container-ip"], value["container-port"])
	return netstate.Proxy{Proto: value["proto"], Host: host, Container: container}, ok1 && ok2
}

func addrPort(address, port string) (netip.AddrPort, bool) {
	a, err1 := netip.ParseAddr(address)
	p, err2 := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a, uint16(p)), err1 == nil && err2 == nil
}
