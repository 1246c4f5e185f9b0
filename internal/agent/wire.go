package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"

	"github.com/docker-netcheck/docker-netcheck/internal/host"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
	"github.com/docker-netcheck/docker-netcheck/internal/packet"
	"github.com/docker-netcheck/docker-netcheck/internal/probe"
	"github.com/docker-netcheck/docker-netcheck/remediate"
)

// Schema names the format of what client and helper say to each other: messages of a header line,
// "netcheck.agent/v1 LENGTH", and LENGTH bytes of JSON. Each request has one reply, of which those to a
// capture have parts that come before it.
const Schema = "netcheck.agent/v1"

// What a message may have at most: neither side trusts the other.
const (
	maxRequest = 32 << 20
	maxReply   = 512 << 20
)

// What a request wants.
const (
	doCollect = "collect"
	doApply   = "apply"
	doUndo    = "undo"
	doHistory = "history"
	doObserve = "observe"
	doCapture = "capture"
)

// needs are the rights that a helper needs for it.
var needs = map[string]string{
	doCollect: reading, doHistory: reading, doCapture: reading, doApply: changing, doUndo: changing, doObserve: watching,
}

// A request says what to do, and to which engine.
type request struct {
	Do      string          `json:"do"`
	Engine  engine          `json:"engine"`
	Collect *collection     `json:"collect,omitempty"`
	Plan    json.RawMessage `json:"plan,omitempty"` // a plan document
	Run     string          `json:"run,omitempty"`  // to undo; "" is the last
	Observe *observation    `json:"observe,omitempty"`
	Capture *capture        `json:"capture,omitempty"`
	Timeout time.Duration   `json:"timeout,omitempty"`
}

// An engine is how the helper knows the engine that started it: it is the one that has the helper's
// container.
type engine struct {
	Socket    string `json:"socket,omitempty"` // where the client found it, if that is a Unix socket
	API       string `json:"api"`              // version that the client speaks with it
	Container string `json:"container"`        // the helper's ID
}

// A collection is the part of host.Options that a client chooses.
type collection struct {
	Context    string        `json:"context"`
	Containers []string      `json:"containers,omitempty"`
	All        bool          `json:"all,omitempty"`
	Filters    filters.Args  `json:"filters"`
	Thorough   bool          `json:"thorough,omitempty"`
	Parts      netstate.Part `json:"parts"`
}

// An observation is the part of probe.Request that a client chooses.
type observation struct {
	Target  netstate.Target `json:"target"`
	Uplink  string          `json:"uplink,omitempty"`
	HTTP    bool            `json:"http,omitempty"`
	ICMP    bool            `json:"icmp,omitempty"`
	Timeout time.Duration   `json:"timeout"`
}

// A capture is the part of probe.CaptureOptions that a client chooses.
type capture struct {
	Container string        `json:"container"`
	Port      netstate.Port `json:"port,omitzero"`
	Client    netip.Addr    `json:"client,omitzero"`
	Iface     string        `json:"iface,omitempty"`
	Hops      []packet.Hop  `json:"hops,omitempty"`
	Count     int           `json:"count"`
	Duration  time.Duration `json:"duration"`
	Snaplen   int           `json:"snaplen"`
}

// A reply holds what was asked for. A run that was rolled back comes with an error.
type reply struct {
	Snapshot json.RawMessage `json:"snapshot,omitempty"` // a snapshot document
	Run      *remediate.Run  `json:"run,omitempty"`
	History  json.RawMessage `json:"history,omitempty"` // a history document
	Error    *failure        `json:"error,omitempty"`

	Observation *probe.Observation `json:"observation,omitempty"`

	// Of a capture: More says that this is a part.
	More   bool             `json:"more,omitempty"`
	Ready  bool             `json:"ready,omitempty"` // all hops are open
	Packet *probe.Packet    `json:"packet,omitempty"`
	Counts []probe.HopCount `json:"counts,omitempty"`
}

// send writes a message.
func send(w io.Writer, message any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(message); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s %d\n", Schema, body.Len()); err != nil {
		return err
	}
	_, err := w.Write(body.Bytes())
	return err
}

// receive reads a message of at most limit bytes. The error is io.EOF where there is none.
func receive(r *bufio.Reader, limit int64, message any) error {
	header, err := readHeader(r)
	if err != nil {
		return err
	}
	schema, length, _ := strings.Cut(header, " ")
	if schema != Schema {
		return fmt.Errorf("the other side does not speak %s: it said %q", Schema, header)
	}
	size, err := strconv.ParseInt(length, 10, 64)
	if err != nil || size < 0 || size > limit {
		return fmt.Errorf("a message of %q bytes: at most %d are read", length, limit)
	}
	var body bytes.Buffer // grows with what comes, not with what was announced
	if n, err := io.CopyN(&body, r, size); err != nil {
		return fmt.Errorf("a message of %d bytes ends after %d: %w", size, n, noEOF(err))
	}
	decoder := json.NewDecoder(&body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(message); err != nil {
		return fmt.Errorf("a message: %w", noEOF(err))
	}
	if decoder.More() {
		return errors.New("a message: there is something behind the end of it")
	}
	return nil
}

// readHeader reads a line, which is short: a side that sends none must not be waited for.
func readHeader(r *bufio.Reader) (string, error) {
	var line []byte
	for len(line) < 64 {
		c, err := r.ReadByte()
		switch {
		case err != nil && len(line) == 0:
			return "", err
		case err != nil:
			return "", fmt.Errorf("a message ends in its header, %q: %w", line, noEOF(err))
		case c == '\n':
			return string(line), nil
		}
		line = append(line, c)
	}
	return "", fmt.Errorf("the other side does not speak %s: it said %q", Schema, line)
}

// noEOF keeps the end of a stream that was cut off apart from its proper end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A failure is an error on its way. Errors that somebody asks for by errors.Is or errors.As arrive as
// such.
type failure struct {
	Text    string              `json:"text"`
	Is      []string            `json:"is,omitempty"`      // keys of sentinels
	Run     string              `json:"run,omitempty"`     // of a *remediate.RefusedError
	Refused []remediate.Refusal `json:"refused,omitempty"` // of the same
}

var sentinels = map[string]error{
	"no engine":    host.ErrNoEngine,
	"no container": host.ErrNoContainer,
	"changed":      remediate.ErrChanged,
	"busy":         remediate.ErrBusy,
	"unfinished":   remediate.ErrUnfinished,
	"nothing":      remediate.ErrNothing,
	"overlap":      remediate.ErrOverlap,
	"canceled":     context.Canceled,
	"timeout":      context.DeadlineExceeded,
	"no probe":     probe.ErrRefused,
	"permission":   fs.ErrPermission,
}

// failureOf is nil for no error.
func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error()}
	for name, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			f.Is = append(f.Is, name)
		}
	}
	slices.Sort(f.Is)
	var refused *remediate.RefusedError
	if errors.As(err, &refused) {
		f.Run, f.Refused = refused.Run, refused.Refused
	}
	return f
}

// err is the inverse of failureOf.
func (f *failure) err() error {
	if f == nil {
		return nil
	}
	return f
}

// Error implements error.
func (f *failure) Error() string { return f.Text }

// Unwrap returns the errors that it was made of, as far as they are known by name.
func (f *failure) Unwrap() []error {
	var errs []error
	for _, name := range f.Is {
		if sentinel := sentinels[name]; sentinel != nil {
			errs = append(errs, sentinel)
		}
	}
	if f.Refused != nil {
		errs = append(errs, &remediate.RefusedError{Run: f.Run, Refused: f.Refused})
	}
	return errs
}
