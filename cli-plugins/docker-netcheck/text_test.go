package main

import "testing"

func TestShortened(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"twelve chars", 12, "twelve chars"},
		{"thirteen ✗ ch", 12, "thirteen ✗ …"},
		{"no terminal at all", 0, "no terminal at all"},
		{"\x1b[1mtwelve chars\x1b[0m", 12, "\x1b[1mtwelve chars\x1b[0m"},
		{"\x1b[1mthirteen char\x1b[0m: more", 12, "\x1b[1mthirteen ch…\x1b[0m"},
		{"\x1b[31m✗\x1b[0m thirteen ch", 12, "\x1b[31m✗\x1b[0m thirteen …\x1b[0m"},
	} {
		if got := shortened(c.text, c.width); got != c.want {
			t.Errorf("%q at %d: %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
