package eventpattern_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kiln/internal/aws/eventpattern"
)

func TestValid(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]bool{
		`{"a":["b"]}`: true,
		` {"a" : [ "b" , 1, -2.5e3, null, true, "" ] } `: true,
		`{"body":{"RequestCode":["BBBB"]}}`:              true,
		`{"a":[{"prefix":"x"},{"suffix":"y"},"z"]}`:      true,
		`{"a":[{"prefix":{"equals-ignore-case":"x"}}]}`:  true,
		`{"a":[{"equals-ignore-case":"X"}]}`:             true,
		`{"a":[{"exists":false}]}`:                       true,
		`{"a":[{"numeric":["=",100]}]}`:                  true,
		`{"a":[{"numeric":[">",10,"<=",20]}]}`:           true,
		`{"a":[{"anything-but":"x"}]}`:                   true,
		`{"a":[{"anything-but":["x","y"]}]}`:             true,
		`{"a":[{"anything-but":[1,2]}]}`:                 true,
		`{"a":[{"anything-but":{"prefix":"x"}}]}`:        true,
		`{"a":[{"anything-but":{"suffix":["x","y"]}}]}`:  true,
		`{"a":[{"wildcard":"a*b\\*c\\\\*"}]}`:            true,
		`{"a":[{"cidr":"10.0.0.0/24"},{"cidr":"::1"}]}`:  true,
		`{"$or":[{"a":["b"]},{"c":["d"]}]}`:              true,
		`{"$or":["a field of that name"]}`:               true,
		`{"$or":[{"prefix":"a"},{"prefix":"b"}]}`:        true,

		``:                                     false,
		`x`:                                    false,
		`{`:                                    false,
		`null`:                                 false,
		`[]`:                                   false,
		`"a"`:                                  false,
		`{}`:                                   false,
		`{"a":["b"]} {}`:                       false,
		`{"a":["b"]}x`:                         false,
		`{"a":"b"}`:                            false,
		`{"a":null}`:                           false,
		`{"a":[]}`:                             false,
		`{"a":{}}`:                             false,
		`{"a":[["b"]]}`:                        false,
		`{"a":[{}]}`:                           false,
		`{"a":[{"b":["c"]}]}`:                  false,
		`{"a":[{"prefix":"b","suffix":"c"}]}`:  false,
		`{"a":[{"prefix":1}]}`:                 false,
		`{"a":[{"prefix":{"suffix":"b"}}]}`:    false,
		`{"a":[{"equals-ignore-case":["x"]}]}`: false,
		`{"a":[{"exists":"true"}]}`:            false,
		`{"a":[{"exists":null}]}`:              false,
		`{"a":[{"numeric":[]}]}`:               false,
		`{"a":[{"numeric":[">"]}]}`:            false,
		`{"a":[{"numeric":["!",1]}]}`:          false,
		`{"a":[{"numeric":[">","1"]}]}`:        false,
		`{"a":[{"numeric":["<",1,">",2]}]}`:    false,
		`{"a":[{"numeric":["=",1,"<",2]}]}`:    false,
		`{"a":[{"numeric":[">",2,"<",2]}]}`:    false,
		`{"a":[{"numeric":[">",1,"<",2,"<",3]}]}`:      false,
		`{"a":[{"numeric":[">",1e999]}]}`:              false,
		`{"a":[{"numeric":{">":1}}]}`:                  false,
		`{"a":[{"anything-but":[]}]}`:                  false,
		`{"a":[{"anything-but":["x",1]}]}`:             false,
		`{"a":[{"anything-but":true}]}`:                false,
		`{"a":[{"anything-but":null}]}`:                false,
		`{"a":[{"anything-but":{"numeric":[">",1]}}]}`: false,
		`{"a":[{"wildcard":"a**"}]}`:                   false,
		`{"a":[{"wildcard":"a\\"}]}`:                   false,
		`{"a":[{"wildcard":"\\b"}]}`:                   false,
		`{"a":[{"cidr":"10.0.0.0/33"}]}`:               false,
		`{"$or":[{"a":["b"]},{"c":"d"}]}`:              false,
		`{"$or":[{"a":["b"]}]}`:                        false,
	} {
		if got := eventpattern.Valid(pattern); got != want {
			t.Errorf("Valid(%s) = %v", pattern, got)
		}
	}
}

// fields draws a pattern: depth bounds how deep its objects lie.
func fields(t *rapid.T, depth int) map[string]any {
	made := map[string]any{}
	for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zA-Z]{1,6}`), 1, 3, rapid.ID).Draw(t, "names") {
		if depth > 0 && rapid.Bool().Draw(t, "deeper") {
			made[name] = fields(t, depth-1)
			continue
		}
		made[name] = rapid.SliceOfN(leaves, 1, 3).Draw(t, "leaves")
	}
	if depth > 0 && rapid.IntRange(0, 3).Draw(t, "or") == 0 {
		made["$or"] = []any{map[string]any{"x": []any{1}}, fields(t, depth-1)}
	}
	return made
}

var leaves = rapid.OneOf(
	rapid.Just[any](nil),
	rapid.Bool().AsAny(),
	rapid.String().AsAny(),
	rapid.Float64Range(-1e12, 1e12).AsAny(),
	rapid.Map(rapid.String(), func(s string) any { return map[string]any{"prefix": s} }),
	rapid.Map(rapid.SliceOfN(rapid.String(), 1, 4), func(s []string) any { return map[string]any{"anything-but": s} }),
	rapid.Map(rapid.IntRange(-100, 100), func(n int) any { return map[string]any{"numeric": []any{">=", n, "<", n + 1}} }),
	rapid.Map(rapid.Bool(), func(b bool) any { return map[string]any{"exists": b} }),
)

// TestOneFault: a pattern is valid, and any one field spoiled anywhere makes it invalid.
func TestOneFault(t *testing.T) {
	t.Parallel()
	faults := []any{"a scalar", 1, true, nil, []any{}, map[string]any{}, []any{[]any{"nested"}}, []any{map[string]any{"unknown": "x"}}}
	rapid.Check(t, func(t *rapid.T) {
		pattern := fields(t, 3)
		text, err := json.Marshal(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if !eventpattern.Valid(string(text)) {
			t.Fatalf("invalid: %s", text)
		}
		spoil := pattern
		for {
			name := rapid.SampledFrom(slices.Sorted(maps.Keys(spoil))).Draw(t, "spoiled")
			below, ok := spoil[name].(map[string]any)
			if !ok {
				spoil[name] = rapid.SampledFrom(faults).Draw(t, "fault")
				break
			}
			spoil = below
		}
		if text, err = json.Marshal(pattern); err != nil {
			t.Fatal(err)
		}
		if eventpattern.Valid(string(text)) {
			t.Fatalf("valid: %s", text)
		}
	})
}

// FuzzValid: nothing makes it panic, and what is valid is a JSON object with fields.
func FuzzValid(f *testing.F) {
	for _, seed := range []string{`{"a":["b"]}`, `{"a":[{"numeric":[">",1,"<",2]}]}`, `{"$or":[{"a":[1]},{"b":[{"anything-but":{"wildcard":["*"]}}]}]}`, `{"a":[{"cidr":"::/0"}]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var fields map[string]any
		err := json.Unmarshal([]byte(text), &fields)
		if eventpattern.Valid(text) && (err != nil || len(fields) == 0) {
			t.Errorf("valid: %q", text)
		}
	})
}
