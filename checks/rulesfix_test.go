//go:build linux

package checks

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	machine "github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/nftwire"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// newNamespace gives the test a network namespace of its own, and connects to its nf_tables.
func newNamespace(t *testing.T) *netlink.Conn {
	t.Helper()
	lab.OwnNetns(t, "nft")
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func nft(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, out, script)
	}
}

func nftList(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("nft", "-s", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(out), "\n")
}

// unordered returns nft's lines, which list a chain that was called elsewhere last and elements in any
// order, in one order.
func unordered(lines []string) []string {
	text := strings.Join(lines, "\n")
	for _, elements := range regexp.MustCompile(`elements = \{[^}]*\}`).FindAllString(text, -1) {
		each := strings.FieldsFunc(strings.TrimRight(elements[len("elements = {"):], "}"), func(r rune) bool { return r == ',' || r == '\n' })
		for i := range each {
			each[i] = strings.TrimSpace(each[i])
		}
		slices.Sort(each)
		text = strings.Replace(text, elements, "elements = { "+strings.Join(each, ", ")+" }", 1)
	}
	lines = strings.Split(text, "\n")
	slices.Sort(lines)
	return lines
}

// However the tables of engine 29's nftables backend were broken, the fix makes them what the engine had
// made, and undo what they were.
func TestNftablesComeBack(t *testing.T) {
	for _, name := range []string{"29.7.2-nftables-proxy", "29.7.2-nftables-noproxy"} {
		whole, err := fixture.Text(name, "nft.txt")
		if err != nil {
			t.Fatal(err)
		}
		for _, breakage := range []struct{ name, script string }{
			{"gone", "flush ruleset"},
			{"one table gone", "delete table ip6 docker-bridges"},
			{"flushed", "flush table ip docker-bridges\nflush table ip6 docker-bridges"},
			{"some chains", "flush chain ip docker-bridges filter-forward-in__brA\nflush chain ip docker-bridges nat-prerouting-and-output\nflush chain ip6 docker-bridges raw-PREROUTING"},
			{"elements", "flush map ip docker-bridges filter-forward-in-jumps\ndelete element ip6 docker-bridges nat-postrouting-out-jumps { \"br6\" }"},
			{"another element", "delete element ip docker-bridges filter-forward-in-jumps { \"brA\" }\nadd element ip docker-bridges filter-forward-in-jumps { \"brA\" : jump filter-forward-in__br6 }"},
			{"elements of other verdicts", "delete element ip docker-bridges filter-forward-in-jumps { \"brA\" }\nadd element ip docker-bridges filter-forward-in-jumps { \"brA\" : goto filter-forward-in__br6 }\n" +
				"delete element ip docker-bridges nat-postrouting-out-jumps { \"brA\" }\nadd element ip docker-bridges nat-postrouting-out-jumps { \"brA\" : drop }\n" +
				"delete element ip docker-bridges filter-forward-out-jumps { \"brA\" }\nadd element ip docker-bridges filter-forward-out-jumps { \"brA\" : accept }"},
			{"no hook", "flush chain ip docker-bridges nat-PREROUTING\ndelete chain ip docker-bridges nat-PREROUTING\nadd chain ip docker-bridges nat-PREROUTING\n" +
				"add rule ip docker-bridges nat-PREROUTING ip saddr 198.51.100.7 accept"},
			{"another hook", "flush chain ip docker-bridges filter-FORWARD\ndelete chain ip docker-bridges filter-FORWARD\nadd chain ip docker-bridges filter-FORWARD { type filter hook input priority 7; policy drop; }\n" +
				"add rule ip docker-bridges filter-FORWARD oifname vmap @filter-forward-in-jumps"},
			{"reversed", "flush chain ip docker-bridges filter-forward-in__brA\n" +
				"add rule ip docker-bridges filter-forward-in__brA counter drop comment \"UNPUBLISHED PORT DROP\"\n" +
				"add rule ip docker-bridges filter-forward-in__brA iifname \"brA\" counter accept comment \"ICC\"\n" +
				"add rule ip docker-bridges filter-forward-in__brA ct state established,related counter accept\n"},
			{"behind somebody else's", "insert rule ip docker-bridges filter-forward-in__brA limit rate 5/second accept\n" +
				"flush chain ip docker-bridges nat-postrouting-out__brA\nadd rule ip docker-bridges nat-postrouting-out__brA tcp dport { 22, 23 } accept\n"},
			{"altered", "flush chain ip docker-bridges nat-prerouting-and-output\n" +
				"add rule ip docker-bridges nat-prerouting-and-output iifname != \"brA\" tcp dport 8080 counter dnat to 192.0.2.9:80 comment \"DNAT\"\n" +
				"add rule ip docker-bridges nat-prerouting-and-output ip saddr 198.51.100.7 accept\n"},
			{"half resurrected", "flush ruleset\nadd table ip docker-bridges\nadd chain ip docker-bridges raw-PREROUTING\nadd chain ip docker-bridges nat-prerouting-and-output\n" +
				"add chain ip docker-bridges filter-forward-in__brA\nadd rule ip docker-bridges raw-PREROUTING ip daddr 192.0.2.2 iifname != \"brA\" counter drop comment \"DROP DIRECT ACCESS\"\n"},
			{"dormant", "add table ip docker-bridges { flags dormant; }"},
		} {
			t.Run(name+" "+breakage.name, func(t *testing.T) {
				conn := newNamespace(t)
				nft(t, whole)
				programmed := nftList(t)
				nft(t, breakage.script)
				broken := nftList(t)

				s := recorded(t, name)
				on := strings.HasSuffix(name, "-proxy")
				s.Engine.Config.UserlandProxy, s.Host.Links = &on, nil
				look := func() *Host {
					ruleset, err := nftwire.Read(conn.Execute)
					if err != nil {
						t.Fatal(err)
					}
					s.Host.Nft = ruleset
					return NewHost(s)
				}
				h := look()
				var fixes []*remediate.Fix
				for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
					if fix := h.rulesFix(family); fix != nil {
						fixes = append(fixes, fix)
					}
				}
				plan, err := remediate.NewPlan(fixes, false)
				if err != nil || len(plan.Steps) == 0 || plan.Opens {
					t.Fatalf("%v: %+v", err, plan)
				}
				journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
				if _, err := journal.Apply(context.Background(), plan, machine.Stores(), machine.Facts(nil)); err != nil {
					t.Fatal(err)
				}
				if left := look().compared(); len(left) > 0 {
					t.Errorf("not brought back: %v", &left[0])
				}
				now := nftList(t)
				for _, line := range programmed {
					if !slices.Contains(now, line) && !strings.Contains(line, "elements =") && !strings.Contains(line, ": jump") {
						t.Errorf("there is no %s", line)
					}
				}
				if _, err := journal.Undo(context.Background(), "", machine.Stores(), machine.Facts(nil)); err != nil {
					t.Fatal(err)
				}
				now = nftList(t)
				if diff := cmp.Diff(unordered(broken), unordered(now)); diff != "" {
					t.Errorf("undo left:\n%s", diff)
				}
			})
		}
	}
}

