//go:build linux

package checks

import "testing"

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
