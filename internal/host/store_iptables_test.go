//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// load feeds iptables-restore of a command.
func load(t *testing.T, command, text string) {
	t.Helper()
	child := exec.Command(command+"-restore", "--counters")
	child.Stdin = strings.NewReader(text)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%s-restore: %v\n%s", command, err, out)
	}
}

var (
	unpublished    = regexp.MustCompile(`(?m)^#.*\n| # handle \d+`)
	policyCounters = regexp.MustCompile(`(?m)^(:\S+ (?:ACCEPT|DROP)) \[.*\]`)
)

// firewall returns all rules of the thread's namespace with their counters, without times and handles.
func firewall(t *testing.T) string {
	t.Helper()
	var out string
	for _, command := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		out += run(t, command, "-c")
	}
	return unpublished.ReplaceAllString(out+run(t, "nft", "list", "ruleset"), "")
}

const rulesBefore = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
[0:0] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[0:0] -A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [5:300]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
[7:420] -A FORWARD -j DOCKER-USER
[1:60] -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[12:840] -A FORWARD -s 192.0.2.0/24 -m comment --comment "somebody's, \"quoted\"" -j DROP
[3:180] -A FORWARD -j REJECT --reject-with icmp-port-unreachable
[0:0] -A DOCKER-USER -j RETURN
COMMIT
`

// lines joins the rules of a value.
func lines(rules ...string) string { return strings.Join(rules, "\n") }

const (
	somebodys = `-s 192.0.2.0/24 -m comment --comment "somebody\'s, \"quoted\"" -j DROP`
	replies   = `-o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`
	reject    = `-j REJECT --reject-with icmp-port-unreachable`
	dnat      = `! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80`
)

func TestIptablesStore(t *testing.T) {
	for _, command := range []string{"iptables", "iptables-legacy"} {
		binary := map[string]string{"iptables": "iptables-nft", "iptables-legacy": "iptables-legacy"}[command]
		for _, test := range []struct {
			name  string
			setup string
			steps []remediate.Step
			want  []string // lines of the save afterwards
		}{
			{"append", rulesBefore, []remediate.Step{
				remediate.Set("iptables", command+" nat DOCKER", lines("-i docker0 -j RETURN", "$"), lines("-i docker0 -j RETURN", dnat, "$"))},
				[]string{"-A DOCKER " + dnat}},
			{"insert before a rule", rulesBefore, []remediate.Step{
				remediate.Set("iptables", command+" filter FORWARD", lines(replies, somebodys), lines(replies, "-o docker0 -j ACCEPT", somebodys))},
				[]string{"-A FORWARD -o docker0 -j ACCEPT\n[12:840]"}},
			{"written otherwise", rulesBefore, []remediate.Step{
				remediate.Set("iptables", command+" filter FORWARD", lines("^", "-j DOCKER-USER"), lines("^", "-p 6 --dport http -d 172.17.0.2 -j ACCEPT", "-j DOCKER-USER"))},
				[]string{"-A FORWARD -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT"}},
			{"move somebody's rule", rulesBefore, []remediate.Step{
				remediate.Set("iptables", command+" filter FORWARD", lines(replies, somebodys, reject), lines(replies, reject)),
				remediate.Set("iptables", command+" filter FORWARD", lines(reject, "$"), lines(reject, somebodys, "$"))},
				[]string{"icmp-port-unreachable\n[0:0] -A FORWARD " + somebodys}},
			{"take out somebody's rule", rulesBefore, []remediate.Step{
				remediate.Set("iptables", command+" filter FORWARD", lines(replies, somebodys), replies)}, nil},
			{"policy", rulesBefore, []remediate.Step{
				remediate.Set("iptables", command+" filter FORWARD policy", "ACCEPT", "DROP")},
				[]string{":FORWARD DROP"}},
			{"chains, jumps and rules of two tables", rulesBefore, []remediate.Step{
				remediate.Add("iptables", command+" filter DOCKER-FORWARD chain", "-"),
				remediate.Set("iptables", command+" filter DOCKER-FORWARD", lines("^", "$"), lines("^", "-i docker0 -j ACCEPT", "$")),
				remediate.Set("iptables", command+" filter DOCKER-FORWARD", lines("-i docker0 -j ACCEPT", "$"), lines("-i docker0 -j ACCEPT", "-o docker0 -j ACCEPT", "$")),
				remediate.Set("iptables", command+" nat DOCKER", lines("-i docker0 -j RETURN", "$"), lines("-i docker0 -j RETURN", dnat, "$")),
				remediate.Set("iptables", command+" filter FORWARD", lines("-j DOCKER-USER", replies), lines("-j DOCKER-USER", "-j DOCKER-FORWARD", replies))},
				[]string{"-A FORWARD -j DOCKER-FORWARD\n[1:60]"}},
		} {
			t.Run(command+"/"+test.name, func(t *testing.T) {
				ownNetns(t)
				load(t, binary, test.setup)
				state := func() string { return firewall(t) }
				if test.name == "policy" { // it is counted anew
					state = func() string { return policyCounters.ReplaceAllString(firewall(t), "$1") }
				}
				roundTrip(t, test.steps, state, func() {
					for _, want := range test.want {
						if text := firewall(t); !strings.Contains(text, want) {
							t.Errorf("%s\nis not in\n%s", want, text)
						}
					}
				})
			})
		}
	}
	// Tables that nobody has made yet: legacy ones stay when they are made.
	t.Run("from nothing", func(t *testing.T) {
		ownNetns(t)
		roundTrip(t, []remediate.Step{
			remediate.Set("iptables", "iptables raw PREROUTING", lines("^", "$"), lines("^", "-d 172.17.0.2/32 ! -i docker0 -j DROP", "$")),
			remediate.Add("iptables", "iptables nat DOCKER chain", "-"),
			remediate.Set("iptables", "iptables nat OUTPUT", lines("^", "$"), lines("^", "! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER", "$")),
			remediate.Set("iptables", "ip6tables filter FORWARD policy", "ACCEPT", "DROP"),
		}, func() string { return firewall(t) }, nil)
	})
}

func TestIptablesRefuses(t *testing.T) {
	ownNetns(t)
	load(t, "iptables-nft", rulesBefore)
	load(t, "iptables-legacy", rulesBefore)
	before := firewall(t)
	for _, test := range []struct {
		step remediate.Step
		want string
	}{
		{remediate.Set("iptables", "iptables filter FORWARD", lines("-j A", "-j B"), lines("-j A", "-j C", "-j B")), "iptables filter FORWARD: changed since it was read"},
		{remediate.Set("iptables", "iptables filter NONE", lines("^", "$"), lines("^", "-j ACCEPT", "$")), "iptables filter NONE: changed since it was read"},
		{remediate.Set("iptables", "iptables filter FORWARD", lines("^"), lines("^", "-j NOWHERE")), "iptables filter: "},
		{remediate.Set("iptables", "iptables-legacy filter FORWARD", lines("^"), lines("^", "-j NOWHERE")), "iptables filter: iptables-legacy-restore: exit status"},
		{remediate.Set("iptables", "iptables filter FORWARD", lines("^"), lines("^", "COMMIT")), "iptables filter FORWARD: iptables-nft-restore: exit status"},
		{remediate.Set("iptables", "iptables filter FORWARD", lines("^"), lines("^", "-j ACCEPT -A INPUT")), "iptables filter FORWARD: iptables-nft-restore: exit status"},
		{remediate.Set("iptables", "iptables filter FORWARD", "", "a\r\nb"), "iptables filter FORWARD: "},
		{remediate.Set("iptables", "iptables filter FORWARD policy", "ACCEPT", "QUEUE"), "iptables filter FORWARD policy: a policy is ACCEPT or DROP"},
		{remediate.Remove("iptables", "iptables nat DOCKER chain", "-"), "iptables nat DOCKER chain: changed since it was read: it holds 1 rules"},
		{remediate.Add("iptables", "iptables nat -F chain", "-"), `iptables: "iptables nat -F chain" is not`},
		{remediate.Add("iptables", "iptables; nat X chain", "-"), `iptables: "iptables; nat X chain" is not`},
		{remediate.Add("iptables", "iptables nat PREROUTING chain", "-"), `iptables: "iptables nat PREROUTING chain" is not`},
	} {
		journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
		_, err := journal.Apply(context.Background(), &remediate.Plan{Steps: []remediate.Step{test.step}}, Stores(), Facts(nil))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.step.Name, err, test.want)
		}
	}
	if diff := cmp.Diff(before, firewall(t)); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}
}

// While another program holds the lock of legacy iptables, nothing is done.
func TestIptablesLocked(t *testing.T) {
	ownNetns(t)
	path := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", path)
	release, err := machine{}.xtablesLock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (machine{}).xtablesLock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a lock that is held: %v", err)
	}
	release()
	release, err = machine{}.xtablesLock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// While somebody else makes and removes rules all the time, none of theirs is lost or doubled, and ours
// come and go.
func TestIptablesBesideOthers(t *testing.T) {
	for _, command := range []string{"iptables", "iptables-legacy"} {
		t.Run(command, func(t *testing.T) {
			ownNetns(t)
			binary := map[string]string{"iptables": "iptables-nft", "iptables-legacy": "iptables-legacy"}[command]
			t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
			load(t, binary, rulesBefore)
			file, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			stop, ended := make(chan struct{}), make(chan string, 1)
			theirs := 0
			go netns{file, ""}.do(func() error {
				for ; ; theirs++ {
					select {
					case <-stop:
						ended <- ""
						return nil
					default:
					}
					rule := []string{"-s", fmt.Sprintf("10.0.%d.%d/32", theirs/250, theirs%250+1), "-j", "ACCEPT"}
					for _, edit := range [][]string{{"-I", "FORWARD"}, {"-A", "FORWARD"}, {"-D", "FORWARD"}} {
						out, err := exec.Command(binary, append(append([]string{"--wait"}, edit...), rule...)...).CombinedOutput()
						if err != nil {
							ended <- fmt.Sprintf("%v: %v\n%s", edit, err, out)
							return nil
						}
					}
				}
			})
			ctx := context.Background()
			journal := &remediate.Journal{Dir: filepath.Join(t.TempDir(), "journal")}
			steps := []remediate.Step{
				remediate.Set("iptables", command+" filter FORWARD", lines("-j DOCKER-USER", replies), lines("-j DOCKER-USER", "-i docker0 -j ACCEPT", replies)),
				remediate.Set("iptables", command+" filter FORWARD", lines(replies, somebodys, reject), lines(replies, reject)),
			}
			for range 12 {
				if _, err := journal.Apply(ctx, &remediate.Plan{Steps: steps}, Stores(), Facts(nil)); err != nil {
					t.Errorf("apply: %v", err)
				}
				if _, err := journal.Undo(ctx, "", Stores(), Facts(nil)); err != nil {
					t.Errorf("undo: %v", err)
				}
			}
			close(stop)
			if wrong := <-ended; wrong != "" {
				t.Fatal(wrong)
			}
			var ours []string
			seen := map[string]int{}
			for _, line := range strings.Split(run(t, binary+"-save", "-t", "filter"), "\n") {
				if !strings.HasPrefix(line, "-A FORWARD") {
					continue
				}
				if strings.Contains(line, "-s 10.0.") {
					seen[line]++
				} else {
					ours = append(ours, strings.TrimPrefix(line, "-A FORWARD "))
				}
			}
			if diff := cmp.Diff([]string{"-j DOCKER-USER", replies, somebodys, reject}, ours); diff != "" {
				t.Error(diff)
			}
			if len(seen) != theirs {
				t.Errorf("of %d rules of theirs %d are there", theirs, len(seen))
			}
			for line, n := range seen {
				if n != 1 {
					t.Errorf("%s is there %d times", line, n)
				}
			}
			t.Logf("beside %d rules of theirs", theirs)
		})
	}
}

// Of a rule that somebody else made as well, ours is taken away; a step of several rules goes whole.
func TestIptablesDoubles(t *testing.T) {
	for _, command := range []string{"iptables", "iptables-legacy"} {
		for _, test := range []struct {
			name string
			next []string
			want []string
			err  bool
		}{
			{"one rule", []string{"-i docker0 -j ACCEPT"}, []string{"-i docker0 -j ACCEPT", "-j DOCKER-USER", replies, somebodys, reject}, false},
			{"two rules", []string{"-i docker0 -j ACCEPT", "-o docker0 -j ACCEPT"}, []string{"-i docker0 -j ACCEPT", "-j DOCKER-USER", replies, somebodys, reject}, true},
		} {
			t.Run(command+"/"+test.name, func(t *testing.T) {
				ownNetns(t)
				binary := map[string]string{"iptables": "iptables-nft", "iptables-legacy": "iptables-legacy"}[command]
				load(t, binary, rulesBefore)
				ctx := context.Background()
				step := remediate.Set("iptables", command+" filter FORWARD", lines("-j DOCKER-USER", replies), lines(append(append([]string{"-j DOCKER-USER"}, test.next...), replies)...))
				thing, err := parseThing(step.Name)
				if err != nil {
					t.Fatal(err)
				}
				made := transaction{saver: thing.saver, table: "filter", compiler: &compiler{rules: map[string]compiled{}}, steps: []remediate.Step{step}, things: []iptablesThing{thing}}
				if err := made.change(ctx, made.make); err != nil {
					t.Fatal(err)
				}
				run(t, binary, "-I", "FORWARD", "-i", "docker0", "-j", "ACCEPT")
				if err := made.change(ctx, made.dropDoubles); err != nil {
					t.Fatal(err)
				}
				if made.changed[0] || errors.Is(made.doubled, remediate.ErrChanged) != test.err {
					t.Errorf("changed %v, %v", made.changed, made.doubled)
				}
				table, err := thing.saved(ctx, "filter")
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, table.chains["FORWARD"].rules); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}
