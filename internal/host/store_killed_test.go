//go:build linux

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/google/go-cmp/cmp"
)

// A killer is a store whose process kills itself when it has been used often enough.
type killer struct {
	remediate.Store
	left *int
}

func (k killer) tick() {
	if *k.left--; *k.left == 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (k killer) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	k.tick()
	var changed []bool
	for _, step := range steps { // one by one: a transaction that cannot be cut is not what is tried here
		did, err := k.Store.Swap(ctx, []remediate.Step{step})
		if err != nil {
			return changed, err
		}
		changed = append(changed, did...)
		k.tick()
	}
	return changed, nil
}

// worksteps are steps of about every kind, for the yard.
var worksteps = []remediate.Step{
	remediate.Set("link", "br0", "up", "down"),
	remediate.Set("link", "veth1 master", "br0", "br1"),
	remediate.Set("bridgeport", "veth1 isolated", "on", "off"),
	remediate.Add("addr", "10.3.0.1/24 dev eth0", "broadcast 10.3.0.255"),
	remediate.Add("route", "192.0.9.0/24", "via 10.3.0.2 dev eth0"),
	remediate.Add("rule", "90: from 10.3.0.0/24 lookup 77", "-"),
	remediate.Add("iptables", "iptables filter DOCKER-FORWARD chain", "-"),
	remediate.Set("iptables", "iptables filter DOCKER-FORWARD", "^\n$", "^\n-i docker0 -j ACCEPT\n$"),
	remediate.Set("iptables", "iptables filter FORWARD", "-j DOCKER-USER", "-j DOCKER-USER\n-j DOCKER-FORWARD"),
	remediate.Set("nft", "inet fence forward", "ip saddr @hosts drop", "ip daddr 172.17.0.2 accept\nip saddr @hosts drop"),
	remediate.Set("sysctl", "net.ipv4.ip_forward", "0", "1"),
	remediate.Set("sysctl", "net.ipv6.conf.all.forwarding", "0", "1"),
}

// TestProcess is no test but the process that is killed: killedAtEach starts it.
func TestProcess(t *testing.T) {
	var left int
	var directory, root string
	if n, _ := fmt.Sscanf(os.Getenv("NETCHECK_STORE_KILL"), "%d %q %q", &left, &directory, &root); n != 3 {
		t.Skip("is started by killedAtEach")
	}
	var plan remediate.Plan
	if err := json.Unmarshal([]byte(os.Getenv("NETCHECK_STORE_PLAN")), &plan); err != nil {
		t.Fatal(err)
	}
	m := machine{root}
	stores := remediate.Stores{}
	for kind, store := range m.stores() {
		stores[kind] = killer{store, &left}
	}
	journal := &remediate.Journal{Dir: directory}
	if _, err := journal.Apply(context.Background(), &plan, stores, m.facts(nil)); err != nil {
		t.Fatal(err)
	}
}

// A process that is killed at any step leaves a host that undo puts in order.
func TestKilledHost(t *testing.T) {
	ownNetns(t)
	ip(t, yard+busy)
	load(t, "iptables-nft", rulesBefore)
	nft(t, fence)
	machine{}.killedAtEach(t, worksteps, func() string { return whole(t) + policyCounters.ReplaceAllString(firewall(t), "$1") })
}

// killedAtEach kills a process that makes the steps before and behind each of them, and undoes what it did.
func (m machine) killedAtEach(t *testing.T, steps []remediate.Step, state func() string) {
	t.Helper()
	plan, err := json.Marshal(remediate.Plan{Steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	before := state()
	ctx := context.Background()
	killed := 0
	for at := 1; ; at++ {
		directory := filepath.Join(t.TempDir(), "journal")
		child := exec.Command(os.Args[0], "-test.run=^TestProcess$")
		child.Env = append(os.Environ(), fmt.Sprintf("NETCHECK_STORE_KILL=%d %q %q", at, directory, m.root), "NETCHECK_STORE_PLAN="+string(plan))
		out, err := child.CombinedOutput()
		var exit *exec.ExitError
		done := err == nil
		if !done && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
			t.Fatalf("killed at %d: %v\n%s", at, err, out)
		}
		killed++
		journal := &remediate.Journal{Dir: directory}
		if _, err := journal.Undo(ctx, "", m.stores(), m.facts(nil)); err != nil {
			t.Fatalf("killed at %d: undo: %v", at, err)
		}
		if diff := cmp.Diff(before, state()); diff != "" {
			t.Fatalf("killed at %d: not restored:\n%s", at, diff)
		}
		if done {
			break
		}
	}
	if killed < len(steps)+1 {
		t.Errorf("killed at %d points only", killed)
	}
}
