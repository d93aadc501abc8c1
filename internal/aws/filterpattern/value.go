package filterpattern

import (
	"regexp"
	"strconv"
	"strings"
)

// comparison is an operator and what it compares with.
type comparison struct {
	operator string
	regex    *regexp.Regexp
	text     string  // may have wildcards
	number   float64 // if numeric
	numeric  bool    // written as a number, without quotes
}

var operators = []string{"!=", "<=", ">=", "=", "<", ">"} // none begins with a later one

// comparison reads an operator and a value.
func (p *parser) comparison() (c comparison) {
	for _, op := range operators {
		if p.eat(op) {
			c.operator = op
			break
		}
	}
	if c.operator == "" {
		p.illegal()
		return c
	}
	p.skip()
	quoted := false
	if c.regex = p.regex(); c.regex == nil && p.err == nil {
		if c.text, quoted = p.phrase(); !quoted {
			c.text = p.take(valueChar)
			c.number, c.numeric = number(c.text)
		}
		if c.text == "" {
			p.illegal()
		}
	}
	ordered := c.operator != "=" && c.operator != "!="
	if p.regexes > maxRegexes || ordered && !c.numeric {
		p.fail("Invalid filter pattern")
	}
	return c
}

// number reads what JSON and AWS take for a number; not what else Go does.
func number(s string) (float64, bool) {
	if s == "" || strings.Trim(s, "+-.0123456789eE") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

func valueChar(r rune) bool {
	return wordChar(r) || strings.ContainsRune("*.-+:/@#;~", r)
}

// holds compares the text of a field or member.
func (c *comparison) holds(text string) bool {
	switch c.operator {
	case "=":
		return c.equals(text)
	case "!=":
		return !c.equals(text)
	}
	n, ok := number(text)
	if !ok {
		return false
	}
	switch c.operator {
	case "<":
		return n < c.number
	case "<=":
		return n <= c.number
	case ">":
		return n > c.number
	default:
		return n >= c.number
	}
}

func (c *comparison) equals(text string) bool {
	switch {
	case c.regex != nil:
		return c.regex.MatchString(text)
	case c.numeric:
		if n, ok := number(text); ok {
			return n == c.number
		}
	}
	return glob(c.text, text)
}
