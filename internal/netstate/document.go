package netstate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of a document. A host with a full table of 262,144 connections makes about 80 MiB.
const (
	largestDocument = 256 << 20 // bytes
	deepestDocument = 64        // objects and arrays inside each other; Snapshot's own types need half of it
)

// Encode writes s as a document, as docs/snapshot.md describes it. The same snapshot gives the same
// bytes, and Decode gives back an equal one.
//
// Names and texts on a host may be no UTF-8, which JSON cannot hold: such bytes are written as \xNN, the
// same everywhere, so that what was equal stays equal.
func (s *Snapshot) Encode(w io.Writer) error {
	document := *s
	document.Schema = Schema
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	return out.Encode(mapStrings(&document, asUTF8))
}

// asUTF8 writes each byte that is no UTF-8 as \xNN.
func asUTF8(text string) string {
	valid := strings.ToValidUTF8(text, "")
	if len(valid) == len(text) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		if r == '\uFFFD' && !strings.HasPrefix(text[i:], "\uFFFD") {
			fmt.Fprintf(&b, `\x%02x`, text[i])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Decode reads a document that Encode wrote, on this machine or another, and refuses one that the
// packages which judge it could not rely on: see Validate. The document is taken for hostile.
//
// A field that is not known is left out, and its path stands in Ignored: within one schema, fields are
// only added that a reader may leave out without taking ill for well. Inside an nft expression one is
// not left out: the expression becomes an NftOpaque.
//
// Errors say what is wrong and where: the byte at which a document ends too early, the path of a field
// that has the wrong type ("host.links[3].mtu"), the schema that it has and the one that is read.
func Decode(r io.Reader) (*Snapshot, error) {
	data, err := io.ReadAll(io.LimitReader(r, largestDocument+1))
	if err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if err := checkText(data); err != nil {
		return nil, err
	}
	if err := checkSchema(data); err != nil {
		return nil, err
	}
	s := &Snapshot{}
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if strict.Decode(s) != nil {
		// Why it was refused is worth the second look: unknown fields are no fault.
		if s.Ignored, err = inspect(data); err != nil {
			return nil, err
		}
		ignored := s.Ignored
		s = &Snapshot{Ignored: ignored}
		if err := json.Unmarshal(data, s); err != nil {
			return nil, err
		}
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// checkText says whether data is one whole JSON text of a bearable size and depth.
func checkText(data []byte) error {
	switch {
	case len(data) > largestDocument:
		return fmt.Errorf("is larger than %d MiB", largestDocument>>20)
	case len(bytes.TrimSpace(data)) == 0:
		return errors.New("is empty")
	case bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")):
		return errors.New("is UTF-16, as a shell that redirects writes it: write it with snapshot --output")
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		return errors.New("is compressed: unpack it with gunzip")
	}
	// encoding/json looks through an expression inside an expression once for each level.
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > deepestDocument {
				return fmt.Errorf("at byte %d objects lie in each other more than %d deep", i+1, deepestDocument)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(data, new(json.RawMessage)); errors.As(err, &syntax) {
		if syntax.Offset >= int64(len(data)) && !json.Valid(data) && depth > 0 {
			return fmt.Errorf("is cut off: it ends at byte %d", len(data))
		}
		return fmt.Errorf("is no JSON at byte %d: %w", syntax.Offset, syntax)
	} else if err != nil {
		return err
	}
	return nil
}

// checkSchema says whether the document is a snapshot that this program reads.
func checkSchema(data []byte) error {
	var document struct {
		Schema *string `json:"schema"`
	}
	switch err := json.Unmarshal(data, &document); {
	case err != nil || document.Schema == nil:
		return fmt.Errorf("has no schema: it is no document of docker netcheck snapshot")
	case *document.Schema == Schema:
		return nil
	case strings.HasPrefix(*document.Schema, strings.TrimRight(Schema, "0123456789")):
		return fmt.Errorf("has the schema %q, and this docker netcheck reads %q: use the version that wrote it", shorten(*document.Schema), Schema)
	default:
		return fmt.Errorf("has the schema %q, want %q: it is no document of docker netcheck snapshot", shorten(*document.Schema), Schema)
	}
}
