package dockerd

import "testing"

func TestCanonical(t *testing.T) {
	for _, test := range []struct {
		name  string
		a, b  string
		equal bool
	}{
		{"the protocol's own match", "-p tcp -m tcp --dport 80 -j ACCEPT", "-p tcp --dport 80 -j ACCEPT", true},
		{"long names", "--protocol tcp --destination-port 80 --jump ACCEPT", "-p tcp --dport 80 -j ACCEPT", true},
		{"a protocol's number", "-p 17 --dport 53 -j ACCEPT", "-p udp -m udp --dport 53 -j ACCEPT", true},
		{"names of ICMP", "-o br -p icmpv6 -j ACCEPT", "-o br -p ipv6-icmp -j ACCEPT", true},
		{"a host's prefix", "-d 172.17.0.2 -j DROP", "-d 172.17.0.2/32 -j DROP", true},
		{"an IPv6 host's prefix", "-d FD00::2 -j DROP", "-d fd00::2/128 -j DROP", true},
		{"order of options", "-o br ! -i br -j DROP", "! -i br -o br -j DROP", true},
		{"order of states", "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", true},
		{"order of matches", "-m mark --mark 1 -m addrtype --dst-type LOCAL -j DOCKER", "-m addrtype --dst-type LOCAL -m mark --mark 1 -j DOCKER", true},
		{"marks", "-m mark --mark 0x10 -j ACCEPT", "-m mark --mark 16/0xffffffff -j ACCEPT", true},
		{"a mark's mask", "-m mark --mark 0x10/0xf0 -j ACCEPT", "-m mark --mark 16/240 -j ACCEPT", true},
		{"quotes", `-m comment --comment "a" -j DROP`, `-m comment --comment a -j DROP`, true},

		{"negation", "-i br -j DROP", "! -i br -j DROP", false},
		{"another target", "-i br -j DROP", "-i br -j ACCEPT", false},
		{"goto", "-j DOCKER", "-g DOCKER", false},
		{"another port", "-p tcp --dport 80 -j ACCEPT", "-p tcp --dport 8080 -j ACCEPT", false},
		{"a prefix", "-d 172.17.0.0/16 -j DROP", "-d 172.17.0.0/24 -j DROP", false},
		{"a mask", "-m mark --mark 1 -j ACCEPT", "-m mark --mark 1/1 -j ACCEPT", false},
		{"one more match", "-j DROP", "-m limit --limit 1/sec -j DROP", false},
		{"a comment", "-j DROP", `-m comment --comment "-j DROP" -j DROP`, false},
		{"the target's options", "-j DNAT --to-destination 10.0.0.1:80", "-j DNAT --to-destination 10.0.0.2:80", false},
		{"the same words inside quotes", `-m comment --comment "x -i br" -j DROP`, "-m comment --comment x -i br -j DROP", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if a, b := canonical(test.a), canonical(test.b); (a == b) != test.equal {
				t.Errorf("%s\nis %s\n%s\nis %s", test.a, a, test.b, b)
			}
		})
	}
}

// A rule is anybody's text: it is taken apart without a panic, and what it was taken for reads the same.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"-d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT", `-m comment --comment "a \" b" -j X`, "!", "! !", "-m", "-j", `"`, `\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) { _ = canonical(text) })
}
