//go:build linux

package host

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The sysctls of a namespace beside those of its links, which readLinks gives. One that is not there is
// left out: its subsystem is not loaded, or the kernel is older.
var namespaceSysctls = []string{
	"net.ipv4.ip_forward",
	"net.ipv4.ip_nonlocal_bind",
	"net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.ip_local_port_range",
	"net.ipv4.ip_local_reserved_ports",
	"net.ipv4.ip_no_pmtu_disc",
	"net.ipv4.ip_forward_use_pmtu",
	"net.ipv4.ip_early_demux",
	"net.ipv4.icmp_echo_ignore_all",
	"net.ipv4.fib_multipath_hash_policy",
	"net.ipv4.fwmark_reflect",
	"net.ipv4.tcp_fwmark_accept",
	"net.ipv4.tcp_l3mdev_accept",
	"net.ipv4.udp_l3mdev_accept",
	"net.ipv4.tcp_mtu_probing",
	"net.ipv4.tcp_syncookies",
	"net.ipv4.tcp_abort_on_overflow",
	"net.ipv6.bindv6only",
	"net.ipv6.ip_nonlocal_bind",
	"net.ipv6.fib_multipath_hash_policy",
	"net.ipv6.fwmark_reflect",
	"net.core.somaxconn",
	"net.bridge.bridge-nf-call-iptables",
	"net.bridge.bridge-nf-call-ip6tables",
	"net.bridge.bridge-nf-call-arptables",
	"net.bridge.bridge-nf-filter-vlan-tagged",
	"net.netfilter.nf_conntrack_count",
	"net.netfilter.nf_conntrack_max",
	"net.netfilter.nf_conntrack_buckets",
	"net.netfilter.nf_conntrack_tcp_be_liberal",
	"net.netfilter.nf_conntrack_tcp_loose",
	"net.netfilter.nf_conntrack_checksum",
	"net.netfilter.nf_conntrack_helper",
	"net.netfilter.nf_conntrack_udp_timeout",
	"net.netfilter.nf_conntrack_udp_timeout_stream",
	"net.netfilter.nf_conntrack_tcp_timeout_established",
	"net.netfilter.nf_hooks_lwtunnel",
}

// readSysctls reads the sysctls of a namespace, those of its conf.all, and, if asked for, of conf.default, which
// links get that are made later. It must run on a thread in that namespace: /proc/sys/net is that of the thread
// that opens it.
func (m machine) readSysctls(later bool) (map[string]string, error) {
	names := namespaceSysctls
	scopes := []string{"all"}
	if later {
		scopes = append(scopes, "default")
	}
	for _, scope := range scopes {
		for _, field := range ipv4Conf {
			names = append(names, "net.ipv4.conf."+scope+"."+field.name)
		}
		for _, field := range ipv6Conf {
			names = append(names, "net.ipv6.conf."+scope+"."+field.name)
		}
	}
	sys, err := os.Open(m.path("proc/sys"))
	if err != nil {
		return nil, err
	}
	tree := directories{"": {fd: int(sys.Fd())}}
	defer sys.Close()
	defer tree.close()
	values := make(map[string]string, len(names))
	buffer := make([]byte, 4096)
	var wrong []error
	for _, name := range names {
		directory, base := path.Split(strings.ReplaceAll(name, ".", "/"))
		fd, err := tree.open(strings.TrimSuffix(directory, "/"))
		var value string
		if err == nil {
			value, err = readAt(fd, base, buffer)
		}
		switch {
		case err == nil:
			values[name] = value
		case !errors.Is(err, fs.ErrNotExist):
			wrong = append(wrong, &fs.PathError{Op: "read", Path: name, Err: err})
		}
	}
	return values, errors.Join(wrong...)
}

// directories are those below the one named "" that were opened, by path.
//
// The kernel keeps what it found below /proc/sys/net by name, for all namespaces together, and tells them apart one
// by one: with 300 namespaces a path through net takes 70 µs. A directory that is open is of one namespace, and so
// is what is below it.
type directories map[string]directory

type directory struct {
	fd  int
	err error // why it could not be opened
}

func (all directories) open(name string) (int, error) {
	if d, ok := all[name]; ok {
		return d.fd, d.err
	}
	above, base := path.Split(name)
	var d directory
	if d.fd, d.err = all.open(strings.TrimSuffix(above, "/")); d.err == nil {
		d.fd, d.err = unix.Openat(d.fd, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	all[name] = d
	return d.fd, d.err
}

// close closes all but the one named "".
func (all directories) close() {
	for name, d := range all {
		if name != "" && d.err == nil {
			unix.Close(d.fd)
		}
	}
}

// readAt reads a small file below an open directory without the newline at its end.
func readAt(directory int, name string, buffer []byte) (string, error) {
	fd, err := unix.Openat(directory, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buffer)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(buffer[:n]), "\n"), nil
}
