package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxDepth bounds nesting, in objects and arrays, so that a hostile body cannot
// exhaust the stack. AWS's own parser stops at 1,000 too.
const maxDepth = 1000

// Reader reads one JSON text, member by member and in one pass, out of a buffer
// that it does not copy. encoding/json would not do here: it matches member names
// without regard to case, where AWS does not, reads a 70 MB deployment package
// three times over, and words its errors for Go programmers.
//
// The first error sticks: every later call answers a zero value and ends its
// loop, and Err tells. A Reader is for one goroutine.
type Reader struct {
	b     []byte
	pos   int
	first bool // the next member or element is the first of its object or array
	depth int
	err   *Fault
}

// NewReader returns a Reader of the JSON text b. An empty body counts as {}.
func NewReader(b []byte) *Reader {
	if len(bytes.TrimLeft(b, " \t\r\n")) == 0 {
		b = []byte("{}")
	}
	return &Reader{b: b}
}

// Err returns the first error.
func (r *Reader) Err() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

// End reports an error if anything but white space is left.
func (r *Reader) End() {
	if r.space(); r.err == nil && r.pos < len(r.b) {
		r.unexpected()
	}
}

// Object steps into an object. It answers false for null.
func (r *Reader) Object() bool { return r.enter('{') }

// Array steps into an array. It answers false for null.
func (r *Reader) Array() bool { return r.enter('[') }

func (r *Reader) enter(open byte) bool {
	c := r.peek()
	switch {
	case c == open:
	case c == 'n':
		r.literal("null")
		return false
	default:
		kind := "structure or map"
		if open == '[' {
			kind = "list"
		}
		r.mismatch(c, kind)
		return false
	}
	if r.depth++; r.depth > maxDepth {
		r.fail("Document nesting depth exceeds the maximum allowed (%d)", maxDepth)
		return false
	}
	r.pos++
	r.first = true
	return true
}

// Key steps to the next member of an object and returns its name, or false at
// the object's end. The name is only valid until the next call.
func (r *Reader) Key() ([]byte, bool) {
	if !r.step('}') {
		return nil, false
	}
	if r.peek() != '"' {
		r.unexpected()
		return nil, false
	}
	key := r.text()
	if r.peek() != ':' {
		r.unexpected()
		return nil, false
	}
	r.pos++
	return key, r.err == nil
}

// More steps to the next element of an array, or answers false at its end.
func (r *Reader) More() bool { return r.step(']') }

func (r *Reader) step(end byte) bool {
	c := r.peek()
	first := r.first
	r.first = false
	switch {
	case r.err != nil:
		return false
	case c == end:
		r.pos++
		r.depth--
		return false
	case first:
		return true
	case c == ',':
		r.pos++
		return true
	}
	r.unexpected()
	return false
}

// String reads a string, or nil for null.
func (r *Reader) String() *string {
	switch c := r.peek(); c {
	case '"':
		if raw := r.text(); r.err == nil {
			return new(string(raw))
		}
	case 'n':
		r.literal("null")
	default:
		r.mismatch(c, "String")
	}
	return nil
}

// NotNull fails if the next value is null. Elements of lists and maps are asked:
// Go's types for them have no room for null, and dropping it would change what
// the caller meant.
func (r *Reader) NotNull() {
	if r.peek() == 'n' {
		r.fail("null can not be an element of a list or map")
	}
}

// Element reads a string inside a list or map.
func (r *Reader) Element() string {
	r.NotNull()
	if s := r.String(); s != nil {
		return *s
	}
	return ""
}

// Blob reads bytes in base64, or nil for null.
func (r *Reader) Blob() []byte {
	switch c := r.peek(); c {
	case '"':
		raw := r.text()
		if r.err != nil {
			return nil
		}
		out := make([]byte, base64.StdEncoding.DecodedLen(len(raw)))
		n, err := base64.StdEncoding.Decode(out, raw)
		if err != nil {
			r.fail("STRING_VALUE can not be converted to Blob: it is not base64")
			return nil
		}
		return out[:n]
	case 'n':
		r.literal("null")
	default:
		r.mismatch(c, "Blob")
	}
	return nil
}

// Bool reads a boolean, or nil for null.
func (r *Reader) Bool() *bool {
	switch c := r.peek(); c {
	case 't':
		if r.literal("true") {
			return new(true)
		}
	case 'f':
		if r.literal("false") {
			return new(false)
		}
	case 'n':
		r.literal("null")
	default:
		r.mismatch(c, "Boolean")
	}
	return nil
}

// Int reads a 32-bit integer, or nil for null.
func (r *Reader) Int() *int {
	if n := r.integer(32, "Integer"); n != nil {
		return new(int(*n))
	}
	return nil
}

// Long reads a 64-bit integer, or nil for null.
func (r *Reader) Long() *int64 { return r.integer(64, "Long") }

func (r *Reader) integer(bits int, kind string) *int64 {
	raw := r.numberFor(kind)
	if raw == nil {
		return nil
	}
	n, err := strconv.ParseInt(string(raw), 10, bits)
	if err != nil {
		r.fail("NUMBER_VALUE can not be converted to %s", kind)
		return nil
	}
	return &n
}

