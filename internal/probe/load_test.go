//go:build linux

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// loadRate is how many datagrams a second a load sends.
const loadRate = 10_000

// A load sends datagrams to a port of the host all the time, and counts them at both ends.
type load struct {
	sent, arrived, answered int // valid after end
	stop                    context.CancelFunc
	all                     sync.WaitGroup
	client, server          net.PacketConn
}

// startLoad sends from the far client to the server, which answers each, other clients' as well.
func startLoad(t *testing.T, h *lab.Host, to string, server net.PacketConn) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop, server: server}
	var err error
	if l.client, err = h.Clients[0].ListenPacket(lab.FarAddr + ":0"); err != nil {
		t.Fatal(err)
	}
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	own := l.client.LocalAddr().String()
	for _, c := range []net.PacketConn{l.client, l.server} {
		roomy(t, c)
	}
	l.run(func() { // the server
		buf := make([]byte, 64)
		for {
			n, from, err := l.server.ReadFrom(buf)
			if err != nil {
				return
			}
			if from.String() == own {
				l.arrived++
			}
			l.server.WriteTo(buf[:n], from)
		}
	})
	l.run(func() { // the answers
		buf := make([]byte, 64)
		for {
			if _, _, err := l.client.ReadFrom(buf); err != nil {
				return
			}
			l.answered++
		}
	})
	started := time.Now()
	l.run(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			due := min(int(time.Since(started)*loadRate/time.Second), l.sent+100) // what a busy machine is late with comes in parts
			for ; l.sent < due; l.sent++ {
				if _, err := l.client.WriteTo([]byte("load"), addr); err != nil {
					t.Error(err)
					return
				}
			}
			<-tick.C
		}
		t.Logf("%d datagrams in %s", l.sent, time.Since(started).Round(time.Millisecond))
		// All of them are there or lost: the kernel has taken each to its end before it took the next.
		deadline := time.Now().Add(time.Second)
		l.client.SetReadDeadline(deadline)
		l.server.SetReadDeadline(deadline)
	})
	return l
}

func (l *load) run(f func()) {
	l.all.Add(1)
	go func() {
		defer l.all.Done()
		f()
	}()
}

func (l *load) end() {
	l.stop()
	l.all.Wait()
}

// roomy gives a socket room for what comes while its reader waits for a processor.
func roomy(t *testing.T, c net.PacketConn) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err == nil {
		also := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
		err = errors.Join(err, also)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnderLoad has 10,000 datagrams a second on the port that is probed: the probe sees its own flow and no
// other, and the load loses nothing.
func TestUnderLoad(t *testing.T) {
	for i, suite := range lab.Suites() {
		if i > 0 && os.Getenv("NETCHECK_TEST_ALL") == "" {
			break
		}
		t.Run(suite, func(t *testing.T) { underLoad(t, suite) })
	}
}

func underLoad(t *testing.T, suite string) {
	h := healthy(t, lab.Options{Suite: suite})
	web, err := h.Container(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	server, err := web.ListenPacket("0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, h, lab.HostAddr+":5353", server)
	udp := insideTarget{From: netstate.FromOutside, Client: nobody, Proto: "udp"}
	a := observeIn(t, h, "web", udp, insideTarget{From: netstate.FromOutside, Client: nobody}, udp)
	l.end()
	if l.sent == 0 || l.arrived != l.sent || l.answered != l.sent {
		t.Errorf("of %d datagrams %d came to the container, and %d answers back", l.sent, l.arrived, l.answered)
	}
	for i, o := range a.Observations {
		if a.Errors[i] != "" || !o.Outcome.Well() {
			t.Errorf("%s %+v", a.Errors[i], o)
			continue
		}
		for _, c := range o.Copies {
			if !strings.Contains(c.Text, nobody.String()) {
				t.Errorf("not the probe's: %s", c.Text)
			}
		}
		want := map[string]int{"udp": 8, "tcp": 12}[o.Flow.Proto] // 2 or 3 packets at 4 hops
		if len(o.Copies) != want || len(o.Rules) == 0 || len(o.Drops) > 0 || len(o.Missing) > 0 {
			t.Errorf("%s: %d copies, %d rules, drops %+v, missing %v", o.Flow, len(o.Copies), len(o.Rules), o.Drops, o.Missing)
		}
	}
}
