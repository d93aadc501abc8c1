package query

import (
	"bytes"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiln/internal/aws/wire"
)

// maxMembers bounds the elements of a list that a form may hold, before the model's
// own bound is asked.
const maxMembers = 1000

// tree is a form by the parts of its names: Tags.member.1.Key.
type tree struct {
	value string
	below map[string]*tree
}

// maxDepth is far more than any member needs.
const maxDepth = 16

// read fills the structure that into points to from a form. Members that the
// structure does not have are ignored, as AWS does.
func read(form url.Values, into any) error {
	root := &tree{}
	for name, values := range form {
		part := strings.Split(name, ".")
		if len(part) > maxDepth {
			continue
		}
		t := root
		for _, p := range part {
			if t.below == nil {
				t.below = map[string]*tree{}
			}
			if t.below[p] == nil {
				t.below[p] = &tree{}
			}
			t = t.below[p]
		}
		t.value = values[0]
	}
	return root.read(reflect.ValueOf(into).Elem(), "")
}

func (t *tree) read(v reflect.Value, name string) error {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			member := memberName(v.Type().Field(i))
			if below := t.below[member]; below != nil {
				if err := below.read(v.Field(i), member); err != nil {
					return err
				}
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return t.read(v.Elem(), name)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 0, 0)) // "Tags=" is an empty list
		list, err := t.elements(name)
		if err != nil {
			return err
		}
		for _, element := range list {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := element.read(e, name); err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
		}
	case reflect.String:
		v.SetString(t.value)
	case reflect.Bool:
		switch strings.ToLower(t.value) {
		case "true", "false":
			v.SetBool(strings.EqualFold(t.value, "true"))
		default:
			return malformed(name, t.value, "boolean")
		}
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(t.value, 10, 32)
		if err != nil {
			return malformed(name, t.value, "integer")
		}
		v.SetInt(n)
	default:
		panic("a member of type " + v.Type().String() + " cannot be read")
	}
	return nil
}

// elements are those of Name.member.N, in the order of N.
func (t *tree) elements(name string) ([]*tree, error) {
	member := t.below["member"]
	if member == nil {
		return nil, nil
	}
	if len(member.below) > maxMembers {
		return nil, invalid("ValidationError", name+" has more than "+strconv.Itoa(maxMembers)+" elements")
	}
	byNumber := map[int]*tree{}
	for text, element := range member.below {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, malformed(name, text, "number of a list's element")
		}
		byNumber[n] = element
	}
	var list []*tree
	for _, n := range slices.Sorted(maps.Keys(byNumber)) {
		list = append(list, byNumber[n])
	}
	return list, nil
}

func malformed(name, value, kind string) *wire.Fault {
	return invalid("MalformedInput", strconv.Quote(value)+" at "+name+" is not a valid "+kind)
}

// memberName is what a field is called on the wire.
func memberName(f reflect.StructField) string {
	if name := f.Tag.Get("query"); name != "" {
		return name
	}
	return f.Name
}

// write writes <name>value</name>. Pointers and lists that are nil are left out; an
// empty list is an empty element.
func write(b *bytes.Buffer, name string, value any) { writeValue(b, name, reflect.ValueOf(value)) }

func writeValue(b *bytes.Buffer, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			writeValue(b, name, v.Elem())
		}
		return
	case reflect.Slice:
		if v.IsNil() {
			return
		}
	}
	b.WriteString("<" + name + ">")
	switch v.Kind() {
	case reflect.Struct:
		if at, ok := v.Interface().(time.Time); ok {
			b.WriteString(at.UTC().Format(time.RFC3339))
			break
		}
		for i := range v.NumField() {
			writeValue(b, memberName(v.Type().Field(i)), v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			writeValue(b, "member", v.Index(i))
		}
	case reflect.String:
		escape(b, v.String())
	case reflect.Bool:
		b.WriteString(strconv.FormatBool(v.Bool()))
	case reflect.Int, reflect.Int64:
		b.WriteString(strconv.FormatInt(v.Int(), 10))
	default:
		panic("a member of type " + v.Type().String() + " cannot be written")
	}
	b.WriteString("</" + name + ">")
}
