package netstate

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// inspect looks for what encoding/json does not say: the path of the first value that does not fit its
// field, and the paths of all fields that are not known. data is one JSON text.
func inspect(data []byte) (ignored []string, err error) {
	i := inspection{}
	err = i.value("", data, reflect.TypeFor[Snapshot]())
	slices.Sort(i.ignored)
	return slices.Compact(i.ignored), err
}

type inspection struct{ ignored []string }

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	exprsType       = reflect.TypeFor[NftExprs]()
)

// value checks that raw fits t.
func (i *inspection) value(path string, raw json.RawMessage, t reflect.Type) error {
	switch pointer := reflect.PointerTo(t); {
	case string(raw) == "null":
		return nil
	case t == exprsType:
		return i.exprs(path, raw)
	case pointer.Implements(textUnmarshaler), pointer.Implements(jsonUnmarshaler):
		return fits(path, raw, t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return i.value(path, raw, t.Elem())
	case reflect.Struct:
		return i.object(path, raw, t)
	case reflect.Map:
		return i.entries(path, raw, t)
	case reflect.Slice, reflect.Array:
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return mismatch(path, raw, t)
		}
		for n, element := range list {
			if err := i.value(path+"["+strconv.Itoa(n)+"]", element, t.Elem()); err != nil {
				return err
			}
		}
		return nil
	}
	return fits(path, raw, t)
}

func (i *inspection) object(path string, raw json.RawMessage, t reflect.Type) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return mismatch(path, raw, t)
	}
	for _, name := range sorted(members) {
		at := name
		if path != "" {
			at = path + "." + name
		}
		field, known := fieldNamed(t, name)
		if !known {
			i.ignored = append(i.ignored, withoutIndexes(path)+quoteField(path, name))
			continue
		}
		if err := i.value(at, members[name], field.Type); err != nil {
			return err
		}
	}
	return nil
}

func (i *inspection) entries(path string, raw json.RawMessage, t reflect.Type) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return mismatch(path, raw, t)
	}
	for _, name := range sorted(members) {
		key, err := json.Marshal(map[string]struct{}{name: {}})
		if err != nil {
			return err
		}
		at := path + "[" + quoteShort(name) + "]"
		if err := json.Unmarshal(key, reflect.New(reflect.MapOf(t.Key(), reflect.TypeFor[struct{}]())).Interface()); err != nil {
			return fmt.Errorf("%s: %w", at, plain(err))
		}
		if err := i.value(at, members[name], t.Elem()); err != nil {
			return err
		}
	}
	return nil
}

// exprs checks expressions, which are objects of one member: the expression's name.
func (i *inspection) exprs(path string, raw json.RawMessage) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return mismatch(path, raw, exprsType)
	}
	for n, element := range list {
		at := path + "[" + strconv.Itoa(n) + "]"
		var tagged map[string]json.RawMessage
		if err := json.Unmarshal(element, &tagged); err != nil {
			return mismatch(at, element, reflect.TypeFor[struct{}]())
		}
		if len(tagged) != 1 {
			return fmt.Errorf("%s: an expression has one name, this has %d", at, len(tagged))
		}
		for name, body := range tagged {
			make, known := nftExprTypes[name]
			if !known { // it is an NftOpaque then
				continue
			}
			deeper := inspection{} // unknown fields make it an NftOpaque: they are not left out
			if err := deeper.value(at+"."+strings.ReplaceAll(name, " ", "_"), body, reflect.TypeOf(make()).Elem()); err != nil {
				return err
			}
		}
	}
	return nil
}

// fits checks a value that has no parts.
func fits(path string, raw json.RawMessage, t reflect.Type) error {
	err := json.Unmarshal(raw, reflect.New(t).Interface())
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return mismatch(path, raw, t)
	}
	return fmt.Errorf("%s: %w", path, plain(err))
}

// plain shortens an error that repeats what the document says.
func plain(err error) error {
	if text := err.Error(); len(text) > 300 {
		return errors.New(shorten(text))
	}
	return err
}

// mismatch words a value of the wrong type.
func mismatch(path string, raw json.RawMessage, t reflect.Type) error {
	if path == "" {
		path = "the document"
	}
	is, want := "", "text"
	switch raw[0] {
	case '{':
		is = "an object"
	case '[':
		is = "a list"
	case '"':
		is = "text"
	case 't', 'f':
		is = string(raw)
	default:
		is = "the number " + shorten(string(raw))
	}
	switch t.Kind() {
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int32:
		want = fmt.Sprintf("a whole number of %d bits", t.Bits())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		want = fmt.Sprintf("a whole number from 0 on of %d bits", t.Bits())
	case reflect.Slice, reflect.Array:
		want = "a list"
	case reflect.Struct, reflect.Map:
		want = "an object"
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		want = "text"
	}
	return fmt.Errorf("%s is %s, want %s", path, is, want)
}

// fieldNamed returns the field of a struct with that name in JSON, by encoding/json's rule: exactly, or
// else without regard to case.
func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	var folded *reflect.StructField
	for n := range t.NumField() {
		field := t.Field(n)
		switch known := jsonName(field); {
		case known == "":
		case known == name:
			return field, true
		case strings.EqualFold(known, name):
			folded = &field
		}
	}
	if folded != nil {
		return *folded, true
	}
	return reflect.StructField{}, false
}

// jsonName returns a field's name in JSON, or "" if it has none.
func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	switch {
	case name == "-" || !field.IsExported():
		return ""
	case name == "":
		return field.Name
	}
	return name
}

// withoutIndexes makes "host.links[3]" "host.links[]": one line for a field that every element has.
func withoutIndexes(path string) string {
	var b strings.Builder
	for path != "" {
		before, rest, found := strings.Cut(path, "[")
		b.WriteString(before)
		if !found {
			break
		}
		b.WriteString("[]")
		if rest[0] == '"' {
			if quoted, err := strconv.QuotedPrefix(rest); err == nil {
				rest = rest[len(quoted):]
			}
		}
		_, path, _ = strings.Cut(rest, "]")
	}
	return b.String()
}

// quoteField appends a member's name to a path; the name is anybody's.
func quoteField(path, name string) string {
	if quoted := quoteShort(name); quoted != `"`+name+`"` {
		name = quoted
	}
	if path == "" {
		return name
	}
	return "." + name
}

func quoteShort(text string) string { return strconv.Quote(shorten(text)) }
