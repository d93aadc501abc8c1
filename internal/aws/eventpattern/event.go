package eventpattern

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// value is a scalar of an event or pattern.
type value struct {
	kind  byte   // s for a string, 0 for a number, or the first letter of true, false and null
	text  string // of the string, or as it is written
	known string // its key, once that was asked for
}

// maxDigits of a number are compared by value, so that 300 is 300.0; of longer ones
// float64 does not tell each from its neighbours, and they are compared as written.
const maxDigits = 15

// key is the same for equal values, and only for them.
func (v *value) key() string {
	if v.known == "" {
		v.known = string(v.kind) + v.text
		if n, ok := v.number(); ok && digits(v.text) <= maxDigits {
			v.known = "0" + strconv.FormatFloat(n+0, 'g', -1, 64)
		}
	}
	return v.known
}

func (v *value) number() (float64, bool) {
	if v.kind != '0' {
		return 0, false
	}
	n, err := strconv.ParseFloat(v.text, 64)
	return n, err == nil
}

func digits(number string) (n int) {
	mantissa, _, _ := strings.Cut(strings.ToLower(number), "e")
	for _, c := range strings.TrimLeft(mantissa, "-0.") {
		if c != '.' {
			n++
		}
	}
	return n
}

// scalar reads one from JSON that is valid. An object or array has the kind of its bracket.
func scalar(raw []byte) value {
	switch c := raw[0]; c {
	case '"':
		if inside := raw[1 : len(raw)-1]; bytes.IndexByte(inside, '\\') < 0 {
			return value{kind: 's', text: string(inside)}
		}
		v := value{kind: 's'}
		_ = json.Unmarshal(raw, &v.text) // valid JSON already
		return v
	case '{', '[', 't', 'f', 'n':
		return value{kind: c, text: string(raw)}
	default:
		return value{kind: '0', text: string(raw)}
	}
}

// node is a part of an event, with that of it which patterns ask for.
type node struct {
	value          // a scalar, if its kind is no bracket
	members []node // of an object
	items   []node // of an array
	name    string // as a member
}

// names are those that patterns ask for in an object.
type names struct {
	below map[string]*names
	// byValue are the patterns that cannot match unless the field has one of these values.
	byValue map[string][]int
}

// reader makes nodes of JSON that is valid.
type reader struct {
	rest []byte
	// found hears of the patterns that a value makes possible.
	found func(patterns []int)
}

func (r *reader) space() {
	for len(r.rest) > 0 && (r.rest[0] == ' ' || r.rest[0] == '\n' || r.rest[0] == '\t' || r.rest[0] == '\r') {
		r.rest = r.rest[1:]
	}
}

// next takes the punctuation that comes next, and the space around it.
func (r *reader) next() byte {
	r.space()
	c := r.rest[0]
	r.rest = r.rest[1:]
	r.space()
	return c
}

// read reads what comes next, of which ask names what is wanted; nothing, if it is nil.
func (r *reader) read(ask *names) (n node) {
	switch r.rest[0] {
	case '{':
		n.kind = '{'
		r.next()
		for end := r.rest[0] == '}'; !end; end = r.rest[0] == '}' {
			if r.rest[0] == ',' {
				r.next()
			}
			key := r.scalar()
			r.next() // the colon
			var below *names
			if ask != nil {
				below = ask.below[name(key)]
			}
			if member := r.read(below); below != nil {
				member.name = name(key)
				n.members = append(n.members, member)
			}
			r.space()
		}
		r.next()
	case '[':
		n.kind = '['
		r.next()
		for end := r.rest[0] == ']'; !end; end = r.rest[0] == ']' {
			if r.rest[0] == ',' {
				r.next()
			}
			if item := r.read(ask); ask != nil {
				n.items = append(n.items, item)
			}
			r.space()
		}
		r.next()
	default:
		raw := r.scalar()
		if ask == nil {
			return n
		}
		n.value = scalar(raw)
		if ask.byValue != nil {
			if patterns := ask.byValue[n.key()]; patterns != nil {
				r.found(patterns)
			}
		}
	}
	return n
}

// scalar takes the text of the scalar that comes next.
func (r *reader) scalar() (raw []byte) {
	n := 0
	if r.rest[0] == '"' {
		for n = 1; r.rest[n] != '"'; n++ {
			if r.rest[n] == '\\' {
				n++
			}
		}
		n++
	} else {
		for n < len(r.rest) && !strings.ContainsRune(",]} \n\t\r", rune(r.rest[n])) {
			n++
		}
	}
	raw, r.rest = r.rest[:n], r.rest[n:]
	return raw
}

func name(raw []byte) string {
	v := scalar(raw)
	return v.text
}
