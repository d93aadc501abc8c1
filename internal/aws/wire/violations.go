package wire

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// None stands for a bound that a rule does not have.
const None = -1 << 63

// Text is the rule of a string shape.
type Text struct {
	Min, Max  int // length in UTF-16 units, as AWS counts; None for no bound
	Pattern   *Pattern
	Enum      []string
	Sensitive bool // the value is never printed
}

// Range is the rule of a number shape. Bounds are None where there is none.
type Range struct{ Min, Max float64 }

// Size is the rule of a list, a map or a blob: how many elements or bytes.
type Size struct{ Min, Max int }

// Pattern is a regular expression that the whole of a value must match. It is
// compiled when it is first needed: a process that serves no request pays nothing.
type Pattern struct {
	Source string
	// Says replaces the rule in the words of services that have their own.
	Says string
	// Match replaces a Source that RE2 cannot express.
	Match func(string) bool

	once     sync.Once
	compiled *regexp.Regexp
}

func (p *Pattern) match(s string) bool {
	if p.Match != nil {
		return p.Match(s)
	}
	p.once.Do(func() { p.compiled = regexp.MustCompile(RE2(p.Source)) })
	return p.compiled.MatchString(s)
}

var unicodeEscape = regexp.MustCompile(`\\u([0-9A-Fa-f]{4,6})`)

// RE2 is a pattern of a model, for the whole of a value, as Go writes it.
func RE2(source string) string {
	return `^(?:` + unicodeEscape.ReplaceAllString(source, `\x{$1}`) + `)$`
}

// Violations collects every broken constraint of one request, in AWS's words.
// Its zero value is ready. Paths are passed in two parts, the prefix of the
// enclosing members ("vpcConfig.") and the member's own name.
type Violations struct {
	Code string // of the exception; "": ValidationException
	list []string
	said string // in words of their own; where it is all, it is the message
}

// Err returns one exception for all of them, or nil.
func (v *Violations) Err() error {
	if len(v.list) == 0 {
		return nil
	}
	if len(v.list) == 1 && v.said != "" {
		return &Fault{Code: cmp.Or(v.Code, "ValidationException"), Status: http.StatusBadRequest, Message: v.said}
	}
	plural := "s"
	if len(v.list) == 1 {
		plural = ""
	}
	return &Fault{
		Code:    cmp.Or(v.Code, "ValidationException"),
		Status:  http.StatusBadRequest,
		Message: fmt.Sprintf("%d validation error%s detected: %s", len(v.list), plural, strings.Join(v.list, "; ")),
	}
}

// Require records a missing member.
func (v *Violations) Require(present bool, prefix, name string) {
	if !present {
		v.list = append(v.list, "Value null at '"+prefix+name+"' failed to satisfy constraint: Member must not be null")
	}
}

// Text checks a string.
func (v *Violations) Text(s *string, rule *Text, prefix, name string) {
	if s == nil {
		return
	}
	for _, broken := range rule.broken(*s) {
		v.add(*s, rule.Sensitive, prefix, name, broken)
		if rule.Pattern != nil && rule.Pattern.Says != "" && broken == rule.pattern() {
			v.said = "The specified value for " + name + " is invalid. " + rule.Pattern.Says
		}
	}
}

// Int checks a 32-bit integer.
func (v *Violations) Int(n *int, rule *Range, prefix, name string) {
	if n != nil {
		v.number(float64(*n), strconv.Itoa(*n), rule, whole, prefix, name)
	}
}

// Long checks a 64-bit integer.
func (v *Violations) Long(n *int64, rule *Range, prefix, name string) {
	if n != nil {
		v.number(float64(*n), strconv.FormatInt(*n, 10), rule, whole, prefix, name)
	}
}

// Double checks a floating-point number.
func (v *Violations) Double(f *float64, rule *Range, prefix, name string) {
	if f != nil {
		v.number(*f, double(*f), rule, double, prefix, name)
	}
}

