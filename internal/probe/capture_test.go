//go:build linux

package probe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/docker-netcheck/docker-netcheck/internal/lab"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
)

// A runningCapture is a capture inside of a lab's host.
type runningCapture struct {
	t     *testing.T
	h     *lab.Host
	stop  io.Closer
	out   *bufio.Reader
	errs  *bytes.Buffer
	wait  func() error
	file  string
	lines []string
}

func startCapture(t *testing.T, h *lab.Host, i insideCapture) *runningCapture {
	t.Helper()
	r := &runningCapture{t: t, h: h, file: "/tmp/capture.pcapng", errs: &bytes.Buffer{}}
	i.File = r.file
	words := insideWords(t, h, insideRequest{Container: "web", Capture: &i})
	cmd := h.Command(t.Context(), words[0], words[1:]...)
	cmd.Stderr = r.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.stop, r.out, r.wait = in, bufio.NewReader(out), cmd.Wait
	if line, err := r.out.ReadString('\n'); line != "ready\n" {
		in.Close()
		cmd.Wait()
		t.Fatalf("%s%v %s", line, err, r.errs)
	}
	return r
}

// end stops the capture and returns its counts and its file, as interfaces' names and packets by them.
func (r *runningCapture) end() ([]HopCount, []string, map[string]int) {
	r.t.Helper()
	r.stop.Close()
	for {
		line, err := r.out.ReadString('\n')
		if err != nil {
			break
		}
		r.lines = append(r.lines, line)
	}
	if err := r.wait(); err != nil {
		r.t.Fatalf("%v: %s", err, r.errs)
	}
	r.t.Logf("\n%s", strings.Join(r.lines, ""))
	var counts []HopCount
	if err := json.Unmarshal([]byte(r.lines[len(r.lines)-1]), &counts); err != nil {
		r.t.Fatal(err)
	}
	names, packets := readFile(r.t, r.h.Path(r.file))
	return counts, names, packets
}

// readFile reads a pcapng file to its end, which must be that of a block.
func readFile(t *testing.T, name string) (names []string, packets map[string]int) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	packets = map[string]int{}
	for {
		data, info, err := reader.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i, err := reader.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		if decode(data, true) == nil {
			t.Errorf("%s: a packet that is not IP: %x", i.Name, data)
		}
		packets[i.Description]++
	}
	for n := range reader.NInterfaces() {
		i, err := reader.Interface(n)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, i.Name+": "+i.Description)
	}
	return names, packets
}

func TestCapture(t *testing.T) {
	h := lab.New(t, lab.Options{Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}})
	for name, publish := range map[string]string{"web": "8080:80", "other": "8081:80"} {
		if err := h.Web(t.Context(), name, "-p", publish); err != nil {
			t.Fatal(err)
		}
	}
	stop, err := h.Clients[0].Serve(lab.ClientAddr+":9000", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	r := startCapture(t, h, insideCapture{})
	for _, url := range []string{"http://" + lab.HostAddr + ":8080/", "http://" + lab.HostAddr + ":8081/"} {
		if _, err := h.Far(false).Get(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"web", "other"} { // and outward, masqueraded
		c, err := h.Container(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), "http://"+lab.ClientAddr+":9000/"); err != nil {
			t.Fatal(err)
		}
	}
	counts, names, packets := r.end()
	if len(counts) != 4 || len(names) != 4 {
		t.Fatalf("hops %+v, interfaces %q", counts, names)
	}
	for i, want := range []packet.Hop{packet.Uplink, packet.Bridge, packet.Veth, packet.Container} {
		n := counts[i]
		if n.Hop != want || n.In < 8 || n.In != counts[0].In || n.Out != counts[0].Out {
			t.Errorf("%+v, the first %+v", n, counts[0])
		}
		if got := packets[strings.SplitN(names[i], ": ", 2)[1]]; got != n.In+n.Out {
			t.Errorf("%s: %d packets in the file, %d counted", names[i], got, n.In+n.Out)
		}
	}
	for _, line := range r.lines {
		if strings.Contains(line, ".8081") {
			t.Errorf("of another container: %s", line)
		}
	}
}

