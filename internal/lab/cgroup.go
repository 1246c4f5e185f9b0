//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the names of the hosts' cgroups; the PID of the process
// that owns the host and a number follow.
const cgroupPrefix = "netcheck-lab-"

// sweepCgroups removes what hosts of processes that are gone left. Theirs are
// empty: the kernel has ended all that was in them.
func sweepCgroups() {
	for _, dir := range cgroupDirs(cgroupPrefix + "*") {
		name := filepath.Base(dir)
		owner, _, _ := strings.Cut(strings.TrimPrefix(name, cgroupPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			thawCgroup(name)
			removeCgroup(name)
		}
	}
}

// thawCgroup lets the processes below a cgroup run that a paused container left frozen: even a killed
// process ends only when it runs.
func thawCgroup(name string) {
	for _, top := range cgroupDirs(name) {
		filepath.WalkDir(top, func(dir string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				thaw(dir, "freezer.state", "THAWED") // version 1
				thaw(dir, "cgroup.freeze", "0")      // version 2
			}
			return nil
		})
	}
}

// thaw writes a file of a cgroup if it is there.
func thaw(dir, name, value string) {
	if file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0); err == nil {
		file.WriteString(value)
		file.Close()
	}
}

// cgroupDirs are the directories of a cgroup: one, or one a hierarchy of
// version 1.
func cgroupDirs(pattern string) []string {
	v2, _ := filepath.Glob("/sys/fs/cgroup/" + pattern)
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/" + pattern)
	return append(v2, v1...)
}

// removeCgroup removes a cgroup and those below it.
func removeCgroup(name string) error {
	var errs []error
	for _, top := range cgroupDirs(name) {
		var dirs []string
		filepath.WalkDir(top, func(dir string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				dirs = append(dirs, dir)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
			}
		}
	}
	return errors.Join(errs...)
}
