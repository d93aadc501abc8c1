package lambda_test

import (
	"regexp"
	"strings"
	"testing"

	"kiln/internal/lambda"
)

var here = lambda.Scope{Account: "123456789012", Region: "us-east-1"}

func TestParseFunction(t *testing.T) {
	t.Parallel()
	const full = "arn:aws:lambda:us-east-1:123456789012:function:f"
	for _, c := range []struct {
		reference string
		qualifier lambda.Qualifier
		want      string // the ARN, or the error's code
	}{
		{"f", "", full},
		{"f:live", "", full + ":live"},
		{"f:$LATEST", "", full + ":$LATEST"},
		{"f:42", "", full + ":42"},
		{"f", "live", full + ":live"},
		{"f:live", "live", full + ":live"},
		{"f:live", "42", "InvalidParameterValueException"},
		{"function:f", "", full},
		{"123456789012:function:f", "", full},
		{"123456789012:function:f:live", "", full + ":live"},
		{"us-east-1:123456789012:function:f", "", full},
		{"arn:aws:lambda:us-east-1:123456789012:function:f", "", full},
		{"arn:aws:lambda:us-east-1:123456789012:function:f:live", "", full + ":live"},
		{"arn:aws-cn:lambda:us-east-1:123456789012:function:f", "", full},
		{"arn:aws:lambda:us-east-1:210987654321:function:f", "", "arn:aws:lambda:us-east-1:210987654321:function:f"},
		{"arn:aws:lambda:eu-west-1:123456789012:function:f", "", "ResourceNotFoundException"},
		{"under_score-dash", "", "arn:aws:lambda:us-east-1:123456789012:function:under_score-dash"},
		{"", "", "InvalidParameterValueException"},
		{"f:", "", "InvalidParameterValueException"},
		{"f g", "", "InvalidParameterValueException"},
		{"f/g", "", "InvalidParameterValueException"},
		{"f.g", "", "InvalidParameterValueException"},
		{"f\n", "", "InvalidParameterValueException"},
		{"f:live:more", "", "InvalidParameterValueException"},
		{"f:$OTHER", "", "InvalidParameterValueException"},
		{"arn:aws:s3:us-east-1:123456789012:function:f", "", "InvalidParameterValueException"},
		{"arn:aws:lambda:us-east-1:12345:function:f", "", "InvalidParameterValueException"},
	} {
		got, err := lambda.ParseFunction(c.reference, c.qualifier, here)
		text := got.String()
		if e := lambda.AsError(err); e != nil {
			text = e.Code
		}
		if text != c.want {
			t.Errorf("%q, %q: %s, want %s", c.reference, c.qualifier, text, c.want)
		}
	}
}

func TestParseFunctionARN(t *testing.T) {
	t.Parallel()
	for given, ok := range map[string]bool{
		"arn:aws:lambda:eu-west-1:210987654321:function:f":        true,
		"arn:aws:lambda:eu-west-1:210987654321:function:f:live":   true,
		"arn:aws:lambda:eu-west-1:210987654321:function:f:live:x": false,
		"arn:aws:lambda:eu-west-1:210987654321:layer:f":           false,
		"arn:aws:lambda:::function:f":                             false,
		"f":                                                       false,
		"":                                                        false,
	} {
		got, err := lambda.ParseFunctionARN(given)
		if ok != (err == nil) || ok && got.String() != given {
			t.Errorf("%q: %v, %v", given, got, err)
		}
	}
}

// What is taken is printed in a form that is taken again, as the same.
func FuzzParseFunction(f *testing.F) {
	for _, s := range []string{"f", "f:1", "function:f", "123456789012:f", "us-east-1:f", "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST", "arn:lambda:", ":::", "$LATEST"} {
		f.Add(s, "")
		f.Add(s, "live")
	}
	f.Fuzz(func(t *testing.T, reference, qualifier string) {
		arn, err := lambda.ParseFunction(reference, lambda.Qualifier(qualifier), here)
		if err != nil {
			if lambda.AsError(err) == nil {
				t.Fatalf("%q: %v is no error for a caller", reference, err)
			}
			return
		}
		if arn.Name == "" || arn.Region != here.Region || len(arn.Account) != 12 || strings.ContainsAny(string(arn.Name), ":/. \n") {
			t.Fatalf("%q is %+v", reference, arn)
		}
		if again, err := lambda.ParseFunction(string(arn.Unqualified().String()), arn.Qualifier, here); err != nil || again != arn {
			t.Fatalf("%q is %+v, and that is %+v, %v", reference, arn, again, err)
		}
	})
}

func TestUUID(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 1000 {
		id := lambda.NewUUID()
		if !form.MatchString(id) || seen[id] {
			t.Fatalf("%s, seen before: %v", id, seen[id])
		}
		seen[id] = true
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	if e := lambda.Throttled("R"); e.Status != 429 || e.Reason != "R" || e.Error() != "TooManyRequestsException: Rate Exceeded." {
		t.Errorf("%+v", e)
	}
	if lambda.AsError(nil) != nil {
		t.Error("no error is an error")
	}
}
