//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/remediate"
	"github.com/godbus/dbus/v5"
)

// A zoneStore holds which firewalld zone a link is in, kind "firewalld-zone", or a source address, kind
// "firewalld-source"; with -permanent behind it, in the configuration that a reload or restart reads. A
// name is the link's, or a prefix as firewalld has it; a value is the zone's name; there is none when the
// link or source is in no zone by name.
//
// Nothing is ever reloaded: a reload loses what was set at runtime alone. firewalld writes its permanent
// configuration anew when it changes; undo brings back its files as they were.
type zoneStore struct {
	m         machine
	of        string // "Interface" or "Source", as the methods are called
	permanent bool
}

const (
	firewalld         = "org.fedoraproject.FirewallD1"
	firewalldPath     = dbus.ObjectPath("/org/fedoraproject/FirewallD1")
	firewalldConfig   = dbus.ObjectPath("/org/fedoraproject/FirewallD1/config")
	firewalldPatience = 30 * time.Second // its calls wait for iptables or nft
)

// permanentFile is the kind of what a permanent step drags along: a file of firewalld's. Its value is "-" when
// there is none, else "+" and the content. A nil value is what firewalld makes of it.
const permanentFile = "firewalld-file"

// systemBus connects to the system bus. ctx ends the connecting, and not the connection: a call that is given up
// may still be carried out.
func (m machine) systemBus(ctx context.Context) (*dbus.Conn, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := context.WithTimeout(ctx, firewalldPatience)
	defer cancel()
	defer context.AfterFunc(ctx, end)()
	if m.root == "" {
		return dbus.ConnectSystemBus(dbus.WithContext(life))
	}
	return dbus.Connect("unix:path="+m.path("run/dbus/system_bus_socket"), dbus.WithContext(life))
}

// call calls a method of firewalld that answers with at most one string.
func call(ctx context.Context, object dbus.BusObject, method string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, firewalldPatience)
	defer cancel()
	answer := object.CallWithContext(ctx, firewalld+"."+method, 0, args...)
	if answer.Err != nil {
		return "", refusedBy(answer.Err)
	}
	if len(answer.Body) == 1 {
		if text, ok := answer.Body[0].(string); ok {
			return text, nil
		}
	}
	return "", nil
}

// refusedBy words an error that firewalld answered with, and nothing of none.
func refusedBy(err error) error {
	if err == nil {
		return nil
	}
	var refusal dbus.Error
	if errors.As(err, &refusal) {
		return fmt.Errorf("firewalld: %s", refusal.Error())
	}
	return fmt.Errorf("firewalld: %w", err)
}

// get returns the zone of a link or source.
func (s zoneStore) get(ctx context.Context, bus *dbus.Conn, link string) (*string, error) {
	path, method := firewalldPath, "zone.getZoneOf"+s.of
	if s.permanent {
		path, method = firewalldConfig, "config.getZoneOf"+s.of
	}
	zone, err := call(ctx, bus.Object(firewalld, path), method, link)
	if err != nil || zone == "" {
		return nil, err
	}
	return &zone, nil
}

// put moves a link or source from a zone to another one.
func (s zoneStore) put(ctx context.Context, bus *dbus.Conn, link string, from, to *string) error {
	if s.permanent {
		return s.putPermanent(ctx, bus, link, from, to)
	}
	object := bus.Object(firewalld, firewalldPath)
	var err error
	switch {
	case to == nil:
		_, err = call(ctx, object, "zone.remove"+s.of, *from, link)
	case from == nil:
		_, err = call(ctx, object, "zone.add"+s.of, *to, link)
	default:
		_, err = call(ctx, object, "zone.changeZoneOf"+s.of, *to, link)
	}
	return err
}

