//go:build linux

package dockerd

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
	"github.com/google/go-cmp/cmp"
)

// The captures of a running host, as fixture reads them.
var captures = map[string]string{
	"version.json":             `docker version --format '{{json .Server}}'`,
	"info.json":                `docker info --format '{{json .}}'`,
	"daemon.json":              `cat /etc/docker/daemon.json`,
	"networks.json":            `docker network inspect $(docker network ls -q)`,
	"containers.json":          `docker inspect $(docker ps -aq)`,
	"docker-proxy-args.txt":    `for p in $(pidof docker-proxy || true); do tr '\0' ' ' <"/proc/$p/cmdline"; echo; done`,
	"links.json":               `ip -j -d link`,
	"addrs.json":               `ip -j addr`,
	"sysctl.txt":               `sysctl -a 2>/dev/null || true`,
	"iptables-save.v4":         `iptables-nft-save`,
	"ip6tables-save.v6":        `ip6tables-nft-save`,
	"iptables-legacy-save.v4":  `iptables-legacy-save`,
	"ip6tables-legacy-save.v6": `ip6tables-legacy-save`,
}

// capture reads a running host.
func capture(t *testing.T, h *lab.Host) *netstate.Snapshot {
	t.Helper()
	files := fstest.MapFS{}
	for name, command := range captures {
		text, err := h.Sh(t.Context(), command)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	s, err := fixture.Read(files)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// populate makes networks and containers of many kinds.
func populate(ctx context.Context, h *lab.Host, newest bool) error {
	const option = " -o com.docker.network.bridge."
	networks := []string{
		"plain" + option + "name=brP",
		"noicc" + option + "enable_icc=false" + option + "name=brI",
		"inner --internal",
		"innernoicc --internal" + option + "enable_icc=false",
		"nomasq" + option + "enable_ip_masquerade=false" + option + "host_binding_ipv4=127.0.0.1",
		"dual --ipv6 --subnet 10.9.5.0/24 --subnet fd00:5::/64",
		"snat --subnet 10.9.6.0/24 -o com.docker.network.host_ipv4=" + lab.HostAddr,
	}
	containers := []string{
		"web -p 8080:80 -p 8083:80 -p 127.0.0.1:8081:81 -p " + lab.HostAddr + ":8082:82/udp -p 84/udp",
		"on-plain --network plain -p 8090:80",
		"on-noicc --network noicc -p 8091:80",
		"on-inner --network inner -p 8092:80",
		"on-nomasq --network nomasq -p 8093:80",
		"on-dual --network dual -p 8094:80 -p [::1]:8095:81",
		"on-snat --network snat -p 8096:80",
		"in-two --network plain -p 8097:80",
		"silent --network dual",
		"shared --network container:web",
		"on-host --network host",
	}
	if newest {
		networks = append(networks,
			"routed --ipv6 --subnet 10.9.7.0/24 --subnet fd00:7::/64"+option+"gateway_mode_ipv4=routed"+option+"gateway_mode_ipv6=routed",
			"half --ipv6 --subnet 10.9.8.0/24 --subnet fd00:8::/64"+option+"gateway_mode_ipv6=routed",
			"open --subnet 10.9.9.0/24"+option+"gateway_mode_ipv4=nat-unprotected",
			"isolated --internal"+option+"gateway_mode_ipv4=isolated",
			"trusted --ipv6 --subnet 10.9.10.0/24 --subnet fd00:a::/64"+option+"trusted_host_interfaces=eth0:lo",
			"sixonly --ipv4=false --ipv6 --subnet fd00:b::/64",
		)
		containers = append(containers,
			"on-routed --network routed -p 8100:80",
			"on-half --network half -p 8101:80",
			"on-open --network open -p 8102:80",
			"on-isolated --network isolated -p 8103:80",
			"on-trusted --network trusted -p 8104:80",
			"on-sixonly --network sixonly -p 8105:80",
		)
	}
	for _, n := range networks {
		name, options, _ := strings.Cut(n, " ")
		if _, err := h.Docker(ctx, append(append([]string{"network", "create"}, strings.Fields(options)...), name)...); err != nil {
			return err
		}
	}
	for _, c := range containers {
		name, options, _ := strings.Cut(c, " ")
		if err := h.RunContainer(ctx, name, append(strings.Fields(options), lab.Image)...); err != nil {
			return err
		}
	}
	_, err := h.Docker(ctx, "network", "connect", "dual", "in-two")
	return err
}

// unexpected returns the rules in Docker's chains, and those elsewhere that name its chains or bridges,
// that the program does not expect.
func unexpected(p *Program, s *netstate.Snapshot) (list []string) {
	bridges := map[string]bool{}
	for _, n := range s.Networks {
		if n.Bridge() != "" {
			bridges[n.Bridge()] = true
		}
	}
	for _, set := range s.Host.Iptables {
		for _, table := range set.Tables {
			for _, chain := range table.Chains {
				for _, l := range linesOf(chain.Rules) {
					ours := strings.HasPrefix(chain.Name, docker) || strings.HasPrefix(l.spec.target.name, docker) ||
						bridges[strings.TrimPrefix(l.spec.get("-i"), "! ")] || bridges[strings.TrimPrefix(l.spec.get("-o"), "! ")]
					known := slices.ContainsFunc(p.Rules, func(r Rule) bool {
						return r.Family == set.Family && r.Table == table.Name && r.Chain == chain.Name && canonical(r.Text) == l.canonical
					})
					if ours && !known {
						list = append(list, fmt.Sprintf("%s %s %s %d: %s", set.Command(), table.Name, chain.Name, l.number, l.text))
					}
				}
			}
		}
	}
	return list
}

// rulesSorted returns all rules of a host without their order.
func rulesSorted(s *netstate.Snapshot) (all []string) {
	for _, set := range s.Host.Iptables {
		for _, table := range set.Tables {
			for _, chain := range table.Chains {
				for _, rule := range chain.Rules {
					all = append(all, set.Command()+" "+table.Name+" "+chain.Name+" "+rule.Text)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// apply makes the edits on a running host.
func apply(t *testing.T, h *lab.Host, edits []Edit) {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, e := range edits {
		command := (&netstate.IptablesSet{Family: e.Family, Variant: e.Variant}).Command() + " -w -t " + e.Table
		number := strconv.Itoa(e.Number)
		switch e.Op {
		case NewChain:
			fmt.Fprintln(&script, command, "-N", e.Chain)
		case Insert:
			fmt.Fprintln(&script, command, "-I", e.Chain, number, e.Text)
		case Replace:
			fmt.Fprintln(&script, command, "-R", e.Chain, number, e.Text)
		case Delete:
			fmt.Fprintln(&script, command, "-D", e.Chain, number)
		}
	}
	if out, err := h.Sh(t.Context(), script.String()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// On real engines: nothing differs on a healthy host; a flushed one is restored to what it was; and the
// engine, when it then makes its rules again, finds them.
func TestEngines(t *testing.T) {
	lab.Need(t)
	if testing.Short() {
		t.Skip("runs real engines")
	}
	for i, suite := range lab.Suites() {
		for _, proxy := range []bool{true, false} {
			for _, firewalld := range []bool{false, true} {
				// Each engine with each setting, if not with each pair: those with NETCHECK_TEST_ALL=1.
				if os.Getenv("NETCHECK_TEST_ALL") == "" && (proxy == firewalld) != (i%2 == 0) {
					continue
				}
				t.Run(fmt.Sprintf("%s proxy=%v firewalld=%v", suite, proxy, firewalld), func(t *testing.T) {
					t.Parallel()
					testEngine(t, suite, proxy, firewalld)
				})
			}
		}
	}
}

func testEngine(t *testing.T, suite string, proxy, firewalld bool) {
	newest := suite == lab.Forky
	daemon := map[string]any{"userland-proxy": proxy}
	if !newest && !proxy {
		daemon["ip6tables"], daemon["experimental"] = true, true
	}
	h := lab.New(t, lab.Options{Suite: suite, Daemon: daemon, Firewalld: firewalld, IPv6: true})
	if err := populate(t.Context(), h, newest); err != nil {
		t.Fatal(err)
	}
	whole := capture(t, h)
	p := Expected(whole)
	for _, d := range p.Compare(whole) {
		t.Errorf("healthy, but: %s", &d)
	}
	for _, text := range unexpected(p, whole) {
		t.Errorf("not expected: %s", text)
	}
	for _, on := range []*bool{nil, &proxy} { // told, and found out
		whole.Engine.Config.UserlandProxy = on
		if got := Expected(whole).Proxy; got.On != proxy {
			t.Errorf("docker-proxy is taken for %+v", got)
		}
	}
	if t.Failed() {
		return
	}

	for _, flush := range []string{
		"for i in iptables ip6tables; do for t in filter nat raw; do $i -w -t $t -F; done; done",
		"for i in iptables ip6tables; do for t in filter nat raw; do $i -w -t $t -F; $i -w -t $t -X; done; done",
	} {
		if _, err := h.Sh(t.Context(), flush); err != nil {
			t.Fatal(err)
		}
		flushed := capture(t, h)
		p := Expected(flushed)
		apply(t, h, p.Restore(flushed, p.Compare(flushed)))
		restored := capture(t, h)
		for _, d := range Expected(restored).Compare(restored) {
			t.Errorf("restored, but: %s", &d)
		}
		if diff := cmp.Diff(rulesSorted(whole), rulesSorted(restored)); diff != "" {
			t.Errorf("restored, but not to what the engine had made:\n%s", diff)
		}
	}

	if firewalld {
		reload(t, h, newest)
	}

	// The engine makes a network's and a container's rules again, and finds ours.
	if _, err := h.Docker(t.Context(), "restart", "on-plain", "on-dual"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Docker(t.Context(), "network", "create", "another"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Docker(t.Context(), "network", "rm", "another"); err != nil {
		t.Fatal(err)
	}
	again := capture(t, h)
	for _, d := range Expected(again).Compare(again) {
		t.Errorf("after the engine's own changes: %s", &d)
	}
	if diff := cmp.Diff(rulesSorted(whole), rulesSorted(again)); diff != "" {
		t.Errorf("after the engine's own changes:\n%s", diff)
	}
}

// reload reloads firewalld, upon which engines make their rules again: newer ones all of them in order,
// older ones with DOCKER-USER behind another jump and, where firewalld flushed them, without the
// isolation of networks. That stops no traffic, and is restored.
func reload(t *testing.T, h *lab.Host, newest bool) {
	if _, err := h.Run(t.Context(), "firewall-cmd", "--reload"); err != nil {
		t.Fatal(err)
	}
	// The engine works off the signal in its own time.
	reloaded := capture(t, h)
	for same := 0; same < 5; same++ {
		next := capture(t, h)
		if !cmp.Equal(reloaded.Host.Iptables, next.Host.Iptables) {
			same = 0
		}
		reloaded = next
	}
	p := Expected(reloaded)
	found := p.Compare(reloaded)
	user := false
	for _, d := range found {
		if d.Rule == nil || d.Rule.Needed != 0 {
			t.Errorf("after a reload of firewalld: %s", &d)
		}
		user = user || d.Kind == Misplaced && d.Rule.Text == "-j DOCKER-USER"
	}
	if user == newest {
		t.Errorf("after a reload of firewalld DOCKER-USER is in its place: %v\n%s", !user, texts(found))
	}
	apply(t, h, p.Restore(reloaded, found))
	restored := capture(t, h)
	for _, d := range Expected(restored).Compare(restored) {
		t.Errorf("restored after a reload of firewalld, but: %s", &d)
	}
}
