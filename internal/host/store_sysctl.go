//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// A sysctlStore holds the sysctls below net, kind "sysctl". A name is as in netstate.Namespace.Sysctls,
// a value what the file holds without the newline at its end.
//
// Some sysctls change others, measured on Linux 6.18: net.ipv4.ip_forward and net.ipv4.conf.all.forwarding
// set every net.ipv4.conf.*.forwarding and flip net.ipv4.conf.all.accept_redirects; some of
// net.ipv6.conf.all set the same of every link; a net.ipv4.conf.default sets that of the links which were
// never set. The first two are wanted when a step is made and taken back link by link; the last is not,
// and is taken back at once.
type sysctlStore struct{ m machine }

// everywhere are the sysctls of net.ipv6.conf.all that are more than a sum: they write every link's.
// Source: net/ipv6/addrconf.c, whose other handlers of "all" store the value alone.
var everywhere = map[string]bool{
	"forwarding": true, "force_forwarding": true, "disable_ipv6": true,
	"addr_gen_mode": true, "ignore_routes_with_linkdown": true,
}

// sysctlPath returns the file of a sysctl. Dots part the name's elements; in an element a dot is "/".
func (s sysctlStore) path(name string) (string, error) {
	elements := strings.Split(local(name), ".")
	for i, element := range elements {
		element = strings.ReplaceAll(element, "/", ".")
		if element == "" || element == "." || element == ".." || strings.ContainsRune(element, 0) {
			return "", fmt.Errorf("%q is no name of a sysctl", name)
		}
		elements[i] = element
	}
	if elements[0] != "net" || len(elements) < 3 {
		return "", fmt.Errorf("%q is no sysctl of the network", name)
	}
	return s.m.path("proc/sys", filepath.Join(elements...)), nil
}

// get returns a sysctl's value, nil if there is none of that name.
func (s sysctlStore) get(name string) (*string, error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	value := strings.TrimSuffix(string(data), "\n")
	return &value, nil
}

// put writes a sysctl. A value that the kernel takes for another one is taken back.
func (s sysctlStore) put(name string, value *string) error {
	if value == nil {
		return errors.New("a sysctl cannot be removed")
	}
	before, err := s.get(name)
	if err != nil {
		return err
	}
	if err := s.write(name, *value); err != nil {
		return err
	}
	now, err := s.get(name)
	if err != nil || remediate.Equal(now, value) || before == nil || now == nil {
		return err
	}
	return errors.Join(fmt.Errorf("the kernel makes %q of %q", *now, *value), s.write(name, *before))
}

func (s sysctlStore) write(name, value string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return errors.Unwrap(err)
	}
	defer file.Close()
	if _, err = file.WriteString(value + "\n"); err != nil {
		return fmt.Errorf("write %q: %w", value, errors.Unwrap(err))
	}
	return nil
}

