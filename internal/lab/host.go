//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// PluginPath is where Docker's CLI looks for the plugin in a host.
const PluginPath = "/usr/libexec/docker/cli-plugins/docker-netcheck"

// engineDir is where the directory of Options.Dockerd appears in the host.
const engineDir = "/opt/engine"

var errClosed = errors.New("lab: the host is closed")

// A Host is a running Docker host. The embedded Netns is the host's own.
type Host struct {
	*Netns
	Clients []*Client

	options Options
	id      string // unique among all hosts of the machine

	mu      sync.Mutex
	init    *exec.Cmd // first process of the PID namespace; nil before and after
	stdin   io.Closer // held by us alone: the host ends with it
	daemons map[string]*daemon
	netns   []*Netns
	image   bool // imported
	closing sync.Once
}

// A Client is another machine on the host's segment. Its commands run in the
// host's root and PID namespace, so that they end with it; its servers run in
// this process.
type Client struct {
	*Netns
	Addr, Addr6 string
}

// Far is the first client as seen from afar: it dials from FarAddr, or FarAddr6
// where v6 is set.
func (h *Host) Far(v6 bool) *Netns {
	if v6 {
		return h.Clients[0].From(FarAddr6)
	}
	return h.Clients[0].From(FarAddr)
}

var hosts atomic.Int64

// Start starts a host and waits until all that was asked for answers: about two
// seconds, when the suite's root has been built.
func Start(ctx context.Context, o Options) (*Host, error) {
	if o.Suite == "" {
		o.Suite = Bookworm
	}
	if o.Clients == 0 {
		o.Clients = 1
	}
	if o.Clients < 1 || o.Clients > 12 {
		return nil, fmt.Errorf("lab: %d clients: not 1 to 12", o.Clients)
	}
	root, err := Root(ctx, o.Suite)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	sweepCgroups()
	h := &Host{
		options: o,
		id:      fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), hosts.Add(1)),
		daemons: map[string]*daemon{},
	}
	if err := h.start(ctx, root); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %s: %w", o.Suite, err), h.Close())
	}
	return h, nil
}

func (h *Host) start(ctx context.Context, root string) error {
	if err := h.wire(); err != nil {
		return err
	}
	if err := onThread(func() error { return h.boot(ctx, root) }); err != nil {
		return err
	}
	if h.options.Firewalld {
		if err := h.StartFirewalld(ctx); err != nil {
			return err
		}
	}
	if !h.options.NoDockerd {
		return h.StartDockerd(ctx)
	}
	return nil
}

