//go:build linux

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/remediate"
	"golang.org/x/sys/unix"
)

// An iptablesStore holds the rules, chains and policies of iptables, kind "iptables". A name begins with
// the command as objects do (iptables, ip6tables, iptables-legacy, ip6tables-legacy), the table and the
// chain, and then says what of it:
//
//	iptables nat DOCKER                  rules: a value is some that follow each other (see below)
//	iptables filter DOCKER-USER chain    a chain that somebody made: "-", or none
//	iptables filter FORWARD policy       of a built-in chain: ACCEPT or DROP
//
// A value of rules is a piece of the chain, one rule a line as iptables-save prints it without -A CHAIN. It
// shows the neighbours that stay, and the line ^ for the chain's start, $ for its end:
//
//	old  "-i docker0 -j RETURN\n$"
//	new  "-i docker0 -j RETURN\n! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80\n$"
//
// Rules of others may come between and go meanwhile: one neighbour is enough to find a place, and a rule
// that is there once is found by itself. Counters may stand before a rule, as with iptables-save -c; what
// is removed is journalled with its counters and put back with them.
//
// Steps of one command, table and namespace that follow each other are one transaction; see
// transaction.run for what others may do meanwhile.
type iptablesStore struct {
	m        machine
	compiler *compiler
}

func newIptablesStore(m machine) iptablesStore {
	return iptablesStore{m, &compiler{rules: map[string]compiled{}}}
}

// An iptablesThing is what a step's name means.
type iptablesThing struct {
	saver
	table, chain, what string // what: "", "chain" or "policy"
}

