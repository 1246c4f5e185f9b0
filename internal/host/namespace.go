//go:build linux

package host

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"golang.org/x/sys/unix"
)

// readNamespace starts reading the asked parts of a namespace, side by side. id is the container's, or
// "" for the host.
func (c *collection) readNamespace(n netns, id string, ns *netstate.Namespace) {
	key := func(part netstate.Part) netstate.Key { return netstate.Key{Part: part, Container: id} }
	if n.file == nil {
		ns.ID = c.ownNetns()
	}
	names := make(chan linkNames, 1)
	linkSysctls := make(chan map[string]string, 1)
	if c.asked(netstate.Links | netstate.Routes | netstate.Sysctls | netstate.Sockets | netstate.Traffic) {
		c.run(func() {
			defer close(names)
			defer close(linkSysctls)
			c.readNetwork(n, id, ns, names, linkSysctls)
		})
	}
	if c.asked(netstate.Sysctls) {
		c.run(func() {
			err := n.do(func() (err error) {
				ns.Sysctls, err = c.m.readSysctls(c.o.Thorough)
				return err
			})
			c.missing(key(netstate.Sysctls), err)
			if ns.Sysctls == nil {
				ns.Sysctls = map[string]string{}
			}
			maps.Copy(ns.Sysctls, <-linkSysctls)
		})
	}
	if c.asked(netstate.Sockets) {
		c.run(func() {
			sockets, err1 := readSockets(n, c.o.Thorough, sync.OnceValue(func() linkNames { return <-names }))
			var sctp []netstate.Socket
			err2 := n.do(func() (err error) {
				sctp, err = c.m.readSCTP()
				return err
			})
			ns.Sockets = append(sockets, sctp...)
			c.missing(key(netstate.Sockets), errors.Join(err1, err2))
		})
	}
	if c.asked(netstate.Nftables | netstate.Iptables) {
		c.run(func() { c.readNetfilter(n, id, ns) })
	}
}

// ownNetns returns the name of the namespace that the program runs in.
func (c *collection) ownNetns() string {
	var stat unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &stat); err != nil {
		return ""
	}
	return fmt.Sprintf("net:[%d]", stat.Ino)
}

// readNetwork reads what rtnetlink knows, over one connection.
func (c *collection) readNetwork(n netns, id string, ns *netstate.Namespace, names chan<- linkNames, sysctls chan<- map[string]string) {
	key := func(part netstate.Part) netstate.Key { return netstate.Key{Part: part, Container: id} }
	conn, err := dialRoute(n)
	if err != nil {
		c.missing(key(c.o.Parts&(netstate.Links|netstate.Routes|netstate.Sysctls|netstate.Traffic)), err)
		return
	}
	defer conn.Close()
	links, linkSysctls, err := readLinks(conn)
	if err != nil {
		err = fmt.Errorf("links: %w", err)
		c.missing(key(c.o.Parts&(netstate.Links|netstate.Routes|netstate.Sysctls|netstate.Traffic)), err)
		return
	}
	byIndex := namesOf(links)
	names <- byIndex
	sysctls <- linkSysctls
	if c.asked(netstate.Links) {
		var err1, err2, err3 error
		err3 = readVLANs(conn, links)
		ns.Links = links
		ns.Addrs, err1 = readAddrs(conn, byIndex)
		ns.Neighs, err2 = readNeighs(conn, byIndex)
		c.missing(key(netstate.Links), errors.Join(err1, err2, err3))
	}
	if c.asked(netstate.Routes) {
		var err1, err2, err3 error
		ns.Routes, err1 = readRoutes(conn, byIndex)
		ns.Rules, err2 = readRules(conn)
		ns.Nexthops, err3 = readNexthops(conn, byIndex)
		c.missing(key(netstate.Routes), errors.Join(err1, err2, err3))
	}
	if id == "" {
		if c.asked(netstate.Traffic) {
			ns.Qdiscs, err = readQdiscs(conn, byIndex)
			c.missing(key(netstate.Traffic), err)
		}
		return
	}
	if own, err := dialRoute(netns{}); err == nil {
		defer own.Close()
		ns.NSID, err = readNSID(own, n)
		c.missing(key(netstate.Links), err)
	}
}

// readNetfilter reads nf_tables and iptables of a namespace, whichever is asked for. iptables-nft's
// programs are run only for families for which nf_tables holds a table of theirs.
func (c *collection) readNetfilter(n netns, id string, ns *netstate.Namespace) {
	key := func(part netstate.Part) netstate.Key { return netstate.Key{Part: part, Container: id} }
	var saves []saver
	if c.asked(netstate.Iptables) {
		saves = c.legacySavers(n, id)
		defer func() { c.run(func() { c.saveIptables(n, id, ns, saves) }) }()
	}
	if c.m.lacksModule("nf_tables") {
		if c.asked(netstate.Nftables) {
			ns.Nft = &netstate.Ruleset{}
		}
		return
	}
	conn, err := dialNetfilter(n)
	if err != nil {
		c.missing(key(c.o.Parts&(netstate.Nftables|netstate.Iptables)), err)
		return
	}
	count, shown, err := tablesOf(conn)
	if err != nil {
		conn.Close()
		c.missing(key(c.o.Parts&(netstate.Nftables|netstate.Iptables)), fmt.Errorf("nf_tables: %w", err))
		return
	}
	if c.asked(netstate.Iptables) {
		for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
			if shown[family] {
				saves = append(saves, saver{family, variantNft})
			}
		}
	}
	c.run(func() {
		defer conn.Close()
		switch {
		case !c.asked(netstate.Nftables):
		case count == 0 && id != "": // as in most containers; of the host the generation is wanted
			ns.Nft = &netstate.Ruleset{}
		default:
			var err error
			ns.Nft, err = ReadNft(c.ctx, conn)
			c.missing(key(netstate.Nftables), err)
		}
	})
}

// legacySavers returns the savers for the legacy tables that exist.
func (c *collection) legacySavers(n netns, id string) []saver {
	var saves []saver
	for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
		var tables []string
		err := n.do(func() (err error) {
			tables, err = c.m.legacyTables(family)
			return err
		})
		c.missing(netstate.Key{Part: netstate.Iptables, Family: family, Variant: variantLegacy, Container: id}, err)
		if len(tables) > 0 {
			saves = append(saves, saver{family, variantLegacy})
		}
	}
	return saves
}

// saveIptables runs the savers side by side, then reads the sets that the rules name.
func (c *collection) saveIptables(n netns, id string, ns *netstate.Namespace, saves []saver) {
	sets := make([]netstate.IptablesSet, len(saves))
	var wait sync.WaitGroup
	for i, s := range saves {
		wait.Add(1)
		go func() {
			defer wait.Done()
			var err error
			sets[i], err = readIptables(c.ctx, n, s)
			for _, table := range sets[i].Tables {
				if table.Incomplete != "" && !c.asked(netstate.Nftables) {
					err = errors.Join(err, errors.New(table.Incomplete))
				}
			}
			c.missing(netstate.Key{Part: netstate.Iptables, Family: s.family, Variant: s.variant, Container: id}, err)
		}()
	}
	wait.Wait()
	ns.Iptables = sets
	if namesIpset(sets) {
		var err error
		ns.Ipsets, err = readIpsets(n)
		c.missing(netstate.Key{Part: netstate.Iptables, Container: id}, err)
	}
}
