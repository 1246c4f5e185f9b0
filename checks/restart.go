package checks

import (
	"fmt"
	"slices"
	"strings"

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
