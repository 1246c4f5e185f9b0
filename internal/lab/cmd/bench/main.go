//go:build linux

// Command bench measures docker netcheck against what people do without it, side by side in one run on
// one lab host, and prints the ratios. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// A work is a list of commands that is measured as one thing.
type work struct {
	name     string
	commands [][]string
}

// The works. The runbook is what one does by hand before one knows anything.
var works = []work{
	{"docker inspect web", [][]string{{"docker", "inspect", "web"}}},
	{"docker netcheck web", [][]string{{"docker", "netcheck", "web"}}},
	{"docker-netcheck web", [][]string{{lab.PluginPath, "web"}}},
	{"… with a helper", [][]string{{"docker", "netcheck", "--agent", "always", "web"}}},
	{"runbook by hand", [][]string{
		{"docker", "inspect", "web"},
		{"nsenter", "-t", "PID", "-n", "ip", "address"},
		{"ip", "link"}, {"ip", "rule"}, {"ip", "route"},
		{"iptables", "-nvL"}, {"iptables", "-t", "nat", "-nvL"}, {"iptables", "-t", "mangle", "-nvL"}, {"iptables", "-t", "raw", "-nvL"},
		{"sysctl", "-a"},
		{"firewall-cmd", "--state"}, {"firewall-cmd", "--get-active-zones"}, {"firewall-cmd", "--list-all"},
	}},
}

// The ratios that are promised: the first work divided by the second is at most the limit.
var promises = []struct {
	first, second int
	limit         float64
}{{1, 0, 1.5}, {2, 0, 0.7}, {1, 4, 1.0 / 8}}

// helped is the work with a helper.
const helped = 3

// onTop is what a helper container may cost at most, its image being there.
const onTop = 600 * time.Millisecond

func main() {
	inside := flag.Bool("inside", false, "measure in this namespace (used by itself)")
	rounds := flag.Int("rounds", 25, "how often each work is done")
	plugin := flag.String("plugin", "bin/docker-netcheck", "the plugin, as make build makes it")
	suites := flag.String("suites", lab.Bookworm+","+lab.Forky, "Debian suites whose engine and docker are used")
	sizes := flag.Bool("size", false, "measure hosts of all sizes instead, and write docs/scale.md")
	flag.Parse()
	err := error(nil)
	if *sizes {
		err = size()
	} else if *inside {
		err = measure(*rounds)
	} else {
		for suite := range strings.SplitSeq(*suites, ",") {
			fmt.Printf("\n%s, with firewalld\n", suite)
			if err = host(suite, *plugin, *rounds); err != nil {
				break
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// host starts a lab host and runs this very program in it, so that entering the host costs nothing.
func host(suite, plugin string, rounds int) (err error) {
	ctx := context.Background()
	h, err := lab.Start(ctx, lab.Options{Suite: suite, Firewalld: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := errors.Join(h.Install(ctx, plugin, lab.PluginPath), h.Install(ctx, self, "/usr/bin/bench"), h.Web(ctx, "web", "-p", "80:80")); err != nil {
		return err
	}
	cmd := h.Command(ctx, "/usr/bin/bench", "-inside", fmt.Sprintf("-rounds=%d", rounds))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return errors.Join(cmd.Run(), probeCost(ctx, h))
}

// measure does the works in turn, so that whatever else the machine does hits all of them alike, and
// compares their medians.
func measure(rounds int) error {
	pid, err := exec.Command("docker", "inspect", "-f", "{{.State.Pid}}", "web").Output()
	if err != nil {
		return err
	}
	first := time.Now() // the helper's image is brought to the engine
	if out, err := exec.Command("docker", "netcheck", "--agent", "always", "web").CombinedOutput(); err != nil {
		return fmt.Errorf("the first use of a helper: %w: %s", err, out)
	}
	fmt.Printf("%-20s %8.1f ms (the first use, once: the image is imported)\n", works[helped].name, time.Since(first).Seconds()*1000)
	times := make([][]time.Duration, len(works))
	for round := range rounds + 2 {
		for i, w := range works {
			started := time.Now()
			for _, command := range w.commands {
				args := slices.Clone(command)
				for j, arg := range args {
					if arg == "PID" {
						args[j] = strings.TrimSpace(string(pid))
					}
				}
				// sysctl -a ends with 1 where a value may not be read: people read the rest.
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil && args[0] != "sysctl" {
					return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
				}
			}
			if round >= 2 { // the first two rounds fill caches
				times[i] = append(times[i], time.Since(started))
			}
		}
	}
	medians := make([]time.Duration, len(works))
	for i := range works {
		slices.Sort(times[i])
		medians[i] = times[i][len(times[i])/2]
		fmt.Printf("%-20s %8.1f ms (median of %d)\n", works[i].name, medians[i].Seconds()*1000, rounds)
	}
	for _, p := range promises {
		ratio := medians[p.first].Seconds() / medians[p.second].Seconds()
		verdict := "kept"
		if ratio > p.limit {
			verdict = "BROKEN"
		}
		fmt.Printf("%-20s / %-20s = %.3f (promised: at most %.3f): %s\n", works[p.first].name, works[p.second].name, ratio, p.limit, verdict)
	}
	verdict := "kept"
	if medians[helped]-medians[1] > onTop {
		verdict = "BROKEN"
	}
	fmt.Printf("%-20s - %-20s = %.0f ms (promised: at most %.0f ms): %s; their ratio is %.1f\n", works[helped].name, works[1].name,
		(medians[helped]-medians[1]).Seconds()*1000, onTop.Seconds()*1000, verdict, medians[helped].Seconds()/medians[1].Seconds())
	return nil
}
