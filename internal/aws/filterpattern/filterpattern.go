// Package filterpattern is the language in which CloudWatch Logs is asked for log
// events: terms, JSON selectors, space-delimited fields, regular expressions.
//
//	ERROR "out of memory" -retry      all of these, and not that
//	?ERROR ?WARN                      one of these
//	{ $.user.id = 4* && $.ms > 75 }   members of a JSON event
//	[ip, ..., status = 5*, bytes]     fields between spaces
//	%[45]\d\d$%                       a regular expression, also as a value above
//
// It knows nothing of where events come from. The logs door parses what callers
// send. Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
package filterpattern

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Pattern is a parsed pattern. It is safe for concurrent use.
type Pattern struct{ match func(message []byte) bool }

// Match tells whether an event matches. It does not keep the message.
func (p *Pattern) Match(message []byte) bool { return p.match(message) }

// SyntaxError says what is wrong with a pattern, as AWS does.
type SyntaxError struct{ Message string }

func (e *SyntaxError) Error() string { return e.Message }

// Parse reads a pattern. An empty one matches every event. Errors are *SyntaxError.
func Parse(pattern string) (*Pattern, error) {
	p := &parser{rest: strings.TrimSpace(pattern)}
	var match func([]byte) bool
	switch {
	case p.rest == "":
		match = func([]byte) bool { return true }
	case p.rest[0] == '{':
		match = p.selectors()
	case p.rest[0] == '[':
		match = p.fields()
	default:
		match = p.terms()
	}
	if p.err != nil {
		return nil, p.err
	}
	return &Pattern{match}, nil
}

// terms reads a pattern of words, phrases and regular expressions.
func (p *parser) terms() func([]byte) bool {
	var all, any, none []func([]byte) bool
	for p.err == nil && p.rest != "" {
		list := &all
		switch p.rest[0] {
		case '?':
			list, p.rest = &any, p.rest[1:]
		case '-':
			list, p.rest = &none, p.rest[1:]
		}
		*list = append(*list, p.term())
		if p.rest != "" && !space(p.rest[0]) {
			p.illegal()
		}
		p.skip()
	}
	if len(all)+len(none) > 0 {
		any = nil // a question mark counts only where nothing else does
	}
	return func(message []byte) bool {
		for _, is := range none {
			if is(message) {
				return false
			}
		}
		for _, is := range all {
			if !is(message) {
				return false
			}
		}
		for _, is := range any {
			if is(message) {
				return true
			}
		}
		return len(any) == 0
	}
}

func (p *parser) term() func([]byte) bool {
	if re := p.regex(); re != nil || p.err != nil {
		return func(message []byte) bool { return re.Match(message) }
	}
	text, quoted := p.phrase()
	if !quoted {
		text = p.take(wordChar)
	}
	if text == "" {
		p.illegal()
	}
	want := []byte(text)
	return func(message []byte) bool { return bytes.Contains(message, want) }
}

// glob matches text with a pattern in which * stands for any text.
func glob(pattern, text string) bool {
	first, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	if !ok {
		return false
	}
	for {
		piece, more, wild := strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(text, piece)
		}
		i := strings.Index(text, piece)
		if i < 0 {
			return false
		}
		text, rest = text[i+len(piece):], more
	}
}

// maxRegexes of a JSON or space-delimited pattern is AWS's.
const maxRegexes = 2

// regex reads %…%, if that is next.
func (p *parser) regex() *regexp.Regexp {
	if !strings.HasPrefix(p.rest, "%") {
		return nil
	}
	source, rest, ok := strings.Cut(p.rest[1:], "%")
	if !ok || source == "" {
		p.fail("Invalid filter pattern")
		return nil
	}
	if bad := illegalInRegex(source); bad != "" {
		p.fail("Invalid character(s) in term '" + bad + "'")
		return nil
	}
	re, err := regexp.Compile(source)
	if err != nil {
		p.fail("Invalid filter pattern")
		return nil
	}
	p.rest = rest
	p.regexes++
	return re
}

// illegalInRegex returns the first part of a regular expression that AWS takes for
// none of its operators, symbols and escapes; there are no groups, for one.
func illegalInRegex(source string) string {
	for i := 0; i < len(source); i++ {
		c := source[i]
		switch {
		case c >= utf8.RuneSelf:
			_, size := utf8.DecodeRuneInString(source[i:])
			return source[i : i+size]
		case c == '\\':
			i++
			if i == len(source) || alphanumeric(source[i]) && !strings.ContainsRune("dDsSwWx", rune(source[i])) {
				return source[i-1:]
			}
		case !alphanumeric(c) && !strings.ContainsRune(`:_#=@/;,-^$?[]{}|*+.`, rune(c)):
			return source[i : i+1]
		}
	}
	return ""
}
