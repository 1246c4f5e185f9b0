//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Stores returns the stores of this machine, by kind. What the names and values of each are is said at its
// type; in short:
//
//	kind                       name                           value
//	sysctl                     net.ipv4.conf.eth0.forwarding  1
//	file                       /etc/sysctl.d/90-x.conf        the content
//	link                       docker0                        up or down
//	                           veth1 master                   docker0
//	                           docker0 mtu                    1500
//	bridgeport                 veth1 hairpin                  on
//	addr                       172.17.0.1/16 dev docker0      broadcast 172.17.255.255 scope global
//	neigh                      172.17.0.2 dev docker0         lladdr 02:42:ac:11:00:02
//	route                      default metric 100             via 10.0.0.1 dev eth0
//	rule                       100: from all lookup 77        -
//	iptables                   iptables nat DOCKER            some rules that follow each other, with their neighbours
//	                           iptables nat DOCKER chain      -
//	                           iptables filter FORWARD policy ACCEPT
//	nft                        inet filter forward            some rules, likewise
//	                           inet filter forward policy     accept
//	                           ip docker-bridges …            tables, chains, maps and their elements: see nftStore
//	firewalld-zone             docker0                        docker
//	firewalld-source           172.17.0.0/16                  trusted
//	firewalld-policy           docker-forwarding ingress-zone ANY   -
//
// The last three have a twin, with -permanent behind the kind, for what a reload of firewalld reads.
//
// A name may end in " in container NAME". The thing is then in that container's namespace, which the
// step's guards "pid" and "netns" name: the name is for people, the guards find it.
func Stores() remediate.Stores { return machine{}.stores() }

func (m machine) stores() remediate.Stores {
	return remediate.Stores{
		"sysctl":                     sysctlStore{m},
		"file":                       fileStore{m},
		"link":                       linkStore{m},
		"bridgeport":                 bridgeportStore{m},
		"addr":                       addrStore(m),
		"neigh":                      neighStore(m),
		"route":                      routeStore(m),
		"rule":                       ruleStore(m),
		"iptables":                   newIptablesStore(m),
		"nft":                        nftStore{m},
		"firewalld-zone":             zoneStore{m, "Interface", false},
		"firewalld-zone-permanent":   zoneStore{m, "Interface", true},
		"firewalld-source":           zoneStore{m, "Source", false},
		"firewalld-source-permanent": zoneStore{m, "Source", true},
		"firewalld-policy":           policyStore{m, false},
		"firewalld-policy-permanent": policyStore{m, true},
	}
}

// Facts answers the guards that this machine knows: boot, netns, pid and "ifindex LINK". Further guards
// are handed to next; nil knows none.
func Facts(next remediate.Facts) remediate.Facts { return machine{}.facts(next) }

func (m machine) facts(next remediate.Facts) remediate.Facts {
	return func(ctx context.Context, step remediate.Step, guard string) (string, error) {
		kind, object, _ := strings.Cut(guard, " ")
		switch kind {
		case remediate.GuardBoot:
			return m.read("proc/sys/kernel/random/boot_id")
		case remediate.GuardPID:
			pid := step.Guards[remediate.GuardPID]
			if _, err := os.Stat(m.path("proc", pid, "ns/net")); errors.Is(err, fs.ErrNotExist) {
				return "", nil
			} else if err != nil {
				return "", err
			}
			return pid, nil
		case remediate.GuardNetns:
			id, err := m.namespace(step)
			if errors.Is(err, fs.ErrNotExist) {
				return "", nil
			}
			return id, err
		case remediate.GuardIfindex:
			index := ""
			err := m.in(step, func() error {
				link, err := net.InterfaceByName(object)
				if err == nil {
					index = fmt.Sprint(link.Index)
				}
				return nil // an error of InterfaceByName does not tell why: it is gone
			})
			if errors.Is(err, remediate.ErrChanged) {
				return "", nil
			}
			return index, err
		}
		if next == nil {
			return "", errors.New("is not known")
		}
		return next(ctx, step, guard)
	}
}

// namespace returns the id of the network namespace that the step is about: that of its guard pid, or
// the program's own.
func (m machine) namespace(step remediate.Step) (string, error) {
	process := step.Guards[remediate.GuardPID]
	if process == "" {
		process = "thread-self"
	} else if strings.Trim(process, "0123456789") != "" {
		return "", fmt.Errorf("%s: %q is no process", step.Object(), process)
	}
	return os.Readlink(m.path("proc", process, "ns/net"))
}

// in runs f in the network namespace that the step is about, on a thread of its own where that is not
// the program's. It is ErrChanged if that is not the namespace of the step's guard any more.
func (m machine) in(step remediate.Step, f func() error) error {
	process := step.Guards[remediate.GuardPID]
	if process == "" {
		if err := m.same(step); err != nil {
			return err
		}
		return f()
	}
	file, err := os.Open(m.path("proc", process, "ns/net"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: process %s is gone", step.Object(), remediate.ErrChanged, process)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step.Object(), err)
	}
	defer file.Close()
	id, err := netnsID(int(file.Fd()))
	if err != nil {
		return fmt.Errorf("%s: %w", step.Object(), err)
	}
	if want := step.Guards[remediate.GuardNetns]; want != "" && want != id {
		return fmt.Errorf("%s: %w: process %s is in %s, not in %s", step.Object(), remediate.ErrChanged, process, id, want)
	}
	return netns{file, id}.do(f)
}

// same says whether the program's own namespace is that of the step's guard.
func (m machine) same(step remediate.Step) error {
	want := step.Guards[remediate.GuardNetns]
	if want == "" {
		return nil
	}
	id, err := os.Readlink(m.path("proc/thread-self/ns/net"))
	if err != nil {
		return fmt.Errorf("%s: %w", step.Object(), err)
	}
	if id != want {
		return fmt.Errorf("%s: %w: this is namespace %s, not %s", step.Object(), remediate.ErrChanged, id, want)
	}
	return nil
}

// bound returns the step with the guards that every step on runtime state of a namespace has.
func (m machine) bound(step remediate.Step) (remediate.Step, error) {
	boot, err := m.read("proc/sys/kernel/random/boot_id")
	if err != nil {
		return step, fmt.Errorf("%s: %w", step.Object(), err)
	}
	id, err := m.namespace(step)
	if err != nil {
		return step, fmt.Errorf("%s: %w", step.Object(), err)
	}
	return step.Guarded(remediate.GuardBoot, boot).Guarded(remediate.GuardNetns, id), nil
}

// local returns the name without " in container NAME".
func local(name string) string {
	name, _, _ = strings.Cut(name, " in container ")
	return name
}

// swapEach carries out steps one by one, for kinds that have no transactions. now reads what a step's
// thing holds, put writes it (nil: removes it), and along writes what changes along with it. All run in
// the step's namespace.
func (m machine) swapEach(ctx context.Context, steps []remediate.Step,
	now func(remediate.Step) (*string, error), put, along func(remediate.Step) error) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		err := m.in(step, func() error {
			value, err := now(step)
			if err != nil {
				return fmt.Errorf("%s: %w", step.Object(), err)
			}
			switch {
			case remediate.Equal(value, step.New):
				if !step.Settle {
					return nil
				}
			case !remediate.Equal(value, step.Old):
				return remediate.Changed(step, value)
			default:
				if err := put(step); err != nil {
					return fmt.Errorf("%s: %w", step.Object(), err)
				}
				changed[i] = true
			}
			return along(step)
		})
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}