// A file that says 0 is a matter of the next boot where the engine does not switch forwarding on: the fix has
// it say 1, and is made with --persist alone.
func TestForwardingOffAtBoot(t *testing.T) {
	const file = "/etc/sysctl.d/99-hardening.conf"
	for name, want := range map[string]string{"29.7.2-nftables-noproxy": "a = 1\n net.ipv4.ip_forward=1 \n", "29.7.2-iptables-noproxy": ""} {
		s := recorded(t, name)
		s.Files = map[string]string{file: "a = 1\n net.ipv4.ip_forward=0 \n"}
		report := judgeRecorded(t, s)
		fixes, _ := report.Fixes(Consent{})
		now, err := remediate.NewPlan(fixes, false)
		if err != nil || len(now.Steps)+len(now.Titles) > 0 {
			t.Errorf("%s: without --persist: %v, %+v", name, err, now)
		}
		kept, err := remediate.NewPlan(fixes, true)
		switch {
		case err != nil:
			t.Error(err)
		case want == "" && (report.Verdict != Pass || len(kept.Steps) > 0):
			t.Errorf("%s switches forwarding on, and is warned of: %+v", name, kept)
		case want != "" && (report.Verdict != Warn || len(kept.Steps) != 1 || kept.Steps[0].Name != file || *kept.Steps[0].New != want):
			t.Errorf("%s: %s: %s", name, report.Verdict, kept.Diff())
		}
	}
}
