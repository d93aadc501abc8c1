package policy_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kiln/internal/aws/policy"
)

const function = "arn:aws:lambda:us-east-1:123456789012:function:"

// identity is the policy of these statements.
func identity(t testing.TB, statements ...string) policy.Document {
	t.Helper()
	d, err := policy.Parse(policy.Identity, []byte(`{"Version":"2012-10-17","Statement":[`+strings.Join(statements, ",")+`]}`))
	if err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
	return d
}

func allow(action, resource string) string {
	return `{"Effect":"Allow","Action":"` + action + `","Resource":"` + resource + `"}`
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name             string
		statements       []string
		action, resource string
		want             policy.Decision
	}{
		{"nothing", []string{allow("s3:*", "*")}, "lambda:GetFunction", function + "f", policy.Silent},
		{"everything", []string{allow("*", "*")}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"a service", []string{allow("lambda:*", "*")}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"actions that begin so", []string{allow("lambda:Get*", "*")}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"and not otherwise", []string{allow("lambda:Get*", "*")}, "lambda:ListGet", function + "f", policy.Silent},
		{"one character", []string{allow("lambda:GetFunctio?", "*")}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"case of actions", []string{allow("LAMBDA:getfunction", "*")}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"case of resources", []string{allow("*", function+"F")}, "lambda:GetFunction", function + "f", policy.Silent},
		{"another function", []string{allow("*", function+"f")}, "lambda:GetFunction", function + "ff", policy.Silent},
		{"unqualified is not qualified", []string{allow("*", function+"f")}, "lambda:InvokeFunction", function + "f:live", policy.Silent},
		{"qualified", []string{allow("*", function+"f:*")}, "lambda:InvokeFunction", function + "f:live", policy.Allowed},
		{"any region", []string{allow("*", "arn:aws:lambda:*:123456789012:function:f")}, "lambda:InvokeFunction", function + "f", policy.Allowed},
		{"a wildcard ends at the colon", []string{allow("*", "arn:aws:lambda:*:function:f")}, "lambda:InvokeFunction", function + "f", policy.Silent},
		{"cut short", []string{allow("*", "arn:aws:lambda")}, "lambda:InvokeFunction", function + "f", policy.Allowed},
		{"deny wins, first", []string{`{"Effect":"Deny","Action":"lambda:Delete*","Resource":"*"}`, allow("*", "*")}, "lambda:DeleteFunction", function + "f", policy.Denied},
		{"deny wins, last", []string{allow("*", "*"), `{"Effect":"Deny","Action":"lambda:Delete*","Resource":"*"}`}, "lambda:DeleteFunction", function + "f", policy.Denied},
		{"all but", []string{`{"Effect":"Allow","NotAction":["lambda:Delete*","iam:*"],"Resource":"*"}`}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"the but", []string{`{"Effect":"Allow","NotAction":["lambda:Delete*","iam:*"],"Resource":"*"}`}, "lambda:DeleteFunction", function + "f", policy.Silent},
		{"other resources", []string{`{"Effect":"Allow","Action":"*","NotResource":"` + function + `secret*"}`}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"not that one", []string{`{"Effect":"Allow","Action":"*","NotResource":"` + function + `secret*"}`}, "lambda:GetFunction", function + "secret-1", policy.Silent},
		{"a variable", []string{allow("*", function+"${aws:username}-*")}, "lambda:GetFunction", function + "ann-x", policy.Allowed},
		{"another's", []string{allow("*", function+"${aws:username}-*")}, "lambda:GetFunction", function + "bob-x", policy.Silent},
		{"a variable without value", []string{allow("*", function+"${aws:nothing}*")}, "lambda:GetFunction", function + "f", policy.Silent},
		{"with another instead", []string{allow("*", function+"${aws:nothing, 'f'}")}, "lambda:GetFunction", function + "f", policy.Allowed},
		{"a value's wildcard is a character", []string{allow("*", function+"${aws:star}")}, "lambda:GetFunction", function + "f", policy.Silent},
		{"an escaped wildcard", []string{allow("*", function+"${*}")}, "lambda:GetFunction", function + "f", policy.Silent},
	} {
		keys := policy.Keys{}
		keys.Set("aws:username", "ann")
		keys.Set("aws:star", "*")
		if got := policy.Decide(&policy.Request{Action: c.action, Resource: c.resource, Keys: keys}, identity(t, c.statements...)); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestVersion2008(t *testing.T) {
	t.Parallel()
	text := `{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"` + function + `${aws:username}"}}`
	d, err := policy.Parse(policy.Resource, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	keys := policy.Keys{"aws:username": {"ann"}}
	for resource, want := range map[string]policy.Decision{"ann": policy.Silent, "${aws:username}": policy.Allowed} {
		if got := policy.Decide(&policy.Request{Action: "lambda:GetFunction", Resource: function + resource, Keys: keys}, d); got != want {
			t.Errorf("%s: got %d", resource, got)
		}
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	keys := policy.Keys{}
	keys.Set("aws:username", "ann")
	keys.Set("aws:SourceIp", "10.1.2.3")
	keys.Set("aws:SecureTransport", "false")
	keys.Set("aws:CurrentTime", "2026-11-26T12:00:00Z")
	keys.Set("aws:EpochTime", "1795694400")
	keys.Set("aws:SourceArn", "arn:aws:s3:::bucket")
	keys.Set("lambda:Layer", "arn:aws:lambda:us-east-1:123456789012:layer:a:1", "arn:aws:lambda:us-east-1:123456789012:layer:b:2")
	keys.Set("aws:TagKeys", "team", "stage")
	keys.Set("aws:RequestTag/team", "blue")
	keys.Set("app:count", "5")
	for condition, want := range map[string]bool{
		`"StringEquals":{"aws:username":"ann"}`:                              true,
		`"StringEquals":{"AWS:UserName":"ann"}`:                              true,
		`"StringEquals":{"aws:username":"Ann"}`:                              false,
		`"StringEquals":{"aws:username":["bob","ann"]}`:                      true,
		`"StringEquals":{"aws:username":"a*"}`:                               false,
		`"StringEquals":{"aws:username":"${aws:username}"}`:                  true,
		`"StringEquals":{"aws:absent":"ann"}`:                                false,
		`"StringEqualsIfExists":{"aws:absent":"ann"}`:                        true,
		`"StringEqualsIfExists":{"aws:username":"bob"}`:                      false,
		`"StringNotEquals":{"aws:username":"bob"}`:                           true,
		`"StringNotEquals":{"aws:username":["bob","ann"]}`:                   false,
		`"StringNotEquals":{"aws:absent":"ann"}`:                             true,
		`"StringEqualsIgnoreCase":{"aws:username":"ANN"}`:                    true,
		`"StringNotEqualsIgnoreCase":{"aws:username":"ANN"}`:                 false,
		`"StringLike":{"aws:username":"a*"}`:                                 true,
		`"StringLike":{"aws:username":"a?"}`:                                 false,
		`"StringNotLike":{"aws:username":"a*"}`:                              false,
		`"StringEquals":{"aws:username":"ann","aws:absent":"x"}`:             false,
		`"StringEquals":{"aws:username":"ann"},"Bool":{"aws:absent":"true"}`: false,
		`"Bool":{"aws:SecureTransport":"false"}`:                             true,
		`"Bool":{"aws:SecureTransport":false}`:                               true,
		`"Bool":{"aws:SecureTransport":"true"}`:                              false,
		`"BoolIfExists":{"aws:MultiFactorAuthPresent":"true"}`:               true,
		`"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}`:                          true,
		`"IpAddress":{"aws:SourceIp":["192.168.0.0/16","10.1.2.3"]}`:         true,
		`"IpAddress":{"aws:SourceIp":"::/0"}`:                                false,
		`"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}`:                       false,
		`"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}`:       true,
		`"DateLessThan":{"aws:CurrentTime":"2026-01-01"}`:                    false,
		`"DateLessThan":{"aws:EpochTime":"1795694401"}`:                      true,
		`"DateNotEquals":{"aws:CurrentTime":"2026-11-26T12:00:00Z"}`:         false,
		`"NumericLessThan":{"app:count":"10"}`:                               true,
		`"NumericLessThanEquals":{"app:count":5}`:                            true,
		`"NumericGreaterThan":{"app:count":"5"}`:                             false,
		`"NumericNotEquals":{"app:count":"5.0"}`:                             false,
		`"ArnLike":{"aws:SourceArn":"arn:aws:s3:*:*:b*"}`:                    true,
		`"ArnEquals":{"aws:SourceArn":"arn:aws:s3:::bucket"}`:                true,
		`"ArnNotLike":{"aws:SourceArn":"arn:aws:s3:::b*"}`:                   false,
		`"Null":{"aws:absent":"true"}`:                                       true,
		`"Null":{"aws:username":"true"}`:                                     false,
		`"Null":{"aws:username":false}`:                                      true,
		`"ForAllValues:StringEquals":{"aws:TagKeys":["team","stage","x"]}`:   true,
		`"ForAllValues:StringEquals":{"aws:TagKeys":["team"]}`:               false,
		`"ForAllValues:StringEquals":{"aws:absent":["team"]}`:                true,
		`"ForAnyValue:StringEquals":{"aws:TagKeys":["team"]}`:                true,
		`"ForAnyValue:StringEquals":{"aws:absent":["team"]}`:                 false,
		`"ForAnyValue:StringNotEquals":{"aws:TagKeys":["team"]}`:             true,
		`"ForAllValues:StringNotEquals":{"aws:TagKeys":["team"]}`:            false,
		`"ForAllValues:StringLike":{"lambda:Layer":"arn:*:layer:?:*"}`:       true,
		`"ForAnyValue:StringLike":{"lambda:Layer":"arn:*:layer:c:*"}`:        false,
		`"StringEquals":{"aws:RequestTag/team":"blue"}`:                      true,
		`"BinaryEquals":{"app:blob":"AAE="}`:                                 false,
	} {
		d := identity(t, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{`+condition+`}}`)
		if got := policy.Decide(&policy.Request{Action: "lambda:GetFunction", Resource: "*", Keys: keys}, d) == policy.Allowed; got != want {
			t.Errorf("%s: got %v", condition, got)
		}
	}
}

func TestPrincipals(t *testing.T) {
	t.Parallel()
	ann := policy.Principal{Account: "123456789012", ARNs: []string{"arn:aws:iam::123456789012:user/ann"}}
	session := policy.Principal{Account: "123456789012", ARNs: []string{"arn:aws:sts::123456789012:assumed-role/r/s", "arn:aws:iam::123456789012:role/r"}}
	s3 := policy.Principal{Service: "s3.amazonaws.com"}
	for _, c := range []struct {
		principal string
		who       policy.Principal
		want      policy.Decision
	}{
		{`"Principal":"*"`, ann, policy.Allowed},
		{`"Principal":"*"`, policy.Principal{}, policy.Allowed},
		{`"Principal":{"AWS":"*"}`, ann, policy.Allowed},
		{`"Principal":{"AWS":"123456789012"}`, ann, policy.Delegated},
		{`"Principal":{"AWS":"arn:aws:iam::123456789012:root"}`, ann, policy.Delegated},
		{`"Principal":{"AWS":["210987654321","arn:aws:iam::123456789012:user/ann"]}`, ann, policy.Allowed},
		{`"Principal":{"AWS":"210987654321"}`, ann, policy.Silent},
		{`"Principal":{"AWS":"arn:aws:iam::123456789012:role/r"}`, session, policy.Allowed},
		{`"Principal":{"AWS":"arn:aws:iam::123456789012:role/q"}`, session, policy.Silent},
		{`"Principal":{"Service":"s3.amazonaws.com"}`, s3, policy.Allowed},
		{`"Principal":{"Service":"sns.amazonaws.com"}`, s3, policy.Silent},
		{`"Principal":{"Federated":"cognito-identity.amazonaws.com"}`, ann, policy.Silent},
		{`"NotPrincipal":{"AWS":"210987654321"}`, ann, policy.Allowed},
		{`"NotPrincipal":{"AWS":"123456789012"}`, ann, policy.Silent},
	} {
		d, err := policy.Parse(policy.Resource, []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",`+c.principal+`,"Action":"lambda:InvokeFunction","Resource":"`+function+`f"}]}`))
		if err != nil {
			t.Errorf("%s: %v", c.principal, err)
		}
		if got := policy.Decide(&policy.Request{Action: "lambda:InvokeFunction", Resource: function + "f", Principal: c.who}, d); got != c.want {
			t.Errorf("%s for %+v: got %d, want %d", c.principal, c.who, got, c.want)
		}
	}
}

// Where IAM's words were recorded they stand here as they are.
func TestMalformed(t *testing.T) {
	t.Parallel()
	statement := func(s string) string { return `{"Version":"2012-10-17","Statement":[` + s + `]}` }
	for _, c := range []struct {
		name, text, message string
		kind                policy.Kind
	}{
		{name: "empty", text: "", message: "Syntax errors in policy."},
		{name: "no object", text: `"*"`, message: "Syntax errors in policy."},
		{name: "two", text: statement(allow("*", "*")) + "{}", message: "Syntax errors in policy."},
		{name: "no statement", text: `{"Version":"2012-10-17"}`, message: "Syntax errors in policy."},
		{name: "no statements", text: statement(""), message: "Syntax errors in policy."},
		{name: "null", text: statement("null"), message: "Syntax errors in policy."},
		{name: "unknown element", text: statement(`{"Effect":"Allow","Action":"*","Resource":"*","Extra":1}`), message: "Syntax errors in policy."},
		{name: "another case", text: statement(`{"effect":"Allow","Action":"*","Resource":"*"}`), message: "Syntax errors in policy."},
		{name: "twice", text: statement(`{"Effect":"Deny","Effect":"Allow","Action":"*","Resource":"*"}`), message: "Syntax errors in policy."},
		{name: "effect", text: statement(`{"Effect":"Maybe","Action":"*","Resource":"*"}`), message: "Syntax errors in policy."},
		{name: "no effect", text: statement(`{"Action":"*","Resource":"*"}`), message: "Syntax errors in policy."},
		{name: "both actions", text: statement(`{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}`), message: "Syntax errors in policy."},
		{name: "version", text: `{"Version":"2020-01-01","Statement":[` + allow("*", "*") + `]}`, message: "Syntax errors in policy."},
		{name: "old version", text: `{"Version":"2008-10-17","Statement":[` + allow("*", "*") + `]}`, message: "Policy document must be version 2012-10-17 or greater."},
		{name: "no version", text: `{"Statement":[` + allow("*", "*") + `]}`, message: "Policy document must be version 2012-10-17 or greater."},
		{name: "no action", text: statement(`{"Effect":"Allow","Resource":"*"}`), message: "Policy statement must contain actions."},
		{name: "no resource", text: statement(`{"Effect":"Allow","Action":"*"}`), message: "Policy statement must contain resources."},
		{name: "no vendor", text: statement(allow("GetFunction", "*")), message: "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."},
		{name: "two colons", text: statement(allow("lambda:Get:Function", "*")), message: "Actions/Condition can contain only one colon."},
		{name: "vendor", text: statement(allow("a b:c", "*")), message: "Vendor a b is not valid"},
		{name: "resource", text: statement(allow("*", "f")), message: `Resource f must be in ARN format or "*".`},
		{name: "partition", text: statement(allow("*", "arn:awz:lambda")), message: `Partition "awz" is not valid for resource "arn:awz:lambda:*:*:*".`},
		{name: "no service", text: statement(allow("*", "arn:aws::us-east-1:123456789012:f")), message: "Resource vendor must be fully qualified and cannot contain regexes."},
		{name: "region of IAM", text: statement(allow("*", "arn:aws:iam:us-east-1:123456789012:role/r")), message: "IAM resource arn:aws:iam:us-east-1:123456789012:role/r cannot contain region information."},
		{name: "sids", text: statement(`{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"}`), message: "Statement IDs (SID) in a single policy must be unique."},
		{name: "operator", text: statement(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringSame":{"aws:username":"a"}}}`), message: "Invalid Condition type : StringSame."},
		{name: "key", text: statement(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"username":"a"}}}`), message: "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."},
		{name: "date", text: statement(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"tomorrow"}}}`), message: "The policy failed legacy parsing"},
		{name: "principal", text: statement(`{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}`), message: "Policy document should not specify a principal."},
		{name: "no principal", kind: policy.Resource, text: statement(allow("*", "*")), message: "Missing required field Principal"},
		{name: "kind of principal", kind: policy.Resource, text: statement(`{"Effect":"Allow","Principal":{"AWS":"ann"},"Action":"*","Resource":"*"}`), message: `Invalid principal in policy: "AWS":"ann"`},
		{name: "trust with a resource", kind: policy.Trust, text: statement(`{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}`), message: "Has prohibited field Resource"},
		{name: "trust for others", kind: policy.Trust, text: statement(`{"Effect":"Allow","Principal":"*","Action":"lambda:*"}`), message: "AssumeRole policy may only specify STS AssumeRole actions."},
		{name: "trust in nobody", kind: policy.Trust, text: statement(`{"Effect":"Allow","Action":"sts:AssumeRole"}`), message: "Missing required field Principal cannot be empty!"},
		{name: "trust", kind: policy.Trust, text: statement(`{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}`)},
		{name: "one statement", text: `{"Version":"2012-10-17","Id":"x","Statement":` + allow("*", "*") + `}`},
	} {
		_, err := policy.Parse(c.kind, []byte(c.text))
		message := ""
		if e := (*policy.Error)(nil); errors.As(err, &e) {
			message = e.Message
		}
		if message != c.message || (err != nil) != (c.message != "") {
			t.Errorf("%s: got %v, want %q", c.name, err, c.message)
		}
	}
}

