package checks

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// networkdDirs are where systemd-networkd reads, from the strongest to the weakest: of files with one name only
// the strongest counts. Source: systemd.network(5).
var networkdDirs = []string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network"}

// networkdLine returns the line by which systemd-networkd, where it is started at boot, switches a sysctl of
// forwarding off, or nil: from version 256 on IPv4Forwarding=no in networkd.conf does so for all links, and in a
// .network file for its own. Older ones have IPForward alone, which only switches on. Source: networkd-sysctl.c.
func networkdLine(h *Host, name string) (last *sysctlLine) {
	s := h.whole.snapshot
	family, link, ok := forwardingOf(name)
	if !ok || !enabled(s, "systemd-networkd") {
		return nil
	}
	files := append([]string{"/etc/systemd/networkd.conf"}, filesIn(s, "../networkd.conf.d", ".conf")...)
	if link != "all" {
		file := networkOf(s, link)
		if file == "" {
			return nil
		}
		files = append(append(files, file), filesIn(s, path.Base(file)+".d", ".conf")...)
	}
	for _, file := range files {
		eachSetting(s.Files[file], func(number int, section, key, value string) {
			if section != "Network" || key != family+"Forwarding" {
				return
			}
			last = nil
			if slices.Contains([]string{"no", "n", "false", "f", "0", "off"}, strings.ToLower(value)) {
				last = &sysctlLine{File: file, Line: number, Value: "0"}
			}
		})
	}
	return last
}

// filesIn returns the files that were read in the directory below each of networkdDirs and count, in the order of their
// own names.
func filesIn(s *netstate.Snapshot, directory, ext string) []string {
	byName := map[string]string{}
	for _, above := range slices.Backward(networkdDirs) {
		for name := range s.Files {
			if path.Dir(name) == path.Join(above, directory) && path.Ext(name) == ext {
				byName[path.Base(name)] = name
			}
		}
	}
	var files []string
	for _, base := range slices.Sorted(maps.Keys(byName)) {
		files = append(files, byName[base])
	}
	return files
}

// forwardingOf returns the family and the link, or "all", of a sysctl of forwarding.
func forwardingOf(name string) (family, link string, ok bool) {
	if name == "net.ipv4.ip_forward" {
		return "IPv4", "all", true
	}
	for prefix, family := range map[string]string{"net.ipv4.conf.": "IPv4", "net.ipv6.conf.": "IPv6"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			if link, ok := strings.CutSuffix(rest, ".forwarding"); ok {
				return family, strings.ReplaceAll(link, "/", "."), true
			}
		}
	}
	return "", "", false
}

// networkOf returns the .network file that systemd-networkd uses for a link, or "" where there is none or it cannot be
// told: the first whose section Match fits.
func networkOf(s *netstate.Snapshot, link string) string {
	for _, file := range filesIn(s, ".", ".network") {
		fits, known, any := true, true, false
		eachSetting(s.Files[file], func(_ int, section, key, value string) {
			if section != "Match" {
				return
			}
			any = true
			if key != "Name" || strings.HasPrefix(value, "!") {
				known = false
				return
			}
			fits = slices.ContainsFunc(strings.Fields(value), func(glob string) bool {
				ok, _ := path.Match(glob, link)
				return ok
			})
		})
		switch {
		case !fits || !any:
		case !known:
			return ""
		default:
			return file
		}
	}
	return ""
}

// eachSetting calls f for the settings of a file of systemd's, with the number of the line from 1.
func eachSetting(text string, f func(number int, section, key, value string)) {
	section, number := "", 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = line[1 : len(line)-1]
		case ok:
			f(number, section, strings.TrimSpace(key), strings.TrimSpace(value))
		}
	}
}

// networkdFiles returns the step that comments the line out which has systemd-networkd switch forwarding off; none
// where the file is not below /etc, and so not the administrator's.
func networkdFiles(h *Host, name string) []remediate.Step {
	line := networkdLine(h, name)
	if line == nil || !strings.HasPrefix(line.File, "/etc/") {
		return nil
	}
	old := h.whole.snapshot.Files[line.File]
	text := strings.Split(old, "\n")
	text[line.Line-1] = "# " + text[line.Line-1]
	return []remediate.Step{remediate.Set("file", line.File, old, strings.Join(text, "\n"))}
}
