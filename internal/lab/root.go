//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// packages are installed in every root, besides what suites adds.
var packages = []string{
	"docker.io", "tini",
	"firewalld", "ufw", "iptables", "nftables", "ipset", "conntrack",
	"iproute2", "bpftool", "ethtool", "tcpdump", "procps", "kmod", "mount", "dbus",
	"curl", "ca-certificates", "busybox-static", "openssh-server",
}

type suite struct {
	packages []string // beyond those of every suite
	options  []string // of mmdebstrap
}

var suites = map[string]suite{
	Bookworm: {},
	Trixie:   {packages: []string{"docker-cli"}},
	Forky: {
		packages: []string{"docker-cli", "rootlesskit", "slirp4netns", "uidmap"},
		// Not released: its index may be older than it allows itself to be.
		options: []string{`--aptopt=Acquire::Check-Valid-Until "false"`},
	},
}

// Suites are the names of the suites, oldest engine first.
func Suites() []string { return []string{Bookworm, Trixie, Forky} }

var errNoMmdebstrap = errors.New("mmdebstrap is missing (package mmdebstrap): make lab-deps")

// Cache is the directory of the roots: $NETCHECK_LAB_CACHE, or one in the
// user's cache directory. It must be on a file system that can be the lower
// layer of an overlay.
func Cache() (string, error) {
	if dir := os.Getenv("NETCHECK_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "docker-netcheck", "lab"), nil
}

// builtRoots are the roots in the cache, of whatever package list.
func builtRoots() []string {
	cache, err := Cache()
	if err != nil {
		return nil
	}
	var roots []string
	for _, name := range Suites() {
		m, _ := filepath.Glob(filepath.Join(cache, name+"-*"))
		roots = append(roots, m...)
	}
	return roots
}

// Root returns the directory of a suite's root, and builds it if it is not
// there: some 25 s and half a gigabyte. Of several processes one builds, the
// others wait. A root has its final name only when it is complete.
func Root(ctx context.Context, name string) (string, error) {
	s, ok := suites[name]
	if !ok {
		return "", fmt.Errorf("suite %q: not one of %s", name, strings.Join(Suites(), ", "))
	}
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	include := strings.Join(slices.Concat(packages, s.packages), ",")
	key := sha256.Sum256([]byte(include))
	root := filepath.Join(cache, fmt.Sprintf("%s-%x", name, key[:6]))
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := lockFile(ctx, filepath.Join(cache, "."+name+".lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if _, err := os.Stat(root); err == nil {
		return root, nil // built while we waited
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errNoMmdebstrap
	}

	// Who holds the lock is the only builder: other builds are dead ones.
	dead, _ := filepath.Glob(filepath.Join(cache, ".build-"+name+"-*"))
	for _, dir := range dead {
		os.RemoveAll(dir)
	}
	tmp, err := os.MkdirTemp(cache, ".build-"+name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	args := append([]string{"--mode=root", "--variant=apt", "--include=" + include}, s.options...)
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, name, tmp)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	// mmdebstrap mounts the machine's /dev/shm and more in the root. Should it
	// be killed, no mount may be left that a later removal could follow.
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	cmd.ExtraFiles = []*os.File{lock} // should we be killed, it holds the lock as long as it lives
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("mmdebstrap %s: %w", name, context.Cause(ctx))
	}
	if err != nil {
		return "", fmt.Errorf("mmdebstrap %s: %w\n%s", name, err, lastLines(log.String(), 20))
	}
	return root, os.Rename(tmp, root)
}

// lockFile waits for an exclusive lock on path, which ends when the file is
// closed by all that have it.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// poll calls f until it returns nil. When ctx ends first, the error is f's last.
func poll(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lastLines are the last n lines of s.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
