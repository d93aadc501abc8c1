package wire_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"kiln/internal/aws/wire"
)

// FuzzReader compares the reader with encoding/json: they accept the same texts,
// except those that are not UTF-8, and nested too deep, and read the same strings.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{}`, `[]`, `null`, `true`, `"a"`, `0`, `-0.5e+3`, `01`, `1.`, `-`, `{"a":[1,{"b":null}],"c":"\u00e9\ud83d\ude00\ud800"}`,
		`{"a":1,}`, `[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{a:1}`, `"\x"`, `"\u12"`, "\"\n\"", `"`, `tru`, "\ufeff{}", `{"a":1 "b":2}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := wire.NewReader([]byte(s))
		r.Skip()
		r.End()
		if strings.TrimLeft(s, " \t\r\n") == "" || !utf8.ValidString(s) || strings.Count(s, "[")+strings.Count(s, "{") > 1000 {
			return
		}
		if got, want := r.Err() == nil, json.Valid([]byte(s)); got != want {
			t.Errorf("%q: valid %t, encoding/json says %t (%v)", s, got, want, r.Err())
		}
		var text string
		if strings.HasPrefix(strings.TrimSpace(s), `"`) && json.Unmarshal([]byte(s), &text) == nil {
			if got := wire.NewReader([]byte(s)).String(); got == nil || *got != text {
				t.Errorf("%q: read %v, want %q", s, got, text)
			}
		}
	})
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	read := func(s string) *wire.Reader { return wire.NewReader([]byte(s)) }
	if n := read(` -2147483648 `).Int(); n == nil || *n != math.MinInt32 {
		t.Errorf("got %v", n)
	}
	if n := read(`9223372036854775807`).Long(); n == nil || *n != math.MaxInt64 {
		t.Errorf("got %v", n)
	}
	if f := read(`0.25`).Double(); f == nil || *f != 0.25 {
		t.Errorf("got %v", f)
	}
	if at := read(`1769862896.789`).Epoch(); at == nil || !at.Equal(time.UnixMilli(1769862896789)) {
		t.Errorf("got %v", at)
	}
	for _, s := range []string{`9223372036854775808`, `1e3`, `null `, `1.0`} {
		r := read(s)
		if n := r.Long(); n != nil || (r.Err() == nil) != strings.HasPrefix(s, "null") {
			t.Errorf("%s: got %v, %v", s, n, r.Err())
		}
	}
	for _, s := range []string{`1e999`, `1e18`} {
		r := read(s)
		if at := r.Epoch(); at != nil || r.Err() == nil {
			t.Errorf("%s: got %v", s, at)
		}
	}
}

func TestEpochAsJSON(t *testing.T) {
	t.Parallel()
	for ms, want := range map[int64]string{0: "0", 1769862896789: "1769862896.789", 1769862896000: "1769862896"} {
		if got, err := json.Marshal(&wire.Epoch{Time: time.UnixMilli(ms)}); err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}

func TestPatternMatchesTheWhole(t *testing.T) {
	t.Parallel()
	rule := wire.Text{Min: wire.None, Max: wire.None, Pattern: &wire.Pattern{Source: "a|b"}}
	for s, want := range map[string]bool{"a": true, "b": true, "ab": false, "a\n": false, "": false} {
		var v wire.Violations
		v.Text(&s, &rule, "", "x")
		if got := v.Err() == nil; got != want {
			t.Errorf("%q: got %t", s, got)
		}
	}
}

// A sensitive value, and bytes, never reach a message.
func TestSensitive(t *testing.T) {
	t.Parallel()
	type element struct {
		Secret string `aws:"sensitive"`
		Blob   []byte
		Name   *string
		At     *wire.Epoch
	}
	var v wire.Violations
	v.Text(new("secret"), &wire.Text{Min: 10, Max: wire.None, Sensitive: true}, "", "text")
	v.Blob([]byte("secret"), &wire.Size{Min: 10, Max: 20}, "a.", "blob")
	v.Size([]element{{Secret: "secret", Blob: []byte("secret"), Name: new("n"), At: &wire.Epoch{}}}, false, &wire.Size{Min: 2, Max: wire.None}, "", "list")
	wire.Keys(&v, map[string]string{"k": "secret"}, true, &wire.Text{Min: 2, Max: wire.None}, "", "map")
	want := "ValidationException: 4 validation errors detected: " +
		"Value at 'text' failed to satisfy constraint: Member must have length greater than or equal to 10; " +
		"Value at 'a.blob' failed to satisfy constraint: Member must have length greater than or equal to 10; " +
		"Value '[element(secret=***Sensitive Data Redacted***, blob=***Sensitive Data Redacted***, name=n, at=0001-01-01T00:00:00.000+0000)]' at 'list' failed to satisfy constraint: Member must have length greater than or equal to 2; " +
		"Value at 'map' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length greater than or equal to 2]"
	if got := v.Err().Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
