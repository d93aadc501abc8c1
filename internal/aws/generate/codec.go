package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// writeDecode writes, for each operation, how its input is read from a request,
// and for each structure inside a body, how it is read from JSON.
func writeDecode(m *model, b *bytes.Buffer) {
	b.WriteString("import \"kiln/internal/aws/wire\"\n\n")
	var bodies []*shape
	for _, op := range m.operations() {
		in := m.input(op)
		fmt.Fprintf(b, "func read%s(q *wire.Request) (*%s, error) {\nin := new(%s)\n", op.Name, in.name, in.name)
		path, _, _ := strings.Cut(op.HTTP.RequestURI, "?")
		body := false
		for _, mb := range in.Members {
			s := m.Shapes[mb.Shape]
			switch mb.Location {
			case "uri":
				method := map[string]string{"string": "Path", "long": "PathLong"}[s.Type]
				fmt.Fprintf(b, "in.%s = q.%s(%d)\n", mb.field(), method, parameter(path, mb.wire()))
			case "querystring":
				method := map[string]string{"string": "QueryString", "integer": "QueryInt", "boolean": "QueryBool", "list": "QueryList", "timestamp": "QueryTime"}[s.Type]
				fmt.Fprintf(b, "in.%s = q.%s(%q)\n", mb.field(), method, mb.wire())
			case "header":
				fmt.Fprintf(b, "in.%s = q.HeaderString(%q)\n", mb.field(), textproto.CanonicalMIMEHeaderKey(mb.wire()))
			default:
				body = true
			}
		}
		b.WriteString("if err := q.Err(); err != nil {\nreturn nil, err\n}\n")
		payload := m.payload(in)
		switch {
		case payload != nil && payload.Type == "blob":
			fmt.Fprintf(b, "in.%s = q.Body\n", in.Payload)
		case payload != nil:
			bodies = append(bodies, payload)
			fmt.Fprintf(b, "if len(q.Body) > 0 {\nr := wire.NewReader(q.Body)\nif r.Object() {\nin.%s = new(%s)\nin.%s.read(r)\n}\nr.End()\nif err := r.Err(); err != nil {\nreturn nil, err\n}\n}\n", in.Payload, payload.name, in.Payload)
		case body:
			bodies = append(bodies, in)
			b.WriteString("r := wire.NewReader(q.Body)\nif r.Object() {\nin.read(r)\n}\nr.End()\nif err := r.Err(); err != nil {\nreturn nil, err\n}\n")
		}
		if m.constrained(in) {
			b.WriteString("var v wire.Violations\nin.validate(&v, \"\")\nreturn in, v.Err()\n}\n\n")
		} else {
			b.WriteString("return in, nil\n}\n\n")
		}
	}
	m.readers(b, bodies)
}

// readers writes how structures inside bodies are read.
func (m *model) readers(b *bytes.Buffer, bodies []*shape) {
	for _, s := range m.reachable(bodies...) {
		fmt.Fprintf(b, "func (s *%s) read(r *wire.Reader) {\nfor key, ok := r.Key(); ok; key, ok = r.Key() {\nswitch string(key) {\n", s.name)
		for _, mb := range s.Members {
			if mb.Location == "" {
				fmt.Fprintf(b, "case %q:\n", mb.wire())
				m.read(b, mb)
			}
		}
		b.WriteString("default:\nr.Skip()\n}\n}\n}\n\n")
	}
}

// parameter is the index of a parameter among the parameters of a path.
func parameter(path, name string) int {
	i := 0
	for _, seg := range strings.Split(path, "/") {
		if seg == "{"+name+"}" {
			return i
		}
		if strings.HasPrefix(seg, "{") {
			i++
		}
	}
	panic("no parameter " + name + " in " + path)
}

func (m *model) payload(s *shape) *shape {
	for _, mb := range s.Members {
		if mb.Name == s.Payload {
			return m.Shapes[mb.Shape]
		}
	}
	return nil
}