// However documents are ordered and split, a deny wins, an allow is needed, and
// nothing but allowing statements allows.
func TestDecideProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		actions := []string{"lambda:GetFunction", "lambda:Get*", "lambda:*", "*", "lambda:DeleteFunction", "logs:*"}
		var documents []policy.Document
		denied, allowed := false, false
		for range rapid.IntRange(0, 5).Draw(t, "documents") {
			var statements []map[string]any
			for range rapid.IntRange(1, 3).Draw(t, "statements") {
				action := rapid.IntRange(0, len(actions)-1).Draw(t, "action")
				effect := rapid.SampledFrom([]string{"Allow", "Deny"}).Draw(t, "effect")
				statements = append(statements, map[string]any{"Effect": effect, "Action": actions[action], "Resource": "*"})
				if action < 4 {
					denied, allowed = denied || effect == "Deny", allowed || effect == "Allow"
				}
			}
			text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
			if err != nil {
				t.Fatal(err)
			}
			d, err := policy.Parse(policy.Identity, text)
			if err != nil {
				t.Fatal(err)
			}
			documents = append(documents, d)
		}
		want := policy.Silent
		if allowed {
			want = policy.Allowed
		}
		if denied {
			want = policy.Denied
		}
		if got := policy.Decide(&policy.Request{Action: "lambda:GetFunction", Resource: function + "f"}, documents...); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	})
}

