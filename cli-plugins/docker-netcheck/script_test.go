package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate/fixture"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"docker-netcheck": main})
}

// TestScripts runs the command alone, without an engine: usage, help and errors.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("DOCKER_HOST", "unix://"+env.WorkDir+"/no-engine.sock")
			env.Setenv("DOCKER_CONFIG", env.WorkDir)
			env.Setenv("NO_COLOR", "1")
			return saveFixture(filepath.Join(env.WorkDir, "host.json"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// saveFixture writes a captured host as a document.
func saveFixture(path string) error {
	s, err := fixture.Case("28.5.2-proxy")
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return s.Encode(file)
}

// status runs a command and compares its exit status: status 125 docker-netcheck --bad
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [argument...]")
	}
	want := args[0]
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = err.Error()
	}
	if got != want && got != "exit status "+want {
		ts.Fatalf("%v: %s, want status %s", args[1:], got, want)
	}
}
