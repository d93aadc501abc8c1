package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"kiln/internal/aws/wire"
)

// writeValidate writes the model's constraints as static tables, which cost a
// starting process nothing, and a method for each structure that applies them.
func writeValidate(m *model, b *bytes.Buffer) {
	b.WriteString("import \"kiln/internal/aws/wire\"\n\n")
	v := &validation{model: m, tables: map[string]string{}, patterns: map[string]string{}}
	methods := new(bytes.Buffer)
	for _, s := range m.reachable(m.inputs()...) {
		if m.constrained(s) {
			v.method(methods, s)
		}
	}
	for _, name := range sortedKeys(v.tables) {
		fmt.Fprintf(b, "var %s = %s\n", name, v.tables[name])
	}
	b.WriteString("\n")
	b.Write(methods.Bytes())
}

type validation struct {
	*model
	tables   map[string]string // variable to its value
	patterns map[string]string // source to the variable that holds it
}

// constrained tells whether anything of s, or within it, can be violated.
func (m *model) constrained(s *shape) bool {
	if len(s.Required) > 0 {
		return true
	}
	for _, mb := range s.Members {
		if _, ok := rules[s.name+"."+mb.Name]; ok || m.bounded(m.Shapes[mb.Shape]) {
			return true
		}
	}
	return false
}

func (m *model) bounded(s *shape) bool {
	switch {
	case s.Min != nil || s.Max != nil || s.Pattern != "" || s.Enum != nil:
		return true
	case s.Type == "structure":
		return m.constrained(s)
	case s.Type == "list":
		return m.bounded(m.Shapes[s.Member.Shape])
	case s.Type == "map":
		return m.bounded(m.Shapes[s.Key.Shape]) || m.bounded(m.Shapes[s.Value.Shape])
	}
	return false
}

// order is the order in which the service was seen to report: the query before
// the path.
var order = map[string]int{"querystring": 0, "header": 1, "uri": 2, "": 3}

func (v *validation) method(b *bytes.Buffer, s *shape) {
	fmt.Fprintf(b, "func (s *%s) validate(v *wire.Violations, prefix string) {\n", s.name)
	list := slices.Clone(s.Members)
	slices.SortStableFunc(list, func(x, y member) int { return order[x.Location] - order[y.Location] })
	for _, mb := range list {
		name := lowerFirst(mb.Name)
		if slices.Contains(s.Required, mb.Name) {
			fmt.Fprintf(b, "v.Require(s.%s != nil, prefix, %q)\n", mb.field(), name)
		}
		shape := v.Shapes[mb.Shape]
		override, overridden := rules[s.name+"."+mb.Name]
		table := shape.name
		if overridden {
			changed := *shape
			if override.max != nil {
				changed.Max = override.max
			}
			if override.dropEnum {
				changed.Enum = nil
			}
			shape, table = &changed, s.name+mb.Name
		}
		if !v.bounded(shape) {
			continue
		}
		args := fmt.Sprintf("prefix, %q)\n", name)
		switch shape.Type {
		case "string":
			fmt.Fprintf(b, "v.Text(s.%s, &%s, %s", mb.field(), v.text(table, shape), args)
		case "integer", "long", "double":
			method := map[string]string{"integer": "Int", "long": "Long", "double": "Double"}[shape.Type]
			fmt.Fprintf(b, "v.%s(s.%s, &%s, %s", method, mb.field(), v.numbers(table, shape), args)
		case "blob":
			fmt.Fprintf(b, "v.Blob(s.%s, &%s, %s", mb.field(), v.size(table, shape), args)
		case "structure":
			fmt.Fprintf(b, "if s.%s != nil {\ns.%s.validate(v, prefix+%q)\n}\n", mb.field(), mb.field(), name+".")
		case "list":
			if shape.Min != nil || shape.Max != nil {
				fmt.Fprintf(b, "v.Size(s.%s, %t, &%s, %s", mb.field(), shape.Sensitive, v.size(table, shape), args)
			}
			element := v.Shapes[shape.Member.Shape]
			switch {
			case !v.bounded(element):
			case element.Type == "structure":
				fmt.Fprintf(b, "for i := range s.%s {\ns.%s[i].validate(v, wire.Index(prefix, %q, i))\n}\n", mb.field(), mb.field(), name)
			default:
				fmt.Fprintf(b, "v.Elements(s.%s, &%s, %s", mb.field(), v.text(element.name, element), args)
			}
		case "map":
			if shape.Min != nil || shape.Max != nil {
				fmt.Fprintf(b, "v.Size(s.%s, %t, &%s, %s", mb.field(), shape.Sensitive, v.size(table, shape), args)
			}
			key, value := v.Shapes[shape.Key.Shape], v.Shapes[shape.Value.Shape]
			if v.bounded(key) {
				fmt.Fprintf(b, "wire.Keys(v, s.%s, %t, &%s, %s", mb.field(), shape.Sensitive, v.text(key.name, key), args)
			}
			switch {
			case !v.bounded(value):
			case value.Type == "double":
				fmt.Fprintf(b, "v.Numbers(s.%s, &%s, %s", mb.field(), v.numbers(value.name, value), args)
			case value.Type == "list":
				element := v.Shapes[value.Member.Shape]
				fmt.Fprintf(b, "v.Lists(s.%s, &%s, &%s, %s", mb.field(), v.size(value.name, value), v.text(element.name, element), args)
			case value.Type == "string":
				fmt.Fprintf(b, "v.Values(s.%s, &%s, %s", mb.field(), v.text(value.name, value), args)
			default:
				panic("map of constrained " + value.Type)
			}
		}
	}
	b.WriteString("}\n\n")
}

func (v *validation) text(name string, s *shape) string {
	variable := "text" + name
	value := "wire.Text{Min: " + bound(s.Min) + ", Max: " + bound(s.Max)
	if s.Pattern != "" {
		value += ", Pattern: &" + v.pattern(name, s.Pattern)
	}
	if s.Enum != nil {
		value += fmt.Sprintf(", Enum: %#v", s.Enum)
	}
	if s.Sensitive {
		value += ", Sensitive: true"
	}
	v.tables[variable] = value + "}"
	return variable
}

func (v *validation) pattern(name, source string) string {
	if variable, ok := v.patterns[source]; ok {
		return variable
	}
	variable := "pattern" + name
	v.patterns[source] = variable
	quoted := "`" + source + "`"
	if strings.Contains(source, "`") {
		quoted = fmt.Sprintf("%q", source)
	}
	v.tables[variable] = "wire.Pattern{Source: " + quoted
	if matcher := lookaround[source]; matcher != "" {
		v.tables[variable] += ", Match: " + matcher
	} else if _, err := regexp.Compile(wire.RE2(source)); err != nil {
		panic("the pattern of " + name + " needs a matcher written by hand: " + err.Error())
	}
	if says := worded[source]; says != "" {
		v.tables[variable] += fmt.Sprintf(", Says: %q", says)
	}
	v.tables[variable] += "}"
	return variable
}

func (v *validation) numbers(name string, s *shape) string {
	variable := "range" + name
	v.tables[variable] = "wire.Range{Min: " + bound(s.Min) + ", Max: " + bound(s.Max) + "}"
	return variable
}

func (v *validation) size(name string, s *shape) string {
	variable := "size" + name
	v.tables[variable] = "wire.Size{Min: " + bound(s.Min) + ", Max: " + bound(s.Max) + "}"
	return variable
}

func bound(f *float64) string {
	if f == nil {
		return "wire.None"
	}
	return strconv.FormatFloat(*f, 'f', -1, 64)
}
