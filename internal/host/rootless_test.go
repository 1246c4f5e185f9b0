//go:build linux

package host

import (
	"strings"
	"testing"
)

// TestOption reads the options of RootlessKit in both forms.
func TestOption(t *testing.T) {
	for command, want := range map[string]string{
		"rootlesskit --port-driver=builtin dockerd":               "builtin",
		"rootlesskit --net slirp4netns --port-driver builtin sh":  "builtin",
		"rootlesskit --port-driver=slirp4netns --port-driver x d": "x",
		"rootlesskit --port-driver":                               "",
		"rootlesskit --port-driver-other=1 dockerd":               "",
	} {
		if got := option(strings.Fields(command), "--port-driver"); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}
