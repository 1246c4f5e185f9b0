package checks

import (
	"fmt"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// Name returns what a person calls the target: "web 80/tcp", "web out".
func Name(t netstate.Target) string {
	if t.Container == "" {
		t.Container = "any container"
	}
	switch t.Direction {
	case netstate.In:
		return fmt.Sprintf("%s %s", t.Container, t.Port)
	case netstate.Peer:
		if t.Port.Number == 0 {
			return fmt.Sprintf("%s → %s", t.Container, t.ToName)
		}
		return fmt.Sprintf("%s → %s %s", t.Container, t.ToName, t.Port)
	}
	if !t.Assumed {
		to := t.To.String()
		if t.To.Port() == 0 {
			to = t.To.Addr().String()
		}
		return fmt.Sprintf("%s → %s", t.Container, to)
	}
	return t.Container + " out"
}
