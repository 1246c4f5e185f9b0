//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/go-connections/nat"
	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/checks"
	reader "github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// What is promised of a host with 10,000 rules of iptables, 20,000 elements of a set and 300 containers.
const (
	sizeRules, sizeElements, sizeContainers = 10000, 20000, 300

	readLimit   = 1.5                    // reading, in times of iptables-save and nft -j list ruleset
	judgeLimit  = 100 * time.Microsecond // a target
	memoryLimit = 150                    // MiB
)

// sizeEnv says what a process of this program is: the host, or the one that is measured and then holds the
// processes of the containers.
const sizeEnv = "NETCHECK_BENCH_SIZE"

// A sizing is what one size of host costs.
type sizing struct {
	rules, containers int
	Read, Judge       time.Duration // Judge: a target
	Targets           int
	listing           time.Duration // iptables-save and nft -j list ruleset of the host
	MiB               float64
	ratio             float64
}

// size measures hosts of all sizes in a namespace of its own, and writes docs/scale.md and docs/scale.svg.
func size() error {
	if text := os.Getenv(sizeEnv); text != "" && text != "host" {
		return sized(text)
	}
	if os.Getenv(sizeEnv) == "" {
		cmd := exec.Command(os.Args[0], "-size")
		cmd.Env = append(os.Environ(), sizeEnv+"=host", "XTABLES_LOCKFILE=/run/netcheck-bench.lock")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	}
	runtime.LockOSThread() // which the containers' processes end with
	var pids []int
	if err := feed("link set lo up\nlink add docker0 type bridge\nlink set docker0 up\naddr add 172.17.0.1/16 dev docker0\nlink add eth0 type veth peer name wire\nlink set eth0 up\nlink set wire up\n"+
		"addr add 198.51.100.15/24 dev eth0\nroute add default via 198.51.100.2\n", "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	var elements []string
	for i := range sizeElements {
		elements = append(elements, fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	if err := feed("table inet blocked {\n set addrs { type ipv4_addr; elements = { "+strings.Join(elements, ", ")+" } }\n chain c { type filter hook prerouting priority -310; ip saddr @addrs drop; }\n}\n", "nft", "-f", "-"); err != nil {
		return err
	}
	var all []sizing
	steps := []sizing{{rules: 10, containers: 1}, {rules: 100, containers: 1}, {rules: 1000, containers: 1}, {rules: sizeRules, containers: 1}, {rules: sizeRules, containers: 10}, {rules: sizeRules, containers: 100}, {rules: sizeRules, containers: sizeContainers}}
	for _, s := range steps {
		for len(pids) < s.containers {
			pid, err := newContainer(len(pids))
			if err != nil {
				return err
			}
			pids = append(pids, pid)
		}
		if err := feed(rulesOf(s.rules, s.containers), "iptables-nft-restore"); err != nil {
			return err
		}
		if err := s.measure(pids); err != nil {
			return err
		}
		all = append(all, s)
		fmt.Println(s)
	}
	last := all[len(all)-1]
	verdict := func(kept bool) string {
		if kept {
			return "kept"
		}
		return "BROKEN"
	}
	promises := fmt.Sprintf("reading / (iptables-save + nft -j list ruleset, of the host alone) = %.2f (promised: at most %.1f): %s\njudging a target: %v (promised: at most %v): %s\npeak memory: %.0f MiB (promised: at most %d MiB): %s\n",
		last.ratio, readLimit, verdict(last.ratio <= readLimit), last.Judge, judgeLimit, verdict(last.Judge <= judgeLimit), last.MiB, memoryLimit, verdict(last.MiB <= memoryLimit))
	fmt.Print(promises)
	return errors.Join(os.WriteFile("docs/scale.md", []byte(page(all, promises)), 0o644), os.WriteFile("docs/scale.svg", []byte(plot(all)), 0o644))
}

// String is a row of the table.
func (s sizing) String() string {
	return fmt.Sprintf("| %d | %d | %.0f ms | %.0f ms | %.2f | %.1f µs | %.0f MiB |", s.rules, s.containers,
		s.Read.Seconds()*1e3, s.listing.Seconds()*1e3, s.ratio, float64(s.Judge.Nanoseconds())/1e3, s.MiB)
}

// measure does each work in turn and takes medians.
func (s *sizing) measure(pids []int) error {
	var reads, listings, judges []time.Duration
	for range 5 {
		started := time.Now()
		for _, c := range [][]string{{"iptables-nft-save"}, {"nft", "-j", "list", "ruleset"}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", c[0], err, out)
			}
		}
		listings = append(listings, time.Since(started))
		text, err := json.Marshal(pids)
		if err != nil {
			return err
		}
		cmd := exec.Command(os.Args[0], "-size")
		cmd.Env = append(os.Environ(), sizeEnv+"="+string(text))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, s); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		s.MiB = float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024
		reads, judges = append(reads, s.Read), append(judges, s.Judge)
	}
	for _, each := range [][]time.Duration{reads, listings, judges} {
		slices.Sort(each)
	}
	s.Read, s.listing, s.Judge = reads[2], listings[2], judges[2]
	s.ratio = s.Read.Seconds() / s.listing.Seconds()
	return nil
}

// sized reads the host with the containers of these processes, and judges them all.
func sized(text string) error {
	var e manned
	if err := json.Unmarshal([]byte(text), &e.pids); err != nil {
		return err
	}
	var names []string
	for i := range e.pids {
		names = append(names, idOf(i))
	}
	var s sizing
	started := time.Now()
	snapshot, err := reader.Collect(context.Background(), reader.Options{Docker: e, Containers: names, Parts: netstate.All})
	if err != nil {
		return err
	}
	s.Read = time.Since(started)
	targets, _, err := checks.Targets(snapshot, checks.Ask{})
	if err != nil {
		return err
	}
	started = time.Now()
	report := checks.Judge(checks.Suite, checks.NewHost(snapshot), targets)
	s.Targets = len(targets)
	s.Judge = time.Since(started) / time.Duration(max(1, len(targets)))
	for _, j := range report.Targets {
		if j.Status != checks.Pass { // a host that is not well is judged by other ways
			text, _ := json.Marshal(j.Results)
			return fmt.Errorf("%s: %s: %s", checks.Name(j.Target), j.Status, text)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// newContainer starts a process in a network namespace on the bridge. It ends with this one.
func newContainer(i int) (int, error) {
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	return pid, errors.Join(
		listenIn(pid),
		feed(fmt.Sprintf("link add v%d type veth peer name eth0 netns %d\nlink set v%d master docker0\nlink set v%d up\n", i, pid, i, i), "ip", "-batch", "-"),
		feed(fmt.Sprintf("link set lo up\nlink set eth0 up\naddr add %s/16 dev eth0\nroute add default via 172.17.0.1\n", addrOf(i)), "nsenter", "-t", fmt.Sprint(pid), "-n", "ip", "-batch", "-"))
}

// listenIn listens on port 80 in the process's namespace, until this process ends.
func listenIn(pid int) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 80}), unix.Listen(fd, 1))
	}
	return errors.Join(err, unix.Setns(int(own.Fd()), unix.CLONE_NEWNET))
}

