package lambda_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"kiln/internal/lambda"
)

func TestRetag(t *testing.T) {
	t.Parallel()
	full := map[string]string{}
	for i := range lambda.MaxTags {
		full[fmt.Sprint(i)] = ""
	}
	for _, c := range []struct {
		name      string
		tags, set map[string]string
		remove    []string
		want      map[string]string
		refused   string
	}{
		{"set, change and remove", map[string]string{"a": "1", "b": "2"}, map[string]string{"b": "3", "c": "4"}, []string{"a", "absent"}, map[string]string{"b": "3", "c": "4"}, ""},
		{"none is left", map[string]string{"a": "1"}, nil, []string{"a"}, nil, ""},
		{"as many as may be", full, map[string]string{"0": "x"}, nil, nil, ""},
		{"one more", full, map[string]string{"x": ""}, nil, nil, "Number of tags exceeds resource tag limit."},
		{"the longest", nil, map[string]string{strings.Repeat("ß", 128): strings.Repeat("ß", 256)}, nil, map[string]string{strings.Repeat("ß", 128): strings.Repeat("ß", 256)}, ""},
		{"too long a key", nil, map[string]string{strings.Repeat("k", 129): ""}, nil, nil, "1 to 128 characters; one has 129"},
		{"an empty key", nil, map[string]string{"": "x"}, nil, nil, "1 to 128 characters; one has 0"},
		{"too long a value", nil, map[string]string{"k": strings.Repeat("v", 257)}, nil, nil, "The value of the tag k must have no more than 256 characters."},
		{"AWS's own", nil, map[string]string{"AWS:x": ""}, nil, nil, "reserved for AWS's use: AWS:x"},
	} {
		got, err := lambda.Retag(c.tags, c.set, c.remove)
		if c.refused != "" {
			if e := lambda.AsError(err); e == nil || e.Code != "InvalidParameterValueException" || !strings.Contains(e.Message, c.refused) {
				t.Errorf("%s: %v, want %s", c.name, err, c.refused)
			}
			continue
		}
		if err != nil || c.want != nil && !maps.Equal(got, c.want) || got != nil && len(got) == 0 {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}
