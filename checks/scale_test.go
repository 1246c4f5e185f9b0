//go:build linux

package checks

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/dockerd"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// crowd returns a recorded host with more containers, healthy ones, that publish so many ports each.
func crowd(t *testing.T, name string, containers, ports int) *netstate.Snapshot {
	t.Helper()
	s := recorded(t, name)
	s.Asked = nil
	network := defaultNetwork(s)
	subnet, _ := network.Subnet(netstate.IPv4)
	subnet.Gateway = gatewayOf(s, network, subnet)
	for i := range containers {
		addr := netip.PrefixFrom(freeAddr(network, subnet), subnet.Prefix.Bits())
		c := netstate.Container{
			ID: fmt.Sprintf("%064x", i+1), Name: fmt.Sprintf("c%d", i+1), Status: "running", Running: true, NetworkMode: "default",
			Endpoints: []netstate.Endpoint{{Network: network.Name, NetworkID: network.ID, IPv4: addr, Gateway4: subnet.Gateway, MAC: fmt.Sprintf("02:42:00:00:%02x:%02x", i/256, i%256)}},
		}
		for j := range ports {
			port := uint16(20000 + i*ports + j)
			c.Published = append(c.Published, netstate.Binding{Port: netstate.Port{Number: port, Proto: "tcp"}, Host: netip.IPv4Unspecified(), HostPort: port})
		}
		plug(s, network.Bridge(), &c)
		sockets := &s.Sandboxes[c.ID].Sockets
		for _, b := range c.Published {
			*sockets = append(*sockets, netstate.Socket{Proto: "tcp", State: "listen", Local: netip.AddrPortFrom(netip.IPv4Unspecified(), b.Port.Number)})
		}
		network.Members = append(network.Members, netstate.Member{ID: c.ID, Name: c.Name, IPv4: addr, MAC: c.Endpoints[0].MAC})
		s.Containers, s.Asked = append(s.Containers, c), append(s.Asked, c.ID)
	}
	program := dockerd.Expected(s)
	theirs := slices.DeleteFunc(program.Compare(s), func(d dockerd.Difference) bool { return d.Rule == nil || !slices.Contains(s.Asked, d.Rule.Container) })
	return dockerd.Edited(s, program.Restore(s, theirs))
}

// TestCrowds judges hosts with many containers and many ports, in memory, and says how long a target takes.
func TestCrowds(t *testing.T) {
	for _, test := range []struct{ containers, ports int }{{300, 1}, {1, 200}} {
		for _, name := range []string{"28.5.2-noproxy", "29.7.2-nftables-noproxy"} {
			t.Run(fmt.Sprintf("%d containers, %d ports, %s", test.containers, test.ports, name), func(t *testing.T) {
				s := crowd(t, name, test.containers, test.ports)
				targets, _, err := Targets(s, Ask{})
				if want := test.containers * (test.ports + 1); err != nil || len(targets) != want {
					t.Fatalf("%d targets, want %d: %v", len(targets), want, err)
				}
				began := time.Now()
				report := Judge(Suite, NewHost(s), targets)
				took := time.Since(began)
				t.Logf("%d targets in %s: %d µs a target", len(targets), took.Round(time.Millisecond), took.Microseconds()/int64(len(targets)))
				bad := 0
				for _, j := range report.Targets {
					if j.Status == Pass {
						continue
					}
					if bad++; bad <= 3 {
						text, _ := json.Marshal(j.Causes)
						t.Errorf("%s: %s %s", Name(j.Target), j.Status, text)
						for _, r := range j.Results {
							if r.Status == Unknown {
								t.Log(r.Check, r.Reason)
							}
						}
					}
				}
				if bad > 0 {
					t.Errorf("%d of %d are not well", bad, len(targets))
				}
			})
		}
	}
}
