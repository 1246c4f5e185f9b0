//go:build linux

package host

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// TestNftTableAsTheEngineMadeIt makes engine 29's tables anew from what they say: the kernel then holds the
// same expressions as those that nft made for the engine.
func TestNftTableAsTheEngineMadeIt(t *testing.T) {
	for _, name := range []string{"29.7.2-nftables-proxy", "29.7.2-nftables-noproxy"} {
		t.Run(name, func(t *testing.T) {
			ownNetns(t)
			recorded, err := fixture.Text(name, "nft.txt")
			if err != nil {
				t.Fatal(err)
			}
			nft(t, recorded)
			c, err := dialNetfilter(netns{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			whole, err := ReadNft(context.Background(), c)
			if err != nil {
				t.Fatal(err)
			}
			var steps []remediate.Step
			for i := range whole.Tables {
				if table := &whole.Tables[i]; table.Name == "docker-bridges" {
					steps = append(steps, stepsOf(table)...)
				}
			}
			roundTrip(t, steps, func() string { return run(t, "nft", "list", "ruleset") }, func() {
				for _, family := range []string{"ip", "ip6"} {
					if diff := cmp.Diff(listTable(t, family, "docker-bridges"), listTable(t, family, "copy")); diff != "" {
						t.Errorf("%s: %s", family, diff)
					}
					for _, chain := range whole.Table(family, "docker-bridges").Chains {
						var keys [2]string
						for i, table := range []string{"docker-bridges", "copy"} {
							rules, err := nftRules(c, nftFamilies[family], table, chain.Name)
							if err != nil {
								t.Fatal(err)
							}
							for _, rule := range rules {
								keys[i] += fmt.Sprintf("%q\n", rule.key)
							}
						}
						if keys[0] != keys[1] {
							t.Errorf("%s %s: not the same expressions:\n%s", family, chain.Name, cmp.Diff(keys[0], keys[1]))
						}
					}
				}
			})
		})
	}
}

// stepsOf are the steps that make a copy of a table.
func stepsOf(table *netstate.NftTable) []remediate.Step {
	at := table.Family + " copy"
	steps := []remediate.Step{remediate.Add("nft", at, "-")}
	var fill []remediate.Step
	printer := netstate.NftPrinter{}
	for i := range table.Sets {
		set := &table.Sets[i]
		if set.Anonymous {
			continue
		}
		steps = append(steps, remediate.Add("nft", at+" "+set.Name+" map", "type ifname : verdict"))
		for _, element := range printer.Elements(table, set) {
			key, verdict, _ := strings.Cut(element, " : ")
			fill = append(fill, remediate.Add("nft", at+" "+set.Name+" element "+key, verdict))
		}
	}
	for i := range table.Chains {
		chain := &table.Chains[i]
		value := "-"
		if h := chain.Hook; h != nil {
			value = fmt.Sprintf("type %s hook %s priority %d; policy %s;", h.Type, h.Name, h.Priority, h.Policy)
		}
		steps = append(steps, remediate.Add("nft", at+" "+chain.Name+" chain", value))
		rules := []string{"^"}
		for k := range chain.Rules {
			rules = append(rules, printer.Rule(table, &chain.Rules[k]))
		}
		if len(rules) > 1 {
			fill = append(fill, remediate.Set("nft", at+" "+chain.Name, lines("^", "$"), lines(append(rules, "$")...)))
		}
	}
	return append(steps, fill...)
}

// listTable returns what nft says of a table, line by line in order.
func listTable(t *testing.T, family, table string) string {
	t.Helper()
	out, err := exec.Command("nft", "-s", "list", "table", family, table).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := sortedLines(strings.Replace(string(out), "table "+family+" "+table, "table", 1))
	for i, line := range all {
		if strings.Contains(line, " : jump ") || strings.Contains(line, "iifname != {") {
			words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t,", r) }) // nft orders elements as it finds them
			slices.Sort(words)
			all[i] = strings.Join(words, " ")
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}
