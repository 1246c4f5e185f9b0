//go:build linux

package checks

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// growthEnv says, in a process that counts its statements, how many containers and ports of each there are, and
// whether they are judged.
const growthEnv = "NETCHECK_TEST_GROWTH"

// TestGrowth counts the statements that the judging of a target takes, among few containers or ports and among ten
// times as many. One that is done for each container of each target shows, however little time it takes.
func TestGrowth(t *testing.T) {
	if ask := os.Getenv(growthEnv); ask != "" {
		var containers, ports int
		var name, do string
		if _, err := fmt.Sscan(ask, &containers, &ports, &name, &do); err != nil {
			t.Fatal(err)
		}
		s := crowd(t, name, containers, ports)
		if do == "judge" {
			targets, _, _ := Targets(s, Ask{})
			Judge(Suite, NewHost(s), targets)
		}
		return
	}
	if testing.CoverMode() != "" {
		t.Skip("statements are counted already")
	}
	const most = 1.1
	program := filepath.Join(t.TempDir(), "counted")
	module := "github.com/docker-netcheck/docker-netcheck/"
	build := exec.Command("go", "test", "-c", "-covermode=count", "-coverpkg="+module+"checks,"+module+"internal/packet,"+module+"internal/dockerd,"+module+"internal/netstate", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"28.5.2-noproxy", "29.7.2-nftables-noproxy"} {
		for what, sizes := range map[string][2][2]int{"containers": {{30, 1}, {300, 1}}, "ports": {{1, 30}, {1, 300}}} {
			small, large := judged(t, program, name, sizes[0]), judged(t, program, name, sizes[1])
			few, many := float64(sizes[0][0]*sizes[0][1]), float64(sizes[1][0]*sizes[1][1])
			var before, after float64
			for _, n := range small {
				before += float64(n) / few
			}
			for _, n := range large {
				after += float64(n) / many
			}
			t.Logf("%s: %.0f statements for each of %.0f %s, %.0f for each of %.0f: × %.2f", name, before, few, what, after, many, after/before)
			if after <= most*before && before > 0 {
				continue
			}
			t.Errorf("want × %.2f at most; what grew most:", most)
			growth := func(block string) float64 { return float64(large[block])/many - float64(small[block])/few }
			blocks := slices.SortedFunc(maps.Keys(large), func(a, b string) int { return int(growth(b) - growth(a)) })
			for _, block := range blocks[:min(10, len(blocks))] {
				t.Errorf("%+8.0f %s", growth(block), strings.TrimPrefix(block, module))
			}
		}
	}
}

// judged returns how many statements of each block the judging of a host takes: what it takes to make up the host is
// taken off.
func judged(t *testing.T, program, name string, size [2]int) map[string]int {
	t.Helper()
	count := func(do string) map[string]int {
		profile := filepath.Join(t.TempDir(), do)
		run := exec.Command(program, "-test.run=^TestGrowth$", "-test.coverprofile="+profile)
		run.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %s %s", growthEnv, size[0], size[1], name, do))
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(profile)
		if err != nil {
			t.Fatal(err)
		}
		blocks := map[string]int{}
		for line := range strings.Lines(string(text)) { // FILE:FROM,TO STATEMENTS TIMES
			field := strings.Fields(line)
			if len(field) != 3 {
				continue
			}
			statements, _ := strconv.Atoi(field[1])
			times, _ := strconv.Atoi(field[2])
			blocks[field[0]] += statements * times
		}
		return blocks
	}
	all := count("judge")
	for block, n := range count("nothing") {
		all[block] -= n
	}
	return all
}
