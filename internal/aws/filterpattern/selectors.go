package filterpattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
)

// selectors reads { $.a.b = value && … }.
func (p *parser) selectors() func([]byte) bool {
	p.expect("{")
	is := or(p, p.condition)
	p.expect("}")
	if p.skip(); p.rest != "" {
		p.illegal()
	}
	return func(message []byte) bool {
		event, ok := decode(message)
		return ok && is(event)
	}
}

// decode reads an event that is a JSON object or array and nothing else.
func decode(message []byte) (event any, ok bool) {
	message = bytes.TrimSpace(message)
	if len(message) == 0 || message[0] != '{' && message[0] != '[' {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(message))
	d.UseNumber() // a number is compared as it was written
	if d.Decode(&event) != nil {
		return nil, false
	}
	_, err := d.Token()
	return event, errors.Is(err, io.EOF)
}

// condition reads a selector and what must hold of it.
func (p *parser) condition() func(any) bool {
	path := p.selector()
	switch {
	case p.keyword("NOT", "EXISTS"):
		return func(event any) bool { return !some(event, path, func(any) bool { return true }) }
	case p.keyword("IS", "TRUE"):
		return is(path, true)
	case p.keyword("IS", "FALSE"):
		return is(path, false)
	case p.keyword("IS", "NULL"):
		return is(path, nil)
	}
	c := p.comparison()
	return func(event any) bool { return some(event, path, c.member) }
}

func is(path []step, want any) func(any) bool {
	return func(event any) bool {
		return some(event, path, func(v any) bool {
			switch v.(type) {
			case bool, nil:
				return v == want
			}
			return false
		})
	}
}

// keyword steps over two words, in any case.
func (p *parser) keyword(first, second string) bool {
	rest := strings.TrimLeft(p.rest, " \t\r\n")
	if len(rest) < len(first) || !strings.EqualFold(rest[:len(first)], first) {
		return false
	}
	after := strings.TrimLeft(rest[len(first):], " \t\r\n")
	if len(after) == len(rest)-len(first) || len(after) < len(second) || !strings.EqualFold(after[:len(second)], second) {
		return false
	}
	p.rest = after[len(second):]
	return true
}

// step goes into a member, an element, or every element.
type step struct {
	name  string
	index int // if name is ""; -1 for every one
}

// selector reads $.name[0].name.
func (p *parser) selector() (path []step) {
	p.expect("$")
	for p.err == nil {
		switch {
		case strings.HasPrefix(p.rest, "."):
			p.rest = p.rest[1:]
			name := p.take(func(r rune) bool { return wordChar(r) || r == '-' || r == '@' || r == '$' })
			if name == "" {
				p.illegal()
			}
			path = append(path, step{name: name})
		case strings.HasPrefix(p.rest, "["):
			inside, rest, ok := strings.Cut(p.rest[1:], "]")
			index, err := strconv.Atoi(inside)
			if inside == "*" {
				index, err = -1, nil
			} else if index < 0 {
				ok = false
			}
			if !ok || err != nil {
				p.illegal()
				continue
			}
			p.rest = rest
			path = append(path, step{index: index})
		default:
			if len(path) == 0 {
				p.illegal()
			}
			return path
		}
	}
	return path
}

// some tells whether test holds for a value that the path leads to.
func some(v any, path []step, test func(any) bool) bool {
	if len(path) == 0 {
		return test(v)
	}
	s, path := path[0], path[1:]
	if s.name != "" {
		object, _ := v.(map[string]any)
		member, ok := object[s.name]
		return ok && some(member, path, test)
	}
	array, _ := v.([]any)
	if s.index < 0 {
		for _, element := range array {
			if some(element, path, test) {
				return true
			}
		}
		return false
	}
	return s.index < len(array) && some(array[s.index], path, test)
}

// member compares a JSON value. Of an object or array it can only be asked whether
// it is there.
func (c *comparison) member(v any) bool {
	switch v := v.(type) {
	case string:
		if c.operator != "=" && c.operator != "!=" {
			return false // text has no order
		}
		return c.holds(v)
	case json.Number:
		return c.holds(v.String())
	case bool:
		return c.holds(strconv.FormatBool(v))
	case nil:
		return c.holds("null")
	default:
		return c.operator == "=" && c.text == "*" || c.operator == "!=" && c.text != "*"
	}
}
