//go:build !linux

package agent

import (
	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

func stores(host.Changer) remediate.Stores { return nil }
