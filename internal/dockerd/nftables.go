package dockerd

import "github.com/docker-netcheck/docker-netcheck/internal/netstate"

func (b *builder) nftables() {}

func (p *Program) compareNftables(s *netstate.Snapshot) []Difference { return nil }
