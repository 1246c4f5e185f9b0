package remediate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// text is a string in a document: a JSON string, or {"base64": "…"} when its bytes are no UTF-8.
type text string

type base64Text struct {
	Base64 *string `json:"base64"`
}

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return plainJSON(string(t))
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(t))
	return json.Marshal(base64Text{&encoded})
}

func (t *text) UnmarshalJSON(data []byte) error {
	if data = bytes.TrimSpace(data); len(data) > 0 && data[0] == '{' {
		var encoded base64Text
		if err := strictJSON(data, &encoded); err != nil {
			return err
		}
		if encoded.Base64 == nil {
			return errors.New(`an object in place of a text needs the key "base64"`)
		}
		raw, err := base64.StdEncoding.DecodeString(*encoded.Base64)
		*t = text(raw)
		return err
	}
	return json.Unmarshal(data, (*string)(t))
}

// stepJSON is the shape of a step in a document.
type stepJSON struct {
	Kind   string            `json:"kind"`
	Name   text              `json:"name"`
	Old    *text             `json:"old"`
	New    *text             `json:"new"`
	Also   []Step            `json:"also"`
	Guards map[string]string `json:"guards,omitempty"`
	OneWay bool              `json:"one_way,omitempty"`
}

// MarshalJSON writes kind, name, old, new, also and, where there are some, guards. A value that is
// absent is null; bytes that are no UTF-8 are {"base64": "…"}.
func (s Step) MarshalJSON() ([]byte, error) {
	also := s.Also
	if also == nil {
		also = []Step{}
	}
	return plainJSON(stepJSON{s.Kind, text(s.Name), (*text)(s.Old), (*text)(s.New), also, s.Guards, s.OneWay})
}

// UnmarshalJSON is the inverse of MarshalJSON. A key that it does not know is an error, so is a step
// without kind or name.
func (s *Step) UnmarshalJSON(data []byte) error {
	var doc stepJSON
	if err := strictJSON(data, &doc); err != nil {
		return err
	}
	if doc.Kind == "" || doc.Name == "" {
		return errors.New("a step needs a kind and a name")
	}
	for _, also := range doc.Also {
		if len(also.Also) > 0 {
			return fmt.Errorf("%s: what changes along with it has an also of its own", also.Object())
		}
	}
	if len(doc.Also) == 0 {
		doc.Also = nil
	}
	*s = Step{Kind: doc.Kind, Name: string(doc.Name), Old: (*string)(doc.Old), New: (*string)(doc.New),
		Also: doc.Also, Guards: doc.Guards, OneWay: doc.OneWay}
	return nil
}

type fixJSON struct {
	Title    string `json:"title"`
	Opens    bool   `json:"opens"`
	Disrupts bool   `json:"disrupts"`
	Persist  []Step `json:"persist"`
	Steps    []Step `json:"steps"`
}

// MarshalJSON writes title, opens, disrupts, persist and steps.
func (f Fix) MarshalJSON() ([]byte, error) {
	return plainJSON(fixJSON{f.Title, f.Opens, f.Disrupts, orEmpty(f.Persist), orEmpty(f.Steps)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (f *Fix) UnmarshalJSON(data []byte) error {
	var doc fixJSON
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	*f = Fix{doc.Title, doc.Steps, doc.Persist, doc.Opens, doc.Disrupts}
	return nil
}

// orEmpty makes a missing list an empty one, so that a document says [] and not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// plainJSON is json.Marshal that leaves <, > and & as they are: values are read by people.
func plainJSON(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

// strictJSON is json.Unmarshal that refuses keys it does not know and anything behind the value.
func strictJSON(data []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("there is something behind the end of the value")
	}
	return nil
}
