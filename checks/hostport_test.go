package checks

import (
	"cmp"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

var http = netstate.Port{Number: 80, Proto: "tcp"}

// host8080 is the target of web's port where it is published at port 8080 of an address.
func host8080(addr string) netstate.Target {
	host := netip.AddrPortFrom(netip.MustParseAddr(addr), 8080)
	return netstate.Target{Container: "web", ID: "w", Direction: netstate.In, Family: netstate.FamilyOf(host.Addr()), Port: http, Host: host}
}

// proxies8080 are a proxy of the running container other, at port 8080 of the loopback address, and one at that of
// 192.0.2.1, to an address that no container has.
func proxies8080() *netstate.Snapshot {
	return &netstate.Snapshot{
		Networks: []netstate.Network{{Members: []netstate.Member{{Name: "other", IPv4: netip.MustParsePrefix("172.17.0.9/16")}}}},
		Proxies: []netstate.Proxy{
			{PID: 11, Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:8080"), Container: netip.MustParseAddrPort("172.17.0.9:80")},
			{PID: 22, Proto: "tcp", Host: netip.MustParseAddrPort("192.0.2.1:8080"), Container: netip.MustParseAddrPort("172.17.0.99:80")},
		},
	}
}

// TestStaleProxy has that docker-proxy killed which is in the way, and no other container's.
func TestStaleProxy(t *testing.T) {
	for host, want := range map[string]string{
		"192.0.2.1": "kill 22,",
		"0.0.0.0":   "kill 22,",
		"127.0.0.1": "docker restart web starts",
		"::":        "docker restart web starts",
	} {
		if got := staleProxy(NewHost(proxies8080()), host8080(host)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

// TestTaken names who holds the host port on the address that the container was to have it on.
func TestTaken(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		name, host, local string
		v6only            *bool
		want              string
	}{
		{"another container's proxy", "127.0.0.1", "", nil, "docker stop other,"},
		{"a proxy of nobody's", "192.0.2.1", "", nil, "kill 22,"},
		{"nobody on that address", "192.0.2.2", "", nil, "ss -Hanp"},
		{"a program there", "192.0.2.2", "192.0.2.2:8080", nil, "stop nginx "},
		{"a program on every address", "192.0.2.2", "0.0.0.0:8080", nil, "stop nginx "},
		{"a program elsewhere", "192.0.2.2", "192.0.2.3:8080", nil, "ss -Hanp"},
		{"a program of IPv6 alone", "192.0.2.2", "[::]:8080", &yes, "ss -Hanp"},
		{"a program of both families", "192.0.2.2", "[::]:8080", &no, "stop nginx "},
		{"a program of IPv6 on the loopback address", "192.0.2.2", "[::1]:8080", nil, "ss -Hanp"},
		{"IPv4 leaves IPv6 alone", "::", "0.0.0.0:8080", nil, "ss -Hanp"},
		{"no address said", "", "[::1]:8080", nil, "stop nginx "},
	} {
		s, web := proxies8080(), netstate.Container{ID: "w", Name: "web", Error: "address already in use"}
		target := host8080(cmp.Or(c.host, "0.0.0.0"))
		if c.host == "" {
			s.Proxies = nil
			web.Configured = []netstate.Binding{{Port: http, HostPort: 8080}}
		}
		if c.local != "" {
			s.Host.Sockets = []netstate.Socket{{Proto: "tcp", State: "listen", Local: netip.MustParseAddrPort(c.local), V6Only: c.v6only, Program: "nginx"}}
		}
		var f Finding
		if !taken(NewHost(s), target, &web, &f) || !strings.HasPrefix(f.Advice, c.want) {
			t.Errorf("%s: %s, want %s", c.name, f.Advice, c.want)
		}
	}
}