// Wildcards take what a regular expression takes.
func TestWildcardProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?é")), 0, 8, -1).Draw(t, "pattern")
		text := rapid.StringOfN(rapid.SampledFrom([]rune("abé")), 0, 8, -1).Draw(t, "text")
		like := regexp.MustCompile("^" + strings.NewReplacer("*", ".*", "?", ".").Replace(pattern) + "$")
		d, err := policy.Parse(policy.Identity, []byte(`{"Version":"2012-10-17","Statement":`+allow("*", function+pattern)+`}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := policy.Decide(&policy.Request{Action: "lambda:GetFunction", Resource: function + text}, d) == policy.Allowed; got != like.MatchString(text) {
			t.Fatalf("%q takes %q: %v", pattern, text, got)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`{"Version":"2012-10-17","Statement":[` + allow("lambda:Get*", function+"${aws:username}-?") + `]}`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Deny","NotAction":["iam:*"],"NotResource":"*","Condition":{"ForAnyValue:StringLike":{"aws:TagKeys":["a",1,true]}}}}`,
		`{"Statement":{"Effect":"Allow","Principal":{"AWS":"123456789012","Service":["s3.amazonaws.com"]},"Action":"sts:AssumeRole"}}`,
		`{"Version":"2012-10-17","Statement":[]}`, `[[[[[[[[[[[[[[`, `{"Statement":null}`, "\xff",
	} {
		f.Add(text, function+"f", "ann")
	}
	f.Fuzz(func(t *testing.T, text, resource, name string) {
		for _, kind := range []policy.Kind{policy.Identity, policy.Trust, policy.Resource} {
			d, err := policy.Parse(kind, []byte(text))
			if err != nil {
				if e := (*policy.Error)(nil); !errors.As(err, &e) {
					t.Fatalf("an error of another type: %v", err)
				}
				continue
			}
			if !strings.Contains(text, "Allow") && !strings.Contains(text, `\u`) && policy.Decide(&policy.Request{Action: "lambda:GetFunction", Resource: resource, Keys: policy.Keys{"aws:username": {name}}}, d) == policy.Allowed {
				t.Fatal("what allows nothing allows something")
			}
		}
	})
}
