//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

const (
	faultsPage   = "../../docs/faults.md"
	faultResults = "testdata/faults.json"
)

// results are what became of the cases when they were last run by make test-all: name → suite → the object
// that was named, "" where there was nothing to say, or failed.
type results struct {
	mu sync.Mutex
	of map[string]map[string]string
}

const failed = "FAILED"

// newResults reads the results of the last run. With NETCHECK_TEST_ALL those of this test take their places, and
// the page is written anew.
func newResults(t *testing.T) *results {
	t.Helper()
	r := &results{of: map[string]map[string]string{}}
	text, err := os.ReadFile(faultResults)
	if err == nil {
		err = json.Unmarshal(text, &r.of)
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("NETCHECK_TEST_ALL") != "" {
		t.Cleanup(func() { r.write(t) })
	}
	return r
}

// byChance is what differs from host to host in the names of objects.
var byChance = regexp.MustCompile(`\b(veth|br-)[0-9a-f]{7,12}\b`)

// note runs a case and notes what became of it.
func (r *results) note(t *testing.T, name, suite string, run func() string) {
	object := failed
	defer func() { // after t.Fatal too
		if t.Failed() {
			object = failed
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.of[name] == nil {
			r.of[name] = map[string]string{}
		}
		r.of[name][suite] = byChance.ReplaceAllString(object, "${1}…")
	}()
	object = run()
}

func (r *results) write(t *testing.T) {
	cases := allCases()
	maps.DeleteFunc(r.of, func(name string, _ map[string]string) bool { _, ok := cases[name]; return !ok })
	page, _ := r.page()
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "\t")
	if err := encoder.Encode(r.of); err != nil {
		t.Error(err)
	}
	for path, data := range map[string][]byte{faultResults: text.Bytes(), faultsPage: page} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// allCases returns faults and decoys by name.
func allCases() map[string]fault {
	cases := map[string]fault{}
	for _, f := range slices.Concat(allFaults(), decoys) {
		cases[f.name] = f
	}
	return cases
}

const faultsHead = `# Root causes and their checks

Written by ` + "`make test-all`" + `, which makes every case on every engine on which it can be made; do not edit.
A case starts a real host, shows that the connection works, breaks the host, shows that the connection fails
(where it says "no probe", there is no connection that could show it), and expects netcheck to name the object
that was broken, to change nothing by asking, and no second cause.
✓ is such a case that went well, ✗ one that did not. A decoy looks wrong, works, and nothing is to be said
of it. "fixed" are those that ` + "`--fix --yes`" + ` puts right, with the connection as proof, and that undo brings back.
` + "`make test`" + ` makes each case on one engine, by rotation.

| cause | case | 20.10 | 26.1 | 28.5 | check | object that was named | fixed | |
|---|---|:-:|:-:|:-:|---|---|:-:|---|
`

// page returns docs/faults.md, and what is wrong with the tables that it is made of.
func (r *results) page() (text []byte, wrong []string) {
	cases := allCases()
	if all := len(allFaults()) + len(decoys); len(cases) != all {
		wrong = append(wrong, fmt.Sprintf("%d cases have %d names", all, len(cases)))
	}
	rest := maps.Clone(cases)
	var page bytes.Buffer
	page.WriteString(faultsHead)
	for _, cause := range rootCauses {
		label, note := cause.name, cause.note
		if cause.cases == "" {
			fmt.Fprintf(&page, "| %s | | | | | | | | %s |\n", label, cell(note))
		}
		for _, name := range strings.Fields(cause.cases) {
			f, ok := cases[name]
			if !ok {
				wrong = append(wrong, fmt.Sprintf("%s: there is no case %s", cause.name, name))
				continue
			}
			delete(rest, name)
			row, complaints := r.row(f)
			wrong = append(wrong, complaints...)
			if f.check != "" && f.way == "" {
				note = strings.TrimPrefix(note+"; no probe", "; ")
			}
			fmt.Fprintf(&page, "| %s | %s |%s %s |\n", label, name, row, cell(note))
			label, note = "", ""
		}
	}
	for _, f := range slices.Concat(allFaults(), decoys) {
		if _, left := rest[f.name]; !left {
			continue
		}
		if f.check != "" {
			wrong = append(wrong, fmt.Sprintf("case %s belongs to no cause", f.name))
		}
		row, complaints := r.row(f)
		wrong = append(wrong, complaints...)
		fmt.Fprintf(&page, "| decoy | %s |%s |\n", f.name, row)
	}
	return page.Bytes(), wrong
}

// row returns what became of a case and what it named, and what is wrong with it.
func (r *results) row(f fault) (text string, wrong []string) {
	var row strings.Builder
	object := ""
	for _, suite := range []string{lab.Bookworm, lab.Trixie, lab.Forky} {
		named, ran := r.of[f.name][suite]
		switch allowed := f.suites == nil || slices.Contains(f.suites, suite); {
		case !allowed:
			row.WriteString(" |")
		case !ran:
			wrong = append(wrong, fmt.Sprintf("case %s was not run on %s: NETCHECK_TEST_ALL=1 go test ./cli-plugins/docker-netcheck -run 'Test(Faults|Decoys)/%[1]s/'", f.name, suite))
			row.WriteString(" |")
		case named == failed:
			row.WriteString(" ✗ |")
		default:
			row.WriteString(" ✓ |")
			object = named
		}
	}
	check, fixed := f.check, ""
	switch {
	case f.check == "":
		check = "none: silent"
		if f.status != "" {
			check = "none: " + string(f.status)
		}
	case checks.Find(f.check) == nil:
		wrong = append(wrong, fmt.Sprintf("%s: %s is no check", f.name, f.check))
	}
	switch {
	case f.fixed && f.allow != "":
		fixed = "allow " + f.allow
	case f.fixed:
		fixed = "✓"
	}
	if object != "" {
		object = "`" + cell(object) + "`"
	}
	fmt.Fprintf(&row, " %s | %s | %s |", check, object, fixed)
	return row.String(), wrong
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// TestFaultsPage says that every case stands in docs/faults.md with the result of its last run, and nothing else
// does.
func TestFaultsPage(t *testing.T) {
	if os.Getenv("NETCHECK_TEST_ALL") != "" {
		t.Skip("this run writes it")
	}
	r := newResults(t)
	page, wrong := r.page()
	for _, problem := range wrong {
		t.Error(problem)
	}
	for name := range r.of {
		if _, ok := allCases()[name]; !ok {
			t.Errorf("%s: there is no case %s", faultResults, name)
		}
	}
	if *update {
		if err := os.WriteFile(faultsPage, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(faultsPage); err != nil || !bytes.Equal(have, page) {
		t.Errorf("%s is stale: go test ./cli-plugins/docker-netcheck -run TestFaultsPage -update: %v", faultsPage, err)
	}
}
