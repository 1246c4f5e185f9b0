package checks_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

// report judges every container of a snapshot.
func report(t testing.TB, s *netstate.Snapshot) *checks.Report {
	t.Helper()
	for _, c := range s.Containers {
		s.Asked = append(s.Asked, c.ID)
	}
	targets, _, err := checks.Targets(s, checks.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	return checks.Judge(checks.Suite, checks.NewHost(s), targets)
}

// words returns all that a report says: one line a check, finding and note.
func words(r *checks.Report) []string {
	var lines []string
	for _, j := range r.Targets {
		lines = append(lines, fmt.Sprint(checks.Name(j.Target), " ", j.Host, " ", j.Client, " ", j.To, " ", j.Status))
		for _, result := range j.Results {
			lines = append(lines, fmt.Sprint(result.Check, " ", result.Status, " ", result.Reason))
			for _, f := range result.Findings {
				lines = append(lines, fmt.Sprint(f.Object, " | ", f.Problem, " | ", f.Hits, " | ", f.Advice, " | ", f.Follows, " | ", strings.Join(f.Evidence, " | ")))
			}
		}
	}
	return lines
}

// public returns a captured host whose uplink is somebody's in the world, with faults that name addresses.
func public(t testing.TB, name string) *netstate.Snapshot {
	t.Helper()
	s, err := fixture.Case(name)
	if err != nil {
		t.Fatal(err)
	}
	if s.Host.Nft == nil { // not captured: there be none
		delete(s.Missing, netstate.Key{Part: netstate.Nftables})
	}
	for i := range s.Host.Links { // the capture had nothing at the other end
		s.Host.Links[i].Carrier = true
	}
	for i := range s.Host.Iptables {
		for j := range s.Host.Iptables[i].Tables {
			for k := range s.Host.Iptables[i].Tables[j].Chains {
				if c := &s.Host.Iptables[i].Tables[j].Chains[k]; c.Name == "FORWARD" && s.Host.Iptables[i].Family == netstate.IPv4 {
					for _, rule := range []string{"-s 203.0.113.0/24 -j ACCEPT", "-s 198.51.0.0/16 -o brA -p tcp -m comment --comment \"from 198.51.100.77\" -j DROP",
						"-m iprange --src-range 203.0.113.4-203.0.113.77 -j REJECT"} {
						c.Rules = append([]netstate.IptablesRule{{Text: rule}}, c.Rules...)
					}
				}
			}
		}
	}
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	s, err = netstate.Decode(strings.NewReader(strings.NewReplacer("203.0.113.", "5.9.12.", "198.51.", "91.12.", "cb0071", "05090c", "2001:db8:", "2a01:4f8:", "20010db8", "2a0104f8").Replace(b.String())))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRedactedReport says that a report of a redacted snapshot is the redacted report.
func TestRedactedReport(t *testing.T) {
	for _, name := range fixture.Cases() {
		t.Run(name, func(t *testing.T) {
			s := public(t, name)
			before := report(t, s)
			// What the report says is redacted as a part of the snapshot, so that the same stands for the same.
			s.Engine.Warnings = append(s.Engine.Warnings, words(before)...)
			redacted := s.Redact()
			want := redacted.Engine.Warnings[len(redacted.Engine.Warnings)-len(words(before)):]
			redacted.Asked = nil
			got := words(report(t, redacted))
			if !reflect.DeepEqual(got, want) {
				for i := range min(len(got), len(want)) {
					if got[i] != want[i] {
						t.Errorf("redacted, it says\n\t%s\nand not\n\t%s", got[i], want[i])
					}
				}
			}
			if text := strings.Join(got, "\n"); strings.Contains(text, "5.9.12.") {
				t.Error("the report has a public address")
			}
		})
	}
}

// TestReportOfDocument says that a report is the same from a saved snapshot.
func TestReportOfDocument(t *testing.T) {
	for _, name := range fixture.Cases() {
		s := public(t, name)
		var b bytes.Buffer
		if err := s.Encode(&b); err != nil {
			t.Fatal(err)
		}
		saved, err := netstate.Decode(&b)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := words(report(t, saved)), words(report(t, s)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the reports differ", name)
		}
	}
}
