package main

import "testing"

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"veth0 → web":       "veth0 → web",
		"v;$(x)":            "v;$(x)",
		"a\x1b[2Jb":         `a\x1b[2Jb`,
		"line\nfake ✓":      `line\x0afake ✓`,
		"\u202eright":       `\u202eright`,
		"bad \xff bytes":    `bad \xff bytes`,
		"c1 \u009b control": `c1 \x9b control`,
	} {
		if got := clean(text); got != want {
			t.Errorf("clean(%q) = %q, want %q", text, got, want)
		}
	}
}
