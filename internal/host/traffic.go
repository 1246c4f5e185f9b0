package host

import (
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/mdlayher/netlink"
)

func readQdiscs(c *netlink.Conn, names linkNames) ([]netstate.Qdisc, error) { return nil, nil }

func (c *collection) readFlows() ([]netstate.Flow, error) { return nil, nil }
