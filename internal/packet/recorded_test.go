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
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// recordings is what a kernel once did with the packets of the differential test: snapshots as host.Collect
// read them, the packets, and where each was seen. PACKET_DIFF_RECORD=FILE writes such a file.
const recordings = "testdata/recorded.json.gz"

// outlived is the same of settings that older connections met: PACKET_DIFF_OUTLIVING=1.
const outlived = "testdata/outlived.json.gz"

// switched is the same of settings whose bridges do not forward as they should: PACKET_DIFF_SWITCHED=85.
const switched = "testdata/switched.json.gz"

// found is where disagreements are kept: each a recording of a setting that was made as small as it could be.
// They stay when the walk was mended, for it shall not fall back.
const found = "testdata/found"

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
	Fails    bool       `json:"fails,omitempty"`
	ID       uint32     `json:"id"`
	Seen     string     `json:"seen"`

	Flows []netstate.Flow `json:"flows,omitempty"` // the host's, before it
}

// recordTry makes a recordedTry, with the flows that the walk may ask for.
func recordTry(t try, seen string, flows []netstate.Flow) recordedTry {
	flows = slices.DeleteFunc(slices.Clone(flows), func(f netstate.Flow) bool {
		return !slices.Contains([]uint16{f.Original.Src.Port(), f.Original.Dst.Port()}, uint16(t.sport)) && f.Original.Src.Port() != uint16(t.dport)
	})
	return recordedTry{Flows: flows, From: t.from, Src: t.src, Dst: t.dst, Proto: t.proto, SPort: t.sport, DPort: t.dport, ICMPType: t.icmpType,
		Flags: t.flags, TTL: t.ttl, DSCP: t.dscp, Length: t.length, UID: t.uid, Fails: t.fails, ID: t.id, Seen: seen}
}

func (r recordedTry) try() try {
	return try{from: r.From, fails: r.Fails, shot: shot{id: r.ID, skb: skb{family: netstate.FamilyOf(r.Src), tuple: tuple{src: r.Src, dst: r.Dst, sport: r.SPort, dport: r.DPort, proto: r.Proto},
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
	one.trim()
	must(t, json.NewEncoder(r.zip).Encode(one))
}

// trim leaves out what the walk does not ask for.
func (r *recording) trim() {
	telling := func(ns *netstate.Namespace) {
		maps.DeleteFunc(ns.Sysctls, func(name, _ string) bool { return !tellingSysctls.MatchString(name) })
		ns.Sockets = nil
	}
	telling(&r.Snapshot.Host)
	for _, ns := range r.Snapshot.Sandboxes {
		telling(ns)
	}
}

// keep saves a disagreement and returns where.
func (r *recording) keep(t testing.TB, name string) string {
	r.trim()
	data, err := json.MarshalIndent(r, "", " ")
	must(t, err)
	must(t, os.MkdirAll(found, 0o755))
	path := filepath.Join(found, strings.ReplaceAll(name, " ", "-")+".json")
	must(t, os.WriteFile(path, append(data, '\n'), 0o644))
	return path
}

func (r *recorder) close(t testing.TB) {
	must(t, errors.Join(r.zip.Close(), r.file.Close()))
}

func readRecordings(t testing.TB) []recording {
	t.Helper()
	var all []recording
	files, err := filepath.Glob(found + "/*.json")
	must(t, err)
	for _, name := range files {
		var one recording
		data, err := os.ReadFile(name)
		must(t, err)
		must(t, json.Unmarshal(data, &one))
		all = append(all, one)
	}
	for _, name := range []string{recordings, outlived, switched} {
		data, err := os.ReadFile(name)
		must(t, err)
		zip, err := gzip.NewReader(bytes.NewReader(data))
		must(t, err)
		d := json.NewDecoder(zip)
		for {
			var one recording
			if err := d.Decode(&one); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			all = append(all, one)
		}
	}
	return all
}

// disagreement returns the first try of which the walk says otherwise than the kernel did, or "".
func (r *recording) disagreement() string {
	x := New(r.Snapshot)
	x.prepare()
	for _, one := range r.Tries {
		try := one.try()
		if len(one.Flows) > 0 {
			x = New(withFlows(r.Snapshot, one.Flows))
			x.prepare()
		}
		if ways := x.ways(try); !agrees(ways, one.Seen) {
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
