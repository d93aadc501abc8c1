package main

import (
	"bytes"
	"fmt"
	"strings"
)

func writeTypes(m *model, b *bytes.Buffer) {
	if m.service.epochs {
		b.WriteString("import \"kiln/internal/aws/wire\"\n\n")
		b.WriteString("// Epoch is a time that travels as seconds since 1970. Times that travel as text\n// are strings; ISO8601 makes them.\ntype Epoch = wire.Epoch\n\n")
	}
	if m.service.query {
		b.WriteString("import \"time\"\n\n")
	}
	role := map[string]string{}
	for _, op := range m.operations() {
		role[m.input(op).name] = "is the input of " + op.Name + "."
		if out := m.output(op); out != nil && out.name == op.Name+"Output" {
			role[out.name] = "is the output of " + op.Name + "."
		}
	}
	roots := append(m.inputs(), m.outputs()...)
	for _, name := range m.service.events {
		roots = append(roots, m.Shapes[name])
	}
	for _, s := range m.reachable(roots...) {
		doc := role[s.name]
		if doc == "" {
			doc = "is a structure of the model."
		}
		fmt.Fprintf(b, "// %s %s\ntype %s struct {\n", s.name, doc, s.name)
		for _, mb := range s.Members {
			tag := `json:"` + mb.wire() + `,omitzero"`
			switch {
			case m.service.query && mb.wire() == mb.field():
				tag = ""
			case m.service.query:
				tag = `query:"` + mb.wire() + `"`
			case mb.Location != "" || s.Payload == mb.Name:
				tag = `json:"-"`
			}
			if m.Shapes[mb.Shape].Sensitive {
				tag += ` aws:"sensitive"`
			}
			if tag != "" {
				tag = "`" + strings.TrimSpace(tag) + "`"
			}
			fmt.Fprintf(b, "%s %s %s%s\n", mb.field(), m.goType(mb.Shape), tag, m.comment(s, mb))
		}
		b.WriteString("}\n\n")
	}
	others := new(bytes.Buffer)
	for _, op := range m.operations() {
		switch out := m.output(op); {
		case out == nil:
			fmt.Fprintf(others, "%sOutput struct{}\n", op.Name)
		case out.name != op.Name+"Output":
			fmt.Fprintf(others, "%sOutput = %s\n", op.Name, out.name)
		}
	}
	if others.Len() > 0 {
		fmt.Fprintf(b, "// Several operations answer with the same structure, and some with nothing.\ntype (\n%s)\n", others)
	}
}

// comment tells a reader what the type alone does not.
func (m *model) comment(s *shape, mb member) string {
	var notes []string
	for _, r := range s.Required {
		if r == mb.Name {
			notes = append(notes, "required")
		}
	}
	switch mb.Location {
	case "uri":
		notes = append(notes, "path")
	case "querystring":
		notes = append(notes, "query "+mb.wire())
	case "header":
		notes = append(notes, "header "+mb.wire())
	case "statusCode":
		notes = append(notes, "status")
	}
	if s.Payload == mb.Name {
		notes = append(notes, "the body")
	}
	if enum := m.Shapes[mb.Shape].Enum; len(enum) > 0 && len(enum) <= 6 {
		notes = append(notes, strings.Join(enum, "|"))
	}
	if len(notes) == 0 {
		return ""
	}
	return " // " + strings.Join(notes, ", ")
}

func writeService(m *model, b *bytes.Buffer) {
	b.WriteString("import \"context\"\n\n")
	m.writeInterface(b)
	b.WriteString("// Unimplemented answers every operation with a fault that says that it is not\n// built. A service embeds it, and so has every method from its first day on.\ntype Unimplemented struct {\n// May, if not nil, refuses those who may not do an operation, built or not.\nMay func() error\n}\n\nvar _ Service = Unimplemented{}\n\n")
	for _, op := range m.operations() {
		fmt.Fprintf(b, "// %s is not built.\nfunc (u Unimplemented) %s(context.Context, *%s) (*%sOutput, error) {\nreturn nil, u.refuse(%q)\n}\n\n", op.Name, op.Name, m.input(op).name, op.Name, op.Name)
	}
}

