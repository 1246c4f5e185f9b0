//go:build linux

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// TestSavedReport breaks a host in several ways and holds the live report against those of its snapshot,
// judged here, where there is neither that engine nor that network, and against that of the redacted one.
func TestSavedReport(t *testing.T) {
	lab.Need(t)
	path := buildPlugin(t)
	for i, test := range []struct{ name, inject string }{
		{"forwarding off", `sysctl -qw net.ipv4.ip_forward=0`},
		{"a rule for the client's network", `iptables -I FORWARD 1 -s 203.0.113.0/24 -o docker0 -m comment --comment 'not 203.0.113.9' -j DROP`},
		{"a set in nftables", `nft -f - <<-EOF
			table inet mine {
				set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 203.0.113.4-203.0.113.77 }; }
				chain c { type filter hook forward priority 5; policy accept; ip saddr @s counter drop; }
			}
			EOF`},
		{"an address in nftables", `nft add table ip mine; nft 'add chain ip mine c { type filter hook prerouting priority -250 ; }'; nft add rule ip mine c ip daddr 198.51.100.0/24 ip saddr 203.0.113.9 drop`},
		{"a route beside", `ip route add 203.0.113.0/25 via 198.51.100.77`},
		{"all well", `:`},
	} {
		for _, suite := range suitesOf(nil, i) {
			t.Run(test.name+"/"+suite, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, lab.Options{Suite: suite, Firewalld: i%2 == 0}, path)
				b.web([]string{"-p", "80:80", "-p", "127.0.0.1:81:80"}, nil)
				b.inject(test.inject)
				live, status := b.netcheck("web")
				text, exit := b.run("docker", "netcheck", "snapshot", "web")
				if exit != 0 {
					t.Fatalf("snapshot: exit status %d\n%s", exit, b.stderr)
				}

				saved, savedStatus := fromFile(t, path, text)
				if got, want := wordsOf(saved), wordsOf(live); !slices.Equal(got, want) || status != savedStatus {
					t.Errorf("live it is %d, from the file %d:\n%s", status, savedStatus, diff(strings.Join(want, "\n"), strings.Join(got, "\n")))
				}

				live, status = b.netcheck("--host")
				saved, savedStatus = fromFile(t, path, text, "--host")
				if got, want := wordsOf(saved), wordsOf(live); !slices.Equal(got, want) || status != savedStatus {
					t.Errorf("--host: live it is %d, from the file %d:\n%s", status, savedStatus, diff(strings.Join(want, "\n"), strings.Join(got, "\n")))
				}

				// The lab has documentation addresses; redaction is for those that are somebody's.
				s, err := netstate.Decode(strings.NewReader(strings.NewReplacer("198.51.100.", "5.9.12.", "203.0.113.", "91.12.7.",
					"c63364", "05090c", "cb0071", "5b0c07").Replace(text)))
				if err != nil {
					t.Fatal(err)
				}
				client := "91.12.7.9"
				s.Engine.Warnings = []string{client}
				public, publicStatus := fromSnapshot(t, path, s, client)
				s.Engine.Warnings = append(s.Engine.Warnings, wordsOf(public)...)
				redacted := s.Redact()
				want := redacted.Engine.Warnings[1:]
				client = redacted.Engine.Warnings[0]
				hidden, hiddenStatus := fromSnapshot(t, path, redacted, client)
				if got := wordsOf(hidden); !slices.Equal(got, want) || publicStatus != hiddenStatus {
					t.Errorf("with public addresses it is %d, redacted %d:\n%s", publicStatus, hiddenStatus, diff(strings.Join(want, "\n"), strings.Join(got, "\n")))
				}
				if again := strings.Join(wordsOf(hidden), "\n"); strings.Contains(again, "5.9.12.") || strings.Contains(again, "91.12.7.") {
					t.Errorf("a public address is in the report of the redacted snapshot:\n%s", again)
				}
				if !reflect.DeepEqual(redacted, redacted.Redact()) {
					t.Error("redacted twice, it is not the same")
				}
			})
		}
	}
}

func fromSnapshot(t *testing.T, path string, s *netstate.Snapshot, client string) (*checks.Report, int) {
	t.Helper()
	var text strings.Builder
	if err := s.Encode(&text); err != nil {
		t.Fatal(err)
	}
	return fromFile(t, path, text.String(), "--client", client)
}

// fromFile judges a document on this machine, alone and without an engine.
func fromFile(t *testing.T, path, text string, options ...string) (*checks.Report, int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "host.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"--from", file, "--format", "json"}, options...)...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///nowhere.sock")
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	exit := cmd.ProcessState.ExitCode()
	if exit == exitError {
		t.Fatalf("%v: %s", err, err.(*exec.ExitError).Stderr)
	}
	report := &checks.Report{}
	if err := json.Unmarshal(out, report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return report, exit
}

// wordsOf returns what a report says, without what differs from reading to reading: counters and times.
func wordsOf(r *checks.Report) []string {
	var lines []string
	for _, j := range r.Targets {
		lines = append(lines, checks.Name(j.Target)+" "+j.Host.String()+" "+j.Client.String()+" "+string(j.Status))
		for _, result := range j.Results {
			lines = append(lines, result.Check+" "+string(result.Status)+" "+result.Reason)
			for _, f := range result.Findings {
				lines = append(lines, f.Object+" | "+f.Problem+" | "+f.Hits+" | "+f.SetBy+" | "+f.Advice+" | "+f.Follows)
			}
		}
	}
	return lines
}
