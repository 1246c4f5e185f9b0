//go:build linux

package host

import "testing"

// No file of firewalld panics, whatever is in it.
func FuzzFirewalldXML(f *testing.F) {
	f.Add([]byte(`<zone target="DROP"><interface name="eth0"/><source address="10.0.0.0/8"/><service name="ssh"/><port port="80-90" protocol="tcp"/><forward/><rule family="ipv4" priority="-1"><source address="192.0.2.1" invert="yes"/><reject/></rule></zone>`))
	f.Add([]byte(`<policy target="CONTINUE" priority="-5"><ingress-zone name="ANY"/><egress-zone name="HOST"/><masquerade/></policy>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		parseZone("z", data)
		parsePolicy("p", data)
	})
}