func (s zoneStore) putPermanent(ctx context.Context, bus *dbus.Conn, link string, from, to *string) error {
	var zones [2]dbus.BusObject
	for i, name := range []*string{from, to} {
		if name == nil {
			continue
		}
		// Both are looked up before one is changed.
		ctx, cancel := context.WithTimeout(ctx, firewalldPatience)
		defer cancel()
		var path dbus.ObjectPath
		err := bus.Object(firewalld, firewalldConfig).CallWithContext(ctx, firewalld+".config.getZoneByName", 0, *name).Store(&path)
		if err != nil {
			return fmt.Errorf("firewalld: zone %s: %w", *name, err)
		}
		zones[i] = bus.Object(firewalld, path)
	}
	if from != nil {
		if _, err := call(ctx, zones[0], "config.zone.remove"+s.of, link); err != nil {
			return err
		}
	}
	if to == nil {
		return nil
	}
	_, err := call(ctx, zones[1], "config.zone.add"+s.of, link)
	return err
}

// files returns the files of the zones that there are.
func (s zoneStore) files(zones ...*string) ([]remediate.Step, error) {
	var files []remediate.Step
	for _, zone := range zones {
		if zone == nil {
			continue
		}
		of, err := s.m.permanentFiles("zones", *zone)
		if err != nil {
			return nil, err
		}
		files = append(files, of...)
	}
	return files, nil
}

// permanentFiles returns the files that firewalld writes when it changes a zone or policy, and that it keeps
// of what they were.
func (m machine) permanentFiles(directory, name string) ([]remediate.Step, error) {
	if strings.ContainsAny(name, "/\x00") || name == ".." {
		return nil, fmt.Errorf("%q is no name that firewalld gives", name)
	}
	var files []remediate.Step
	for _, suffix := range []string{".xml", ".xml.old"} {
		path := "/etc/firewalld/" + directory + "/" + name + suffix
		content, _, err := fileStore{m}.get(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		value := "-"
		if content != nil {
			value = "+" + *content
		}
		files = append(files, remediate.Remove(permanentFile, path, value))
	}
	return files, nil
}

// putPermanentFiles brings the files back.
func (m machine) putPermanentFiles(files []remediate.Step) error {
	for _, file := range files {
		if file.Kind != permanentFile || file.New == nil {
			continue
		}
		content, there := strings.CutPrefix(*file.New, "+")
		want := &content
		if !there {
			want = nil
		}
		now, stat, err := fileStore{m}.get(file.Name)
		if err == nil && !remediate.Equal(now, want) {
			err = fileStore{m}.put(file.Name, stat, want, nil)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name, err)
		}
	}
	return nil
}

// Look implements [remediate.Store].
func (s zoneStore) Look(ctx context.Context, step remediate.Step) (remediate.Step, bool, error) {
	bus, err := s.m.systemBus(ctx)
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	defer bus.Close()
	now, err := s.get(ctx, bus, step.Name)
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	there := remediate.Equal(now, step.New)
	if s.permanent {
		if !there {
			step.Also, err = s.files(step.Old, step.New)
		}
	} else {
		var boot string
		boot, err = s.m.read("proc/sys/kernel/random/boot_id")
		step = step.Guarded(remediate.GuardBoot, boot)
	}
	if err != nil {
		return step, false, fmt.Errorf("%s: %w", step.Object(), err)
	}
	return step, there, nil
}

// Swap implements [remediate.Store].
func (s zoneStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	changed := make([]bool, len(steps))
	bus, err := s.m.systemBus(ctx)
	if err != nil {
		return changed, fmt.Errorf("%s: %w", steps[0].Object(), err)
	}
	defer bus.Close()
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		now, err := s.get(ctx, bus, step.Name)
		// A move that was cut off may have taken the link out of its zone and not put it into the other.
		halfway := step.Settle && now == nil
		switch {
		case err != nil:
		case remediate.Equal(now, step.New):
			if !step.Settle {
				continue
			}
			err = s.m.putPermanentFiles(step.Also)
		case !remediate.Equal(now, step.Old) && !halfway:
			return changed, remediate.Changed(step, now)
		default:
			changed[i] = true
			// What has begun is not left half-way.
			if err = s.put(context.WithoutCancel(ctx), bus, step.Name, now, step.New); err != nil {
				err = remediate.Uncertain(err)
			} else {
				err = s.m.putPermanentFiles(step.Also)
			}
		}
		if err != nil {
			return changed, fmt.Errorf("%s: %w", step.Object(), err)
		}
	}
	return changed, nil
}
