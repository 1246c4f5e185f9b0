//go:build linux

package probe

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"golang.org/x/sys/unix"
)

const counters = `*filter
:FORWARD DROP [POLICY:0]
:USER - [0:0]
[JUMP:0] -A FORWARD -j USER
[0:0] -A FORWARD -j USER
[USER:0] -A USER -m comment --comment "not \"-j ACCEPT" -j DROP
COMMIT
`

// countersAt returns what iptables-legacy-save printed when the counters were those.
func countersAt(t *testing.T, pairs ...string) *netstate.IptablesSet {
	t.Helper()
	tables, err := netstate.ParseIptablesSave(strings.NewReplacer(pairs...).Replace(counters))
	if err != nil {
		t.Fatal(err)
	}
	return &netstate.IptablesSet{Family: netstate.IPv4, Variant: "legacy", Tables: tables}
}

func TestCounted(t *testing.T) {
	before := countersAt(t, "POLICY", "5", "JUMP", "7", "USER:0", "7:0")
	for _, c := range []struct {
		name string
		at   []string
		want []string
	}{
		{"the rule drops", []string{"POLICY", "5", "JUMP", "9", "USER:0", "9:0"}, []string{
			`iptables-legacy filter FORWARD 1: -j USER: jump USER (its counter rose by 2)`,
			`iptables-legacy filter USER 1: -m comment --comment "not \"-j ACCEPT" -j DROP: drop (its counter rose by 2)`}},
		{"other traffic is dropped elsewhere", []string{"POLICY", "6", "JUMP", "9", "USER:0", "8:0"}, []string{
			`iptables-legacy filter FORWARD 1: -j USER: jump USER (its counter rose by 2)`,
			`iptables-legacy filter USER 1: -m comment --comment "not \"-j ACCEPT" -j DROP: drop of this or other traffic (its counter rose by 1)`,
			`iptables-legacy filter FORWARD policy DROP: drop of this or other traffic (its counter rose by 1)`}},
	} {
		var got []string
		for _, r := range counted(before, countersAt(t, c.at...)) {
			got = append(got, r.Object+": "+r.Did())
			if r.Hop != packet.Accept {
				t.Errorf("%s: %s at %s", c.name, r.Object, r.Hop)
			}
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s:\n%s\nshould be\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	if got := counted(nil, before); got != nil {
		t.Errorf("of one reading: %v", got)
	}
}

// TestLegacyEnds holds that a program that hangs ends with the context.
func TestLegacyEnds(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "iptables-legacy-save"), []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := readLegacy(ctx, netstate.IPv4); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

const dropFormatText = `name: kfree_skb
ID: 2310
format:
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:void * location;	offset:16;	size:8;	signed:0;
	field:unsigned short protocol;	offset:32;	size:2;	signed:0;
	field:enum skb_drop_reason reason;	offset:36;	size:4;	signed:0;

print fmt: "reason: %s", __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 12, "NETFILTER_DROP" })
`

func TestDropFormat(t *testing.T) {
	f, err := parseDropFormat(dropFormatText)
	if err != nil || f.id != 2310 {
		t.Fatalf("%+v, %v", f, err)
	}
	record := make([]byte, 40)
	binary.NativeEndian.PutUint16(record[32:], unix.ETH_P_IP)
	binary.NativeEndian.PutUint32(record[36:], 12)
	if d, ok := f.drop(record, unix.ETH_P_IP); !ok || d.Reason != "NETFILTER_DROP" || d.Where != "" || !d.Unsure {
		t.Errorf("%+v, %v", d, ok)
	}
	if _, ok := f.drop(record, unix.ETH_P_IPV6); ok {
		t.Error("a packet of another protocol is taken for the flow's")
	}
	if _, ok := f.drop(record[:39], unix.ETH_P_IP); ok {
		t.Error("half a record is read")
	}
	if _, err := parseDropFormat(strings.ReplaceAll(dropFormatText, "reason;", "why;")); err == nil {
		t.Error("a kernel that gives no reasons is taken for one that does")
	}
}
