package lambda_test

import (
	"strings"
	"testing"

	"kiln/internal/lambda"
)

func TestParseLayer(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{ // the ARN, or the error's code
		"l": "arn:aws:lambda:us-east-1:123456789012:layer:l",
		"arn:aws:lambda:us-east-1:123456789012:layer:l":    "arn:aws:lambda:us-east-1:123456789012:layer:l",
		"arn:aws:lambda:us-east-1:210987654321:layer:l":    "arn:aws:lambda:us-east-1:210987654321:layer:l",
		"arn:aws-cn:lambda:us-east-1:123456789012:layer:l": "arn:aws:lambda:us-east-1:123456789012:layer:l",
		"under_score-dash": "arn:aws:lambda:us-east-1:123456789012:layer:under_score-dash",
		"arn:aws:lambda:eu-west-1:123456789012:layer:l":    "ResourceNotFoundException",
		"arn:aws:lambda:us-east-1:123456789012:layer:l:1":  "InvalidParameterValueException",
		"arn:aws:lambda:us-east-1:123456789012:function:l": "InvalidParameterValueException",
		"layer:l": "InvalidParameterValueException",
		"l.m":     "InvalidParameterValueException",
		"l\n":     "InvalidParameterValueException",
		"":        "InvalidParameterValueException",
	} {
		arn, err := lambda.ParseLayer(given, here)
		got := arn.String()
		if e := lambda.AsError(err); e != nil {
			got = e.Code
		}
		if got != want {
			t.Errorf("%q: %s, want %s", given, got, want)
		}
	}
}

func TestParseLayerVersion(t *testing.T) {
	t.Parallel()
	for given, ok := range map[string]bool{
		"arn:aws:lambda:eu-west-1:210987654321:layer:l:1":                   true,
		"arn:aws:lambda:eu-west-1:210987654321:layer:l:9223372036854775807": true,
		"arn:aws:lambda:eu-west-1:210987654321:layer:l:9223372036854775808": false,
		"arn:aws:lambda:eu-west-1:210987654321:layer:l:-1":                  false,
		"arn:aws:lambda:eu-west-1:210987654321:layer:l":                     false,
		"arn:aws:lambda:eu-west-1:210987654321:layer:l:1:2":                 false,
		"arn:aws:lambda:eu-west-1:210987654321:function:l:1":                false,
		"arn:aws:lambda:eu-west-1:21098765432:layer:l:1":                    false,
		"arn:aws:s3:eu-west-1:210987654321:layer:l:1":                       false,
		"l:1": false,
		"":    false,
		"arn:aws:lambda:eu-west-1:210987654321:layer:l:1\n":                  false,
		"x arn:aws:lambda:eu-west-1:210987654321:layer:l:1":                  false,
		"arn:aws:lambda:eu.west:210987654321:layer:l:1":                      false,
		"arn:aws:lambda:eu-west-1:210987654321:layer:../l:1":                 false,
		"arn:aws:lambda:eu-west-1:210987654321:layer:l:99999999999999999999": false,
	} {
		got, err := lambda.ParseLayerVersion(given)
		if ok != (err == nil) || ok && got.String() != given || !ok && lambda.AsError(err) == nil {
			t.Errorf("%q: %v, %v", given, got, err)
		}
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:lambda:us-east-1:123456789012:layer:l:1"
	p := lambda.Policy{Statements: []lambda.Statement{
		{ID: "all", Action: "lambda:GetLayerVersion", Principal: "*"},
		{ID: "account", Action: "lambda:GetLayerVersion", Principal: "210987654321"},
		{ID: "root", Action: "lambda:GetLayerVersion", Principal: "arn:aws:iam::210987654321:root"},
		{ID: "organised", Action: "lambda:GetLayerVersion", Principal: "*", Organization: "o-abcdefghij"},
	}}
	statements := []string{
		`{"Sid":"all","Effect":"Allow","Principal":"*","Action":"lambda:GetLayerVersion","Resource":"` + arn + `"}`,
		`{"Sid":"account","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:root"},"Action":"lambda:GetLayerVersion","Resource":"` + arn + `"}`,
		`{"Sid":"root","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:root"},"Action":"lambda:GetLayerVersion","Resource":"` + arn + `"}`,
		`{"Sid":"organised","Effect":"Allow","Principal":"*","Action":"lambda:GetLayerVersion","Resource":"` + arn + `","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-abcdefghij"}}}`,
	}
	for i, s := range p.Statements {
		if got := s.JSON(arn); got != statements[i] {
			t.Errorf("got  %s\nwant %s", got, statements[i])
		}
		only := lambda.Policy{Statements: []lambda.Statement{s}}
		for account, want := range map[lambda.AccountID]bool{"210987654321": i < 3, "999999999999": i == 0} {
			if only.Allows(account, "lambda:GetLayerVersion") != want || only.Allows(account, "lambda:DeleteLayerVersion") {
				t.Errorf("%s lets %s in: %v", s.ID, account, !want)
			}
		}
	}
	want := `{"Version":"2012-10-17","Id":"default","Statement":[` + statements[0] + "," + statements[1] + "," + statements[2] + "," + statements[3] + `]}`
	if got := p.JSON(arn); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if (lambda.Policy{}).Allows("210987654321", "lambda:GetLayerVersion") {
		t.Error("no policy lets everybody in")
	}
}

// What is taken is printed in a form that is taken again, as the same.
func FuzzParseLayer(f *testing.F) {
	for _, s := range []string{"l", "arn:aws:lambda:us-east-1:123456789012:layer:l", "arn:aws:lambda:us-east-1:123456789012:layer:l:1", "layer:l", ":::", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		if arn, err := lambda.ParseLayer(reference, here); err == nil {
			if again, err := lambda.ParseLayer(arn.String(), here); err != nil || again != arn || arn.Name == "" || strings.ContainsAny(string(arn.Name), ":/. \n") {
				t.Fatalf("%q is %+v, and that is %+v, %v", reference, arn, again, err)
			}
		} else if lambda.AsError(err) == nil {
			t.Fatalf("%q: %v is no error for a caller", reference, err)
		}
		if arn, err := lambda.ParseLayerVersion(reference); err == nil {
			if again, err := lambda.ParseLayerVersion(arn.String()); err != nil || again != arn {
				t.Fatalf("%q is %+v, and that is %+v, %v", reference, arn, again, err)
			}
		} else if lambda.AsError(err) == nil {
			t.Fatalf("%q: %v is no error for a caller", reference, err)
		}
	})
}
