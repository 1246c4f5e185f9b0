//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// etc returns a machine with an /etc of its own.
func etc(t *testing.T) machine {
	m := machine{t.TempDir()}
	if err := os.MkdirAll(m.path("etc/sysctl.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"etc/sysctl.conf": "net.ipv4.ip_forward = 0\n", "etc/sysctl.d/90.conf": "a = 1", "etc/empty": ""} {
		if err := os.WriteFile(m.path(name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(m.path("etc/sysctl.conf"), 7, 8); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(m.path("etc/sysctl.conf"), "user.label", []byte("\x00odd\xff"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	if err := os.Symlink("../sysctl.conf", m.path("etc/sysctl.d/99-sysctl.conf")); err != nil {
		t.Fatal(err)
	}
	return m
}

// tree returns everything below a directory: type, mode, owner, attributes, content.
func tree(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s mode %o owner %d:%d", strings.TrimPrefix(path, root), stat.Mode, stat.Uid, stat.Gid)
		switch {
		case entry.Type()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			fmt.Fprintf(&out, " -> %s", target)
		case entry.Type().IsRegular():
			has, err := attributesOf(path, stat)
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			fmt.Fprintf(&out, " %v %q", has.Xattr, content)
			if err != nil {
				return err
			}
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestFileStore(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []remediate.Step
		want  string // file → content afterwards
	}{
		{"replace", []remediate.Step{remediate.Set("file", "/etc/sysctl.conf", "net.ipv4.ip_forward = 0\n", "net.ipv4.ip_forward = 1\n")}, "/etc/sysctl.conf"},
		{"through a link", []remediate.Step{remediate.Set("file", "/etc/sysctl.d/99-sysctl.conf", "net.ipv4.ip_forward = 0\n", "x")}, "/etc/sysctl.conf"},
		{"create", []remediate.Step{remediate.Add("file", "/etc/sysctl.d/10.conf", "b = 2\n")}, "/etc/sysctl.d/10.conf"},
		{"remove", []remediate.Step{remediate.Remove("file", "/etc/sysctl.conf", "net.ipv4.ip_forward = 0\n")}, "/etc/sysctl.conf"},
		{"empty", []remediate.Step{remediate.Remove("file", "/etc/empty", ""), remediate.Add("file", "/etc/empty2", "")}, "/etc/empty2"},
		{"no text", []remediate.Step{remediate.Set("file", "/etc/sysctl.d/90.conf", "a = 1", "\xff\x00")}, "/etc/sysctl.d/90.conf"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := etc(t)
			stores := remediate.Stores{"file": fileStore{m}}
			before := tree(t, m.root)
			journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
			if _, err := journal.Apply(context.Background(), &remediate.Plan{Steps: test.steps}, stores, nil); err != nil {
				t.Fatal(err)
			}
			last := test.steps[len(test.steps)-1]
			content, err := os.ReadFile(m.path(test.want))
			if last.New == nil && !errors.Is(err, fs.ErrNotExist) || last.New != nil && string(content) != *last.New {
				t.Errorf("%s holds %q, %v", test.want, content, err)
			}
			if _, err := journal.Undo(context.Background(), "", stores, nil); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, tree(t, m.root)); diff != "" {
				t.Errorf("undo left:\n%s", diff)
			}
		})
	}
}

func TestFileRefuses(t *testing.T) {
	m := etc(t)
	if err := os.Link(m.path("etc/sysctl.d/90.conf"), m.path("etc/twin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nothing", m.path("etc/dangling")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/loop", m.path("etc/loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../..", m.path("etc/out")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(m.path("etc/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, m.root)
	for _, test := range []struct{ name, want string }{
		{"/etc/../etc/passwd", "file /etc/../etc/passwd: is no clean path below /etc"},
		{"/root/x", "file /root/x: is no clean path below /etc"},
		{"/etc/twin", "file /etc/twin: has a second name (hard link), which would keep the old content"},
		{"/etc/dangling", `file /etc/dangling: changed since it was read: expected "old", found nothing`},
		{"/etc/loop", "file /etc/loop: is a link to itself"},
		{"/etc/out/etc/sysctl.conf", `file /etc/out/etc/sysctl.conf: changed since it was read: expected "old", found "net.ipv4.ip_forward = 0\n"`},
		{"/etc/pipe", "file /etc/pipe: is no regular file"},
		{"/etc/none/x", "no such file or directory"},
		{"/etc/sysctl.conf", `file /etc/sysctl.conf: changed since it was read: expected "old", found "net.ipv4.ip_forward = 0\n"`},
	} {
		_, err := fileStore{m}.Swap(context.Background(), []remediate.Step{remediate.Set("file", test.name, "old", "new")})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
	if diff := cmp.Diff(before, tree(t, m.root)); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}
}

// A run that was killed may leave its temporary file: the next change of that file takes it away.
func TestFileKilled(t *testing.T) {
	m := etc(t)
	before := tree(t, m.root)
	step := remediate.Set("file", "/etc/sysctl.d/90.conf", "a = 1", "a = 2")
	if err := os.WriteFile(m.path("etc/sysctl.d/.90.conf.docker-netcheck"), []byte("a ="), 0o600); err != nil {
		t.Fatal(err)
	}
	back := step.Reverse()
	back.Settle = true
	if changed, err := (fileStore{m}).Swap(context.Background(), []remediate.Step{back}); err != nil || changed[0] {
		t.Fatal(changed, err)
	}
	if diff := cmp.Diff(before, tree(t, m.root)); diff != "" {
		t.Errorf("left:\n%s", diff)
	}
}
