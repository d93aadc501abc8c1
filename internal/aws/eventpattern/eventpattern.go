// Package eventpattern knows the patterns of AWS's content filtering, as
// EventBridge and the filters of event source mappings have them: a JSON object
// whose leaves are lists of what a field may be.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
//
// It compiles patterns and matches events by the rules of AWS's open engine
// (event-ruler), many patterns at once. The registry of mappings asks whether a text
// is one before it keeps it; event sources match with them.
package eventpattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
)

// Pattern is a compiled pattern: an object of which everything must hold.
type Pattern struct {
	fields []field
	any    [][]*Pattern // of each $or, one alternative
}

// field is one that must be there, or must not.
type field struct {
	path   []string // from the top of the event; its last is the field's name
	below  *Pattern // where the field is an object, or
	values []test   // one of these fits its value
	exact  []string // keys of values that it may have; all of its tests, if values is empty
	absent bool     // it may be missing
}

// test is what a value may be.
type test func(v *value) bool

// ErrInvalid is what a text gets that is no pattern.
var ErrInvalid = errors.New("it is not an event pattern")

// Valid reports whether the text is a pattern.
func Valid(text string) bool {
	_, err := Parse(text)
	return err == nil
}

// Parse compiles a pattern.
func Parse(text string) (*Pattern, error) {
	d := json.NewDecoder(strings.NewReader(text))
	var fields map[string]json.RawMessage
	if err := d.Decode(&fields); err != nil {
		return nil, ErrInvalid
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, ErrInvalid
	}
	if p := parse(fields, nil); p != nil {
		return p, nil
	}
	return nil, ErrInvalid
}

// parse compiles an object that names fields. It returns nil where that is invalid.
func parse(fields map[string]json.RawMessage, path []string) *Pattern {
	if len(fields) == 0 {
		return nil
	}
	p := &Pattern{}
	for name, raw := range fields {
		f := field{path: append(slices.Clone(path), name)}
		list := array(raw)
		switch below := object(raw); {
		case below != nil:
			if f.below = parse(below, f.path); f.below == nil {
				return nil
			}
		case name == "$or" && isOr(list):
			alternatives := each(list, func(v json.RawMessage) *Pattern { return parse(object(v), path) })
			if alternatives == nil {
				return nil
			}
			p.any = append(p.any, alternatives)
			continue
		default:
			if len(list) == 0 || !f.parseValues(list) {
				return nil
			}
		}
		p.fields = append(p.fields, f)
	}
	return p
}

// isOr tells the alternatives of $or from the values of a field that is called so.
func isOr(list []json.RawMessage) bool {
	return len(list) > 1 && !slices.ContainsFunc(list, func(v json.RawMessage) bool {
		o := object(v)
		for name := range o {
			if operators[name] != nil || name == "exists" {
				return true
			}
		}
		return o == nil
	})
}

// parseValues compiles what a field may be: values, or operators and what they take.
func (f *field) parseValues(list []json.RawMessage) bool {
	for _, v := range list {
		switch v[0] {
		case '[':
			return false
		case '{':
			o := object(v)
			if len(o) != 1 {
				return false
			}
			for name, operand := range o {
				if name == "exists" {
					switch operand[0] {
					case 't':
						f.values = append(f.values, func(*value) bool { return true })
					case 'f':
						f.absent = true
					default:
						return false
					}
				} else if compile := operators[name]; compile == nil {
					return false
				} else if t := compile(operand); t == nil {
					return false
				} else {
					f.values = append(f.values, t)
				}
			}
		default:
			operand := scalar(v)
			f.exact = append(f.exact, operand.key())
		}
	}
	return true
}

// object returns the members of the object that v is, or nil.
func object(v json.RawMessage) (o map[string]json.RawMessage) {
	if bytes.HasPrefix(v, []byte("{")) {
		_ = json.Unmarshal(v, &o) // valid JSON already
	}
	return o
}

// array returns the items of the list that v is, or nil.
func array(v json.RawMessage) (list []json.RawMessage) {
	if bytes.HasPrefix(v, []byte("[")) {
		_ = json.Unmarshal(v, &list) // valid JSON already
	}
	return list
}

// each compiles all items, or returns nil if one is invalid or there are none.
func each[T any](list []json.RawMessage, compile func(json.RawMessage) *T) (all []*T) {
	for _, v := range list {
		t := compile(v)
		if t == nil {
			return nil
		}
		all = append(all, t)
	}
	return all
}
