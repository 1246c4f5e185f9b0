package checks

import "testing"

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		before, after []string
		old, new      string
	}{
		{nil, []string{"a"}, "^\n$", "^\na\n$"},
		{[]string{"a"}, nil, "^\na\n$", "^\n$"},
		{[]string{"a", "b", "c"}, []string{"a", "x", "b", "c"}, "a\nb", "a\nx\nb"},
		{[]string{"a", "b"}, []string{"a", "b", "x"}, "b\n$", "b\nx\n$"},
		{[]string{"a", "a"}, []string{"a", "a", "a"}, "a\n$", "a\na\n$"},
		{[]string{"a", "b"}, []string{"a", "b"}, "$", "$"},
		// As internal/host's stores write it.
		{[]string{"-m comment --comment \"x\ny\" -j A", "b"}, []string{"-m comment --comment \"x\ny\" -j A"}, `-m comment --comment "x\ny" -j A` + "\nb\n$", `-m comment --comment "x\ny" -j A` + "\n$"},
	} {
		if old, new := window(c.before, c.after); old != c.old || new != c.new {
			t.Errorf("%q to %q: %q, %q, want %q, %q", c.before, c.after, old, new, c.old, c.new)
		}
	}
}
