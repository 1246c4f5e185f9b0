// Package internal_test keeps the project's imports pointing one way.
package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/docker-netcheck/docker-netcheck/"

// allowed lists, for each package, which of the project's own it may import beside lazyregexp. What is not
// listed may import nothing of the project.
var allowed = map[string][]string{
	"cli-plugins/docker-netcheck": {"checks", "internal/host", "internal/probe", "internal/agent", "internal/metadata", "remediate", "internal/netstate", "internal/packet"},
	"checks":                      {"internal/packet", "internal/dockerd", "internal/netstate", "remediate"},
	"internal/packet":             {"internal/netstate"},
	"internal/dockerd":            {"internal/netstate"},
	"internal/host":               {"internal/netstate", "internal/netstate/nftwire", "remediate"},
	"internal/netstate/nftwire":   {"internal/netstate"},
	"internal/netstate/fixture":   {"internal/netstate", "internal/netstate/nftwire"},
	"internal/probe":              {"remediate", "internal/packet", "internal/netstate", "internal/netstate/nftwire"},
	"internal/agent":              {"internal/host", "internal/netstate", "remediate", "internal/probe", "internal/packet"},
	"internal/lab/cmd/lab":        {"internal/lab"},
	"internal/lab/cmd/demo":       {"internal/lab"},
	"internal/lab/cmd/bench":      {"internal/lab", "checks", "internal/host", "internal/netstate"},
}

func TestImportsPointOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name := strings.TrimPrefix(fields[0], module)
		for _, imported := range fields[1:] {
			own, ok := strings.CutPrefix(imported, module)
			if !ok || own == "internal/lazyregexp" && name != own {
				continue
			}
			seen++
			if !slices.Contains(allowed[name], own) {
				t.Errorf("%s imports %s: imports point one way, see CONTRIBUTING.md", name, own)
			}
		}
	}
	if seen == 0 {
		t.Error("no import within the project was seen")
	}
}
