package checks

import (
	"slices"

	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// consequences says what the kernel itself makes of a fault: of links that hang on each other, one that
// is down takes the others' carrier, and routes over it.
//
// Source: the kernel's veth and bridge drivers (carrier follows the peer, and the ports), and fib_sync_down.
var consequences = []struct {
	of  []packet.Kind // at one of places
	at  []packet.Hop
	by  []packet.Kind // at one of causes
	was []packet.Hop
}{
	{
		of: []packet.Kind{packet.NoCarrier, packet.BridgePort}, at: []packet.Hop{packet.Container, packet.Veth, packet.Bridge},
		by: []packet.Kind{packet.LinkDown, packet.NoMaster, packet.NoLink}, was: []packet.Hop{packet.Container, packet.Veth, packet.Bridge},
	},
	{
		of: []packet.Kind{packet.NoRoute, packet.NoAddress}, at: []packet.Hop{packet.Container},
		by: []packet.Kind{packet.LinkDown, packet.NoLink}, was: []packet.Hop{packet.Container},
	},
	{
		of: []packet.Kind{packet.NoRoute}, at: []packet.Hop{packet.Container},
		by: []packet.Kind{packet.NoAddress}, was: []packet.Hop{packet.Container},
	},
	{
		of: []packet.Kind{packet.NoCarrier}, at: []packet.Hop{packet.Bridge},
		by: []packet.Kind{packet.BridgePort}, was: []packet.Hop{packet.Bridge},
	},
	{
		of: []packet.Kind{packet.NoRoute, packet.WrongRoute}, at: []packet.Hop{packet.Route},
		by: []packet.Kind{packet.LinkDown, packet.NoLink}, was: []packet.Hop{packet.Bridge, packet.Uplink},
	},
}

// consequence says whether a stop cannot but be there while the other is.
func consequence(of, by *packet.Stop) bool {
	for _, c := range consequences {
		if slices.Contains(c.of, of.Kind) && slices.Contains(c.at, of.Hop.Place()) &&
			slices.Contains(c.by, by.Kind) && slices.Contains(c.was, by.Hop.Place()) {
			return true
		}
	}
	return of.Behind != "" && of.Behind == by.Object
}
