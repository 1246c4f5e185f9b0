//go:build linux

package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Everything that engines program, taken away rule by rule and chain by chain, comes back by undo as it was.
func TestIptablesOfEngines(t *testing.T) {
	var files []string
	for _, engine := range []string{"20.10.24-noproxy-ip6tables", "28.5.2-noproxy", "29.7.2-iptables-noproxy"} {
		for _, file := range []string{"iptables-save.v4", "ip6tables-save.v6"} {
			files = append(files, filepath.Join("../netstate/fixture/testdata", engine, file))
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tables, err := netstate.ParseIptablesSave(string(text))
		if err != nil {
			t.Fatal(err)
		}
		command := strings.TrimSuffix(filepath.Base(file)[:strings.IndexByte(filepath.Base(file), '-')], "-")
		for _, variant := range []string{"nft", "legacy"} {
			name := map[string]string{"nft": command, "legacy": command + "-legacy"}[variant]
			steps := flushed(name, tables)
			if len(steps) == 0 {
				continue
			}
			t.Run(filepath.Base(filepath.Dir(file))+"/"+name, func(t *testing.T) {
				ownNetns(t)
				load(t, command+"-"+variant, string(text))
				state := func() string { // nft lists chains in the order in which they were made
					chains := strings.Split(policyCounters.ReplaceAllString(firewall(t), "$1"), "\n\t}")
					for i := range chains {
						chains[i] = strings.TrimSpace(chains[i])
					}
					slices.Sort(chains)
					return strings.Join(chains, "\n")
				}
				roundTrip(t, steps, state, func() {
					if text := run(t, command+"-"+variant+"-save"); strings.Contains(text, "\n-A ") {
						t.Errorf("rules are left:\n%s", text)
					}
				})
			})
		}
	}
}

// flushed returns the steps that take everything away.
func flushed(command string, tables []netstate.IptablesTable) []remediate.Step {
	var steps []remediate.Step
	for _, table := range tables {
		var chains []remediate.Step
		for _, chain := range table.Chains {
			name := command + " " + table.Name + " " + chain.Name
			texts := []string{chainStart}
			for _, rule := range chain.Rules {
				texts = append(texts, rule.Text)
			}
			texts = append(texts, chainEnd)
			for len(texts) > 2 {
				rest := slices.Concat(texts[:1], texts[2:])
				steps = append(steps, remediate.Set("iptables", name, lines(texts[:3]...), lines(rest[:2]...)))
				texts = rest
			}
			switch chain.Policy {
			case "":
				chains = append(chains, remediate.Remove("iptables", name+" chain", "-"))
			case "DROP":
				steps = append(steps, remediate.Set("iptables", name+" policy", "DROP", "ACCEPT"))
			}
		}
		steps = append(steps, chains...)
	}
	return steps
}
