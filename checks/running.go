package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Running looks at the container's own state.
var Running = &Check{
	Name:  "running",
	Title: "the container runs",
	Doc: `A container that is not running has no network namespace, and one that is paused accepts connections that
nobody answers: the kernel completes the handshake, then silence. Start, unpause or repair it; why it
ended stands in its exit status, its error and docker logs.`,
	Needs: netstate.Engine,
	Run: func(h *Host, t netstate.Target) []Finding {
		c := h.Container(t.ID)
		finding := Finding{Object: "container " + c.Name, At: packet.Container, Evidence: []string{"State.Status = " + c.Status}}
		switch {
		case c.Paused:
			finding.Problem = "the container is paused"
			finding.Advice = "docker unpause " + arg(c.Name)
			finding.Fix = &remediate.Fix{Title: "let " + c.Name + " go on, which somebody paused", Opens: true,
				Steps: []remediate.Step{remediate.Set("container", c.Name, "paused", "running").Guarded(remediate.GuardContainer+" "+c.ID, c.StartedAt)}}
		case c.Restarting:
			finding.Problem = fmt.Sprintf("the container keeps restarting, its last exit status was %d", c.ExitCode)
			finding.Advice = "docker logs " + arg(c.Name)
		case !c.Running:
			finding.Problem = fmt.Sprintf("the container is %s, exit status %d", c.Status, c.ExitCode)
			finding.Advice = fmt.Sprintf("docker logs %s, then docker start %[1]s", arg(c.Name))
		default:
			return nil
		}
		if c.OOMKilled {
			finding.Evidence = append(finding.Evidence, "State.OOMKilled = true")
		}
		if c.Error != "" {
			finding.Evidence = append(finding.Evidence, "State.Error = "+c.Error)
		}
		return []Finding{finding}
	},
}