// boot mounts the host's file system and starts its first process. It is called
// on a thread of its own, which it moves into the host's namespaces for good;
// the process is forked from that thread and inherits them.
func (h *Host) boot(ctx context.Context, root string) error {
	if err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("new namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte("docker-host")); err != nil {
		return err
	}
	if err := h.mount(root); err != nil {
		return err
	}

	// tini reaps, as PID 1 must: otherwise a killed dockerd leaves a zombie of
	// containerd that the next one takes for alive. cat ends with its input,
	// which is our pipe; then tini ends, and with it the whole PID namespace.
	init := &exec.Cmd{
		Path:        "/bin/sh",
		Args:        []string{"sh", "-c", "mount -t proc -o nosuid,nodev,noexec proc /proc && exec tini-static -- cat"},
		Env:         h.env(),
		Dir:         "/",
		SysProcAttr: &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Setsid: true},
	}
	var stderr bytes.Buffer
	init.Stderr = &stderr
	stdin, err := init.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := init.StdoutPipe()
	if err != nil {
		return err
	}
	if err := init.Start(); err != nil {
		return fmt.Errorf("first process: %w", err)
	}
	h.mu.Lock()
	h.init, h.stdin = init, stdin
	h.mu.Unlock()

	// Once cat answers, all is in place.
	stop := context.AfterFunc(ctx, func() { init.Process.Kill() })
	defer stop()
	io.WriteString(stdin, "\n")
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("first process: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// mount makes the host's file system and enters it. All that is written goes to
// a tmpfs of the mount namespace, so nothing of it can be left behind.
func (h *Host) mount(root string) error {
	cache := filepath.Dir(root)
	base := filepath.Join(cache, ".mnt") // empty for everyone outside
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	var err error
	mount := func(source, target, fstype string, flags uintptr, data string) {
		if err == nil {
			if e := unix.Mount(source, target, fstype, flags, data); e != nil {
				err = fmt.Errorf("mount %s %s: %w", fstype, target, e)
			}
		}
	}
	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	mount("lab", base, "tmpfs", 0, "mode=755")
	if err != nil {
		return err
	}
	top, upper, scratch, docker := base+"/root", base+"/upper", base+"/scratch", base+"/docker"
	for _, dir := range []string{top, upper, scratch, docker} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
	mount("lab", top, "overlay", 0, "lowerdir="+escape.Replace(root)+",upperdir="+escape.Replace(upper)+",workdir="+escape.Replace(scratch))
	if err != nil {
		return err
	}
	if err := h.configure(top); err != nil {
		return err
	}
	// Docker makes overlays in its directory, which an overlay would not allow.
	mount(docker, top+"/var/lib/docker", "", unix.MS_BIND, "")
	mount("/dev", top+"/dev", "", unix.MS_BIND|unix.MS_REC, "")
	mount("shm", top+"/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "")
	mount("run", top+"/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	mount("tmp", top+"/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	// A sysfs shows the links of the namespace that it was mounted in. Without
	// the machine's /sys/kernel/security there is no AppArmor for dockerd,
	// whose profiles are not per namespace.
	mount("sysfs", top+"/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	mount("/sys/fs/cgroup", top+"/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, "")
	for fstype, dir := range map[string]string{"bpf": "/sys/fs/bpf", "tracefs": "/sys/kernel/tracing"} {
		if isDir(dir) { // the kernel has it
			mount(fstype, top+dir, fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700")
		}
	}
	if isDir("/lib/modules") {
		mount("/lib/modules", top+"/lib/modules", "", unix.MS_BIND|unix.MS_REC, "")
	}
	if h.options.Dockerd != "" {
		mount(filepath.Dir(h.options.Dockerd), top+engineDir, "", unix.MS_BIND, "")
	}
	if err != nil {
		return err
	}
	if err := os.Chdir(top); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return unix.Unmount(".", unix.MNT_DETACH) // the old root, which lies on top
}

// configure writes what differs from the root as it was built.
func (h *Host) configure(root string) error {
	for _, dir := range []string{"/var/lib/docker", "/lib/modules", engineDir, "/etc/docker"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"/etc/hostname":    "docker-host\n",
		"/etc/hosts":       "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 docker-host\n",
		"/etc/resolv.conf": "nameserver " + ClientAddr + "\n",
	}
	if h.options.Daemon != nil {
		b, err := json.MarshalIndent(h.options.Daemon, "", "  ")
		if err != nil {
			return fmt.Errorf("daemon.json: %w", err)
		}
		files["/etc/docker/daemon.json"] = string(b) + "\n"
	}
	for name, text := range files {
		if err := os.WriteFile(root+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func isDir(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.IsDir()
}

// env is the environment of all commands: nothing of ours.
func (h *Host) env() []string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if h.options.Dockerd != "" {
		path = engineDir + ":" + path
	}
	return []string{"PATH=" + path, "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM")}
}

// pid is the first process of the host, as seen from outside; 0 without one.
func (h *Host) pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.init == nil {
		return 0
	}
	return h.init.Process.Pid
}

// PID is the first process of the host, as seen from outside.
func (h *Host) PID() int { return h.pid() }

// Path is a path of the host for programs outside. A link in it that is
// absolute, as /var/run is, would lead out of the host.
func (h *Host) Path(name string) string { return fmt.Sprintf("/proc/%d/root%s", h.pid(), name) }

// Close ends the host and all that was started in it. It may be called twice.
func (h *Host) Close() (err error) {
	h.closing.Do(func() { err = h.close() })
	return err
}

func (h *Host) close() error {
	h.mu.Lock()
	init, stdin, daemons, open := h.init, h.stdin, h.daemons, h.netns
	h.init, h.daemons, h.netns = nil, nil, nil
	h.mu.Unlock()
	if init != nil {
		thawCgroup(h.id)
		stdin.Close()
		kill := time.AfterFunc(5*time.Second, func() { init.Process.Kill() })
		init.Wait() // returns when nothing of the PID namespace is left
		kill.Stop()
	}
	for _, d := range daemons {
		<-d.ended
	}
	for _, n := range open {
		n.close()
	}
	return removeCgroup(h.id)
}

// Docker runs the host's docker.
func (h *Host) Docker(ctx context.Context, args ...string) (string, error) {
	return h.Run(ctx, "docker", args...)
}

// WriteFile writes a file of the host, and makes the directories that it needs.
func (h *Host) WriteFile(ctx context.Context, name, text string) error {
	return h.copy(ctx, strings.NewReader(text), name, 0o644)
}

// Install copies a file of the machine into the host, with its mode.
func (h *Host) Install(ctx context.Context, src, dst string) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return h.copy(ctx, f, dst, fi.Mode().Perm())
}

func (h *Host) copy(ctx context.Context, r io.Reader, dst string, mode os.FileMode) error {
	cmd := h.Command(ctx, "install", "-D", "-m", strconv.FormatUint(uint64(mode), 8), "/dev/stdin", dst)
	cmd.Stdin = r
	_, err := output(cmd, "install "+dst)
	return err
}
