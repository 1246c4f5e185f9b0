package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// donor returns the container whose network namespace c uses: itself, or that of network mode container:ID.
func donor(s *netstate.Snapshot, c *netstate.Container) *netstate.Container {
	for range len(s.Containers) {
		id, ok := strings.CutPrefix(c.NetworkMode, "container:")
		if !ok || s.Container(id) == nil {
			break
		}
		c = s.Container(id)
	}
	return c
}

// leftBehind says so where the container was given the network of another one that is gone, or that has
// another network namespace by now.
func leftBehind(h *Host, t netstate.Target) []Finding {
	i := slices.IndexFunc(h.Containers, func(c netstate.Container) bool { return c.Name == t.Container })
	if i < 0 {
		return nil
	}
	member := &h.Containers[i]
	id, ok := strings.CutPrefix(member.NetworkMode, "container:")
	if !ok || !member.Running {
		return nil
	}
	finding := Finding{Object: "container " + member.Name, At: packet.Container, Evidence: []string{"NetworkMode = " + member.NetworkMode}}
	owner, own, theirs := h.Container(id), h.Sandboxes[member.ID], h.Sandboxes[id]
	switch {
	case owner == nil:
		finding.Problem = "it has the network of a container that is gone"
		finding.Advice = madeAnew(member)
	case own != nil && theirs != nil && own.ID != "" && theirs.ID != "" && own.ID != theirs.ID:
		finding.Problem = fmt.Sprintf("it is still in the network that %s had before it was restarted", owner.Name)
		finding.Evidence = append(finding.Evidence, member.Name+": "+own.ID, owner.Name+": "+theirs.ID)
		finding.Fix = &remediate.Fix{Disrupts: true, Steps: []remediate.Step{restartStep(member)},
			Title: fmt.Sprintf("restart %s: its program ends and starts anew in the network of %s", member.Name, owner.Name)}
	default:
		return nil
	}
	for _, stop := range h.Walk(t).Stops {
		finding.explains = append(finding.explains, stop.Object)
	}
	return []Finding{finding}
}

// madeAnew says how a container is made with the network of another donor: its network mode names the old one by ID.
func madeAnew(c *netstate.Container) string {
	if c.Project != "" && c.Service != "" {
		return fmt.Sprintf("docker compose -p %s up -d --force-recreate %s", arg(c.Project), arg(c.Service))
	}
	return fmt.Sprintf("docker rm -f %s, then docker run it again with --network container:NAME of the donor that there is now", arg(c.Name))
}
