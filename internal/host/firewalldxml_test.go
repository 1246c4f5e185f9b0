//go:build linux

package host

import (
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/google/go-cmp/cmp"
)

// A file in /etc hides its namesake in /usr, and one that cannot be read is said.
func TestReadPermanent(t *testing.T) {
	m := machine{root: t.TempDir()}
	write(t, m.path("usr/lib/firewalld/zones/public.xml"), `<zone><service name="ssh"/></zone>`)
	write(t, m.path("usr/lib/firewalld/zones/docker.xml"), `<zone target="ACCEPT"/>`)
	write(t, m.path("etc/firewalld/zones/docker.xml"), `<?xml version="1.0" encoding="utf-8"?>
<zone version="1.0" target="DROP">
  <short>docker</short>
  <interface name="docker0"/><interface name="br0"/>
  <source address="192.0.2.0/24"/><source mac="02:00:00:00:00:01"/><source ipset="office"/>
  <service name="ssh"/><port port="80-81" protocol="tcp"/>
  <forward-port port="8080" protocol="tcp" to-port="80" to-addr="192.0.2.9"/>
  <masquerade/><forward/>
  <rule family="ipv4" priority="-5"><source address="198.51.100.7"/>
   <drop/></rule>
</zone>`)
	write(t, m.path("etc/firewalld/zones/docker.xml.old"), `nonsense`)
	write(t, m.path("etc/firewalld/policies/one.xml"), `<policy target="REJECT" priority="-10"><ingress-zone name="ANY"/><egress-zone name="docker"/><egress-zone name="HOST"/></policy>`)
	write(t, m.path("etc/firewalld/policies/two.xml"), `<policy/>`)
	f := &netstate.FirewalldState{}
	if err := m.readPermanent(f); err != nil {
		t.Fatal(err)
	}
	want := &netstate.FirewalldState{
		Permanent: []netstate.Zone{
			{Name: "docker", Target: "DROP", Interfaces: []string{"docker0", "br0"}, Sources: []string{"192.0.2.0/24", "02:00:00:00:00:01", "ipset:office"},
				Forward: true, Masquerade: true, Services: []string{"ssh"}, Ports: []string{"80-81/tcp"},
				ForwardPorts: []string{"port=8080:proto=tcp:toport=80:toaddr=192.0.2.9"},
				RichRules:    []string{`<rule family="ipv4" priority="-5"><source address="198.51.100.7"/> <drop/></rule>`}},
			{Name: "public", Target: "default", Services: []string{"ssh"}},
		},
		PermanentPolicies: []netstate.Policy{
			{Name: "one", Target: "REJECT", Priority: -10, IngressZones: []string{"ANY"}, EgressZones: []string{"docker", "HOST"}},
			{Name: "two", Target: "CONTINUE", Priority: -1},
		},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Error(diff)
	}
	write(t, m.path("etc/firewalld/zones/broken.xml"), `<zone`)
	f = &netstate.FirewalldState{}
	if err := m.readPermanent(f); err == nil || len(f.Permanent) != 3 {
		t.Errorf("%v, %d zones", err, len(f.Permanent))
	}
}

// Files are kept as they are, but for the one sysctl that is a secret.
func TestReadFiles(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/etc/sysctl.d/99-hardening.conf", "# hard\nnet.ipv4.ip_forward = 0\nnet.ipv6.conf.all.stable_secret = 2001:db8::1\n")
	write(t, root+"/etc/sysctl.d/README", "no")
	write(t, root+"/usr/lib/sysctl.d/50-default.conf", "net.ipv4.conf.all.rp_filter = 2\n")
	c := newCollection(t.Context(), Options{Root: root, Parts: netstate.Files})
	c.readFiles()
	want := map[string]string{
		"/etc/sysctl.d/99-hardening.conf":   "# hard\nnet.ipv4.ip_forward = 0\nnet.ipv6.conf.all.stable_secret = (left out)\n",
		"/usr/lib/sysctl.d/50-default.conf": "net.ipv4.conf.all.rp_filter = 2\n",
	}
	if diff := cmp.Diff(want, c.s.Files); diff != "" || len(c.s.Missing) != 0 {
		t.Errorf("%s missing %v", diff, c.s.Missing)
	}
}