func addrOf(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 17, byte((i + 2) >> 8), byte(i + 2)})
}
func idOf(i int) string { return fmt.Sprintf("%064x", i+1) }

// rulesOf are Docker's rules of the containers, as engine 28.5.2 makes them, and so many in all with somebody's.
func rulesOf(rules, containers int) string {
	var raws, nats, accepts, users strings.Builder
	for i := range containers {
		fmt.Fprintf(&raws, "-A PREROUTING -d %s/32 ! -i docker0 -j DROP\n", addrOf(i))
		fmt.Fprintf(&nats, "-A DOCKER ! -i docker0 -p tcp -m tcp --dport %d -j DNAT --to-destination %s:80\n", 10000+i, addrOf(i))
		fmt.Fprintf(&accepts, "-A DOCKER -d %s/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT\n", addrOf(i))
	}
	for i := range max(0, rules-3*containers) {
		fmt.Fprintf(&users, "-A DOCKER-USER -s 100.%d.%d.%d/32 -p tcp -m tcp --dport %d -j DROP\n", 64+i>>16, i>>8&255, i&255, 1+i%1000)
	}
	return "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n" + raws.String() + "COMMIT\n" +
		"*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n:DOCKER -\n" +
		"-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n" + nats.String() + "COMMIT\n" +
		"*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n:DOCKER -\n:DOCKER-BRIDGE -\n:DOCKER-CT -\n:DOCKER-FORWARD -\n:DOCKER-ISOLATION-STAGE-1 -\n:DOCKER-ISOLATION-STAGE-2 -\n:DOCKER-USER -\n" +
		"-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n" + accepts.String() + "-A DOCKER ! -i docker0 -o docker0 -j DROP\n-A DOCKER-BRIDGE -o docker0 -j DOCKER\n" +
		"-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n" +
		"-A DOCKER-FORWARD -j DOCKER-CT\n-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1\n-A DOCKER-FORWARD -j DOCKER-BRIDGE\n-A DOCKER-FORWARD -i docker0 -j ACCEPT\n" +
		"-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2\n-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n" + users.String() + "COMMIT\n"
}