// Look implements [remediate.Store].
func (s sysctlStore) Look(_ context.Context, step remediate.Step) (remediate.Step, bool, error) {
	step, err := s.m.bound(step)
	if err != nil {
		return step, false, err
	}
	var there bool
	err = s.m.in(step, func() error {
		now, err := s.get(step.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		if there = remediate.Equal(now, step.New); there || now == nil || step.New == nil {
			return nil
		}
		also, err := s.along(local(step.Name), *step.New)
		if err != nil {
			return fmt.Errorf("%s: %w", step.Object(), err)
		}
		_, suffix, found := strings.Cut(step.Name, " in container ")
		if found {
			suffix = " in container " + suffix
		}
		have := map[string]bool{}
		for _, a := range step.Also {
			have[a.Name] = true
		}
		for _, a := range also {
			if a.Name += suffix; !have[a.Name] {
				step.Also = append(step.Also, a)
			}
		}
		return nil
	})
	return step, there, err
}

// along returns what the kernel changes when the sysctl is written, with what it holds and what it shall
// hold afterwards.
func (s sysctlStore) along(name, value string) ([]remediate.Step, error) {
	var also []remediate.Step
	add := func(name string, value *string) error {
		now, err := s.get(name)
		if err != nil || now == nil {
			return err
		}
		if value == nil {
			value = now // it stays
		}
		also = append(also, remediate.Step{Kind: "sysctl", Name: name, Old: now, New: value})
		return nil
	}
	if name == "net.ipv4.ip_forward" {
		name = "net.ipv4.conf.all.forwarding"
	}
	element := strings.Split(name, ".")
	if len(element) != 5 || element[2] != "conf" || element[3] != "all" && element[3] != "default" {
		return nil, nil
	}
	family, scope, field := element[1], element[3], element[4]
	others := &value
	switch {
	case family == "ipv4" && scope == "all" && field == "forwarding":
		flipped := map[string]string{"0": "1", "1": "0"}[value]
		if flipped == "" {
			return nil, fmt.Errorf("%q is neither 0 nor 1", value)
		}
		if err := add("net.ipv4.conf.all.accept_redirects", &flipped); err != nil {
			return nil, err
		}
	case family == "ipv6" && scope == "all" && everywhere[field]:
	case family == "ipv4" && scope == "default" && field != "forwarding":
		others = nil
	default:
		return nil, nil
	}
	links, err := os.ReadDir(s.m.path("proc/sys/net", family, "conf"))
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		other := strings.ReplaceAll(link.Name(), ".", "/")
		if other == "all" || other == scope || field == "force_forwarding" && other == "default" {
			continue
		}
		name := strings.Join([]string{"net", family, "conf", other, field}, ".")
		if err := add(name, others); err != nil {
			return nil, err
		}
	}
	return also, nil
}

// Swap implements [remediate.Store].
func (s sysctlStore) Swap(ctx context.Context, steps []remediate.Step) ([]bool, error) {
	return s.m.swapEach(ctx, steps,
		func(step remediate.Step) (*string, error) { return s.get(step.Name) },
		func(step remediate.Step) error {
			if err := s.keepsRoutes(local(step.Name), step.New); err != nil {
				return err
			}
			return s.put(step.Name, step.New)
		},
		func(step remediate.Step) error {
			for _, also := range step.Also {
				now, err := s.get(also.Name)
				if err == nil && now != nil && !remediate.Equal(now, also.New) { // nil: its link is gone
					err = s.put(also.Name, also.New)
				}
				if err != nil {
					return fmt.Errorf("%s, after %s: %w", also.Object(), step.Object(), err)
				}
			}
			return nil
		})
}

// keepsRoutes is an error if a link would lose a default route that it has learnt from router
// advertisements: a link that forwards IPv6 drops these at once unless its accept_ra is 2, and what it has
// lost cannot be put back as it was.
func (s sysctlStore) keepsRoutes(name string, value *string) error {
	element := strings.Split(name, ".")
	if len(element) != 5 || element[1] != "ipv6" || element[4] != "forwarding" || value == nil || *value == "0" {
		return nil
	}
	c, err := dialRoute(netns{})
	if err != nil {
		return err
	}
	defer c.Close()
	table, err := links()
	if err != nil {
		return err
	}
	learnt := map[string]bool{}
	err = routeStore(s.m).each(c, table, func(route, way string) {
		if word := strings.Fields(way); strings.HasPrefix(route, "::/0") && strings.Contains(way+" ", " proto ra ") {
			learnt[word[slices.Index(word, "dev")+1]] = true
		}
	})
	if err != nil {
		return err
	}
	for link := range learnt {
		link = strings.ReplaceAll(link, ".", "/")
		if element[3] != "all" && element[3] != link {
			continue
		}
		accept, err := s.get("net.ipv6.conf." + link + ".accept_ra")
		if err != nil {
			return err
		}
		if accept != nil && *accept != "2" {
			return fmt.Errorf("%s would lose its default route, which it has from router advertisements: it needs accept_ra = 2 first", link)
		}
	}
	return nil
}
