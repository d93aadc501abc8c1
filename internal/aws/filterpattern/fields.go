package filterpattern

import "strings"

// field is one of a space-delimited pattern; nil: an ellipsis, which stands for
// any number of them.
type field func(text string) bool

// fields reads [name, name = value, …].
func (p *parser) fields() func([]byte) bool {
	p.expect("[")
	var list []field
	for p.err == nil {
		list = append(list, p.field())
		if p.eat("]") {
			break
		}
		p.expect(",")
	}
	if p.skip(); p.rest != "" {
		p.illegal()
	}
	return func(message []byte) bool { return align(list, split(string(message))) }
}

func (p *parser) field() field {
	if p.eat("...") {
		return nil
	}
	name := ""
	return or(p, func() func(string) bool {
		p.skip()
		again := p.take(fieldChar)
		if again == "" || name != "" && again != name { // a field can only speak of itself
			p.illegal()
			return nil
		}
		name = again
		if p.skip(); p.rest == "" || strings.IndexByte(",])&|", p.rest[0]) >= 0 {
			return func(string) bool { return true } // only a name
		}
		c := p.comparison()
		return c.holds
	})
}

func fieldChar(r rune) bool { return wordChar(r) || r == '-' || r == '.' }

// align tells whether the fields hold for the texts, in order and all of them.
func align(list []field, texts []string) bool {
	// As with wildcards: where it fails after an ellipsis, that one takes one more.
	ellipsis, resume := -1, 0
	i, j := 0, 0
	for j < len(texts) || i < len(list) {
		switch {
		case i < len(list) && list[i] == nil:
			ellipsis, resume = i, j
			i++
			continue
		case i < len(list) && j < len(texts) && list[i](texts[j]):
			i++
			j++
			continue
		case ellipsis < 0 || resume >= len(texts):
			return false
		}
		resume++
		i, j = ellipsis+1, resume
	}
	return true
}

// split takes a message apart at white space. What is between brackets or double
// quotes is one text, without them.
func split(s string) (texts []string) {
	for {
		s = strings.TrimLeft(s, " \t\r\n")
		if s == "" {
			return texts
		}
		end := byte(0)
		switch s[0] {
		case '[':
			end = ']'
		case '"':
			end = '"'
		}
		if i := strings.IndexByte(s[1:], end); end != 0 && i >= 0 {
			texts = append(texts, s[1:1+i])
			s = s[i+2:]
			continue
		}
		i := strings.IndexAny(s, " \t\r\n")
		if i < 0 {
			i = len(s)
		}
		texts = append(texts, s[:i])
		s = s[i:]
	}
}
