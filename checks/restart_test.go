package checks

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestStaysDown says that a container would not start anew only where somebody else holds its port on its address.
func TestStaysDown(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		name, own, theirs string
		v6only            *bool
		held              bool
	}{
		{"the same address", "127.0.0.1", "127.0.0.1:8080", nil, true},
		{"another address", "127.0.0.1", "127.0.0.2:8080", nil, false},
		{"another port", "127.0.0.1", "127.0.0.1:8081", nil, false},
		{"all of one family", "0.0.0.0", "127.0.0.1:8080", nil, true},
		{"all of the other family", "0.0.0.0", "[::1]:8080", nil, false},
		{"one address mapped to IPv6", "0.0.0.0", "[::ffff:127.0.0.1]:8080", nil, true},
		{"all of both families", "127.0.0.1", "[::]:8080", &no, true},
		{"all, not known of which", "127.0.0.1", "[::]:8080", nil, true},
		{"all of IPv6 alone", "0.0.0.0", "[::]:8080", &yes, false},
		{"IPv6 beside IPv4", "::", "0.0.0.0:8080", nil, false},
	} {
		web := &netstate.Container{Name: "web", Running: true, StartedAt: "2026",
			Published: []netstate.Binding{{Port: http, Host: netip.MustParseAddr(c.own), HostPort: 8080}}}
		s := &netstate.Snapshot{Parts: netstate.Sockets, Host: netstate.Namespace{Sockets: []netstate.Socket{
			{Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort(c.theirs), V6Only: c.v6only, Program: "nginx", PID: 7}}}}
		if got := NewHost(s).staysDown(web); strings.HasPrefix(got, "the host port 8080/tcp is held by nginx") != c.held {
			t.Errorf("%s: %q, held %t", c.name, got, c.held)
		}
	}
}
