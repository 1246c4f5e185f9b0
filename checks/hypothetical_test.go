//go:build linux

package checks

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestHypothetical judges a recorded host before any container of its own: it is well, and what would stop
// every published port is named.
func TestHypothetical(t *testing.T) {
	for _, name := range []string{"20.10.24-proxy", "26.1.5-proxy", "28.5.2-proxy", "28.5.2-noproxy", "29.7.2-iptables-proxy", "29.7.2-iptables-noproxy", "29.7.2-nftables-proxy", "29.7.2-nftables-noproxy"} {
		s := recorded(t, name)
		judge := func() *Report {
			with, why := Hypothetical(s)
			if with == nil {
				t.Fatalf("%s: %s", name, why)
			}
			targets, _, err := Targets(with, Ask{})
			if err != nil || len(targets) != 2 {
				t.Fatal(targets, err)
			}
			return Judge(Suite, NewHost(with), targets)
		}
		if report := judge(); report.Verdict != Pass {
			for _, j := range report.Targets {
				for _, r := range j.Results {
					if r.Status != Pass && r.Status != Skip {
						text, _ := json.Marshal(r)
						t.Errorf("%s: %s: %s", name, Name(j.Target), text)
					}
				}
			}
		}
		s.Host.Sysctls["net.ipv4.ip_forward"], s.Host.Sysctls["net.ipv4.conf.all.forwarding"] = "0", "0"
		for _, link := range []string{"ext0", "docker0", "brA"} {
			s.Host.Sysctls["net.ipv4.conf."+link+".forwarding"] = "0"
		}
		if cause := judge().Targets[0].Cause; cause == nil || cause.Check != "forwarding" {
			t.Errorf("%s without forwarding: cause %v", name, cause)
		}
	}
}

// TestHypotheticalWithoutRoom says that no container is imagined at an address that none can have.
func TestHypotheticalWithoutRoom(t *testing.T) {
	s := recorded(t, "28.5.2-proxy")
	network := defaultNetwork(s)
	subnet, _ := network.Subnet(netstate.IPv4)
	network.Subnets = []netstate.Subnet{{Prefix: netip.PrefixFrom(subnet.Prefix.Addr(), 29), Gateway: subnet.Prefix.Addr().Next()}}
	network.Members = []netstate.Member{{ID: "6", IPv6: netip.MustParsePrefix("fd00::6/64")}}
	for i := range 5 {
		network.Members = append(network.Members, netstate.Member{ID: fmt.Sprint(i), IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + i)}), 29)})
	}
	if with, why := Hypothetical(s); with != nil || !strings.Contains(why, "no free address") {
		t.Errorf("a full network takes one more at %v: %q", with.Containers[len(with.Containers)-1].Endpoints[0].IPv4, why)
	}
	network.Members = network.Members[:5]
	if with, why := Hypothetical(s); with == nil {
		t.Error(why)
	}
}
