//go:build linux

package agent

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/system"
)

// served starts a server on pipes. Its first result asks it; done has what serve returned.
func served(t *testing.T, rights string) (ask func(request) *reply, end func() error) {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- (&server{rights: rights}).serve(context.Background(), inR, outW) }()
	out := bufio.NewReader(outR)
	ask = func(q request) *reply {
		t.Helper()
		if err := send(inW, q); err != nil {
			t.Fatal(err)
		}
		a := &reply{}
		if err := receive(out, maxReply, a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	end = func() error {
		inW.Close()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("the server outlives its input")
			return nil
		}
	}
	t.Cleanup(func() { inW.Close(); outR.Close() })
	return ask, end
}

func TestServerKeepsItsRights(t *testing.T) {
	for _, rights := range []string{reading, changing} {
		ask, end := served(t, rights)
		for do, needed := range needs {
			if level(needed) <= level(rights) {
				continue
			}
			if a := ask(request{Do: do}); a.Error == nil || !strings.Contains(a.Error.Text, "may only "+rights) {
				t.Errorf("%s, with the rights to %s: %+v", do, rights, a.Error)
			}
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	}
}

func TestServerRefusesWhatItDoesNotKnow(t *testing.T) {
	ask, end := served(t, watching)
	for _, q := range []request{{Do: "sh"}, {}, {Do: doApply, Plan: []byte(`{}`)}} {
		if a := ask(q); a.Error == nil {
			t.Errorf("%+v: no error", q)
		}
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestLayerDependsOnTheProgramAlone(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")}
	for i, text := range []string{"\x7fELF one", "\x7fELF one", "\x7fELF two"} {
		if err := os.WriteFile(paths[i], []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var digests []string
	for _, path := range paths {
		l, err := readLayer(path)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, l.digest)
	}
	if digests[0] != digests[1] || digests[0] == digests[2] {
		t.Errorf("digests: %q", digests)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := readLayer(script); err == nil {
		t.Error("a script is taken for a Linux program")
	}
}

func TestOtherArchitectureNamesTheFile(t *testing.T) {
	if _, _, err := programFor(system.Info{OSType: "windows"}); err == nil || !strings.Contains(err.Error(), "windows") {
		t.Errorf("windows: %v", err)
	}
	_, _, err := programFor(system.Info{OSType: "linux", Architecture: "riscv64"})
	if err == nil || !strings.Contains(err.Error(), "netcheck-agent-linux-riscv64") || !strings.Contains(err.Error(), "--agent-image") {
		t.Errorf("riscv64: %v", err)
	}
}
