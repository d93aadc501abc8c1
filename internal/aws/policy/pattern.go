package policy

import "strings"

// pattern is a text with wildcards (* and ?) and, in documents of the version that
// has them, variables (${aws:username}).
type pattern struct {
	text   string
	pieces []piece // nil where the text has no variable
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
	p := pattern{text: text}
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
		return wildcards.Replace(p.text), true
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
	p, t := []rune(pattern), []rune(text)
	i, j, star, from := 0, 0, -1, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == anything:
			star, from = i, j
			i++
		case i < len(p) && (p[i] == anyone || p[i] == t[j]):
			i++
			j++
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == anything {
		i++
	}
	return i == len(p)
}

// match asks each pattern. fits compares an expanded one with the value.
func (p patterns) match(value string, keys Keys, fits func(expanded, value string) bool) bool {
	for _, pattern := range p.list {
		if expanded, ok := pattern.expand(keys); ok && fits(expanded, value) {
			return !p.negated
		}
	}
	return p.negated
}

// matchAction does not mind the case.
func matchAction(expanded, action string) bool {
	return glob(strings.ToLower(expanded), strings.ToLower(action))
}

// arnParts is how many parts an ARN has; the last may hold further colons.
const arnParts = 6

// matchARN compares part by part, so that no wildcard reaches from one into the
// next. Parts that the pattern lacks are any.
func matchARN(expanded, arn string) bool {
	if expanded == string(anything) {
		return true
	}
	want, have := strings.SplitN(expanded, ":", arnParts), strings.SplitN(arn, ":", arnParts)
	if len(have) < arnParts {
		return glob(expanded, arn)
	}
	for i, part := range want {
		if !glob(part, have[i]) {
			return false
		}
	}
	return true
}