// read writes the statements that read one member.
func (m *model) read(b *bytes.Buffer, mb member) {
	s := m.Shapes[mb.Shape]
	field := "s." + mb.field()
	switch s.Type {
	case "structure":
		fmt.Fprintf(b, "if r.Object() {\n%s = new(%s)\n%s.read(r)\n}\n", field, s.name, field)
	case "list":
		fmt.Fprintf(b, "if r.Array() {\n%s = %s{}\nfor r.More() {\n", field, m.goType(mb.Shape))
		switch e := m.Shapes[s.Member.Shape]; e.Type {
		case "string":
			fmt.Fprintf(b, "%s = append(%s, r.Element())\n", field, field)
		case "structure":
			fmt.Fprintf(b, "var e %s\nr.NotNull()\nif r.Object() {\ne.read(r)\n}\n%s = append(%s, e)\n", e.name, field, field)
		default:
			panic("list of " + e.Type)
		}
		b.WriteString("}\n}\n")
	case "map":
		fmt.Fprintf(b, "if r.Object() {\n%s = %s{}\nfor key, ok := r.Key(); ok; key, ok = r.Key() {\nname := string(key)\n", field, m.goType(mb.Shape))
		switch e := m.Shapes[s.Value.Shape]; e.Type {
		case "string":
			fmt.Fprintf(b, "%s[name] = r.Element()\n", field)
		case "double":
			fmt.Fprintf(b, "r.NotNull()\nif f := r.Double(); f != nil {\n%s[name] = *f\n}\n", field)
		case "list":
			fmt.Fprintf(b, "list := %s{}\nr.NotNull()\nif r.Array() {\nfor r.More() {\nlist = append(list, r.Element())\n}\n}\n%s[name] = list\n", m.goType(s.Value.Shape), field)
		default:
			panic("map of " + e.Type)
		}
		b.WriteString("}\n}\n")
	default:
		method := map[string]string{"string": "String", "integer": "Int", "long": "Long", "double": "Double", "boolean": "Bool", "timestamp": "Epoch", "blob": "Blob"}[s.Type]
		fmt.Fprintf(b, "%s = r.%s()\n", field, method)
	}
}

// writeEncode writes how each operation's output becomes an answer. Members of
// bodies are written by encoding/json, after the tags in types.gen.go.
func writeEncode(m *model, b *bytes.Buffer) {
	for _, op := range m.operations() {
		out := m.output(op)
		fmt.Fprintf(b, "func answer%s(out *%sOutput) *answer {\n", op.Name, op.Name)
		if out == nil {
			fmt.Fprintf(b, "return &answer{status: %d}\n}\n\n", op.HTTP.ResponseCode)
			continue
		}
		fmt.Fprintf(b, "if out == nil {\nout = new(%s)\n}\n", out.name)
		payload := m.payload(out)
		switch {
		case payload == nil && op.HTTP.ResponseCode != 204:
			fmt.Fprintf(b, "a := &answer{status: %d, json: out}\n", op.HTTP.ResponseCode)
		case payload == nil:
			fmt.Fprintf(b, "a := &answer{status: %d}\n", op.HTTP.ResponseCode)
		case payload.EventStream:
			fmt.Fprintf(b, "a := &answer{status: %d, stream: out.%s}\n", op.HTTP.ResponseCode, out.Payload)
		default:
			fmt.Fprintf(b, "a := &answer{status: %d, body: out.%s}\n", op.HTTP.ResponseCode, out.Payload)
		}
		for _, mb := range out.Members {
			switch mb.Location {
			case "statusCode":
				fmt.Fprintf(b, "if out.%s != nil {\na.status = *out.%s\n}\n", mb.field(), mb.field())
				if op.Name == "InvokeAsync" {
					// The service repeats the status in the body, where the model has nothing.
					b.WriteString("a.json = map[string]int{\"Status\": a.status}\n")
				}
			case "header":
				name := textproto.CanonicalMIMEHeaderKey(mb.wire())
				if name == "Content-Type" {
					// The content type on the wire is the event stream's; the function's own goes beside it.
					name = "X-Amzn-Remapped-Content-Type"
				}
				fmt.Fprintf(b, "a.set(%q, out.%s)\n", name, mb.field())
			}
		}
		b.WriteString("return a\n}\n\n")
	}
}
