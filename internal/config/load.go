package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Load returns the configuration of the file at path, overridden by KILN_
// variables. Without a path it reads the file that KILN_CONFIG names, else
// DefaultFile if that is there. It does not Validate, because flags may follow;
// apply them with Set.
func Load(path string, getenv func(string) string) (Config, error) {
	c := Default()
	if path == "" {
		path = getenv("KILN_CONFIG")
	}
	if path == "" {
		if _, err := os.Stat(DefaultFile); err == nil {
			path = DefaultFile
		} else if !errors.Is(err, fs.ErrNotExist) {
			return c, fmt.Errorf("read configuration: %w", err)
		}
	}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("read configuration: %w", err)
		}
		if err := c.decode(filepath.Base(path), text); err != nil {
			return c, fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	var problems []error
	for _, key := range Keys() {
		name := Variable(key)
		if value := getenv(name); value != "" {
			problems = append(problems, c.Set(key, value, name))
		}
	}
	return c, errors.Join(problems...)
}

// Variable is the environment variable of a key.
func Variable(key string) string { return "KILN_" + strings.ToUpper(key) }

// Keys lists the keys in the order of Config.
func Keys() (keys []string) {
	for _, f := range fields() {
		keys = append(keys, f.Tag.Get("toml"))
	}
	return keys
}

// Help is the sentence about a key, for the command line's help.
func Help(key string) string {
	f, _ := field(key)
	return f.Tag.Get("help")
}

func fields() (list []reflect.StructField) {
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag.Get("toml") != "-" {
			list = append(list, f)
		}
	}
	return list
}

func field(key string) (reflect.StructField, bool) {
	for _, f := range fields() {
		if f.Tag.Get("toml") == key {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// decode applies a TOML text. file names it in Origins.
func (c *Config) decode(file string, text []byte) error {
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(c)
	if strict := (*toml.StrictMissingError)(nil); errors.As(err, &strict) {
		var problems []error
		for _, e := range strict.Errors {
			line, _ := e.Position()
			key := strings.Join(e.Key(), ".")
			problems = append(problems, fmt.Errorf("line %d: %w", line, unknown(key)))
		}
		return errors.Join(problems...)
	}
	if e := (*toml.DecodeError)(nil); errors.As(err, &e) {
		line, column := e.Position()
		if key := strings.Join(e.Key(), "."); key != "" {
			return fmt.Errorf("line %d: %s: %w", line, key, err)
		}
		return fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	if err != nil {
		return err
	}
	var given map[string]any
	if err := toml.Unmarshal(text, &given); err != nil {
		return err
	}
	for key := range given {
		origin := file
		if line := lineOf(text, key); line > 0 {
			origin += " line " + strconv.Itoa(line)
		}
		c.Origins[strings.ToLower(key)] = origin // TOML's keys are matched in either case
	}
	// An empty list or table is the same as none.
	for _, f := range fields() {
		v := reflect.ValueOf(c).Elem().FieldByIndex(f.Index)
		if k := v.Kind(); (k == reflect.Slice || k == reflect.Map) && v.Len() == 0 {
			v.SetZero()
		}
	}
	return nil
}

// lineOf finds the line that sets a top-level key, or 0. It is for messages only.
func lineOf(text []byte, key string) int {
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimLeft(line, " \t[\"'")
		if rest, ok := strings.CutPrefix(line, key); ok && strings.HasPrefix(strings.TrimLeft(rest, " \t\"']"), "=") || ok && strings.HasPrefix(rest, "]") || ok && strings.HasPrefix(rest, ".") {
			return n
		}
	}
	return 0
}

// Set gives one setting a value in the form that variables and flags have:
// lists separated by commas, tables as name=value separated by commas. origin
// says where it came from.
func (c *Config) Set(key, text, origin string) error {
	f, ok := field(key)
	if !ok {
		return fmt.Errorf("%s: %w", origin, unknown(key))
	}
	v := reflect.ValueOf(c).Elem().FieldByIndex(f.Index)
	if err := setText(v, text); err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	if c.Origins == nil {
		c.Origins = map[string]string{}
	}
	c.Origins[key] = origin
	return nil
}

func setText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(int64(n))
	case reflect.Slice:
		v.Set(reflect.ValueOf(list(text)))
	case reflect.Map:
		table := reflect.MakeMap(v.Type())
		for _, pair := range list(text) {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return fmt.Errorf("%q is not name=value", pair)
			}
			if err := setEntry(table, strings.TrimSpace(name), strings.TrimSpace(value)); err != nil {
				return err
			}
		}
		v.Set(table)
	default:
		panic("config: no text form for " + v.Type().String())
	}
	return nil
}

// setEntry sets name in a table of strings, or name.setting in a table of tables.
func setEntry(table reflect.Value, name, text string) error {
	if table.Type().Elem().Kind() == reflect.String {
		table.SetMapIndex(reflect.ValueOf(name), reflect.ValueOf(text))
		return nil
	}
	name, setting, _ := strings.Cut(name, ".")
	entry := reflect.New(table.Type().Elem()).Elem()
	if old := table.MapIndex(reflect.ValueOf(name)); old.IsValid() {
		entry.Set(old)
	}
	var settings []string
	for i := range entry.NumField() {
		key, _, _ := strings.Cut(entry.Type().Field(i).Tag.Get("toml"), ",")
		if key == setting {
			if err := setText(entry.Field(i), text); err != nil {
				return err
			}
			table.SetMapIndex(reflect.ValueOf(name), entry)
			return nil
		}
		settings = append(settings, key)
	}
	return fmt.Errorf("%s.%s: %w; the settings of each are %s", name, setting, errUnknownKey, strings.Join(settings, ", "))
}

func list(text string) (items []string) {
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// Write prints the configuration as a commented kiln.toml that loads back to the
// same values. It holds no secret: they are only ever in their files.
func (c Config) Write(w io.Writer) error {
	var b bytes.Buffer
	for i, f := range fields() {
		if i > 0 {
			b.WriteByte('\n')
		}
		key := f.Tag.Get("toml")
		for _, line := range wrap(f.Tag.Get("help"), helpWidth) {
			b.WriteString("# " + line + "\n")
		}
		if origin := c.Origins[key]; origin != "" {
			b.WriteString("# From " + origin + ".\n")
		}
		value := reflect.ValueOf(c).FieldByIndex(f.Index)
		if f.Type.Kind() == reflect.Slice && value.IsNil() {
			value = reflect.MakeSlice(f.Type, 0, 0)
		}
		if err := toml.NewEncoder(&b).Encode(map[string]any{key: value.Interface()}); err != nil {
			return fmt.Errorf("write configuration: %s: %w", key, err)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// helpWidth is the longest comment line of Write, in bytes.
const helpWidth = 90

func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// unknown is the error for a key that is not there; it names the nearest one.
func unknown(key string) error {
	if best := Nearest(key, Keys()); best != "" {
		return fmt.Errorf("%s: %w; did you mean %s?", key, errUnknownKey, best)
	}
	return fmt.Errorf("%s: %w; the settings are %s", key, errUnknownKey, strings.Join(Keys(), ", "))
}

// Nearest is the name that somebody means who wrote another; "" where none is near.
func Nearest(name string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	best := slices.MinFunc(names, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, best) <= max(2, len(name)/3) {
		return best
	}
	return ""
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
