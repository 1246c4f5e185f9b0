//go:build linux

package nftwire

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestCovered pairs the rules of each iptables recording with what iptables-save printed of them. A recording
// NAME.rules has the arguments of iptables-nft (of ip6tables-nft behind "6 ") and, behind "nft " or "ipset ",
// those of nft and ipset; NAME-VERSION.save and .save6 is what that version's iptables-nft-save printed then.
// Whatever nft put into an iptables chain must not count as covered unless the text says it.
func TestCovered(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.save")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recordings of iptables: %v", err)
	}
	for _, path := range paths {
		base := strings.TrimSuffix(path, ".save")
		t.Run(filepath.Base(base), func(t *testing.T) {
			ruleset := load(t, base)
			for _, family := range []netstate.Family{netstate.IPv4, netstate.IPv6} {
				name := base + ".save"
				if family == netstate.IPv6 {
					name += "6"
				}
				saved, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				checkCovered(t, ruleset, family, string(saved))
			}
		})
	}
}

func checkCovered(t *testing.T, ruleset *netstate.Ruleset, family netstate.Family, saved string) {
	t.Helper()
	tables, err := netstate.ParseIptablesSave(saved)
	if err != nil {
		t.Fatal(err)
	}
	p, rules := netstate.NftPrinter{}, 0
	for _, table := range tables {
		for _, chain := range table.Chains {
			behind := ruleset.XTables(family, table.Name, chain.Name)
			if len(behind) != len(chain.Rules) {
				t.Errorf("%v %s %s: %d rules saved, %d behind them", family, table.Name, chain.Name, len(chain.Rules), len(behind))
				continue
			}
			for i, rule := range chain.Rules {
				rules++
				// The chain says what is right: "lies" is where nft's rules stand that the text does not show whole.
				if got, want := netstate.Covered(rule.Text, &behind[i]), chain.Name != "lies"; got != want {
					words := p.Rule(ruleset.Table(map[netstate.Family]string{netstate.IPv4: "ip", netstate.IPv6: "ip6"}[family], table.Name), &behind[i])
					t.Errorf("%v %s %s %d: covered %v, want %v\nsaved  %s\nkernel %s", family, table.Name, chain.Name, i+1, got, want, rule.Text, words)
				}
			}
		}
	}
	if rules == 0 {
		t.Errorf("%v: no rules", family)
	}
}

// TestCoveredLive does the same with the iptables of this machine.
func TestCoveredLive(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.rules")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no lists of rules: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c := newNamespace(t)
			list, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(list)) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
					addRule(t, line)
				}
			}
			var messages []byte
			ruleset, err := Read(func(m netlink.Message) ([]netlink.Message, error) {
				answers, err := c.Execute(m)
				for _, answer := range answers {
					messages = appendMessage(messages, answer)
				}
				return answers, err
			})
			if err != nil {
				t.Fatal(err)
			}
			base := strings.TrimSuffix(path, ".rules")
			if version, err := exec.Command("iptables-nft", "--version").Output(); err == nil {
				base += "-" + strings.TrimPrefix(strings.Fields(string(version))[1], "v")
			}
			if *record {
				text, err := exec.Command("nft", "-a", "list", "ruleset").Output()
				if err != nil {
					t.Fatal(err)
				}
				writeFile(t, base+".netlink", messages)
				writeFile(t, base+".txt", text)
			}
			for _, of := range []struct {
				family  netstate.Family
				program string
				name    string
			}{{netstate.IPv4, "iptables-nft-save", ".save"}, {netstate.IPv6, "ip6tables-nft-save", ".save6"}} {
				saved, err := exec.Command(of.program).Output()
				if err != nil {
					t.Fatalf("%s: %v", of.program, err)
				}
				if *record {
					writeFile(t, base+of.name, saved)
				}
				checkCovered(t, ruleset, of.family, string(saved))
			}
		})
	}
}

// addRule runs one line of a list.
func addRule(t *testing.T, line string) {
	t.Helper()
	program, arguments := "iptables-nft", line
	if rest, ok := strings.CutPrefix(line, "nft "); ok {
		program, arguments = "nft", rest
	} else if rest, ok := strings.CutPrefix(line, "ipset "); ok {
		program, arguments = "ipset", rest
	} else if rest, ok := strings.CutPrefix(line, "6 "); ok {
		program, arguments = "ip6tables-nft", rest
	}
	// The shell splits at its quotes.
	if out, err := exec.Command("sh", "-c", program+" "+arguments).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
