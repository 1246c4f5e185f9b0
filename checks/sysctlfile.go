package checks

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// sysctlLink writes a link's name as a part of a sysctl's name: its dots are slashes.
func sysctlLink(name string) string { return strings.ReplaceAll(name, ".", "/") }

// sysctlDirs are where systemd-sysctl and sysctl --system read, from the strongest to the weakest: of
// files with one name only the strongest counts. Source: sysctl.d(5).
var sysctlDirs = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// sysctlLine is a line of a file that sets a sysctl.
type sysctlLine struct {
	File  string
	Line  int // from 1
	Value string
	Glob  bool // it sets others too: net.ipv4.conf.*.forwarding
}

// ufwSysctls is applied by ufw after all others, where ufw is on.
const ufwSysctls = "/etc/ufw/sysctl.conf"

// sysctlLines returns the lines that may set a sysctl at boot, under either name and by globs, in the order in which
// they are applied: the last one wins. One that names it goes before globs, as systemd-sysctl has it.
func sysctlLines(s *netstate.Snapshot, name string) []sysctlLine {
	byName := map[string]string{}
	for file := range s.Files {
		dir, base := path.Split(file)
		rank := slices.Index(sysctlDirs, path.Clean(dir))
		if rank < 0 || !strings.HasSuffix(base, ".conf") {
			continue
		}
		if other, ok := byName[base]; !ok || rank < slices.Index(sysctlDirs, path.Dir(other)) {
			byName[base] = file
		}
	}
	var bases []string
	for base := range byName {
		bases = append(bases, base)
	}
	slices.Sort(bases)
	var files []string
	for _, base := range bases {
		files = append(files, byName[base])
	}
	files = append(files, "/etc/sysctl.conf", ufwSysctls) // procps applies the first last; systemd-sysctl by a link to it
	var lines, globs []sysctlLine
	for _, file := range files {
		number := 0
		for text := range strings.SplitSeq(s.Files[file], "\n") {
			number++
			key, value, ok := sysctlAssignment(text)
			switch glob := strings.ContainsAny(key, "*?["); {
			case !ok || !setsSysctl(key, name):
			case glob:
				globs = append(globs, sysctlLine{file, number, value, glob})
			default:
				lines = append(lines, sysctlLine{file, number, value, glob})
			}
		}
	}
	return append(globs, lines...)
}

// atBoot returns sysctlLines, which are read once. They are not to be changed.
func (h *Host) atBoot(name string) []sysctlLine {
	if h.Files == nil { // this view shows none
		return nil
	}
	lines, ok := h.whole.boot[name]
	if !ok {
		lines = sysctlLines(h.Snapshot, name)
		h.whole.boot[name] = lines
	}
	return lines
}

// setsSysctl says whether a key of a file, which may be a glob, is a name of the sysctl. net.ipv4.ip_forward is another
// name of net.ipv4.conf.all.forwarding.
func setsSysctl(key, name string) bool {
	slashes := strings.NewReplacer("/", ".", ".", "/")
	for _, other := range []string{name, map[string]string{
		"net.ipv4.ip_forward":          "net.ipv4.conf.all.forwarding",
		"net.ipv4.conf.all.forwarding": "net.ipv4.ip_forward",
	}[name]} {
		if ok, _ := path.Match(slashes.Replace(key), slashes.Replace(other)); ok && other != "" {
			return true
		}
	}
	return false
}

// sysctlAssignment reads a line of a sysctl file, and returns the key with dots.
func sysctlAssignment(text string) (key, value string, ok bool) {
	text = strings.TrimSpace(text)
	if text == "" || text[0] == '#' || text[0] == ';' {
		return "", "", false
	}
	key, value, ok = strings.Cut(strings.TrimPrefix(text, "-"), "=")
	key = strings.TrimSpace(key)
	if first := strings.IndexAny(key, "./"); first >= 0 && key[first] == '/' {
		// With a slash first, slashes separate and dots belong to names.
		key = strings.NewReplacer("/", ".", ".", "/").Replace(key)
	}
	return key, strings.TrimSpace(value), ok
}

// setBy returns the file and line that sets a sysctl to what it is now, or "".
func setBy(s *netstate.Snapshot, name string) string {
	now, _ := s.Host.Sysctl(name)
	lines := slices.DeleteFunc(sysctlLines(s, name), func(l sysctlLine) bool { return l.File == ufwSysctls && l.Value != now }) // ufw may be off
	if len(lines) == 0 {
		return ""
	}
	last := lines[len(lines)-1]
	if now != last.Value {
		return ""
	}
	return fmt.Sprintf("%s:%d", last.File, last.Line)
}

// switchesForwardingOn says whether the engine does so when it starts or makes a network. Source: setup_ip_forwarding.go
// of moby; the nftables backend only looks.
func switchesForwardingOn(h *Host) bool {
	on := h.Engine.Config.IPForward
	return !h.Program().Nftables && (on == nil || *on)
}

// sysctlFiles returns the steps that correct the lines which switch forwarding off at boot. Where the engine
// switches it on by itself they are commented out: with a line that says 1 it would find it on, and not set
// the policy DROP that goes with it.
func sysctlFiles(h *Host, name string) []remediate.Step {
	correct := func(line string) string { return "# " + line }
	if !switchesForwardingOn(h) {
		correct = func(line string) string {
			at := strings.LastIndexByte(line, '0')
			return line[:at] + "1" + line[at+1:]
		}
	}
	var steps []remediate.Step
	changed := map[string]string{}
	for _, line := range h.atBoot(name) {
		if line.Value != "0" || line.Glob {
			continue
		}
		old, ok := changed[line.File]
		if !ok {
			old = h.Files[line.File]
		}
		text := strings.Split(old, "\n")
		text[line.Line-1] = correct(text[line.Line-1])
		changed[line.File] = strings.Join(text, "\n")
	}
	for file, content := range changed {
		steps = append(steps, remediate.Set("file", file, h.Files[file], content))
	}
	slices.SortFunc(steps, func(a, b remediate.Step) int { return strings.Compare(a.Name, b.Name) })
	return steps
}
