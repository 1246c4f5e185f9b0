//go:build linux

package checks

import (
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

func TestArg(t *testing.T) {
	for word, want := range map[string]string{
		"web":                            "web",
		"net.ipv4.conf.eth0/7.rp_filter": "net.ipv4.conf.eth0/7.rp_filter",
		"!":                              "!",
		"":                               "''",
		"a b":                            "'a b'",
		"web;reboot":                     "'web;reboot'",
		"$(reboot)":                      "'$(reboot)'",
		"it's":                           `'it'\''s'`,
		"-":                              "-",
		"~root":                          "'~root'",
	} {
		if got := arg(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

// TestAdviceIsNoTrap says that a name of the host does not become a command of whoever follows an advice.
func TestAdviceIsNoTrap(t *testing.T) {
	s := recorded(t, "28.5.2-proxy")
	c := s.Container(s.Asked[0])
	c.Name, c.Paused = "web;reboot", true
	targets, _, err := Targets(s, Ask{})
	if err != nil {
		t.Fatal(err)
	}
	if cause := Judge(Suite, NewHost(s), targets).Targets[0].Cause; cause == nil || cause.Finding.Advice != "docker unpause 'web;reboot'" {
		t.Errorf("%+v", cause)
	}
}

// TestLetPassIsNoTrap says that of the command that lets packets pass, too.
func TestLetPassIsNoTrap(t *testing.T) {
	s := recorded(t, "29.7.2-iptables-proxy")
	h, web := NewHost(s), published(t, s)
	h.whole.traces[web] = &packet.Trace{Via: "docker-proxy", Uplink: "eth0;reboot"}
	for object, want := range map[string]string{
		"iptables filter INPUT 1: -j DROP": "iptables -t filter -I INPUT -i 'eth0;reboot' -p tcp -m tcp --dport 8080 -j ACCEPT",
		"nft inet fw in handle 7: drop":    `nft insert rule inet fw in 'iifname "eth0;reboot" tcp dport 8080 accept'`,
		"nft inet fw $(x) handle 7: drop":  `nft insert rule inet fw '$(x)' 'iifname "eth0;reboot" tcp dport 8080 accept'`,
		"iptables filter a;b policy DROP":  "iptables -t filter -I 'a;b' -i 'eth0;reboot' -p tcp -m tcp --dport 8080 -j ACCEPT",
	} {
		if got := letPass(h, web, packet.Stop{Hop: packet.Accept, Kind: packet.Filter, Object: object, Owner: "yours"}); got != want {
			t.Errorf("%s: %s, want %s", object, got, want)
		}
	}
}
