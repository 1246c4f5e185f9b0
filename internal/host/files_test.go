//go:build linux

package host

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFilesAreOnThePage: docs/snapshot.md promises that of files no others than it names are read.
func TestFilesAreOnThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/snapshot.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "\n- Of files,")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, name := range slices.Concat(quotedFiles, loadedFiles, sysctlDirectories, networkdDirectories, loaders) {
		if !strings.Contains(list, "`"+name+"`") {
			t.Errorf("docs/snapshot.md does not say that %s is read", name)
		}
	}
}

// TestMaskedUnitIsNotEnabled: the links that start a service are kept when it is masked, and start it no more.
func TestMaskedUnitIsNotEnabled(t *testing.T) {
	m := machine{root: t.TempDir()}
	const units = "/etc/systemd/system/"
	link := func(name, target string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(m.path(units, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, m.path(units, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, service := range []string{"nftables", "iptables", "ferm", "ip6tables"} {
		link("multi-user.target.wants/"+service+".service", "/usr/lib/systemd/system/"+service+".service")
	}
	link("nftables.service", "/dev/null")
	link("ferm.service", "/nowhere/ferm.service")
	for name, text := range map[string]string{"iptables.service": "", "ip6tables.service": "[Service]\n"} {
		if err := os.WriteFile(m.path(units, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{units + "multi-user.target.wants/ferm.service", units + "multi-user.target.wants/ip6tables.service"}
	if got := slices.Sorted(maps.Keys(m.enabled())); !slices.Equal(got, want) {
		t.Errorf("enabled: %q, want %q", got, want)
	}
}
