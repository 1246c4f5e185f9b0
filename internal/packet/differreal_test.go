//go:build linux

package packet

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// A capture is the rules that some program made on a real host, as its tools print them.
type capture struct {
	name   string
	save   [2]string // of iptables-save and ip6tables-save
	native string    // of nft list ruleset
}

// captures are those of the repository: Docker's of every generation, firewalld's, ufw's, kube-proxy's in
// both modes, and what libvirt, netavark and a service mesh add.
func captures(t testing.TB) []capture {
	t.Helper()
	text := func(name string) string {
		data, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			return ""
		}
		must(t, err)
		return string(data)
	}
	var all []capture
	dirs, err := filepath.Glob("../netstate/fixture/testdata/*")
	must(t, err)
	for _, dir := range append(dirs, "testdata/ufw", "testdata/kube-proxy") {
		all = append(all, capture{name: filepath.Base(dir), save: [2]string{text(dir + "/iptables-save.v4"), text(dir + "/ip6tables-save.v6")}})
	}
	files, err := filepath.Glob("../netstate/nftwire/testdata/*.nft")
	must(t, err)
	for _, name := range files {
		if !strings.HasSuffix(name, "words.nft") { // words has what no ruleset has together
			all = append(all, capture{name: filepath.Base(name), native: text(name)})
		}
	}
	return all
}

// The captured hosts' links and addresses become those of the test: two of their networks are the test's two.
var translations = []*strings.Replacer{
	strings.NewReplacer("ext0", "eth0", "203.0.113.10", "198.51.100.15", "brA", "br0", "192.0.2.", "172.17.0.", "brNI", "br1", "192.0.3.", "172.18.0."),
	strings.NewReplacer("ext0", "eth0", "203.0.113.10", "198.51.100.15", "br6", "br0", "192.0.5.", "172.17.0.", "fd00:5::", "fd00::", "brR", "br1", "192.0.6.", "172.18.0.", "fd00:6::", "fd01::"),
	strings.NewReplacer("ext0", "eth0", "203.0.113.10", "198.51.100.15", "docker0", "br0", "brSnat", "br1", "192.0.10.", "172.18.0."),
}

var (
	portWords = regexp.MustCompile(`(?:dport|tcp|udp) (?:\. )?\{? ?(\d+)`)
	setWords  = regexp.MustCompile(`--match-set (\S+)`)
)

// captured makes a setting of a capture in which one rule was deleted, changed, or put in.
func (g *generator) captured(c capture, id *uint32) *setting {
	s := &setting{from: c.name}
	names := translations[g.IntN(len(translations))]
	texts := []*string{&s.nftables[0], &s.nftables[1], &s.native}
	if c.native == "" && g.chance(40) {
		texts = []*string{&s.legacy[0], &s.legacy[1], &s.native}
	}
	all := ""
	for i, text := range []string{c.save[0], c.save[1], c.native} {
		*texts[i] = names.Replace(text)
		all += *texts[i]
	}
	var ports []port
	for _, m := range portWords.FindAllStringSubmatch(all, -1) {
		if n, err := strconv.ParseUint(m[1], 10, 16); err == nil && n > 0 && !slices.Contains(ports, port(n)) {
			ports = append(ports, port(n))
		}
	}
	for range triesPerSetting {
		*id++
		t := g.try(*id)
		if hasPorts(t.proto) && len(ports) > 0 && g.chance(70) {
			t.dport = pick(g, ports...)
		}
		s.tries = append(s.tries, t)
	}
	g.tries = s.tries
	for _, m := range setWords.FindAllStringSubmatch(all, -1) {
		family, entry := "inet", "172.17.0.0/24"
		if strings.Contains(m[1], "6") {
			family, entry = "inet6", "fd00::/64"
		}
		s.ipsets += fmt.Sprintf("create %s hash:net family %s -exist\nadd %s %s -exist\n", m[1], family, m[1], entry)
	}
	for range 10 {
		i := g.IntN(3)
		if *texts[i] != "" {
			g.family = []netstate.Family{netstate.IPv4, netstate.IPv6, netstate.IPv4}[i]
			if edited, ok := g.edit(*texts[i], i == 2); ok {
				*texts[i] = edited
				break
			}
		}
	}
	if g.chance(30) {
		g.sysctls(s)
	}
	if g.chance(40) {
		s.sysctls = append(s.sysctls, "net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1", "net.ipv4.conf.eth0.route_localnet=1", "net.ipv4.conf.br0.route_localnet=1")
	}
	return s
}

// swaps are the changes of a rule's text that leave it one.
var swaps = [][2]string{{"-j ACCEPT", "-j DROP"}, {"-j DROP", "-j ACCEPT"}, {"-j RETURN", "-j ACCEPT"}, {"! -i ", "-i "}, {"-i br0", "-i eth0"}, {"-o br0", "! -o br0"}, {"172.17.0.2", "172.17.0.3"},
	{"--dport 8080", "--dport 8081"}, {"--dport 80 ", "--dport 81 "}, {" accept", " drop"}, {" drop", " accept"}, {"NEW", "ESTABLISHED"}, {"RELATED,ESTABLISHED", "NEW"}, {"LOCAL", "UNICAST"}, {"-j REJECT", "-j ACCEPT"},
	{"established", "new"}, {"return", "accept"}, {"MASQUERADE", "RETURN"}, {`oifname "br0"`, `oifname != "br0"`}, {`iifname "br0"`, `iifname "eth0"`}}

// edit makes one change in a ruleset's text.
func (g *generator) edit(text string, native bool) (string, bool) {
	lines := strings.SplitAfter(text, "\n")
	var rules []int
	depth := 0
	for i, line := range lines {
		switch words := strings.TrimSpace(line); {
		case !native:
			if strings.HasPrefix(line, "-A ") {
				rules = append(rules, i)
			}
		case strings.HasPrefix(words, "chain "):
			depth = 1
		case strings.HasPrefix(words, "}"):
			depth = 0
		case depth == 1 && words != "" && !strings.Contains(words, " hook ") && strings.Count(words, "{") == strings.Count(words, "}"):
			rules = append(rules, i)
		}
	}
	if len(rules) == 0 {
		return text, false
	}
	at := rules[g.IntN(len(rules))]
	switch g.IntN(3) {
	case 0:
		lines = slices.Delete(lines, at, at+1)
	case 1:
		fits := slices.DeleteFunc(slices.Clone(swaps), func(s [2]string) bool { return !strings.Contains(lines[at], s[0]) })
		if len(fits) == 0 {
			return text, false
		}
		swap := pick(g, fits...)
		lines[at] = strings.Replace(lines[at], swap[0], swap[1], 1)
	default:
		made := fmt.Sprintf("\t\t%s daddr %s%s %s\n", ipFamily(g.family), pick(g, "", "!= "), g.addr(), pick(g, "drop", "accept", "return"))
		if !native {
			table := ""
			for _, line := range lines[:at] {
				if line != "" && line[0] == '*' {
					table = strings.TrimSpace(line[1:])
				}
			}
			made = g.rule(table, strings.Fields(lines[at])[1], nil)
		}
		lines = slices.Insert(lines, at, made)
	}
	return strings.Join(lines, ""), true
}
