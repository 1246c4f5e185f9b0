package checks

import (
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// linkOf returns the name of the link that an object names, or "".
func linkOf(object string) string {
	name, ok := strings.CutPrefix(object, "link ")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, " in container ")
	return name
}

// linkUp is the fix that sets a link up.
func linkUp(h *Host, t netstate.Target, name string) *remediate.Fix { return nil }

// linkMaster is the fix that makes the link a port of its bridge again.
func linkMaster(h *Host, t netstate.Target, name string) *remediate.Fix { return nil }

// rulesFix is the fix that brings Docker's own rules back.
func (h *Host) rulesFix(differences []dockerd.Difference) *remediate.Fix { return nil }