// feed runs a program with input.
func feed(input, name string, arguments ...string) error {
	cmd := exec.Command(name, arguments...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// manned is an engine whose containers are the namespaces of processes.
type manned struct{ pids []int }

func (manned) Ping(context.Context) (types.Ping, error) { return types.Ping{APIVersion: "1.51"}, nil }
func (manned) Info(context.Context) (system.Info, error) {
	return system.Info{ServerVersion: "28.5.2"}, nil
}
func (manned) DaemonHost() string    { return "unix:///nonexistent/docker.sock" }
func (manned) ClientVersion() string { return "1.51" }
func (manned) ContainerList(context.Context, container.ListOptions) ([]container.Summary, error) {
	return nil, nil
}
func (manned) NetworkList(context.Context, network.ListOptions) ([]network.Summary, error) {
	return nil, nil
}
func (manned) NetworkInspect(_ context.Context, id string, _ network.InspectOptions) (network.Inspect, error) {
	return network.Inspect{ID: id, Name: "bridge", Driver: "bridge", EnableIPv4: true, Options: map[string]string{"com.docker.network.bridge.name": "docker0"},
		IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: "172.17.0.0/16", Gateway: "172.17.0.1"}}}}, nil
}

func (m manned) ContainerInspect(_ context.Context, id string) (container.InspectResponse, error) {
	i := slices.IndexFunc(m.pids, func(int) bool { return true })
	for n := range m.pids {
		if idOf(n) == id {
			i = n
		}
	}
	ports := nat.PortMap{"80/tcp": {{HostIP: "0.0.0.0", HostPort: fmt.Sprint(10000 + i)}}}
	settings := &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{"bridge": {NetworkID: strings.Repeat("b", 64), IPAddress: addrOf(i).String(), IPPrefixLen: 16, Gateway: "172.17.0.1"}}}
	settings.Ports = ports
	return container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{ID: id, Name: fmt.Sprintf("/c%d", i), State: &container.State{Status: "running", Running: true, Pid: m.pids[i]},
			HostConfig: &container.HostConfig{NetworkMode: "bridge", PortBindings: ports}},
		Config:          &container.Config{},
		NetworkSettings: settings,
	}, nil
}

// page is docs/scale.md.
func page(all []sizing, promises string) string {
	var b strings.Builder
	b.WriteString("# What a large host costs\n\nWritten by `make bench`: the medians of five runs, each in a process of its own, in a network namespace with " +
		fmt.Sprint(sizeElements) + " elements in a set of nf_tables. Reading is everything that netcheck reads of the host and of every container's namespace; beside it stands what `iptables-save` and `nft -j list ruleset` take for the host's rules alone in the same run, to which the ratio is. " +
		"Judging is the whole suite of checks, from the snapshot as it was read: one port and the way out of each container, all of which are well.\n\n" +
		"| rules | containers | reading | iptables-save + nft | ratio | judging a target | peak memory |\n|---|---|---|---|---|---|---|\n")
	for _, s := range all {
		b.WriteString(s.String() + "\n")
	}
	b.WriteString("\n```\n" + promises + "```\n\n![growth](scale.svg)\n")
	return b.String()
}

// plot draws the times of reading, and of the tools, one group of bars for each size.
func plot(all []sizing) string {
	const width, height, left, bottom = 900, 320, 60, 60
	most := time.Duration(1)
	for _, s := range all {
		most = max(most, s.Read, s.listing)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(&b, `<text x="%d" y="16">time to read, by rules × containers: <tspan fill="#1d63ed">netcheck</tspan>, <tspan fill="#888">iptables-save + nft -j list ruleset</tspan></text>`+"\n", left)
	step := (width - left) / len(all)
	for i, s := range all {
		for j, value := range []time.Duration{s.Read, s.listing} {
			h := int(float64(height-bottom-40) * float64(value) / float64(most))
			x, y := left+i*step+j*38, height-bottom-h
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="34" height="%d" fill="%s"/><text x="%d" y="%d" text-anchor="middle">%d ms</text>`+"\n", x, y, h, []string{"#1d63ed", "#888"}[j], x+17, y-4, value.Milliseconds())
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%d × %d</text>`+"\n", left+i*step+36, height-bottom+18, s.rules, s.containers)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
