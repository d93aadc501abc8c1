package eventpattern

import (
	"encoding/json"
	"slices"
)

// Set is patterns that events are matched with at once. It is immutable, and safe for
// concurrent use.
type Set struct {
	patterns []*Pattern
	names    *names
	// always are the patterns that names.byValue does not lead to.
	always []int
}

// NewSet returns a set of those patterns.
func NewSet(patterns ...*Pattern) *Set {
	s := &Set{patterns: patterns, names: &names{}}
	for i, p := range patterns {
		s.names.ask(p)
		if f := p.decisive(); f == nil {
			s.always = append(s.always, i)
		} else {
			s.names.at(f.path).lead(f.exact, i)
		}
	}
	return s
}

// ParseSet compiles patterns.
func ParseSet(texts ...string) (*Set, error) {
	var patterns []*Pattern
	for _, text := range texts {
		p, err := Parse(text)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, p)
	}
	return NewSet(patterns...), nil
}

// decisive is a field without one of whose values the pattern cannot match, or nil.
func (p *Pattern) decisive() *field {
	for i := range p.fields {
		f := &p.fields[i]
		if f.below != nil {
			if d := f.below.decisive(); d != nil {
				return d
			}
		} else if len(f.values) == 0 && !f.absent {
			return f
		}
	}
	return nil
}

// ask has the names remember all fields of a pattern.
func (n *names) ask(p *Pattern) {
	for i := range p.fields {
		if f := &p.fields[i]; f.below != nil {
			n.ask(f.below)
		} else {
			n.at(f.path)
		}
	}
	for _, alternatives := range p.any {
		for _, p := range alternatives {
			n.ask(p)
		}
	}
}

// at returns the names below a path, made if they are not there.
func (n *names) at(path []string) *names {
	for _, name := range path {
		below := n.below[name]
		if below == nil {
			below = &names{}
			if n.below == nil {
				n.below = map[string]*names{}
			}
			n.below[name] = below
		}
		n = below
	}
	return n
}

// lead makes values lead to a pattern.
func (n *names) lead(keys []string, pattern int) {
	if n.byValue == nil {
		n.byValue = map[string][]int{}
	}
	for _, key := range keys {
		if list := n.byValue[key]; !slices.Contains(list, pattern) {
			n.byValue[key] = append(list, pattern)
		}
	}
}

// Match reports whether one of the patterns matches the event. What is no JSON object
// matches none.
func (s *Set) Match(event []byte) bool { return len(s.matching(event, 1)) > 0 }

// Matching returns which patterns match the event, by their place among those that the
// set was made of, in order.
func (s *Set) Matching(event []byte) []int {
	list := s.matching(event, len(s.patterns))
	slices.Sort(list)
	return list
}

func (s *Set) matching(event []byte, limit int) (list []int) {
	if !json.Valid(event) {
		return nil
	}
	possible := slices.Clone(s.always)
	r := reader{rest: event, found: func(patterns []int) { possible = append(possible, patterns...) }}
	r.space()
	top := r.read(s.names)
	if top.kind != '{' {
		return nil
	}
	slices.Sort(possible) // a value that occurs twice leads twice to its patterns
	for _, i := range slices.Compact(possible) {
		if s.patterns[i].match(&top, &top) {
			if list = append(list, i); len(list) == limit {
				break
			}
		}
	}
	return list
}

// match reports whether all of the pattern holds in one object: in that which n is, or
// in one of an array.
func (p *Pattern) match(n, top *node) bool {
	if n.kind == '[' {
		return slices.ContainsFunc(n.items, func(item node) bool { return p.match(&item, top) })
	}
	for i := range p.fields {
		if !p.fields[i].match(n, top) {
			return false
		}
	}
	for _, alternatives := range p.any {
		if !slices.ContainsFunc(alternatives, func(p *Pattern) bool { return p.match(n, top) }) {
			return false
		}
	}
	return true
}

// match looks for the field in the object n. Whether it is missing is asked of the whole
// event: an array has it if one of its objects does.
func (f *field) match(n, top *node) bool {
	if f.absent && !top.has(f.path) {
		return true
	}
	for i := range n.members {
		if m := &n.members[i]; m.name == f.path[len(f.path)-1] {
			if f.below != nil {
				return f.below.match(m, top)
			}
			return f.fits(m)
		}
	}
	// Nothing is there: what is below may be of things that are missing.
	return f.below != nil && f.below.match(&node{}, top)
}

// fits reports whether n, or an item of the array that it is, is what the field may be.
func (f *field) fits(n *node) bool {
	switch n.kind {
	case '{':
		return false
	case '[':
		return slices.ContainsFunc(n.items, func(item node) bool { return f.fits(&item) })
	}
	return slices.Contains(f.exact, n.key()) || slices.ContainsFunc(f.values, func(t test) bool { return t(&n.value) })
}

// has reports whether there is a value at the path.
func (n *node) has(path []string) bool {
	if n.kind == '[' {
		return slices.ContainsFunc(n.items, func(item node) bool { return item.has(path) })
	}
	if len(path) == 0 {
		return n.kind != '{'
	}
	return slices.ContainsFunc(n.members, func(m node) bool { return m.name == path[0] && m.has(path[1:]) })
}
