package eventpattern

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// operators compile their operands; nil is for one that they do not take. exists is
// not among them, because it is about the field and not about its value.
var operators = map[string]func(json.RawMessage) test{
	"prefix":             either(text(strings.HasPrefix), caseless(foldPrefix)),
	"suffix":             either(text(strings.HasSuffix), caseless(foldSuffix)),
	"equals-ignore-case": text(strings.EqualFold),
	"wildcard":           wildcard,
	"cidr":               cidr,
	"numeric":            numeric,
	"anything-but":       anythingBut,
}

// excluded are the operators that anything-but takes, each with one operand or several.
var excluded = map[string]func(json.RawMessage) test{
	"prefix":             several(text(strings.HasPrefix)),
	"suffix":             several(text(strings.HasSuffix)),
	"equals-ignore-case": several(text(strings.EqualFold)),
	"wildcard":           several(wildcard),
}

// text compiles a string that values are compared with.
func text(fits func(value, operand string) bool) func(json.RawMessage) test {
	return func(raw json.RawMessage) test {
		operand := scalar(raw)
		if operand.kind != 's' {
			return nil
		}
		return func(v *value) bool { return v.kind == 's' && fits(v.text, operand.text) }
	}
}

// caseless compiles {"equals-ignore-case": operand}.
func caseless(fits func(value, operand string) bool) func(json.RawMessage) test {
	return func(raw json.RawMessage) test {
		o := object(raw)
		if operand, ok := o["equals-ignore-case"]; ok && len(o) == 1 {
			return text(fits)(operand)
		}
		return nil
	}
}

// foldPrefix compares rune by rune: upper and lower case may differ in length.
func foldPrefix(s, prefix string) bool {
	for range prefix {
		if s == "" {
			return false
		}
		_, n := utf8.DecodeRuneInString(s)
		_, m := utf8.DecodeRuneInString(prefix)
		if !strings.EqualFold(s[:n], prefix[:m]) {
			return false
		}
		s, prefix = s[n:], prefix[m:]
	}
	return true
}

func foldSuffix(s, suffix string) bool {
	for range suffix {
		if s == "" {
			return false
		}
		_, n := utf8.DecodeLastRuneInString(s)
		_, m := utf8.DecodeLastRuneInString(suffix)
		if !strings.EqualFold(s[len(s)-n:], suffix[len(suffix)-m:]) {
			return false
		}
		s, suffix = s[:len(s)-n], suffix[:len(suffix)-m]
	}
	return true
}

func either(a, b func(json.RawMessage) test) func(json.RawMessage) test {
	return func(raw json.RawMessage) test {
		if t := a(raw); t != nil {
			return t
		}
		return b(raw)
	}
}

// several compiles one operand or a list of them, of which one must fit.
func several(compile func(json.RawMessage) test) func(json.RawMessage) test {
	return func(raw json.RawMessage) test {
		if raw[0] != '[' {
			return compile(raw)
		}
		tests := each(array(raw), func(v json.RawMessage) *test {
			if t := compile(v); t != nil {
				return &t
			}
			return nil
		})
		if tests == nil {
			return nil
		}
		return func(v *value) bool { return slices.ContainsFunc(tests, func(t *test) bool { return (*t)(v) }) }
	}
}

// anythingBut compiles strings or numbers, or an operator, of which none may fit.
func anythingBut(raw json.RawMessage) test {
	var t test
	if o := object(raw); o != nil {
		for name, operand := range o {
			if compile := excluded[name]; compile == nil || len(o) > 1 {
				return nil
			} else if t = compile(operand); t == nil {
				return nil
			}
		}
	} else if t = either(several(equal('s')), several(equal('0')))(raw); t == nil {
		return nil
	}
	return func(v *value) bool { return !t(v) }
}

// equal compiles a value of a kind.
func equal(kind byte) func(json.RawMessage) test {
	return func(raw json.RawMessage) test {
		operand := scalar(raw)
		if operand.kind != kind {
			return nil
		}
		key := operand.key()
		return func(v *value) bool { return v.key() == key }
	}
}

// numeric compiles ["=", n], one bound, or a lower and an upper one.
func numeric(raw json.RawMessage) test {
	list := array(raw)
	if len(list) != 2 && len(list) != 4 {
		return nil
	}
	type bound struct {
		op string
		n  float64
	}
	var bounds []bound
	for ; len(list) > 0; list = list[2:] {
		op, operand := scalar(list[0]), scalar(list[1])
		n, ok := operand.number()
		if !ok || op.kind != 's' {
			return nil
		}
		bounds = append(bounds, bound{op.text, n})
	}
	is := func(i int, ops ...string) bool { return slices.Contains(ops, bounds[i].op) }
	if len(bounds) == 1 && !is(0, "=", "<", "<=", ">", ">=") ||
		len(bounds) == 2 && !(is(0, ">", ">=") && is(1, "<", "<=") && bounds[0].n < bounds[1].n) {
		return nil
	}
	return func(v *value) bool {
		n, ok := v.number()
		for _, b := range bounds {
			switch b.op {
			case "=":
				ok = ok && n == b.n
			case "<":
				ok = ok && n < b.n
			case "<=":
				ok = ok && n <= b.n
			case ">":
				ok = ok && n > b.n
			default:
				ok = ok && n >= b.n
			}
		}
		return ok
	}
}

// wildcard compiles a string in which * is any text, and \ takes the meaning of * or
// of itself away.
func wildcard(raw json.RawMessage) test {
	operand := scalar(raw)
	if operand.kind != 's' {
		return nil
	}
	parts := []string{""} // between the stars
	star := false
	for s := operand.text; s != ""; {
		n := 1
		switch {
		case s[0] == '*':
			if star {
				return nil
			}
			parts = append(parts, "")
		case s[0] == '\\':
			if len(s) == 1 || s[1] != '*' && s[1] != '\\' {
				return nil
			}
			n = 2
			fallthrough
		default:
			parts[len(parts)-1] += s[n-1 : n]
		}
		star = s[0] == '*'
		s = s[n:]
	}
	return func(v *value) bool { return v.kind == 's' && fits(v.text, parts) }
}

// fits reports whether the text is the parts with anything between them.
func fits(s string, parts []string) bool {
	if len(parts) == 1 {
		return s == parts[0]
	}
	last := len(parts) - 1
	s, ok := strings.CutPrefix(s, parts[0])
	for _, part := range parts[1:last] {
		if !ok {
			return false
		}
		_, s, ok = strings.Cut(s, part)
	}
	return ok && strings.HasSuffix(s, parts[last])
}

// cidr compiles an address or a block of them.
func cidr(raw json.RawMessage) test {
	operand := scalar(raw)
	if operand.kind != 's' {
		return nil
	}
	block, err := netip.ParsePrefix(operand.text)
	if err != nil {
		address, err := netip.ParseAddr(operand.text)
		if err != nil {
			return nil
		}
		block = netip.PrefixFrom(address, address.BitLen())
	}
	block = block.Masked()
	return func(v *value) bool {
		address, err := netip.ParseAddr(v.text)
		return v.kind == 's' && err == nil && block.Contains(address)
	}
}
