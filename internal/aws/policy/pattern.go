package policy

import (
	"strings"
	"unicode/utf8"
)

// pattern is a text with wildcards (* and ?) and, in documents of the version that
// has them, variables (${aws:username}).
type pattern struct {
	text     string
	expanded string  // of a text without variables
	pieces   []piece // nil where the text has no variable
}

// piece is either text with wildcards or a variable.
type piece struct {
	text     string
	variable string // in lower case
	literal  string // of ${*}, ${?} and ${$}
	fallback *string
}

// newPattern reads a pattern.
func newPattern(text string, variables bool) pattern {
	p := pattern{text: text, expanded: wildcards.Replace(text)}
	if !variables {
		return p
	}
	for rest := text; ; {
		before, after, found := strings.Cut(rest, "${")
		name, behind, closed := strings.Cut(after, "}")
		if !found || !closed {
			if p.pieces != nil && rest != "" {
				p.pieces = append(p.pieces, piece{text: rest})
			}
			return p
		}
		if before != "" {
			p.pieces = append(p.pieces, piece{text: before})
		}
		p.pieces = append(p.pieces, variable(name))
		rest = behind
	}
}

func variable(name string) piece {
	switch name {
	case "*", "?", "$":
		return piece{literal: name}
	}
	name, fallback, found := strings.Cut(name, ",")
	p := piece{variable: strings.ToLower(strings.TrimSpace(name))}
	if found {
		p.fallback = new(strings.Trim(strings.TrimSpace(fallback), "'"))
	}
	return p
}

// Wildcards of an expanded pattern, apart from the same characters that a variable
// brought in.
const (
	anything = '\uE000'
	anyone   = '\uE001'
)

var (
	wildcards = strings.NewReplacer("*", string(anything), "?", string(anyone))
	asWritten = strings.NewReplacer(string(anything), "*", string(anyone), "?")
	// A value cannot bring in what would be taken for a wildcard.
	harmless = strings.NewReplacer(string(anything), "\uFFFD", string(anyone), "\uFFFD")
)

// expand gives variables their values. A variable without value, or with several,
// makes the pattern match nothing.
func (p pattern) expand(keys Keys) (expanded string, ok bool) {
	if p.pieces == nil {
		return p.expanded, true
	}
	var b strings.Builder
	for _, piece := range p.pieces {
		values := keys.get(piece.variable)
		switch {
		case piece.text != "":
			b.WriteString(wildcards.Replace(piece.text))
		case piece.literal != "":
			b.WriteString(piece.literal)
		case len(values) == 1:
			b.WriteString(harmless.Replace(values[0]))
		case piece.fallback != nil:
			b.WriteString(*piece.fallback)
		default:
			return "", false
		}
	}
	return b.String(), true
}

// plain is the pattern with its variables' values, for comparisons that know no wildcards.
func (p pattern) plain(keys Keys) (string, bool) {
	expanded, ok := p.expand(keys)
	return asWritten.Replace(expanded), ok
}

// glob tells whether the whole text fits an expanded pattern. It takes time in
// proportion to the product of both lengths at most.
func glob(pattern, text string) bool {
	after, from, open := "", "", false // what follows the last anything, and what that is still to take
	for text != "" {
		p, n := utf8.DecodeRuneInString(pattern)
		t, m := utf8.DecodeRuneInString(text)
		switch {
		case p == anything:
			pattern = pattern[n:]
			after, from, open = pattern, text, true
		case n > 0 && (p == anyone || p == t && pattern[:n] == text[:m]):
			pattern, text = pattern[n:], text[m:]
		case open:
			_, m = utf8.DecodeRuneInString(from)
			from = from[m:]
			pattern, text = after, from
		default:
			return false
		}
	}
	return strings.Trim(pattern, string(anything)) == ""
}

// match asks each pattern. fits compares an expanded one with the value.
func (p patterns) match(value string, r *Request, fits func(expanded, value string) bool) bool {
	for _, pattern := range p.list {
		expanded, ok := pattern.expanded, true
		if pattern.pieces != nil {
			expanded, ok = pattern.expand(r.keys())
		}
		if ok && fits(expanded, value) {
			return !p.negated
		}
	}
	return p.negated
}

// arnParts is how many parts an ARN has; the last may hold further colons.
const arnParts = 6

// matchARN compares part by part, so that no wildcard reaches from one into the
// next. Parts that the pattern lacks are any.
func matchARN(expanded, arn string) bool {
	if expanded == string(anything) {
		return true
	}
	if strings.Count(arn, ":") < arnParts-1 {
		return glob(expanded, arn)
	}
	for range arnParts - 1 {
		want, more, found := strings.Cut(expanded, ":")
		have, rest, _ := strings.Cut(arn, ":")
		if !glob(want, have) {
			return false
		}
		if !found {
			return true
		}
		expanded, arn = more, rest
	}
	return glob(expanded, arn)
}
