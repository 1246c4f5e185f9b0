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

// TestRestartGivesAnotherPort says of a port of the host that nobody named that a restart changes it.
func TestRestartGivesAnotherPort(t *testing.T) {
	for _, c := range []struct {
		name       string
		configured []netstate.Binding
		hostPort   uint16
		said       bool
	}{
		{"-p 8080:80", []netstate.Binding{{Port: http, HostPort: 8080}}, 8080, false},
		{"-p 80", []netstate.Binding{{Port: http}}, 32768, true},
		{"-P", nil, 32768, true},
		{"-p 80, 8080:80", []netstate.Binding{{Port: http}, {Port: http, HostPort: 8080}}, 32768, true},
		{"routed", []netstate.Binding{{Port: http}}, 0, false},
	} {
		s := &netstate.Snapshot{Parts: netstate.Sockets, Containers: []netstate.Container{{ID: "w", Name: "web", Running: true, StartedAt: "2026",
			Configured: c.configured, Published: []netstate.Binding{
				{Port: http, Host: netip.IPv4Unspecified(), HostPort: c.hostPort}, {Port: http, Host: netip.IPv6Unspecified(), HostPort: c.hostPort},
			}}}}
		var f Finding
		f.byRestart(NewHost(s), host8080("0.0.0.0"))
		if f.Fix == nil || strings.HasSuffix(f.Fix.Title, "; the engine picks anew the host port of 80/tcp, as none was named") != c.said {
			t.Errorf("%s: %s, said %t", c.name, f.Fix.Title, c.said)
		}
	}
}

// TestStaysDownForAConnection says that what is only bound, and a connection that somebody made from the port, keep a
// container from starting; one that came in by what listens there does not.
func TestStaysDownForAConnection(t *testing.T) {
	listener := netstate.Socket{Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort("0.0.0.0:8080"), PID: 10}
	own := netip.MustParseAddrPort("198.51.100.15:8080")
	for _, c := range []struct {
		name    string
		sockets []netstate.Socket
		held    bool
	}{
		{"bound", []netstate.Socket{{Proto: "tcp", State: "bound", Local: own, PID: 7}}, true},
		{"bound by the engine", []netstate.Socket{{Proto: "tcp", State: "bound", Local: own, PID: 10}}, false},
		{"a connection out", []netstate.Socket{{Proto: "tcp", State: "established", Local: own, PID: 7}}, true},
		{"a connection in", []netstate.Socket{{Proto: "tcp", State: "established", Local: own}, listener}, false},
	} {
		web := &netstate.Container{Name: "web", Running: true, StartedAt: "2026",
			Published: []netstate.Binding{{Port: http, Host: netip.MustParseAddr("0.0.0.0"), HostPort: 8080}}}
		s := &netstate.Snapshot{Parts: netstate.Sockets, Engine: &netstate.EngineState{PID: 10}, Host: netstate.Namespace{Sockets: c.sockets}}
		if got := NewHost(s).staysDown(web); strings.HasPrefix(got, "the host port 8080/tcp is held") != c.held {
			t.Errorf("%s: %q, held %t", c.name, got, c.held)
		}
	}
}