// Double reads a number, or nil for null.
func (r *Reader) Double() *float64 {
	raw := r.numberFor("Double")
	if raw == nil {
		return nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		r.fail("NUMBER_VALUE can not be converted to Double")
		return nil
	}
	return &f
}

// Epoch reads a time in seconds since 1970, or nil for null.
func (r *Reader) Epoch() *Epoch {
	f := r.Double()
	if f == nil {
		return nil
	}
	// Beyond year 9999 no format of AWS's can show it, and int64 arithmetic ends.
	if math.Abs(*f) > 253402300799 {
		r.fail("NUMBER_VALUE can not be converted to Date")
		return nil
	}
	return &Epoch{time.UnixMilli(int64(math.Round(*f * 1000))).UTC()}
}

func (r *Reader) numberFor(kind string) []byte {
	switch c := r.peek(); {
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	case c == 'n':
		r.literal("null")
	default:
		r.mismatch(c, kind)
	}
	return nil
}

// Skip steps over one value of any kind, checking that it is JSON.
func (r *Reader) Skip() {
	switch c := r.peek(); {
	case c == '{':
		if r.Object() {
			for _, ok := r.Key(); ok; _, ok = r.Key() {
				r.Skip()
			}
		}
	case c == '[':
		if r.Array() {
			for r.More() {
				r.Skip()
			}
		}
	case c == '"':
		r.text()
	case c == 't':
		r.literal("true")
	case c == 'f':
		r.literal("false")
	case c == 'n':
		r.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		r.number()
	default:
		r.unexpected()
	}
}

func (r *Reader) space() {
	for r.pos < len(r.b) {
		switch r.b[r.pos] {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, or 0 at the end and after
// an error.
func (r *Reader) peek() byte {
	if r.err != nil {
		return 0
	}
	if r.space(); r.pos == len(r.b) {
		return 0
	}
	return r.b[r.pos]
}

// text reads a string and returns its bytes, unescaped; without an escape they
// are the buffer's own.
func (r *Reader) text() []byte {
	start := r.pos
	escaped := false
	for i := start + 1; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			r.pos = i
			r.unexpected()
			return nil
		case c == '"':
			r.pos = i + 1
			raw := r.b[start+1 : i]
			if !utf8.Valid(raw) {
				r.fail("Could not parse request body into json: Invalid UTF-8 in a string")
				return nil
			}
			if !escaped {
				return raw
			}
			var s string
			if err := json.Unmarshal(r.b[start:r.pos], &s); err != nil {
				r.fail("Could not parse request body into json: Unrecognized character escape in a string")
				return nil
			}
			return []byte(s)
		}
	}
	r.pos = len(r.b)
	r.unexpected()
	return nil
}

func (r *Reader) number() []byte {
	start := r.pos
	i := start
	digits := func() bool {
		from := i
		for i < len(r.b) && r.b[i] >= '0' && r.b[i] <= '9' {
			i++
		}
		return i > from
	}
	at := func(c byte) bool { return i < len(r.b) && r.b[i] == c }
	ok := true
	if at('-') {
		i++
	}
	if at('0') {
		i++
	} else {
		ok = digits()
	}
	if ok && at('.') {
		i++
		ok = digits()
	}
	if ok && (at('e') || at('E')) {
		i++
		if at('+') || at('-') {
			i++
		}
		ok = digits()
	}
	r.pos = i
	if !ok {
		r.unexpected()
		return nil
	}
	return r.b[start:i]
}

func (r *Reader) literal(word string) bool {
	if bytes.HasPrefix(r.b[r.pos:], []byte(word)) {
		r.pos += len(word)
		return true
	}
	r.unexpected()
	return false
}

// mismatch reports a value, beginning with c, of another type than kind.
func (r *Reader) mismatch(c byte, kind string) {
	switch {
	case c == '{':
		r.fail("Start of structure or map found where not expected.")
	case c == '[':
		r.fail("Start of list found where not expected")
	case c == '"':
		r.fail("STRING_VALUE can not be converted to %s", kind)
	case c == 't':
		r.fail("TRUE_VALUE can not be converted to %s", kind)
	case c == 'f':
		r.fail("FALSE_VALUE can not be converted to %s", kind)
	case c == '-' || c >= '0' && c <= '9':
		r.fail("NUMBER_VALUE can not be converted to %s", kind)
	default:
		r.unexpected()
	}
}

func (r *Reader) unexpected() {
	if r.pos >= len(r.b) {
		r.fail("Could not parse request body into json: Unexpected end-of-input")
		return
	}
	c, _ := utf8.DecodeRune(r.b[r.pos:])
	line := 1 + bytes.Count(r.b[:r.pos], []byte("\n"))
	column := r.pos - bytes.LastIndexByte(r.b[:r.pos], '\n')
	r.fail("Could not parse request body into json: Unexpected character (%q (code %d)) at line: %d, column: %d", c, c, line, column)
}

func (r *Reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = Serialization(format, args...)
	}
}
