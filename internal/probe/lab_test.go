package probe

import (
	"net/netip"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// nobody is the probe's client: an address that no machine of the lab has, and the host reaches by its
// default route as it does the far client's.
var nobody, nobody6 = netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8:77::9")

func TestHealthy(t *testing.T) {
	h := lab.New(t, lab.Options{})
	if err := h.Web(t.Context(), "web", "-p", "8080:80"); err != nil {
		t.Fatal(err)
	}
	a := observeIn(t, h, "web", insideTarget{From: netstate.FromOutside, Client: nobody}, insideTarget{From: netstate.FromHost}, insideTarget{From: netstate.FromLocalhost})
	for i, o := range a.Observations {
		if a.Errors[i] != "" || o.Outcome != Connected {
			t.Errorf("%d: %s %+v", i, a.Errors[i], o)
		}
	}
}
