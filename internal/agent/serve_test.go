//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
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
	path := filepath.Join(t.TempDir(), "program")
	layerOf := func(text string) (*layer, error) {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return readLayer(path)
	}
	var digests []string
	for _, text := range []string{"one", "one", "two"} {
		l, err := layerOf(program(t, elf.PT_LOAD) + text)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, l.digest)
	}
	if digests[0] != digests[1] || digests[0] == digests[2] {
		t.Errorf("digests: %q", digests)
	}
	for text, why := range map[string]string{
		"#!/bin/sh\n":             "is no Linux program",
		program(t, elf.PT_INTERP): "build it with CGO_ENABLED=0",
	} {
		if _, err := layerOf(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %s", text, err, why)
		}
	}
}

// program is a Linux program of one segment.
func program(t *testing.T, segment elf.ProgType) string {
	t.Helper()
	var b bytes.Buffer
	header := elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Version: uint32(elf.EV_CURRENT), Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	for _, part := range []any{header, elf.Prog64{Type: uint32(segment)}} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
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
