package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// model is the part of AWS's model format that the services use.
type model struct {
	service    service
	Metadata   struct{ APIVersion, XMLNamespace string }
	Operations map[string]*operation
	Shapes     map[string]*shape
}

type operation struct {
	Name string
	HTTP struct {
		Method, RequestURI string
		ResponseCode       int
	}
	Input, Output struct{ Shape string }
	ReadOnly      bool
	Idempotent    bool
}

type shape struct {
	name        string // in Go
	Type        string
	Members     members
	Required    []string
	Payload     string
	Member      member // of a list
	Key, Value  member // of a map
	Min, Max    *float64
	Pattern     string
	Enum        []string
	Sensitive   bool
	EventStream bool
	Exception   bool
	Error       struct{ HTTPStatusCode int }
}

type member struct {
	Name         string
	Shape        string
	Location     string
	LocationName string
}

// field is the member's name in Go.
func (m member) field() string { return strings.ToUpper(m.Name[:1]) + m.Name[1:] }

// wire is the member's name on the wire.
func (m member) wire() string {
	if m.LocationName != "" {
		return m.LocationName
	}
	return m.Name
}

// members keeps the order of the model, which is the order of AWS's answers.
type members []member

func (ms *members) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var m member
		if err := d.Decode(&m); err != nil {
			return err
		}
		m.Name = name.(string)
		*ms = append(*ms, m)
	}
	return nil
}

func load(path string, of service) (*model, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &model{service: of}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	for name, s := range m.Shapes {
		s.name = goName(name)
		for i := range s.Enum { // a rule prints it between brackets
			s.Enum[i] = strings.TrimSpace(s.Enum[i])
		}
	}
	for name, op := range m.Operations {
		op.Name = name
		if code, ok := statuses[name]; ok {
			op.HTTP.ResponseCode = code
		}
	}
	return m, nil
}

func goName(shape string) string {
	if n, ok := renames[shape]; ok {
		return n
	}
	if n, ok := strings.CutSuffix(shape, "Request"); ok {
		return n + "Input"
	}
	if n, ok := strings.CutSuffix(shape, "Response"); ok && !slices.Contains(nested, shape) {
		return n + "Output"
	}
	return shape
}

// nested are structures inside an output that happen to be called Response.
var nested = []string{"EnvironmentResponse", "ImageConfigResponse", "SnapStartResponse", "TracingConfigResponse", "VpcConfigResponse"}

// operations are those that there is code for.
func (m *model) operations() []*operation {
	list := make([]*operation, 0, len(m.Operations))
	for _, name := range slices.Sorted(maps.Keys(m.Operations)) {
		if m.builds(name) {
			list = append(list, m.Operations[name])
		}
	}
	return list
}

func (m *model) builds(name string) bool {
	return m.service.built == nil || slices.Contains(m.service.built, name)
}

func (m *model) input(op *operation) *shape { return m.Shapes[op.Input.Shape] }

// output is nil for an operation without one.
func (m *model) output(op *operation) *shape { return m.Shapes[op.Output.Shape] }

// reachable returns the structures that the roots contain, roots included, in
// the order of their Go names.
func (m *model) reachable(roots ...*shape) []*shape {
	seen := map[string]*shape{}
	var visit func(*shape)
	visit = func(s *shape) {
		switch {
		case s == nil || seen[s.name] != nil || s.EventStream:
			return
		case s.Type == "structure":
			seen[s.name] = s
			for _, mb := range s.Members {
				visit(m.Shapes[mb.Shape])
			}
		case s.Type == "list":
			visit(m.Shapes[s.Member.Shape])
		case s.Type == "map":
			visit(m.Shapes[s.Value.Shape])
		}
	}
	for _, s := range roots {
		visit(s)
	}
	list := make([]*shape, 0, len(seen))
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		list = append(list, seen[name])
	}
	return list
}

func (m *model) inputs() (list []*shape) {
	for _, op := range m.operations() {
		list = append(list, m.input(op))
	}
	return list
}

func (m *model) outputs() (list []*shape) {
	for _, op := range m.operations() {
		if s := m.output(op); s != nil {
			list = append(list, s)
		}
	}
	return list
}

// goType is the Go type of a member.
func (m *model) goType(name string) string {
	s := m.Shapes[name]
	switch s.Type {
	case "structure":
		if s.EventStream {
			return "func(*EventStream) error"
		}
		return "*" + s.name
	case "string", "integer", "long", "double", "boolean":
		return "*" + m.element(name)
	case "timestamp":
		if m.service.query {
			return "*time.Time"
		}
		return "*Epoch"
	case "blob":
		return "[]byte"
	case "list":
		return "[]" + m.element(s.Member.Shape)
	case "map":
		return "map[string]" + m.element(s.Value.Shape)
	}
	panic("type " + s.Type + " of " + name + " is not known")
}

// element is the Go type of an element of a list or map.
func (m *model) element(name string) string {
	switch s := m.Shapes[name]; s.Type {
	case "structure":
		return s.name
	case "string":
		return "string"
	case "integer":
		return "int"
	case "long":
		return "int64"
	case "double":
		return "float64"
	case "boolean":
		return "bool"
	default:
		return m.goType(name)
	}
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
