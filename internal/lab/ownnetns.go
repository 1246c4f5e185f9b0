//go:build linux

package lab

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// OwnNetns gives the calling test a network namespace of its own, with all
// programs that it starts, until it ends. Without root or one of the programs
// that it needs it is skipped, or fails where CI is set.
//
// The test's goroutine stays locked to its thread: both end together, and the
// namespace with them. Goroutines that the test starts are elsewhere.
func OwnNetns(t testing.TB, programs ...string) {
	t.Helper()
	lacks := t.Skip
	if os.Getenv("CI") != "" {
		lacks = t.Fatal
	}
	if os.Geteuid() != 0 {
		lacks("needs root, to make a network namespace")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			lacks(err)
		}
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}
