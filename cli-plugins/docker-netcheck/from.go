package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/docker/cli/cli/command"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// readSnapshot reads a document that docker netcheck snapshot wrote; "-" is stdin. Its errors begin with
// "snapshot FILE: ".
func readSnapshot(path string) (*netstate.Snapshot, error) {
	fail := func(err error) (*netstate.Snapshot, error) {
		var file *os.PathError
		if errors.As(err, &file) { // which names the file once more
			err = file.Err
		}
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	var in io.Reader = os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return fail(err)
		}
		defer file.Close()
		in = file
	}
	s, err := netstate.Decode(in)
	if err != nil {
		return fail(err)
	}
	return s, nil
}

// ask makes the named containers the ones that are judged. As docker does, it takes a name, an ID or the
// beginning of one. If none is named it is those that the snapshot was made for, or all.
func ask(s *netstate.Snapshot, names []string) error {
	if len(s.Containers) == 0 {
		return errors.New("holds no container: there is nothing to judge")
	}
	if len(names) == 0 && len(s.Asked) > 0 {
		return nil
	}
	var asked []string
	if len(names) == 0 {
		for _, c := range s.Containers {
			asked = append(asked, c.ID)
		}
	}
	for _, name := range names {
		id, err := find(s, name)
		if err != nil {
			return err
		}
		if !slices.Contains(asked, id) {
			asked = append(asked, id)
		}
	}
	s.Asked = asked
	return nil
}

// find returns the ID of the container with that name, ID or beginning of an ID.
func find(s *netstate.Snapshot, name string) (string, error) {
	var held, begins []string
	for _, c := range s.Containers {
		if c.ID == name || c.Name == strings.TrimPrefix(name, "/") {
			return c.ID, nil
		}
		if strings.HasPrefix(c.ID, name) && name != "" {
			begins = append(begins, c.ID)
		}
		held = append(held, clean(c.Name))
	}
	switch len(begins) {
	case 0:
	case 1:
		return begins[0], nil
	default:
		return "", fmt.Errorf("the IDs of %d containers begin with %q", len(begins), name)
	}
	slices.Sort(held)
	const most = 10
	list := strings.Join(held[:min(most, len(held))], ", ")
	if len(held) > most {
		list += fmt.Sprintf(" and %d more", len(held)-most)
	}
	return "", fmt.Errorf("holds no container %q: it holds %s", name, list)
}

// checkFile judges a saved snapshot and prints the report.
func checkFile(ctx context.Context, dockerCLI command.Cli, o *checkOptions) (int, error) {
	found, err := o.judgeFile()
	if err != nil {
		return 0, err
	}
	return o.finish(ctx, dockerCLI, found)
}

// judgeFile judges a saved snapshot. It asks no engine and touches no host.
func (o *checkOptions) judgeFile() (*judged, error) {
	s, err := readSnapshot(o.from)
	if err != nil {
		return nil, err
	}
	if !o.host {
		if err := ask(s, o.containers); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", o.from, err)
		}
	}
	found, err := o.judgeSnapshot(s)
	if err != nil {
		return nil, err
	}
	for _, path := range s.Ignored {
		found.report.Notes = append(found.report.Notes, "the snapshot says "+clean(path)+", which this docker netcheck does not know: a later one wrote it")
	}
	return found, nil
}
