package filterpattern

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// parser is the rest of a pattern. The first error sticks, and ends the pattern.
type parser struct {
	rest    string
	regexes int
	err     *SyntaxError
}

func (p *parser) fail(message string) {
	if p.err == nil {
		p.err = &SyntaxError{message}
	}
	p.rest = ""
}

// illegal reports what is next as something that cannot be there.
func (p *parser) illegal() {
	end := 0
	for end < len(p.rest) && !space(p.rest[end]) && !alphanumeric(p.rest[end]) && p.rest[end] < utf8.RuneSelf {
		end++
	}
	if end == 0 {
		p.fail("Invalid filter pattern")
		return
	}
	p.fail("Invalid character(s) in term '" + p.rest[:end] + "'")
}

func (p *parser) skip() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// eat steps over token, if it is next, and the space before it.
func (p *parser) eat(token string) bool {
	p.skip()
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

// expect fails unless token is next.
func (p *parser) expect(token string) {
	if !p.eat(token) {
		p.illegal()
	}
}

// take returns what is next of runes that are in a set.
func (p *parser) take(in func(rune) bool) string {
	end := strings.IndexFunc(p.rest, func(r rune) bool { return !in(r) })
	if end < 0 {
		end = len(p.rest)
	}
	word := p.rest[:end]
	p.rest = p.rest[end:]
	return word
}

// phrase reads "…", if that is next. A backslash escapes a quote or itself.
func (p *parser) phrase() (text string, quoted bool) {
	if !strings.HasPrefix(p.rest, `"`) {
		return "", false
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			if b.Len() == 0 {
				p.illegal()
				return "", true
			}
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(p.rest) && (p.rest[i+1] == '"' || p.rest[i+1] == '\\'):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	p.fail("Invalid filter pattern")
	return "", true
}

// or reads conditions joined by && and ||, with parentheses; one reads a condition.
func or[T any](p *parser, one func() func(T) bool) func(T) bool {
	is := and(p, one)
	for p.eat("||") {
		left, right := is, and(p, one)
		is = func(v T) bool { return left(v) || right(v) }
	}
	return is
}

func and[T any](p *parser, one func() func(T) bool) func(T) bool {
	is := group(p, one)
	for p.eat("&&") {
		left, right := is, group(p, one)
		is = func(v T) bool { return left(v) && right(v) }
	}
	return is
}

func group[T any](p *parser, one func() func(T) bool) func(T) bool {
	if !p.eat("(") {
		return one()
	}
	is := or(p, one)
	p.expect(")")
	return is
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func wordChar(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
