//go:build linux

package nftwire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A recording is NAME.netlink, the kernel's messages as they came, and NAME.txt, what nft printed of the same ruleset
// (nft -a list ruleset). Both were made by TestLive -record from NAME.nft.
func recordings(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.netlink")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(path, ".netlink")
	}
	return paths
}

// decode reads messages that stand one behind another.
func decode(b []byte) (*netstate.Ruleset, error) {
	raw, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, err
	}
	d := NewDecoder()
	for _, m := range raw {
		if err := d.Add(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(m.Header.Type)}, Data: m.Data}); err != nil {
			return &d.Ruleset, err
		}
	}
	return &d.Ruleset, nil
}

func load(t *testing.T, path string) *netstate.Ruleset {
	t.Helper()
	messages, err := os.ReadFile(path + ".netlink")
	if err != nil {
		t.Fatal(err)
	}
	ruleset, err := decode(messages)
	if err != nil {
		t.Fatal(err)
	}
	return ruleset
}

// TestText compares our words for each rule and element with nft's own.
func TestText(t *testing.T) {
	for _, path := range recordings(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			compareText(t, load(t, path), text)
		})
	}
}

// usual makes of words that nft changed between 1.0 and 1.1 those of 1.1.
func usual(lines map[string]string) map[string]string {
	burst := regexp.MustCompile(`limit rate (over )?\d+/\w+( burst)?`)
	fragment := regexp.MustCompile(`(frag-off |frag-off & )(\d+)\b(?: (.=) (\d+)\b)?`)
	flags := regexp.MustCompile(`tcp flags ([\w,]+) / ([\w,]+)`)
	code := strings.NewReplacer("icmp code port-unreachable", "icmp code 3", "icmp code frag-needed", "icmp code 4", "icmpv6 code port-unreachable", "icmpv6 code 4",
		"icmpv6 code no-route", "icmpv6 code 0",
		" check missing", " oif missing", " check exists", " oif exists", "0x00000010/28", "0x00000010-0x0000001f")
	inline := regexp.MustCompile(`\{ [^{}]* \}`)
	for key, line := range lines {
		line = burst.ReplaceAllStringFunc(line, func(text string) string {
			if strings.HasSuffix(text, " burst") {
				return text
			}
			return text + " burst 5 packets"
		})
		line = fragment.ReplaceAllStringFunc(line, func(text string) string {
			return regexp.MustCompile(`\d+`).ReplaceAllStringFunc(text, func(number string) string {
				n, _ := strconv.Atoi(number)
				return fmt.Sprintf("%#x", n)
			})
		})
		line = flags.ReplaceAllStringFunc(line, func(text string) string {
			part := flags.FindStringSubmatch(text)
			return "tcp flags & (" + strings.ReplaceAll(part[2], ",", " | ") + ") == " + strings.ReplaceAll(part[1], ",", " | ")
		})
		line = inline.ReplaceAllStringFunc(code.Replace(line), func(set string) string {
			return "{ " + ordered(set[2:len(set)-2]) + " }"
		})
		if strings.Contains(key, " set ") {
			line = ordered(line)
		}
		lines[key] = line
	}
	return lines
}

// ordered sorts elements: nft 1.0 begins with the shortest name.
func ordered(elements string) string {
	each := strings.Split(elements, ", ")
	slices.Sort(each)
	return strings.Join(each, ", ")
}

func compareText(t *testing.T, ruleset *netstate.Ruleset, text []byte) {
	t.Helper()
	want, got := usual(listed(text)), usual(ours(ruleset))
	for key, line := range got {
		if strings.Contains(line, "xt match") || strings.Contains(line, "xt target") {
			delete(got, key) // nft may be built to translate what iptables made
			delete(want, key)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rules and elements (-nft +ours):\n%s", diff)
	}
	if len(want) == 0 {
		t.Error("nft printed no rule")
	}
}

// ours writes a ruleset in the shape of listed.
func ours(ruleset *netstate.Ruleset) map[string]string {
	p := netstate.NftPrinter{BigEndian: ruleset.BigEndian, Counters: true, Links: map[uint32]string{1: "lo"}}
	lines := map[string]string{}
	for i := range ruleset.Tables {
		table := &ruleset.Tables[i]
		for _, chain := range table.Chains {
			for j := range chain.Rules {
				if !chain.Bound {
					rule := &chain.Rules[j]
					lines[fmt.Sprintf("%s %s %s handle %d", table.Family, table.Name, chain.Name, rule.Handle)] = p.Rule(table, rule)
				}
			}
		}
		for j := range table.Sets {
			if set := &table.Sets[j]; !set.Anonymous && len(set.Elements) > 0 {
				lines[fmt.Sprintf("%s %s set %s", table.Family, table.Name, set.Name)] = strings.Join(p.Elements(table, set), ", ")
			}
		}
	}
	return lines
}

// listed reads the rules by handle and the elements by set from what nft -a list ruleset printed.
func listed(text []byte) map[string]string {
	lines := map[string]string{}
	var table, block, kind, pending, nested string
	scanner := bufio.NewScanner(bytes.NewReader(text))
	for scanner.Scan() {
		line, handle, _ := strings.Cut(strings.TrimSpace(scanner.Text()), " # handle ")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case kind == "chain" && strings.HasSuffix(line, "{"): // a chain inside a rule
			nested = line
		case nested != "" && line == "}":
			lines[fmt.Sprintf("%s %s handle %s", table, block, handle)] = strings.TrimSuffix(nested, ";") + " }"
			nested = ""
		case nested != "":
			nested += " " + line + ";"
		case pending != "":
			pending += " " + strings.Join(words, " ")
			if strings.HasSuffix(line, "}") {
				lines[fmt.Sprintf("%s set %s", table, block)] = strings.TrimSuffix(pending, " }")[len("elements = { "):]
				pending = ""
			}
		case words[0] == "table":
			table = words[1] + " " + words[2]
		case (words[0] == "chain" || words[0] == "set" || words[0] == "map") && strings.HasSuffix(line, "{"):
			kind, block = words[0], words[1]
		case words[0] == "elements":
			pending = strings.Join(words, " ")
			if strings.HasSuffix(line, "}") {
				lines[fmt.Sprintf("%s set %s", table, block)] = strings.TrimSuffix(pending, " }")[len("elements = { "):]
				pending = ""
			}
		case kind == "chain" && handle != "":
			lines[fmt.Sprintf("%s %s handle %s", table, block, handle)] = line
		case line == "}":
			kind = ""
		}
	}
	return lines
}

// TestKnown says that the recordings have nothing that is not understood: they are what hosts have.
func TestKnown(t *testing.T) {
	for _, path := range recordings(t) {
		ruleset := load(t, path)
		text, err := json.Marshal(ruleset)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(`"opaque"`)) {
			t.Errorf("%s: something is opaque: %s", path, text)
		}
		var back netstate.Ruleset
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if diff := cmp.Diff(ruleset, &back); diff != "" {
			t.Errorf("%s: changed on its way through JSON:\n%s", path, diff)
		}
	}
}