func (v *Violations) number(f float64, shown string, rule *Range, format func(float64) string, prefix, name string) {
	if rule.Max != None && f > rule.Max {
		v.add(shown, false, prefix, name, "Member must have value less than or equal to "+format(rule.Max))
	}
	if rule.Min != None && f < rule.Min {
		v.add(shown, false, prefix, name, "Member must have value greater than or equal to "+format(rule.Min))
	}
}

// Size checks how many elements value, a list or a map, has.
func (v *Violations) Size(value any, sensitive bool, rule *Size, prefix, name string) {
	l := reflect.ValueOf(value)
	if l.IsNil() {
		return
	}
	for _, broken := range rule.broken(l.Len()) {
		v.add(printed(l), sensitive, prefix, name, broken)
	}
}

// Index returns the prefix of the members of a list's i-th structure.
func Index(prefix, name string, i int) string {
	return prefix + name + "." + strconv.Itoa(i+1) + ".member."
}

// Blob checks how many bytes a blob has; bytes are never printed.
func (v *Violations) Blob(b []byte, rule *Size, prefix, name string) {
	if b == nil {
		return
	}
	for _, broken := range rule.broken(len(b)) {
		v.add("", true, prefix, name, broken)
	}
}

// Elements checks the strings of a list. One violation stands for all of them.
func (v *Violations) Elements(list []string, rule *Text, prefix, name string) {
	for _, s := range list {
		if len(rule.broken(s)) > 0 {
			v.add(printed(reflect.ValueOf(list)), rule.Sensitive, prefix, name,
				"Member must satisfy constraint: ["+strings.Join(append(rule.all(), notNull), ", ")+"]")
			return
		}
	}
}

// Keys checks the keys of a map. One violation stands for all of them.
func Keys[V any](v *Violations, m map[string]V, sensitive bool, rule *Text, prefix, name string) {
	for k := range m {
		if len(rule.broken(k)) > 0 {
			v.add(printed(reflect.ValueOf(m)), sensitive || rule.Sensitive, prefix, name,
				"Map keys must satisfy constraint: ["+strings.Join(rule.all(), ", ")+"]")
			return
		}
	}
}

// Values checks the values of a map of strings. One violation stands for all.
func (v *Violations) Values(m map[string]string, rule *Text, prefix, name string) {
	for _, s := range m {
		if len(rule.broken(s)) > 0 {
			v.add(printed(reflect.ValueOf(m)), rule.Sensitive, prefix, name,
				"Map value must satisfy constraint: ["+strings.Join(append(rule.all(), notNull), ", ")+"]")
			return
		}
	}
}

// Numbers checks the values of a map of numbers. One violation stands for all.
func (v *Violations) Numbers(m map[string]float64, rule *Range, prefix, name string) {
	for _, f := range m {
		if rule.Max != None && f > rule.Max || rule.Min != None && f < rule.Min {
			var rules []string
			if rule.Max != None {
				rules = append(rules, "Member must have value less than or equal to "+double(rule.Max))
			}
			if rule.Min != None {
				rules = append(rules, "Member must have value greater than or equal to "+double(rule.Min))
			}
			v.add(printed(reflect.ValueOf(m)), false, prefix, name,
				"Map value must satisfy constraint: ["+strings.Join(append(rules, notNull), ", ")+"]")
			return
		}
	}
}

// Lists checks the values of a map of lists. One violation stands for all.
func (v *Violations) Lists(m map[string][]string, size *Size, rule *Text, prefix, name string) {
	for _, list := range m {
		broken := len(size.broken(len(list))) > 0
		for _, s := range list {
			broken = broken || len(rule.broken(s)) > 0
		}
		if broken {
			rules := append(size.all(), "Member must satisfy constraint: ["+strings.Join(append(rule.all(), notNull), ", ")+"]", notNull)
			v.add(printed(reflect.ValueOf(m)), rule.Sensitive, prefix, name,
				"Map value must satisfy constraint: ["+strings.Join(rules, ", ")+"]")
			return
		}
	}
}

const notNull = "Member must not be null"

// maxShown bounds how much of a value a message shows, in bytes: 10,001 log events
// would make an answer as large as the request.
const maxShown = 16 << 10

