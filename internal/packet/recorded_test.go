//go:build linux

package packet

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// recordings is what a kernel once did with the packets of the differential test: snapshots as host.Collect
// read them, the packets, and where each was seen. PACKET_DIFF_RECORD=FILE writes such a file.
const recordings = "testdata/recorded.json.gz"

// A recording is one setting with its tries.
type recording struct {
	Setting  string             `json:"setting"`
	Snapshot *netstate.Snapshot `json:"snapshot"`
	Tries    []recordedTry      `json:"tries"`
}

// A recordedTry is a try and what the kernel did.
type recordedTry struct {
	From     string     `json:"from"`
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	Proto    uint8      `json:"proto"`
	SPort    port       `json:"sport"`
	DPort    port       `json:"dport"`
	ICMPType uint8      `json:"icmp,omitempty"`
	Flags    uint8      `json:"flags,omitempty"`
	TTL      int        `json:"ttl"`
	DSCP     int        `json:"dscp,omitempty"`
	Length   int        `json:"length"`
	UID      int        `json:"uid,omitempty"`
	Seen     string     `json:"seen"`
}

func recordTry(t try, seen string) recordedTry {
	return recordedTry{From: t.from, Src: t.src, Dst: t.dst, Proto: t.proto, SPort: t.sport, DPort: t.dport, ICMPType: t.icmpType,
		Flags: t.flags, TTL: t.ttl, DSCP: t.dscp, Length: t.length, UID: t.uid, Seen: seen}
}

func (r recordedTry) try() try {
	return try{from: r.From, shot: shot{skb: skb{family: netstate.FamilyOf(r.Src), tuple: tuple{src: r.Src, dst: r.Dst, sport: r.SPort, dport: r.DPort, proto: r.Proto},
		icmpType: r.ICMPType, flags: r.Flags, ttl: r.TTL, dscp: r.DSCP, length: r.Length, uid: r.UID}}}
}

// tellingSysctls are those that the walk asks for.
var tellingSysctls = regexp.MustCompile(`^net\.bridge\.|ip_forward$|\.(forwarding|force_forwarding|rp_filter|route_localnet|accept_local|src_valid_mark|send_redirects|disable_ipv6|ignore_routes_with_linkdown)$`)

// A recorder writes recordings.
type recorder struct {
	file *os.File
	zip  *gzip.Writer
}

func newRecorder(t testing.TB, path string) *recorder {
	f, err := os.Create(path)
	must(t, err)
	zip, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	must(t, err)
	return &recorder{f, zip}
}

func (r *recorder) add(t testing.TB, one recording) {
	telling := func(ns *netstate.Namespace) {
		maps.DeleteFunc(ns.Sysctls, func(name, _ string) bool { return !tellingSysctls.MatchString(name) })
	}
	telling(&one.Snapshot.Host)
	for _, ns := range one.Snapshot.Sandboxes {
		telling(ns)
	}
	must(t, json.NewEncoder(r.zip).Encode(one))
}

func (r *recorder) close(t testing.TB) {
	must(t, errors.Join(r.zip.Close(), r.file.Close()))
}

func readRecordings(t testing.TB) []recording {
	t.Helper()
	data, err := os.ReadFile(recordings)
	must(t, err)
	zip, err := gzip.NewReader(bytes.NewReader(data))
	must(t, err)
	var all []recording
	for d := json.NewDecoder(zip); ; {
		var one recording
		switch err := d.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, one)
	}
}

// disagreement returns the first try of which the walk says otherwise than the kernel did, or "".
func (r *recording) disagreement() string {
	x := New(r.Snapshot)
	x.prepare()
	for _, one := range r.Tries {
		try := one.try()
		if ways := x.ways(try); !slices.Contains(ways, one.Seen) {
			return fmt.Sprintf("%s from %s\n  kernel: %s\n  walk:   %s\n%s\n%s", &try.skb, try.from, one.Seen, strings.Join(ways, "\n          "), r.Setting, x.story(try))
		}
	}
	return ""
}

func TestAgreesWithWhatAKernelDid(t *testing.T) {
	tries := 0
	for i, r := range readRecordings(t) {
		if text := r.disagreement(); text != "" {
			t.Fatalf("recording %d: %s", i, text)
		}
		tries += len(r.Tries)
	}
	if tries < 1000 {
		t.Errorf("only %d tries", tries)
	}
}
