//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/godbus/dbus/v5"
)

// A policyStore holds what firewalld's policies are made of, kind "firewalld-policy"; with -permanent behind
// it, in the configuration that a reload or restart reads. A name is the policy's and one of
//
//	ingress-zone ZONE, egress-zone ZONE, rich-rule RULE   value "-"; the rule is written as firewalld prints it
//	target                                                value "ACCEPT", "CONTINUE", "DROP" or "REJECT"
//
// A target is permanent alone: firewalld has no call that changes it at runtime, nor one that makes a policy.
// At runtime one before 2.0 may fail to take a zone out of a policy ("underflow of priority count"), half of
// it done: it is not asked to.
//
// firewalld takes lists whole: what somebody else adds to the same list of the same policy between reading
// and writing, a millisecond, is lost. Nothing is reloaded, and undo brings back its files, as with zones.
type policyStore struct {
	m         machine
	permanent bool
}

// policyLists are firewalld's names for the lists of a policy. Source: firewalld.dbus(5).
var policyLists = map[string]string{"ingress-zone": "ingress_zones", "egress-zone": "egress_zones", "rich-rule": "rich_rules"}

// A policyThing is a step's name taken apart.
type policyThing struct{ policy, word, member string }

func (s policyStore) parse(name string) (thing policyThing, err error) {
	policy, rest, _ := strings.Cut(name, " ")
	word, member, _ := strings.Cut(rest, " ")
	thing = policyThing{policy, word, member}
	switch {
	case policy != "" && word == "target" && member == "" && s.permanent:
		return thing, nil
	case policy != "" && word == "target" && member == "":
		return thing, errors.New("firewalld changes the target of a policy by a reload alone")
	case policy == "" || policyLists[word] == "" || member == "":
		return thing, errors.New("is nothing of a firewalld policy")
	}
	return thing, nil
}

// A policyAt is a thing of a policy, the policy's settings, and how firewalld is given some of them.
type policyAt struct {
	policyThing
	has settings
	set func(settings) error
}

type settings map[string]dbus.Variant

// at calls f with the thing that the step names.
func (s policyStore) at(ctx context.Context, step remediate.Step, f func(policyAt) error) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, remediate.ErrChanged) {
			err = fmt.Errorf("%s: %w", step.Object(), err)
		}
	}()
	thing, err := s.parse(step.Name)
	if err != nil {
		return err
	}
	bus, err := s.m.systemBus(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	p, err := s.open(ctx, bus, thing)
	if err != nil {
		return err
	}
	return f(p)
}

// open asks for the settings of the thing's policy. What is set is not given up half-way.
func (s policyStore) open(ctx context.Context, bus *dbus.Conn, thing policyThing) (policyAt, error) {
	set := context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(ctx, firewalldPatience)
	defer cancel()
	p := policyAt{policyThing: thing}
	object := bus.Object(firewalld, firewalldPath)
	if !s.permanent {
		if version, err := object.GetProperty(firewalld + ".version"); thing.word != "rich-rule" && (err != nil || !versionAtLeast(text(version), 2, 0)) {
			return p, errors.New("firewalld before 2.0 cannot take a policy's zones back")
		}
		p.set = func(some settings) error {
			_, err := call(set, object, "policy.setPolicySettings", thing.policy, some)
			return err
		}
		err := object.CallWithContext(ctx, firewalld+".policy.getPolicySettings", 0, thing.policy).Store(&p.has)
		return p, refusedBy(err)
	}
	var path dbus.ObjectPath
	if err := bus.Object(firewalld, firewalldConfig).CallWithContext(ctx, firewalld+".config.getPolicyByName", 0, thing.policy).Store(&path); err != nil {
		return p, refusedBy(err)
	}
	object = bus.Object(firewalld, path)
	p.set = func(some settings) error {
		_, err := call(set, object, "config.policy.update", some)
		return err
	}
	return p, refusedBy(object.CallWithContext(ctx, firewalld+".config.policy.getSettings", 0).Store(&p.has))
}

// value returns what the settings say of the thing.
func (p policyAt) value() *string {
	value := "-"
	if p.word == "target" {
		value = policySettings(p.policy, p.has).Target
	} else if !slices.Contains(texts(p.has[policyLists[p.word]]), p.member) {
		return nil
	}
	return &value
}

// changed returns the settings that give the thing a value; nil: that take it out.
func (p policyAt) changed(value *string) (settings, error) {
	if p.word == "target" {
		if value == nil || !slices.Contains([]string{"ACCEPT", "CONTINUE", "DROP", "REJECT"}, *value) {
			return nil, errors.New("a policy has no such target")
		}
		return settings{"target": dbus.MakeVariant(*value)}, nil
	}
	if value != nil && *value != "-" {
		return nil, errors.New("a list of a policy's has something in it or not: no value but - is known")
	}
	list := slices.DeleteFunc(texts(p.has[policyLists[p.word]]), func(member string) bool { return member == p.member })
	if value != nil {
		list = append(list, p.member)
	}
	if list == nil {
		list = []string{}
	}
	return settings{policyLists[p.word]: dbus.MakeVariant(list)}, nil
}

// Look implements [remediate.Store].
func (s policyStore) Look(ctx context.Context, step remediate.Step) (remediate.Step, bool, error) {
	there := false
	err := s.at(ctx, step, func(p policyAt) error {
		if there = remediate.Equal(p.value(), step.New); there {
			return nil
		}
		_, err := p.changed(step.New)
		if err == nil && s.permanent {
			step.Also, err = s.m.permanentFiles("policies", p.policy)
		}
		if err != nil || s.permanent {
			return err
		}
		boot, err := s.m.read("proc/sys/kernel/random/boot_id")
		step = step.Guarded(remediate.GuardBoot, boot)
		return err
	})
	return step, there, err
}

// Swap implements [remediate.Store].
func (s policyStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		err := s.at(ctx, step, func(p policyAt) error {
			switch now := p.value(); {
			case remediate.Equal(now, step.New):
				if !step.Settle {
					return nil
				}
			case !remediate.Equal(now, step.Old):
				return remediate.Changed(step, now)
			default:
				some, err := p.changed(step.New)
				if err != nil {
					return err
				}
				changed[i] = true
				if err := p.set(some); err != nil {
					return remediate.Uncertain(err)
				}
			}
			return s.m.putPermanentFiles(step.Also)
		})
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}