func (v *Violations) add(shown string, sensitive bool, prefix, name, rule string) {
	if len(shown) > maxShown {
		shown = strings.ToValidUTF8(shown[:maxShown], "") + "…"
	}
	value := "Value '" + shown + "'"
	if sensitive {
		value = "Value"
	}
	v.list = append(v.list, value+" at '"+prefix+name+"' failed to satisfy constraint: "+rule)
}

func (t *Text) broken(s string) (rules []string) {
	if t.Max != None && len(s) > t.Max && length(s) > t.Max {
		rules = append(rules, t.max())
	}
	if t.Min != None && length(s) < t.Min {
		rules = append(rules, t.min())
	}
	if t.Pattern != nil && !t.Pattern.match(s) {
		rules = append(rules, t.pattern())
	}
	if t.Enum != nil && !slices.Contains(t.Enum, s) {
		rules = append(rules, t.enum())
	}
	return rules
}

func (t *Text) all() (rules []string) {
	if t.Max != None {
		rules = append(rules, t.max())
	}
	if t.Min != None {
		rules = append(rules, t.min())
	}
	if t.Pattern != nil {
		rules = append(rules, t.pattern())
	}
	if t.Enum != nil {
		rules = append(rules, t.enum())
	}
	return rules
}

func (t *Text) max() string { return atMost(t.Max) }
func (t *Text) min() string { return atLeast(t.Min) }
func (t *Text) pattern() string {
	return "Member must satisfy regular expression pattern: " + t.Pattern.Source
}
func (t *Text) enum() string {
	return "Member must satisfy enum value set: [" + strings.Join(t.Enum, ", ") + "]"
}

func (s *Size) broken(n int) (rules []string) {
	if s.Max != None && n > s.Max {
		rules = append(rules, atMost(s.Max))
	}
	if s.Min != None && n < s.Min {
		rules = append(rules, atLeast(s.Min))
	}
	return rules
}

func (s *Size) all() (rules []string) {
	if s.Max != None {
		rules = append(rules, atMost(s.Max))
	}
	if s.Min != None {
		rules = append(rules, atLeast(s.Min))
	}
	return rules
}

func atMost(n int) string { return "Member must have length less than or equal to " + strconv.Itoa(n) }
func atLeast(n int) string {
	return "Member must have length greater than or equal to " + strconv.Itoa(n)
}

// length counts UTF-16 units, of which a rune beyond the basic plane takes two.
func length(s string) (n int) {
	for _, r := range s {
		if n++; r > 0xFFFF {
			n++
		}
	}
	return n
}

func whole(f float64) string { return strconv.FormatFloat(f, 'f', 0, 64) }

// double prints as Java does: always with a decimal.
func double(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// printed shows a value as Java's toString does: [a, b], {k=v},
// OnSuccess(destination=arn). A field tagged sensitive and bytes are hidden.
func printed(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "null"
		}
		return printed(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return hidden
		}
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = printed(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Map:
		values := make(map[string]string, v.Len())
		for it := v.MapRange(); it.Next(); {
			values[it.Key().String()] = printed(it.Value())
		}
		parts := make([]string, 0, len(values))
		for _, k := range slices.Sorted(maps.Keys(values)) {
			parts = append(parts, k+"="+values[k])
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Struct:
		if e, ok := v.Interface().(Epoch); ok {
			return ISO8601(e.Time)
		}
		t := v.Type()
		parts := make([]string, 0, v.NumField())
		for i := range v.NumField() {
			shown := hidden
			if t.Field(i).Tag.Get("aws") != "sensitive" {
				shown = printed(v.Field(i))
			}
			name := t.Field(i).Name
			parts = append(parts, strings.ToLower(name[:1])+name[1:]+"="+shown)
		}
		return t.Name() + "(" + strings.Join(parts, ", ") + ")"
	case reflect.Float64:
		return double(v.Float())
	default:
		return fmt.Sprint(v.Interface())
	}
}

const hidden = "***Sensitive Data Redacted***"
