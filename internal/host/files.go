//go:build linux

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
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
