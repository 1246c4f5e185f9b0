package checks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/lazyregexp"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// byRestart sets the fix for what only the engine makes, when it starts a container: docker-proxies, the veth pair,
// the resolver of the container's namespace. It is that of the container whose namespace the target's is, and of
// those that share it, which would be left in the old one. Where it would not come back, there is no fix, and
// the advice says what has to be done first.
func (f *Finding) byRestart(h *Host, t netstate.Target) {
	s := h.whole.snapshot
	c := s.Container(t.ID)
	if c == nil {
		return
	}
	if why := h.staysDown(c); why != "" {
		f.advise(why + ", then docker restart " + arg(c.Name))
		return
	}
	f.Fix = &remediate.Fix{Disrupts: true, Steps: []remediate.Step{restartStep(c)},
		Title: fmt.Sprintf("restart %s: its program ends and starts anew, its connections end", c.Name)}
	var members []string
	for i := range s.Containers {
		if member := &s.Containers[i]; member.Running && member.NetworkMode == "container:"+c.ID {
			f.Fix.Steps = append(f.Fix.Steps, restartStep(member))
			members = append(members, member.Name)
		}
	}
	if len(members) > 0 {
		f.Fix.Title += "; so do those of " + strings.Join(members, ", ") + " with its network"
	}
	if ports := portsByChance(c); len(ports) > 0 {
		f.Fix.Title += "; the engine picks anew the host port of " + strings.Join(ports, ", ") + ", as none was named"
	}
}

// portsByChance returns the container's ports whose port of the host the engine picked: it picks anew at each start.
func portsByChance(c *netstate.Container) []string {
	var ports []string
	for _, b := range c.Published {
		named := b.HostPort == 0 || slices.ContainsFunc(c.Configured, func(asked netstate.Binding) bool {
			return asked.Port == b.Port && asked.HostPort == b.HostPort
		})
		if port := b.Port.String(); !named && !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}

// advise puts something to do before what is said already.
func (f *Finding) advise(what string) {
	if f.Advice != "" {
		what += "; " + f.Advice
	}
	f.Advice = what
}

// restartStep has the engine start a container anew.
func restartStep(c *netstate.Container) remediate.Step {
	step := remediate.Set("container", c.Name, "running since "+c.StartedAt, "started anew").Guarded(remediate.GuardContainer+" "+c.ID, c.StartedAt)
	step.OneWay = true
	return step
}

// taskName is the name of a container that Swarm made: SERVICE.SLOT.TASK.
var taskName = lazyregexp.New(`\.[0-9a-z]+\.[0-9a-z]{25}$`)

// staysDown says what has to be done before a container can be started anew, or "".
func (h *Host) staysDown(c *netstate.Container) string {
	s := h.whole.snapshot
	if !c.Running || c.Paused || c.StartedAt == "" {
		return "find out why it does not run: docker logs " + arg(c.Name)
	}
	if taskName().MatchString(c.Name) {
		service, _, _ := strings.Cut(c.Name, ".")
		return "let Swarm make it anew: docker service update --force " + arg(service)
	}
	for _, e := range c.Endpoints {
		if n := s.Network(e.NetworkID); n != nil && n.Bridge() != "" && s.Host.Link(n.Bridge()) == nil {
			return restartEngine(h) + ", which makes the bridge " + n.Bridge() + " anew"
		}
	}
	if slices.ContainsFunc(h.compared(), func(d dockerd.Difference) bool { return d.Kind == dockerd.MissingChain }) {
		return "bring Docker's chains back (--only accept,dnat,masquerade --fix), without which no container with ports starts"
	}
	if s.Why(netstate.Key{Part: netstate.Sockets}) != "" {
		return "see that nobody else holds its host ports (ss -ltnup)"
	}
	for _, b := range c.Published {
		if b.HostPort == 0 {
			continue
		}
		for i := range s.Host.Sockets {
			socket := &s.Host.Sockets[i]
			if !keeps(socket, b.Port.Proto, netip.AddrPortFrom(b.Host, b.HostPort)) || h.releases(c, socket.PID) || h.accepted(socket) {
				continue
			}
			who := fmt.Sprintf("%s, process %d", orProgram(socket.Program), socket.PID)
			if socket.PID == 0 {
				who = fmt.Sprintf("another program (ss -Hanp 'sport = :%d' shows which)", b.HostPort)
			}
			return fmt.Sprintf("the host port %d/%s is held by %s: stop that", b.HostPort, b.Port.Proto, who)
		}
	}
	return ""
}

// accepted says whether a socket is a connection that came in by a listening one of the host: that one holds the
// port, its connections do not keep another from listening.
func (h *Host) accepted(s *netstate.Socket) bool {
	return !waits(s) && slices.ContainsFunc(h.whole.snapshot.Host.Sockets, func(l netstate.Socket) bool {
		return l.State == "listen" && keeps(&l, s.Proto, s.Local)
	})
}

// releases says whether a process holds a container's host port for it, and ends or lets go with it.
func (h *Host) releases(c *netstate.Container, pid int) bool {
	s := h.whole.snapshot
	if s.Engine != nil && pid != 0 && pid == s.Engine.PID {
		return true
	}
	return slices.ContainsFunc(s.Proxies, func(p netstate.Proxy) bool {
		return p.PID == pid && (s.Engine == nil || p.Parent == s.Engine.PID) &&
			slices.ContainsFunc(c.Endpoints, func(e netstate.Endpoint) bool {
				return p.Container.Addr() == e.IPv4.Addr() || p.Container.Addr() == e.IPv6.Addr()
			})
	})
}

// restartEngine is how the engine is started anew, and what that costs.
func restartEngine(h *Host) string {
	const command = "systemctl restart docker"
	if e := h.whole.snapshot.Engine; e != nil && e.LiveRestore {
		return command + " (live-restore is on: no container stops)"
	}
	return command + " (every container stops, unless live-restore was on before)"
}

// unset says how the engine is told no longer not to do something. from is where it was told.
func unset(h *Host, option, from string) string {
	where := fmt.Sprintf("take --%s=false out of dockerd's command line (systemctl edit --full docker)", option)
	if from == "daemon.json" {
		where = fmt.Sprintf("take %q: false out of daemon.json (/etc/docker, unless dockerd runs with --config-file)", option)
	}
	return where + ", then " + restartEngine(h)
}