// TestCaptureShowsWhereTheyVanish drops in the forward chain: the uplink sees the packets, the bridge none.
func TestCaptureShowsWhereTheyVanish(t *testing.T) {
	h := lab.New(t, lab.Options{})
	if err := h.Web(t.Context(), "web", "-p", "8080:80"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sh(t.Context(), "iptables -I DOCKER-USER -j DROP"); err != nil {
		t.Fatal(err)
	}
	r := startCapture(t, h, insideCapture{Port: netstate.Port{Number: 80, Proto: "tcp"}, Duration: 30 * time.Second, Count: 1})
	if got := lab.Outcome(h.Far(false).Connect(t.Context(), lab.HostAddr+":8080")); got != "timeout" {
		t.Fatal(got)
	}
	counts, _, _ := r.end()
	if counts[0].In != 1 || counts[1].In != 0 || counts[3].In != 0 {
		t.Errorf("%+v", counts)
	}
}

// A disk is a writer that is full after so many bytes.
type disk struct {
	bytes.Buffer
	room int
}

func (d *disk) Write(b []byte) (int, error) {
	n := min(len(b), d.room-d.Len())
	d.Buffer.Write(b[:n])
	if n < len(b) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

func (d *disk) Truncate(size int64) error {
	d.Buffer.Truncate(int(size))
	return nil
}

// TestCaptureOfAnotherMachine describes the links of the snapshot, not those of this machine with the same name.
func TestCaptureOfAnotherMachine(t *testing.T) {
	s := aHost()
	s.Host.Links[0].MAC, s.Host.Links[1].MAC = "00:00:00:00:00:00", "02:00:00:00:00:15"
	s.Host.Links = append(s.Host.Links, netstate.Link{Index: 9, Name: "wg0", Up: true, Carrier: true})
	s.Containers = []netstate.Container{{ID: "c", Name: "web", PID: 1, Running: true}}
	s.Sandboxes = map[string]*netstate.Namespace{"c": {
		Links: []netstate.Link{{Index: 2, Name: "eth0", Kind: "veth", MAC: "02:00:00:00:00:99"}},
		Addrs: []netstate.Addr{{Link: "eth0", Prefix: netip.MustParsePrefix("172.17.0.2/16")}},
	}}
	for iface, want := range map[string]struct {
		kind layers.LinkType
		text string
	}{
		"eth0": {layers.LinkTypeEthernet, "uplink, host, MAC 02:00:00:00:00:15"},
		"lo":   {layers.LinkTypeEthernet, "uplink, host, MAC 00:00:00:00:00:00"},
		"wg0":  {layers.LinkTypeRaw, "uplink, host"},
	} {
		c, err := NewCapture(s, CaptureOptions{Container: "c", Iface: iface})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.interfaceOf(c.places[0]); got.LinkType != want.kind || got.Description != want.text {
			t.Errorf("%s: %v, %q", iface, got.LinkType, got.Description)
		}
		if got := c.interfaceOf(c.places[1]); got.LinkType != layers.LinkTypeEthernet || got.Description != "container, container web, MAC 02:00:00:00:00:99" {
			t.Errorf("%v, %q", got.LinkType, got.Description)
		}
	}
}

func TestAFullDiskLeavesAWholeFile(t *testing.T) {
	c := &Capture{places: []place{{hop: packet.Uplink, link: "lo"}, {hop: packet.Bridge, link: "no such link"}}, options: CaptureOptions{Snaplen: CaptureSnaplen}}
	data := append(bytes.Repeat([]byte{0x02}, 12), 0x08, 0x00, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	for room := 400; room < 700; room += 7 {
		d := &disk{room: room}
		f, err := c.NewFile(d)
		for i := 0; err == nil; i++ {
			err = f.Write(Packet{Time: time.Unix(1, 0), Place: i % 2, Data: data, Length: len(data)})
		}
		name := t.TempDir() + "/capture"
		if err := os.WriteFile(name, d.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		names, packets := readFile(t, name)
		if len(names) != 2 || len(packets) == 0 {
			t.Errorf("room for %d: interfaces %q, packets %v", room, names, packets)
		}
	}
}
