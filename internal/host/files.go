//go:build linux

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// sysctlDirectories are those of sysctl.d(5); /lib is another name of /usr/lib on most systems, and then
// left out.
var sysctlDirectories = []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"}

// Files beside them that set what keeps a packet from its container.
var quotedFiles = []string{
	"/etc/sysctl.conf",
	"/etc/ufw/sysctl.conf",
	"/etc/default/ufw",
	"/etc/firewalld/firewalld.conf",
	"/etc/resolv.conf",
}

// Files from which services load rules when they start, and what systemd-networkd does to links.
var loadedFiles = []string{
	"/etc/iptables/rules.v4", "/etc/iptables/rules.v6", // netfilter-persistent
	"/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables",
	"/etc/nftables.conf", "/etc/sysconfig/nftables.conf",
	"/etc/systemd/networkd.conf",
}

// loaders are those services, and others whose rules cannot be found in their files by their text.
var loaders = []string{"netfilter-persistent", "iptables", "ip6tables", "nftables", "ferm", "shorewall", "shorewall6", "systemd-networkd"}

// networkdDirectories hold what systemd-networkd does, from the strongest to the weakest: systemd.network(5).
var networkdDirectories = []string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network"}

// enabled returns the links by which systemd starts the loaders at boot, with where each leads. A masked unit is not
// started by those that it has kept. Source: systemctl(1), mask; systemd.unit(5), for the empty file.
func (m machine) enabled() map[string]string {
	found := map[string]string{}
	const units = "/etc/systemd/system"
	wants, _ := filepath.Glob(m.path(units, "*.wants"))
	for _, directory := range wants {
		for _, service := range loaders {
			if info, err := os.Stat(m.path(units, service+".service")); err == nil && info.Size() == 0 {
				continue // /dev/null, or empty: masked
			}
			name := path.Join(units, filepath.Base(directory), service+".service")
			if target, err := os.Readlink(m.path(name)); err == nil {
				found[name] = target
			}
		}
	}
	return found
}

const largestFile = 1 << 20

// readFiles reads the files that checks quote, as they are but for secrets. What is not there is left
// out.
func (c *collection) readFiles() {
	files := map[string]string{}
	var errs []error
	keep := func(name string) {
		text, err := c.m.readQuoted(name)
		switch {
		case err == nil:
			files[name] = text
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	for _, directory := range sysctlDirectories {
		if target, err := os.Readlink(c.m.path(path.Dir(directory))); err == nil && target != "" {
			continue
		}
		entries, err := os.ReadDir(c.m.path(directory))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, entry := range entries {
			name := path.Join(directory, entry.Name())
			// Debian's 99-sysctl.conf is /etc/sysctl.conf; one that leads to /dev/null hides its namesakes.
			if target, _ := os.Readlink(c.m.path(name)); path.Base(target) == "sysctl.conf" {
				continue
			}
			if strings.HasSuffix(name, ".conf") {
				keep(name)
			}
		}
	}
	for _, name := range quotedFiles {
		keep(name)
	}
	if c.o.Thorough { // they name what would undo a fix: where they cannot be read, nothing else is unknown
		maps.Copy(files, c.m.enabled())
		keep = func(name string) {
			if text, err := c.m.readQuoted(name); err == nil {
				files[name] = text
			}
		}
		for _, name := range loadedFiles {
			keep(name)
		}
		patterns := []string{"/etc/systemd/networkd.conf.d/*.conf"}
		for _, directory := range networkdDirectories {
			patterns = append(patterns, directory+"/*.network", directory+"/*.network.d/*.conf")
		}
		for _, pattern := range patterns {
			names, _ := filepath.Glob(c.m.path(pattern))
			for _, name := range names {
				keep(path.Join("/", strings.TrimPrefix(name, c.m.path("/"))))
			}
		}
	}
	c.s.Files = files
	c.missing(netstate.Key{Part: netstate.Files}, errors.Join(errs...))
}

// stableSecret is the one sysctl that is a secret: IPv6 addresses follow from it.
const stableSecret = "stable_secret"

var secretSysctl = lazyregexp.New(`(?m)^(.*` + stableSecret + `\s*=).*$`)

// readQuoted reads a small file.
func (m machine) readQuoted(name string) (string, error) {
	info, err := os.Stat(m.path(name))
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() { // /dev/null
		return "", nil
	}
	if info.Size() > largestFile {
		return "", fmt.Errorf("%s: larger than 1 MiB", name)
	}
	data, err := os.ReadFile(m.path(name))
	if err != nil {
		return "", err
	}
	text := string(data)
	if strings.Contains(text, stableSecret) {
		text = secretSysctl().ReplaceAllString(text, "$1 (left out)")
	}
	return text, nil
}
