//go:build linux

package checks

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestNameserverOnLoopback says what becomes of a container that asks a name server of its own, and of one whose engine
// asks the host's.
func TestNameserverOnLoopback(t *testing.T) {
	bound := func(text string) []netstate.Socket {
		return []netstate.Socket{{Proto: "udp", State: "unconnected", Local: netip.MustParseAddrPort(text)}}
	}
	for _, c := range []struct {
		name    string
		lines   []string
		sockets []netstate.Socket
		status  Status
		says    string
	}{
		{"its own, which runs", []string{"nameserver 127.0.0.1"}, bound("127.0.0.1:53"), Pass, ""},
		{"its own, on any address", []string{"nameserver 127.0.0.53"}, bound("0.0.0.0:53"), Pass, ""},
		{"its own, which does not run", []string{"nameserver 127.0.0.1"}, nil, Fail, "127.0.0.1 cannot be reached"},
		{"its own on another port", []string{"nameserver 127.0.0.1"}, bound("127.0.0.1:5353"), Fail, "127.0.0.1 cannot be reached"},
		{"one of two runs", []string{"nameserver 127.0.0.2", "nameserver 127.0.0.1"}, bound("127.0.0.1:53"), Pass, ""},
		{"the host's", []string{"nameserver 127.0.0.11", "# ExtServers: [host(127.0.0.53)]"}, nil, Pass, "the engine asks the name server 127.0.0.53"},
		{"the host's or another", []string{"nameserver 127.0.0.11", "# ExtServers: [host(127.0.0.53) 192.0.2.53]"}, nil, Pass, "the engine asks the name server 127.0.0.53"},
		{"not an address", []string{"nameserver dns"}, nil, Pass, "name server dns can be reached was not judged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := recorded(t, "29.7.2-iptables-proxy")
			web := &s.Containers[slices.IndexFunc(s.Containers, func(c netstate.Container) bool { return c.Name == "cA" })]
			web.ResolvConf = c.lines
			ns := s.Sandboxes[web.ID]
			ns.Sockets = append(ns.Sockets, c.sockets...)
			ns.Routes = append(ns.Routes, netstate.Route{Family: netstate.IPv4, Table: 255, Type: "local", Dst: netip.MustParsePrefix("127.0.0.0/8"), Hops: []netstate.RouteHop{{Dev: "lo"}}})
			targets, _, _ := Targets(s, Ask{})
			at := slices.IndexFunc(targets, func(t netstate.Target) bool { return t.ID == web.ID && t.DNS })
			result := Run([]*Check{DNS}, NewHost(s), targets[at])[0]
			said := result.Reason
			for _, finding := range result.Findings {
				said += finding.Object + ": " + finding.Problem
			}
			if result.Status != c.status || !strings.Contains(said, c.says) || (said != "") != (c.says != "") {
				t.Errorf("%s: %s, want %s: %s", result.Status, said, c.status, c.says)
			}
		})
	}
}
