//go:build linux

package host

import (
	"os"
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
