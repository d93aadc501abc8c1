// Package eventpattern knows the patterns of AWS's content filtering, as
// EventBridge and the filters of event source mappings have them: a JSON object
// whose leaves are lists of what a field may be.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
//
// It says whether a text is such a pattern, by the rules of AWS's open engine
// (event-ruler). The registry of mappings asks before it keeps one.
package eventpattern

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Valid reports whether the text is a pattern.
func Valid(text string) bool {
	d := json.NewDecoder(strings.NewReader(text))
	var fields map[string]json.RawMessage
	if err := d.Decode(&fields); err != nil {
		return false
	}
	if _, err := d.Token(); err != io.EOF {
		return false
	}
	return valid(fields)
}

// valid checks an object that names fields.
func valid(fields map[string]json.RawMessage) bool {
	for name, value := range fields {
		if !validField(name, value) {
			return false
		}
	}
	return len(fields) > 0
}

func validField(name string, value json.RawMessage) bool {
	if below := object(value); below != nil {
		return valid(below)
	}
	list := array(value)
	if name == "$or" && isOr(list) {
		return all(list, func(v json.RawMessage) bool { return valid(object(v)) })
	}
	return len(list) > 0 && all(list, validLeaf)
}

// isOr tells the alternatives of $or from the values of a field that is called so.
func isOr(list []json.RawMessage) bool {
	return len(list) > 1 && all(list, func(v json.RawMessage) bool {
		o := object(v)
		for name := range o {
			if operators[name] != nil {
				return false
			}
		}
		return o != nil
	})
}

// validLeaf checks one thing that a field may be: a value, or an operator and what it takes.
func validLeaf(v json.RawMessage) bool {
	switch v[0] {
	case '[':
		return false
	case '{':
		o := object(v)
		for name, operand := range o {
			if check := operators[name]; check == nil || !check(operand) {
				return false
			}
		}
		return len(o) == 1
	}
	return true
}

// operators check their operands. It is filled in by a function, because
// anything-but looks into it.
var operators = func() map[string]func(json.RawMessage) bool {
	caseless := func(v json.RawMessage) bool {
		return only(v, map[string]func(json.RawMessage) bool{"equals-ignore-case": isString})
	}
	affix := func(v json.RawMessage) bool { return isString(v) || caseless(v) }
	excluded := map[string]func(json.RawMessage) bool{}
	for _, name := range []string{"prefix", "suffix", "equals-ignore-case", "wildcard"} {
		check := isString
		if name == "wildcard" {
			check = isWildcard
		}
		excluded[name] = func(v json.RawMessage) bool { return check(v) || oneOrMore(v, check) }
	}
	return map[string]func(json.RawMessage) bool{
		"prefix":             affix,
		"suffix":             affix,
		"equals-ignore-case": isString,
		"wildcard":           isWildcard,
		"cidr":               isCIDR,
		"exists":             func(v json.RawMessage) bool { return v[0] == 't' || v[0] == 'f' },
		"numeric":            isRange,
		"anything-but": func(v json.RawMessage) bool {
			return isString(v) || isNumber(v) || oneOrMore(v, isString) || oneOrMore(v, isNumber) || only(v, excluded)
		},
	}
}()

// only checks an object with one of the names.
func only(v json.RawMessage, names map[string]func(json.RawMessage) bool) bool {
	o := object(v)
	for name, value := range o {
		if check := names[name]; check == nil || !check(value) {
			return false
		}
	}
	return len(o) == 1
}

func oneOrMore(v json.RawMessage, check func(json.RawMessage) bool) bool {
	list := array(v)
	return len(list) > 0 && all(list, check)
}

// isRange checks what numeric takes: ["=", n], one bound, or a lower and an upper one.
func isRange(v json.RawMessage) bool {
	list := array(v)
	if len(list) != 2 && len(list) != 4 {
		return false
	}
	var ops []string
	var bounds []float64
	for i, item := range list {
		if i%2 == 0 {
			ops = append(ops, text(item))
			continue
		}
		var n float64
		if !isNumber(item) || json.Unmarshal(item, &n) != nil {
			return false
		}
		bounds = append(bounds, n)
	}
	if len(ops) == 1 {
		return slices.Contains([]string{"=", "<", "<=", ">", ">="}, ops[0])
	}
	return (ops[0] == ">" || ops[0] == ">=") && (ops[1] == "<" || ops[1] == "<=") && bounds[0] < bounds[1]
}

// isWildcard checks a string in which * is any text, and \ takes the meaning of * or of itself away.
func isWildcard(v json.RawMessage) bool {
	if !isString(v) {
		return false
	}
	star := false
	for s := text(v); s != ""; {
		switch {
		case s[0] == '*' && star:
			return false
		case s[0] == '\\':
			if len(s) == 1 || s[1] != '*' && s[1] != '\\' {
				return false
			}
			star, s = false, s[2:]
		default:
			star, s = s[0] == '*', s[1:]
		}
	}
	return true
}

// isCIDR checks an address or a block of them.
func isCIDR(v json.RawMessage) bool {
	s := text(v)
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isString(v json.RawMessage) bool { return v[0] == '"' }

func isNumber(v json.RawMessage) bool { return v[0] == '-' || v[0] >= '0' && v[0] <= '9' }

// text returns the string that v is, or "".
func text(v json.RawMessage) (s string) {
	_ = json.Unmarshal(v, &s) // what is no string stays ""
	return s
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

func all(list []json.RawMessage, check func(json.RawMessage) bool) bool {
	return !slices.ContainsFunc(list, func(v json.RawMessage) bool { return !check(v) })
}
