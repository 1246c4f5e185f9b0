package netstate_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

var update = flag.Bool("update", false, "write generated pages anew")

const (
	page      = "../../docs/snapshot.md"
	pageBegin = "<!-- generated from internal/netstate by make docs: do not edit -->\n"
	pageEnd   = "<!-- end of the generated part -->\n"
)

// TestSnapshotPage compares the fields in docs/snapshot.md with the types and their comments.
func TestSnapshotPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), pageBegin)
	_, after, closed := strings.Cut(rest, pageEnd)
	if !found || !closed {
		t.Fatalf("%s has no generated part", page)
	}
	want := before + pageBegin + fieldsPage(t) + pageEnd + after
	if string(text) == want {
		return
	}
	if !*update {
		t.Fatalf("%s is stale: make docs", page)
	}
	if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reachable returns the structs of a document, each before those in its fields, and the expressions.
func reachable() (structs, exprs []reflect.Type) {
	seen := map[reflect.Type]bool{}
	var queue []reflect.Type
	visit := func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Array {
			t = t.Elem()
		}
		if t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[netstate.Snapshot]().PkgPath() && scalar(t) == "" && !seen[t] {
			seen[t] = true
			queue = append(queue, t)
		}
	}
	drain := func() (all []reflect.Type) {
		for len(queue) > 0 {
			t := queue[0]
			queue = queue[1:]
			all = append(all, t)
			for i := range t.NumField() {
				visit(t.Field(i).Type)
			}
		}
		return all
	}
	visit(reflect.TypeFor[netstate.Snapshot]())
	structs = drain()
	netstate.EveryExpr(func(e netstate.NftExpr) { visit(reflect.TypeOf(e)) })
	return structs, drain()
}

// scalar returns what a type is in JSON that is written as a whole, or "".
func scalar(t reflect.Type) string {
	return map[reflect.Type]string{
		reflect.TypeFor[netstate.Part]():   "parts, joined by `+`",
		reflect.TypeFor[netstate.Family](): "`ipv4` or `ipv6`",
		reflect.TypeFor[netstate.Port]():   "port, `80/tcp`",
		reflect.TypeFor[netstate.Hex]():    "hexadecimal digits",
		reflect.TypeFor[netstate.NftReg](): "register",
		reflect.TypeFor[netstate.Key]():    "part/family/variant/container",
	}[t]
}

// named returns what a type is in JSON.
func named(t reflect.Type) string {
	if text := scalar(t); text != "" {
		return text
	}
	switch t.String() {
	case "time.Time":
		return "time, RFC 3339"
	case "netip.Addr":
		return "address"
	case "netip.Prefix":
		return "prefix"
	case "netip.AddrPort":
		return "address:port"
	case "netstate.NftExprs":
		return "list of [expressions](#expressions)"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return named(t.Elem())
	case reflect.Slice:
		return "list of " + named(t.Elem())
	case reflect.Array:
		return fmt.Sprintf("list of %d of %s", t.Len(), named(t.Elem()))
	case reflect.Map:
		return "object: " + named(t.Key()) + " → " + named(t.Elem())
	case reflect.Struct:
		return fmt.Sprintf("[%s](#%s)", t.Name(), strings.ToLower(t.Name()))
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	}
	return "number"
}

// A source is what the code says of types and fields.
type source struct{ types, fields map[string]string }

func readSource(t *testing.T) source {
	s := source{map[string]string{}, map[string]string{}}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			general, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range general.Specs {
				typed, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				doc := typed.Doc
				if doc == nil {
					doc = general.Doc
				}
				s.types[typed.Name.Name] = strings.TrimSpace(doc.Text())
				if body, ok := typed.Type.(*ast.StructType); ok {
					for _, field := range body.Fields.List {
						for _, name := range field.Names {
							s.fields[typed.Name.Name+"."+name.Name] = strings.Join(strings.Fields(field.Doc.Text()+" "+field.Comment.Text()), " ")
						}
					}
				}
			}
		}
	}
	return s
}

// fieldsPage writes every type of a document with its fields.
func fieldsPage(t *testing.T) string {
	code := readSource(t)
	var b strings.Builder
	write := func(heading string, is reflect.Type) {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", heading, code.types[is.Name()])
		if is.NumField() == 0 {
			return
		}
		fmt.Fprint(&b, "\n| field | is | meaning |\n|---|---|---|\n")
		for i := range is.NumField() {
			field := is.Field(i)
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "-" {
				meaning := strings.NewReplacer("|", `\|`, "<", `\<`).Replace(code.fields[is.Name()+"."+field.Name])
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, named(field.Type), meaning)
			}
		}
	}
	structs, exprs := reachable()
	for _, is := range structs {
		write(is.Name(), is)
	}
	fmt.Fprintf(&b, "\n### Expressions\n\n%s\n\n%s\n", code.types["NftExpr"], code.types["NftReg"])
	kinds := map[reflect.Type]string{}
	netstate.EveryExpr(func(e netstate.NftExpr) { kinds[reflect.TypeOf(e).Elem()] = e.Name() })
	for _, is := range exprs {
		heading := is.Name()
		if kind := kinds[is]; kind != "" {
			heading = "`" + kind + "`"
		}
		write(heading, is)
	}
	return b.String()
}

// TestFieldsAreLookedAt fails for every field that nobody has looked at yet. A document may hold no
// environment, no labels but Compose's project and service, no command lines, and no contents of files but the few that
// docs/snapshot.md names; texts that a field may hold are redacted by Redact as texts. Who adds a field looks at
// that, says in docs/snapshot.md what is new, and then adds it here.
func TestFieldsAreLookedAt(t *testing.T) {
	structs, exprs := reachable()
	got := map[string]string{}
	for _, is := range append(structs, exprs...) {
		var names []string
		for i := range is.NumField() {
			name, _, _ := strings.Cut(is.Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
		slices.Sort(names)
		got[is.Name()] = strings.Join(names, " ")
	}
	if *update {
		for _, name := range slices.Sorted(maps.Keys(got)) {
			if got[name] != lookedAt[name] {
				fmt.Printf("\t%q: %q,\n", name, got[name])
			}
		}
	}
	for name, fields := range got {
		if fields != lookedAt[name] {
			t.Errorf("%s has the fields\n\t%s\nand looked at were\n\t%s", name, fields, lookedAt[name])
		}
	}
	for name := range lookedAt {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is in no document", name)
		}
	}
}
