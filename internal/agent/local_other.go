//go:build !linux

package agent

import "github.com/docker-netcheck/docker-netcheck/remediate"

func stores() remediate.Stores { return nil }
