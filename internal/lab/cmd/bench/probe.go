//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
)

// A burst of datagrams every so often makes 10,000 a second.
const (
	burstSize  = 100
	burstEvery = 10 * time.Millisecond
)

// probeCost measures what a live probe costs the traffic of the very port that it probes: 10,000 datagrams a
// second come to a container that answers none, so that the probe waits for its own answer all its time.
// Bursts beside a probe and without one take turns.
func probeCost(ctx context.Context, h *lab.Host) error {
	if err := h.Web(ctx, "sink", "-p", "5353:53/udp"); err != nil {
		return err
	}
	inside, err := h.Container(ctx, "sink")
	if err != nil {
		return err
	}
	sink, err := inside.ListenPacket("0.0.0.0:53")
	if err != nil {
		return err
	}
	client, err := h.Far(false).Dial(ctx, "udp", lab.HostAddr+":5353")
	if err != nil {
		return err
	}
	defer client.Close()
	times := map[bool][]time.Duration{} // by whether a probe was there
	sent, lost := 0, 0
	measure := func() error {
		there, err := probing(h)
		if err != nil {
			return err
		}
		took, missing, err := burst(client, sink)
		if err != nil {
			return err
		}
		sent, lost = sent+burstSize, lost+missing
		if still, err := probing(h); err != nil || still != there {
			return err // it began or ended meanwhile
		}
		times[there] = append(times[there], took)
		time.Sleep(burstEvery - min(took, burstEvery))
		return nil
	}
	for range 4 {
		probe := h.Command(ctx, lab.PluginPath, "trace", "--live", "--port", "53/udp", "sink")
		probe.Stdout, probe.Stderr = io.Discard, os.Stderr
		if err := probe.Start(); err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- probe.Wait() }()
		for ended := false; !ended; {
			if err := measure(); err != nil {
				return errors.Join(err, <-done)
			}
			select {
			case err := <-done:
				if err != nil {
					return fmt.Errorf("trace --live: %w", err)
				}
				ended = true
			default:
			}
		}
		for range 200 {
			if err := measure(); err != nil {
				return err
			}
		}
	}
	median := func(there bool) time.Duration {
		slices.Sort(times[there])
		if len(times[there]) == 0 {
			return 0
		}
		return times[there][len(times[there])/2]
	}
	with, without := median(true), median(false)
	fmt.Printf("a live probe on a port with 10,000 packets/s: %d of them take %.0f µs with it (median of %d), %.0f µs without (of %d): ratio %.2f; lost %d of %d\n",
		burstSize, with.Seconds()*1e6, len(times[true]), without.Seconds()*1e6, len(times[false]), with.Seconds()/without.Seconds(), lost, sent)
	return nil
}

// probing says whether a live probe is on the host: its link is.
func probing(h *lab.Host) (there bool, err error) {
	err = h.Do(func() error {
		links, err := net.Interfaces()
		there = slices.ContainsFunc(links, func(l net.Interface) bool { return strings.HasPrefix(l.Name, "nc") })
		return err
	})
	return there, err
}

// burst sends datagrams and returns how long they took to the last, and how many did not come.
func burst(client net.Conn, sink net.PacketConn) (took time.Duration, missing int, err error) {
	own, buf := client.LocalAddr().String(), make([]byte, 64)
	sink.SetReadDeadline(time.Now().Add(time.Second))
	started := time.Now()
	for range burstSize {
		if _, err := client.Write([]byte("load")); err != nil {
			return 0, 0, err
		}
	}
	for got := 0; got < burstSize; {
		_, from, err := sink.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return time.Since(started), burstSize - got, nil
		}
		if err != nil {
			return 0, 0, err
		}
		if from.String() == own {
			got++
		}
	}
	return time.Since(started), 0, nil
}
