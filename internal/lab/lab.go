//go:build linux

// Package lab runs Docker hosts that may be broken without harm.
//
// A [Host] is a Debian system in namespaces of its own (mount, PID, UTS, IPC,
// network) on an overlay of a cached root, with a real dockerd and, where asked
// for, a real firewalld. Outside of it, on the same network segment, are its
// clients, each a network namespace:
//
//	far 203.0.113.9 ─ client 198.51.100.2 ─┐
//	                  client 198.51.100.3 ─┤ switch ├─ eth0 198.51.100.15 host ─ docker0
//
// The first client is also the host's default gateway, and has a second, "far"
// address that is reached through it. With [Options.IPv6] all of them have
// addresses of 2001:db8::/64 too.
//
// Everything hangs on the first process of the host's PID namespace, and that
// hangs on a pipe from this process: when either ends, however it ends, the
// kernel takes away processes, mounts, namespaces and links. Nothing of a host
// has a name outside of it but its cgroups; those that a killed process left
// are removed by the next Start.
//
// The lab needs root. It does not hide the machine's kernel: what is not kept
// per namespace (/dev, nf_conntrack_max, modules, kernel.*) is the machine's,
// and must not be written.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The suites, with the engine that each has. FORWARD has Docker's old chains
// up to trixie, DOCKER-FORWARD from forky on.
const (
	Bookworm = "bookworm" // dockerd 20.10.24, firewalld 1.3
	Trixie   = "trixie"   // dockerd 26.1.5, firewalld 2.3
	Forky    = "forky"    // dockerd 28.5.2, firewalld 2.5
)

// Addresses of the lab's segment. Client number i has the address
// 198.51.100.(2+i) and 2001:db8::(2+i); the far ones are the first client's.
const (
	HostAddr    = "198.51.100.15"
	HostAddr6   = "2001:db8::15"
	ClientAddr  = "198.51.100.2"
	ClientAddr6 = "2001:db8::2"
	FarAddr     = "203.0.113.9"
	FarAddr6    = "2001:db8:f::9"
)

// Options describe a host. The zero value is bookworm with its engine, without
// firewalld, an IPv4 uplink and one client.
type Options struct {
	Suite string // default Bookworm

	// Dockerd is the path of another dockerd. What else is in its directory
	// (docker, containerd, runc, docker-proxy, docker-init) is preferred to the
	// suite's own; what is not, is the suite's.
	Dockerd   string
	NoDockerd bool           // do not start an engine
	Daemon    map[string]any // daemon.json
	Args      []string       // of dockerd

	Firewalld bool // start firewalld, before dockerd
	IPv6      bool // IPv6 on the segment as well
	Clients   int  // default 1, at most 12

	// Sysctls of the network namespace, written once eth0 is there and before
	// any daemon starts. ip_forward and rp_filter are 0 unless they are here.
	Sysctls map[string]string
}

// Need skips a test where hosts cannot be started: not root, no namespaces,
// nothing to build a root with. Where CI is set the test fails instead, so that
// it is never skipped unseen.
func Need(t testing.TB) {
	t.Helper()
	if err := Usable(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("lab: %v", err)
		}
		t.Skipf("lab: %v", err)
	}
}

// New is Need, Start, and Close at the end of the test.
func New(t testing.TB, o Options) *Host {
	t.Helper()
	Need(t)
	h, err := Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// Usable tells why no host can be started here, or nil.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return fmt.Errorf("nsenter is missing (package util-linux): make lab-deps: %w", err)
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil && len(builtRoots()) == 0 {
		return errNoMmdebstrap
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); err != nil {
			return fmt.Errorf("new namespaces: %w", err)
		}
		return nil
	})
}

// onThread calls f on an OS thread that is used for nothing else afterwards.
//
// Namespaces belong to threads, and Go moves goroutines between them. So f gets
// a goroutine that is locked to its thread and never unlocked: f may enter
// namespaces and unshare what it likes, and when it returns, the runtime ends
// the thread instead of giving it to another goroutine. What f makes there
// (a socket, a child process) keeps the namespaces that it was made in.
// f must not rely on goroutines that it starts: they run elsewhere.
func onThread(f func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		errc <- f()
	}()
	return <-errc
}