// builtinChains are the built-in chains of each table.
var builtinChains = map[string][]string{
	"filter":   {"INPUT", "FORWARD", "OUTPUT"},
	"nat":      {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"mangle":   {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"raw":      {"PREROUTING", "OUTPUT"},
	"security": {"INPUT", "FORWARD", "OUTPUT"},
}

func parseThing(name string) (iptablesThing, error) {
	part := strings.Fields(local(name))
	wrong := fmt.Errorf("%q is not a command, a table and a chain of iptables", name)
	if len(part) < 3 || len(part) > 4 {
		return iptablesThing{}, wrong
	}
	thing := iptablesThing{table: part[1], chain: part[2]}
	command, legacy := strings.CutSuffix(part[0], "-legacy")
	thing.variant = map[bool]string{false: variantNft, true: variantLegacy}[legacy]
	switch command {
	case "iptables":
		thing.family = netstate.IPv4
	case "ip6tables":
		thing.family = netstate.IPv6
	default:
		return thing, wrong
	}
	if builtinChains[thing.table] == nil || len(thing.chain) > 28 || thing.chain[0] == '-' || thing.chain[0] == '!' ||
		strings.ContainsFunc(thing.chain, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return thing, wrong
	}
	if len(part) == 4 {
		thing.what = part[3]
	}
	if thing.what != "" && (thing.what == "policy") != thing.builtin() || thing.what != "" && thing.what != "policy" && thing.what != "chain" {
		return thing, wrong
	}
	return thing, nil
}

func (t iptablesThing) builtin() bool { return slices.Contains(builtinChains[t.table], t.chain) }

// A ruleChain is a chain as a save printed it.
type ruleChain struct {
	policy   string // "-" of one that somebody made
	rules    []string
	counters []string // by rule: "[12:840]"
	handles  []uint64 // by rule, of iptables-nft: 0 of one that a step makes
}

// A ruleTable is a table in the making: steps change it, and write down what iptables-restore is to do.
type ruleTable struct {
	chains map[string]*ruleChain
	keep   []string // what tells iptables-legacy-restore to leave the counters of the policies as they are
	script []string
	undo   []string // what takes the script back, if nobody else has changed the table: in its order
}

// newRuleTable makes a table of what a save printed; nil is a table that nobody has made yet.
func newRuleTable(name string, saved *netstate.IptablesTable) *ruleTable {
	t := &ruleTable{chains: map[string]*ruleChain{}}
	for _, chain := range builtinChains[name] {
		t.chains[chain] = &ruleChain{policy: "ACCEPT"}
	}
	if saved == nil {
		return t
	}
	for _, chain := range saved.Chains {
		c := &ruleChain{policy: chain.Policy}
		if c.policy == "" {
			c.policy = "-"
		} else {
			t.keep = append(t.keep, fmt.Sprintf(":%s %s [%d:%d]", chain.Name, chain.Policy, chain.Packets, chain.Bytes))
		}
		for _, rule := range chain.Rules {
			c.rules = append(c.rules, oneLine(rule.Text))
			c.counters = append(c.counters, fmt.Sprintf("[%d:%d]", rule.Packets, rule.Bytes))
			c.handles = append(c.handles, 0)
		}
		t.chains[chain.Name] = c
	}
	return t
}

// oneLine writes a newline inside a rule's comment as \n. No rule of iptables-save has a backslash before
// an n: it doubles those of a comment.
func oneLine(rule string) string { return strings.ReplaceAll(rule, "\n", `\n`) }

// holds says what the table says of a step.
func (t *ruleTable) holds(thing iptablesThing, step remediate.Step) (state, error) {
	chain := t.chains[thing.chain]
	if thing.what == "" {
		if step.Old == nil || step.New == nil {
			return holdsNeither, errors.New("rules need an old and a new value, of their chain")
		}
		w, err := newWindow(*step.Old, *step.New)
		switch {
		case err != nil:
			return holdsNeither, err
		case chain != nil:
			_, holds := w.find(chain.rules)
			return holds, nil
		case len(w.next) == 0: // gone with its chain
			return holdsNew, nil
		}
		return holdsNeither, nil
	}
	var now *string
	if chain != nil {
		now = &chain.policy
	}
	switch {
	case remediate.Equal(now, step.New):
		return holdsNew, nil
	case remediate.Equal(now, step.Old):
		return holdsOld, nil
	}
	return holdsNeither, nil
}

// make makes a step, and says whether that changed anything.
func (t *ruleTable) make(thing iptablesThing, step remediate.Step) (bool, error) {
	holds, err := t.holds(thing, step)
	switch {
	case err != nil:
		return false, fmt.Errorf("%s: %w", step.Object(), err)
	case holds == holdsNew:
		return false, nil
	case holds == holdsNeither:
		return false, fmt.Errorf("%s: %w", step.Object(), remediate.ErrChanged)
	}
	chain := t.chains[thing.chain]
	switch {
	case thing.what == "policy":
		if step.New == nil || *step.New != "ACCEPT" && *step.New != "DROP" {
			return false, fmt.Errorf("%s: a policy is ACCEPT or DROP", step.Object())
		}
		t.write("-P "+thing.chain+" "+*step.New, "-P "+thing.chain+" "+chain.policy)
		chain.policy = *step.New
	case thing.what == "chain" && step.New != nil:
		if *step.New != "-" {
			return false, fmt.Errorf("%s: a chain that somebody makes has the value -", step.Object())
		}
		t.chains[thing.chain] = &ruleChain{policy: "-"}
		t.write("-N "+thing.chain, "-X "+thing.chain)
	case thing.what == "chain":
		if len(chain.rules) > 0 {
			return false, fmt.Errorf("%s: %w: it holds %d rules", step.Object(), remediate.ErrChanged, len(chain.rules))
		}
		delete(t.chains, thing.chain)
		t.write("-X "+thing.chain, "-N "+thing.chain)
	default:
		w, err := newWindow(*step.Old, *step.New)
		if err != nil {
			return false, fmt.Errorf("%s: %w", step.Object(), err)
		}
		e, _ := w.find(chain.rules)
		for _, at := range slices.Backward(e.gone) {
			t.remove(thing.chain, at)
			if at < e.place {
				e.place--
			}
		}
		for i, rule := range w.next {
			if err := t.insert(thing.chain, e.place+i, rule); err != nil {
				return false, fmt.Errorf("%s: %w", step.Object(), err)
			}
		}
	}
	return true, nil
}

func (t *ruleTable) write(line, undo string) {
	t.script = append(t.script, line)
	t.undo = append([]string{undo}, t.undo...)
}

func (t *ruleTable) remove(name string, at int) {
	chain := t.chains[name]
	number := strconv.Itoa(at + 1)
	t.write("-D "+name+" "+number, chain.counters[at]+" -I "+name+" "+number+" "+chain.rules[at])
	chain.rules = slices.Delete(chain.rules, at, at+1)
	chain.counters = slices.Delete(chain.counters, at, at+1)
	chain.handles = slices.Delete(chain.handles, at, at+1)
}

func (t *ruleTable) insert(name string, at int, rule string) error {
	text := bare(rule)
	if text == "" || strings.ContainsAny(text, "\n\x00") || strings.Contains(text, `\n`) {
		return errors.New("a rule with a line end in it cannot be made by iptables-restore")
	}
	counters, _ := strings.CutSuffix(rule, text)
	chain, number := t.chains[name], strconv.Itoa(at+1)
	t.write(counters+"-I "+name+" "+number+" "+text, "-D "+name+" "+number)
	if counters = strings.TrimSpace(counters); counters == "" {
		counters = "[0:0]"
	}
	chain.rules = slices.Insert(chain.rules, at, text)
	chain.counters = slices.Insert(chain.counters, at, counters)
	chain.handles = slices.Insert(chain.handles, at, 0)
	return nil
}

// restorer returns the path of iptables-restore of the variant and family.
func (s saver) restorer() (string, error) {
	path, err := s.find()
	if err != nil {
		return "", err
	}
	restore := filepath.Join(filepath.Dir(path), strings.TrimSuffix(filepath.Base(path), "-save")+"-restore")
	if _, err := os.Stat(restore); err != nil {
		return "", err
	}
	return restore, nil
}

// restore runs iptables-restore on one table, which it changes whole or not at all. The child dies with
// this process: nothing may change behind the back of an undo. The caller holds the lock of legacy
// iptables; the child is given a lock file of its own, for it would wait for us otherwise.
func (s saver) restore(table string, script []string) error {
	path, err := s.restorer()
	if err != nil {
		return err
	}
	command := exec.Command(path, "--noflush", "--counters")
	command.Env = append(os.Environ(), "LC_ALL=C")
	if s.variant == variantLegacy {
		lock, err := os.CreateTemp("", "docker-netcheck-*.lock")
		if err != nil {
			return err
		}
		defer os.Remove(lock.Name())
		defer lock.Close()
		command.Env = append(command.Env, "XTABLES_LOCKFILE="+lock.Name())
	}
	runtime.LockOSThread() // the signal at the parent's death goes by its thread
	defer runtime.UnlockOSThread()
	command.Stdin = strings.NewReader("*" + table + "\n" + strings.Join(script, "\n") + "\nCOMMIT\n")
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var complaint bytes.Buffer
	command.Stderr = &complaint
	if err := command.Run(); err != nil {
		if text := strings.TrimSpace(complaint.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}

// saved returns a table of the thread's namespace.
func (s saver) saved(ctx context.Context, table string) (*ruleTable, error) {
	set, err := readIptables(ctx, netns{}, s)
	if err != nil {
		return nil, err
	}
	return newRuleTable(table, set.Table(table)), nil
}

// xtablesPatience is how long the lock of legacy iptables is waited for.
const xtablesPatience = 10 * time.Second

// xtablesLock takes the lock that every legacy iptables holds while it reads and writes.
func (m machine) xtablesLock(ctx context.Context) (release func(), err error) {
	path := os.Getenv("XTABLES_LOCKFILE")
	if path == "" {
		path = m.path("run/xtables.lock")
	}
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(xtablesPatience); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() {
				unix.Flock(int(file.Fd()), unix.LOCK_UN) // a child that is being started may have the file open
				file.Close()
			}, nil
		}
		if err = ctx.Err(); err == nil && time.Now().After(deadline) {
			err = errors.New("another program holds the lock of iptables")
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
}
