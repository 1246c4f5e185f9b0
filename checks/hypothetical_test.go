//go:build linux

package checks

import (
	"encoding/json"
	"testing"
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
