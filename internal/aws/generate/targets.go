package main

import (
	"bytes"
	"fmt"
)

// writeTargets writes the operations of a JSON 1.1 service, which a header names.
func writeTargets(m *model, b *bytes.Buffer) {
	b.WriteString("import \"context\"\n\n")
	m.writeInterface(b)
	b.WriteString("// operations are those that are built, by name.\nvar operations = map[string]*Operation{\n")
	for _, op := range m.operations() {
		l, ok := limits[op.Name]
		if !ok {
			l = defaultLimit
		}
		fmt.Fprintf(b, "%q: {Name: %q, Action: %q, Limit: %d, serve: serve%s},\n", op.Name, op.Name, "logs:"+op.Name, l.bytes, op.Name)
	}
	b.WriteString("}\n\n// others are those that are not.\nvar others = map[string]bool{\n")
	for _, name := range sortedKeys(m.Operations) {
		if !m.builds(name) {
			fmt.Fprintf(b, "%q: true,\n", name)
		}
	}
	b.WriteString("}\n\n")
	for _, op := range m.operations() {
		fmt.Fprintf(b, `func serve%[1]s(ctx context.Context, s Service, body []byte) (any, error) {
in, err := read%[1]s(body)
if err != nil {
return nil, err
}
return s.%[1]s(ctx, in)
}

`, op.Name)
	}
}

// writeDecodeJSON is writeDecode for operations whose whole input is the body.
func writeDecodeJSON(m *model, b *bytes.Buffer) {
	b.WriteString("import \"kiln/internal/aws/wire\"\n\n")
	var bodies []*shape
	for _, op := range m.operations() {
		in := m.input(op)
		bodies = append(bodies, in)
		fmt.Fprintf(b, "func read%s(body []byte) (*%s, error) {\nin := new(%s)\nr := wire.NewReader(body)\nif r.Object() {\nin.read(r)\n}\nr.End()\nif err := r.Err(); err != nil {\nreturn nil, err\n}\n", op.Name, in.name, in.name)
		if m.constrained(in) {
			fmt.Fprintf(b, "v := wire.Violations{Code: %q}\nin.validate(&v, \"\")\nreturn in, v.Err()\n}\n\n", m.service.invalid)
		} else {
			b.WriteString("return in, nil\n}\n\n")
		}
	}
	m.readers(b, bodies)
}
