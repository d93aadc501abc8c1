package main

import (
	"bytes"
	"fmt"
	"strings"
)

// queryFiles are those of a service whose protocol is query.
var queryFiles = []file{
	{"types.gen.go", writeTypes},
	{"operations.gen.go", writeQuery},
	{"validate.gen.go", writeValidate},
}

func queryRequest(op *operation) string { return "Action=" + op.Name }

// writeQuery writes the operations, which a member of the form names.
func writeQuery(m *model, b *bytes.Buffer) {
	b.WriteString("import (\n\"context\"\n\n\"kiln/internal/aws/query\"\n)\n\n")
	m.writeInterface(b)
	fmt.Fprintf(b, "// API is the operations, by name: those that are built, and those that are not.\nvar API = query.API[Service]{\nTitle: %q, Version: %q, Namespace: %q,\nOperations: map[string]*query.Operation[Service]{\n",
		m.service.title, m.Metadata.APIVersion, m.Metadata.XMLNamespace)
	for _, op := range m.operations() {
		in, check := m.input(op), "nil"
		if m.constrained(in) {
			check = "(*" + in.name + ").validate"
		}
		fmt.Fprintf(b, "%q: query.Op(%q, %q, Service.%s, %s),\n", op.Name, op.Name, strings.ToLower(m.service.title)+":"+op.Name, op.Name, check)
	}
	b.WriteString("},\nOthers: map[string]bool{\n")
	for _, name := range sortedKeys(m.Operations) {
		if !m.builds(name) {
			fmt.Fprintf(b, "%q: true,\n", name)
		}
	}
	b.WriteString("},\n}\n")
}