func (m *model) writeInterface(b *bytes.Buffer) {
	fmt.Fprintf(b, `// Service is the %s API as Go methods. An input has passed the model's
// constraints: required members are not nil. The service may keep it. A nil output
// without an error counts as an empty one. Methods run concurrently, one goroutine
// for each request, whose end cancels the context.
type Service interface {
`, m.service.title)
	for _, op := range m.operations() {
		fmt.Fprintf(b, "%s(context.Context, *%s) (*%sOutput, error)\n", op.Name, m.input(op).name, op.Name)
	}
	b.WriteString("}\n\n")
}

func writeOperations(m *model, b *bytes.Buffer) {
	b.WriteString("import (\n\"context\"\n\n\"kiln/internal/aws/wire\"\n)\n\nvar operations = [...]Operation{\n")
	for _, op := range m.operations() {
		path, query, _ := strings.Cut(op.HTTP.RequestURI, "?")
		segments := strings.Split(strings.Trim(path, "/"), "/")
		quoted := make([]string, len(segments))
		resource := ""
		for i, s := range segments {
			if strings.HasPrefix(s, "{") {
				if name := strings.Trim(s, "{}"); resource == "" {
					resource = name
				}
				s = "{}"
			}
			quoted[i] = fmt.Sprintf("%q", s)
		}
		l, ok := limits[op.Name]
		if !ok {
			l = defaultLimit
		}
		if l.name == "" {
			l.name = op.Name
		}
		action, ok := actions[op.Name]
		if !ok {
			action = "lambda:" + op.Name
		}
		fmt.Fprintf(b, "{Name: %q, Method: %q, Path: %q, Status: %d, Resource: %q, Action: %q, Limit: %d, ReadOnly: %t,\n",
			op.Name, op.HTTP.Method, op.HTTP.RequestURI, op.HTTP.ResponseCode, resource, action, l.bytes, op.ReadOnly)
		fmt.Fprintf(b, "limitCode: %q, limitName: %q, segments: []string{%s},", l.code, l.name, strings.Join(quoted, ", "))
		if k, v, ok := strings.Cut(query, "="); ok {
			fmt.Fprintf(b, " queryName: %q, queryValue: %q,", k, v)
		}
		fmt.Fprintf(b, " serve: serve%s},\n", op.Name)
	}
	b.WriteString("}\n\n")
	for _, op := range m.operations() {
		fmt.Fprintf(b, `func serve%[1]s(ctx context.Context, s Service, q *wire.Request) (*answer, error) {
in, err := read%[1]s(q)
if err != nil {
return nil, err
}
out, err := s.%[1]s(ctx, in)
if err != nil {
return nil, err
}
return answer%[1]s(out), nil
}

`, op.Name)
	}
}

func writeErrors(m *model, b *bytes.Buffer) {
	b.WriteString("// errorShape tells how the body of an exception looks: the name of its message\n// member and whether it has the member Type.\nfunc errorShape(code string) (message string, typed bool) {\nswitch code {\n")
	cases := map[string][]string{}
	for name, s := range m.Shapes {
		if !s.Exception {
			continue
		}
		message, typed := "", false
		for _, mb := range s.Members {
			switch mb.Name {
			case "Message", "message":
				message = mb.Name
			case "Type":
				typed = true
			}
		}
		key := fmt.Sprintf("%q, %t", message, typed)
		cases[key] = append(cases[key], fmt.Sprintf("%q", name))
	}
	for _, u := range unmodelled {
		key := fmt.Sprintf("%q, false", u.message)
		cases[key] = append(cases[key], fmt.Sprintf("%q", u.code))
	}
	for _, key := range sortedKeys(cases) {
		list := cases[key]
		fmt.Fprintf(b, "case %s:\nreturn %s\n", strings.Join(sorted(list), ",\n"), key)
	}
	b.WriteString("}\nreturn \"message\", false\n}\n\n")

	b.WriteString("// statusOf returns the HTTP status of an exception.\nfunc statusOf(code string) int {\nswitch code {\n")
	statuses := map[string][]string{}
	for name, s := range m.Shapes {
		if s.Exception {
			key := fmt.Sprint(s.Error.HTTPStatusCode)
			statuses[key] = append(statuses[key], fmt.Sprintf("%q", name))
		}
	}
	for _, u := range unmodelled {
		key := fmt.Sprint(u.status)
		statuses[key] = append(statuses[key], fmt.Sprintf("%q", u.code))
	}
	for _, key := range sortedKeys(statuses) {
		fmt.Fprintf(b, "case %s:\nreturn %s\n", strings.Join(sorted(statuses[key]), ",\n"), key)
	}
	b.WriteString("}\nreturn 500\n}\n")
}
