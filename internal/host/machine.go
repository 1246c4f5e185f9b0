//go:build linux

package host

import (
	"bytes"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A machine is where /proc, /sys and /etc are: "" for the root directory.
type machine struct{ root string }

func (m machine) path(elements ...string) string {
	return filepath.Join(append([]string{"/", m.root}, elements...)...)
}

// read returns a file's content without the newline at its end.
func (m machine) read(elements ...string) (string, error) {
	data, err := os.ReadFile(m.path(elements...))
	return strings.TrimSuffix(string(data), "\n"), err
}

// comm returns the name of a process's program, at most 15 bytes of it, or "".
func (m machine) comm(pid int) string {
	name, _ := m.read("proc", strconv.Itoa(pid), "comm")
	return name
}

// arguments returns a process's argument vector.
func (m machine) arguments(pid int) ([]string, error) {
	data, err := os.ReadFile(m.path("proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return nil, err
	}
	return strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00"), nil
}

// started returns when the process began, in clock ticks since boot, or "".
func (m machine) started(pid int) string {
	if pid == 0 {
		return ""
	}
	stat, err := m.read("proc", strconv.Itoa(pid), "stat")
	if err != nil {
		return ""
	}
	// The program's name, in parentheses, may hold anything: fields are counted behind it. Field 22.
	field := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(field) < 20 {
		return ""
	}
	return field[19]
}

// parent returns the PID of the process's parent, or 0.
func (m machine) parent(pid int) int {
	stat, err := m.read("proc", strconv.Itoa(pid), "stat")
	if err != nil {
		return 0
	}
	field := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(field) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(field[1])
	return n
}

// children returns the processes that the threads of pid started.
func (m machine) children(pid int) []int {
	tasks, err := os.ReadDir(m.path("proc", strconv.Itoa(pid), "task"))
	if err != nil {
		return nil
	}
	var all []int
	for _, task := range tasks {
		list, _ := m.read("proc", strconv.Itoa(pid), "task", task.Name(), "children")
		for _, field := range strings.Fields(list) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// descendants yields pid and everything below it.
func (m machine) descendants(pid int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
			if !yield(queue[0]) {
				return
			}
			queue = append(queue, m.children(queue[0])...)
		}
	}
}

// processes yields every process.
func (m machine) processes() iter.Seq[int] {
	return func(yield func(int) bool) {
		entries, err := os.ReadDir(m.path("proc"))
		if err != nil {
			return
		}
		for _, entry := range entries {
			if pid, err := strconv.Atoi(entry.Name()); err == nil && !yield(pid) {
				return
			}
		}
	}
}

// descriptors returns what a process's open files are: "socket:[1234]", "/dev/null".
func (m machine) descriptors(pid int) []string {
	directory := m.path("proc", strconv.Itoa(pid), "fd")
	f, err := os.Open(directory)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	var targets []string
	for _, name := range names {
		if target, err := os.Readlink(directory + "/" + name); err == nil {
			targets = append(targets, target)
		}
	}
	return targets
}

// kernel returns the release, as uname -r.
func (m machine) kernel() string {
	release, _ := m.read("proc/sys/kernel/osrelease")
	return release
}

// lacksModule says whether a part of the kernel is surely absent, so that asking for it would make the
// kernel load a module: it is neither loaded nor built in. Source: sysfs lists loaded modules, and
// /lib/modules/RELEASE/modules.builtin the others.
func (m machine) lacksModule(name string) bool {
	if _, err := os.Stat(m.path("proc/modules")); err != nil { // a kernel that loads none, or no /proc
		return false
	}
	if _, err := os.Stat(m.path("sys/module", name)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	builtin, err := os.ReadFile(m.path("lib/modules", m.kernel(), "modules.builtin"))
	if err != nil {
		// Without its directory of modules the kernel has nothing that it could load.
		return false
	}
	return !bytes.Contains(builtin, []byte("/"+name+".ko"))
}

// needsRoot turns a refusal for lack of privileges into what to do about it.
func needsRoot(err error) string {
	if os.Geteuid() == 0 { // in a user namespace root may not all
		return err.Error()
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "needs root: sudo docker netcheck …"
	}
	return err.Error()
}
