package packet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// admits returns the VLAN into which a bridge puts a frame that comes in by one of its ports, or from the host by the
// bridge itself, and says so where it takes none. 0: the bridge has no VLANs. Source: br_allowed_ingress.
func (w *walker) admits(bridge, by *link) int {
	if bridge.Bridge == nil || !bridge.Bridge.VLANFiltering {
		return 0
	}
	unknown := by != bridge && w.x.plugged(by) == nil // what comes from outside may have a tag
	if unknown || !slices.ContainsFunc(w.x.host.state.Links, func(l netstate.Link) bool { return len(l.VLANs) > 0 }) {
		w.stop(Stop{Hop: Bridge, Kind: Unread, Object: "link " + bridge.Name, Verdict: May,
			Why: bridge.Name + " filters VLANs, and of which one the frame is that comes by " + by.Name + " is not known"}, nil)
		return 0
	}
	for _, v := range by.VLANs {
		if v.PVID {
			return v.ID
		}
	}
	w.switching(by, bridge.Name+" filters VLANs and takes no frame without one from "+by.Name+", which has no PVID")
	return 0
}

// releases says so where a frame of the VLAN does not get out by a port, or up to the host by the bridge itself, or
// gets out with a tag that nothing behind it expects. Source: br_allowed_egress, br_handle_vlan.
func (w *walker) releases(by *link, vlan int) {
	if vlan == 0 {
		return
	}
	at := slices.IndexFunc(by.VLANs, func(v netstate.BridgeVLAN) bool { return v.ID == vlan })
	switch {
	case at < 0:
		w.switching(by, fmt.Sprintf("the frame is of VLAN %d, which %s has not", vlan, by.Name))
	case !by.VLANs[at].Untagged:
		w.switching(by, fmt.Sprintf("%s gives frames of VLAN %d out with their tag", by.Name, vlan))
	}
}

// switching says that a bridge drops the frame for want of an entry of its table, or of a VLAN.
func (w *walker) switching(by *link, why string) {
	if unread := w.x.host.why(netstate.Links, 0, ""); unread != "" {
		w.unread(w.x.host, Bridge, "links", unread) // it may be among what was not read
		return
	}
	w.stop(Stop{Hop: Bridge, Kind: Switching, Object: "link " + by.Name, Verdict: Drop, Why: why}, nil)
}

// forwardTo returns the port to which a bridge sends a frame for inside, whose own is to. from is the port that it came in
// by, nil from the host. Source: br_fdb_find_rcu, br_flood.
func (w *walker) forwardTo(bridge, from, to *link, mac string, vlan int) (port *link, entry *netstate.Neigh) {
	e := w.x.host.forwardingEntry(bridge, mac, vlan)
	switch {
	case e == nil:
		if to.Port != nil && !to.Port.Flood && mac != "" && (!to.Port.Learning || w.may()) { // any frame of the container's makes an entry
			w.switching(to, fmt.Sprintf("%s does not know behind which port %s is, and does not flood to %s", bridge.Name, mac, to.Name))
		}
		return to, nil
	case e.Link == to.Name && (e.State != "permanent" || from == nil):
		return to, nil // one of the bridge's own is for the host, unless it comes from there
	case w.movesOn(e, to) && !w.may():
		return to, nil
	}
	if port = w.x.host.link(e.Link); port == nil {
		port = to
	}
	return port, e
}

// movesOn says whether the entry may be another one by the time that a frame comes: any frame from the container
// moves it, one that was put there by hand too.
func (w *walker) movesOn(e *netstate.Neigh, to *link) bool {
	return e.State != "permanent" && !e.Sticky && (to.Port == nil || to.Port.Learning)
}

// wrongPort says so where the bridge's table has the frame leave by another port.
func (w *walker) wrongPort(bridge, from, to *link, e *netstate.Neigh, mac string, p *skb) {
	if e == nil {
		return
	}
	if out := w.x.host.link(e.Link); out != nil && out != bridge && (from == nil || e.State != "permanent") {
		w.device(w.x.host, out, hookEgress, p)
	}
	object := "fdb " + mac + " dev " + e.Link
	where := "the port " + e.Link
	if e.State == "permanent" && from != nil {
		where = "the host itself"
	}
	w.stop(Stop{Hop: Bridge, Kind: Switching, Object: object, Verdict: Drop, Evidence: []string{object + " master " + bridge.Name + " " + fdbState(e)},
		Why: fmt.Sprintf("%s sends what is for %s to %s, its port is %s", bridge.Name, mac, where, to.Name)}, nil)
}

// fdbState words the state of an entry as bridge(8) does.
func fdbState(e *netstate.Neigh) string {
	switch {
	case e.State == "noarp" && e.Sticky:
		return "sticky static"
	case e.State == "noarp":
		return "static"
	case e.State == "permanent":
		return "permanent"
	}
	return "dynamic"
}

// forwardingEntry returns the entry of a bridge's table for the address, or nil.
func (n *netns) forwardingEntry(bridge *link, mac string, vlan int) *netstate.Neigh {
	if n.fdb == nil {
		n.fdb = map[fdbKey]*netstate.Neigh{}
		for i := range n.state.Neighs {
			e := &n.state.Neighs[i]
			if key := (fdbKey{e.Master, strings.ToLower(e.MAC), e.VLAN}); e.Master != "" && n.fdb[key] == nil {
				n.fdb[key] = e
			}
		}
	}
	return n.fdb[fdbKey{bridge.Name, strings.ToLower(mac), vlan}]
}

// An fdbKey is how a bridge finds an entry of its table.
type fdbKey struct {
	bridge, mac string
	vlan        int
}

// locked refuses a frame from a port that takes only those whose source the bridge's table has behind it.
func (w *walker) locked(bridge, from *link, vlan int) {
	if from.Port == nil || !from.Port.Locked {
		return
	}
	inside := w.x.plugged(from)
	if inside == nil {
		return
	}
	if e := w.x.host.forwardingEntry(bridge, inside.MAC, vlan); e == nil || e.Link != from.Name || e.State == "permanent" {
		w.switching(from, fmt.Sprintf("%s is locked, and %s has no entry for %s behind it", from.Name, bridge.Name, inside.MAC))
	}
}
