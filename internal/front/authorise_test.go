package front_test

import (
	"strings"
	"testing"
	"time"

	"kiln/internal/aws/policy"
	"kiln/internal/front"
	"kiln/internal/identity"
	"kiln/internal/lambda"
)

// people are identities by access key, and roles by name.
type people struct {
	credentials map[string]identity.Credential
	rights      map[string]identity.Rights
	roles       map[string][]policy.Document
}

func (p people) Keyed() bool { return len(p.credentials) > 0 }

func (p people) Credential(id string) (identity.Credential, bool) {
	c, ok := p.credentials[id]
	return c, ok
}

func (p people) Rights(id string) (identity.Rights, bool) {
	r, ok := p.rights[id]
	return r, ok
}

func (p people) RoleRights(arn string) (identity.Rights, bool) {
	d, ok := p.roles[arn]
	return identity.Rights{Policies: d}, ok
}

func (people) Session(string, string) (identity.Credential, bool) {
	return identity.Credential{}, false
}
func (people) RoleByARN(string) *identity.Role { return nil }
func (people) RoleTrusts(*identity.Role, *policy.Request) policy.Decision {
	return policy.Silent
}

func parse(t testing.TB, text string) policy.Document {
	t.Helper()
	d, err := policy.Parse(policy.Identity, []byte(`{"Version":"2012-10-17","Statement":[`+text+`]}`))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	ours   lambda.AccountID = "123456789012"
	theirs lambda.AccountID = "210987654321"
)

func key(account lambda.AccountID, name string) lambda.Principal {
	return lambda.Principal{Account: account, AccessKey: name, ARN: identity.UserARN(account, name)}
}

func TestAuthorise(t *testing.T) {
	t.Parallel()
	arn := func(account lambda.AccountID, name string) lambda.FunctionARN {
		return lambda.FunctionARN{Scope: lambda.Scope{Account: account, Region: "us-east-1"}, Name: lambda.FunctionName(name)}
	}
	f, foreign, shared, friendly := arn(ours, "f"), arn(theirs, "f"), arn(theirs, "shared"), arn(theirs, "friendly")
	readers := parse(t, `{"Effect":"Allow","Action":["lambda:Get*","lambda:InvokeFunction"],"Resource":"*"},{"Effect":"Deny","Action":"lambda:*","Resource":"arn:aws:lambda:*:*:function:secret"}`)
	a := front.NewAccess(front.Config{
		Account: ours, Region: "us-east-1", AccessKey: "ROOT", Secret: secret,
		Identities: people{
			credentials: map[string]identity.Credential{"admin": {}},
			rights: map[string]identity.Rights{
				"admin":   {All: true},
				"reader":  {Policies: []policy.Document{readers}},
				"nobody":  {},
				"session": {All: true, Limits: []policy.Document{readers}},
				"home":    {Policies: []policy.Document{parse(t, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"StringEquals":{"aws:ResourceTag/team":"blue"}}}`)}},
			},
			roles: map[string][]policy.Document{"arn:aws:iam::123456789012:role/r": {readers}, "arn:aws:iam::123456789012:role/path/r": {readers}, "arn:aws:iam::210987654321:role/r": {readers}},
		},
		Policy: func(arn lambda.ARN) lambda.Policy {
			switch arn.String() {
			case shared.String():
				return lambda.Policy{Statements: []lambda.Statement{{ID: "a", Action: "lambda:InvokeFunction", Principal: string(ours)}}}
			case friendly.String():
				return lambda.Policy{Statements: []lambda.Statement{{ID: "a", Action: "lambda:InvokeFunction", Principal: identity.UserARN(ours, "reader")}}}
			case arn2(ours, "given"):
				return lambda.Policy{Statements: []lambda.Statement{{ID: "a", Action: "lambda:InvokeFunction", Principal: identity.UserARN(ours, "nobody")}, {ID: "b", Action: "lambda:DeleteFunction", Principal: string(ours)}}}
			}
			return lambda.Policy{}
		},
		Tags: func(arn lambda.ARN) map[string]string { return map[string]string{"team": "blue"} },
	})
	root := lambda.Principal{Account: ours, AccessKey: "ROOT", ARN: lambda.RootARN(ours)}
	of := func(role string) lambda.Principal {
		return lambda.Principal{Account: ours, ARN: "arn:aws:sts::123456789012:assumed-role/x/f", Role: role, Environment: "e"}
	}
	const identityBased, resourceBased = "because no identity-based policy allows the ", "because no resource-based policy allows the "
	for _, c := range []struct {
		what     string
		who      lambda.Principal
		action   string
		resource lambda.ARN
		because  string // "": allowed
	}{
		{"root", root, "lambda:DeleteFunction", f, ""},
		{"root abroad", root, "lambda:DeleteFunction", foreign, resourceBased},
		{"root where its account may", root, "lambda:InvokeFunction", shared, ""},
		{"root where another may", root, "lambda:InvokeFunction", friendly, resourceBased},
		{"a key without policy", key(ours, "admin"), "lambda:DeleteFunction", f, ""},
		{"a key without policy abroad", key(ours, "admin"), "lambda:GetFunction", foreign, resourceBased},
		{"a key without policy where its account may", key(ours, "admin"), "lambda:InvokeFunction", shared, ""},
		{"a key without policy where its account may something else", key(ours, "admin"), "lambda:GetFunction", shared, resourceBased},
		{"a key that was revoked", key(ours, "gone"), "lambda:GetFunction", f, identityBased},
		{"a policy allows", key(ours, "reader"), "lambda:GetFunction", f, ""},
		{"a policy says nothing", key(ours, "reader"), "lambda:DeleteFunction", f, identityBased},
		{"a policy denies", key(ours, "reader"), "lambda:GetFunction", arn(ours, "secret"), "with an explicit deny in an identity-based policy"},
		{"both allow", key(ours, "reader"), "lambda:InvokeFunction", shared, ""},
		{"both allow, by name", key(ours, "reader"), "lambda:InvokeFunction", friendly, ""},
		{"only the resource's, abroad", key(ours, "nobody"), "lambda:InvokeFunction", shared, identityBased},
		{"only the identity's, abroad", key(ours, "reader"), "lambda:GetFunction", shared, resourceBased},
		{"only the resource's, at home", key(ours, "nobody"), "lambda:InvokeFunction", arn(ours, "given"), ""},
		{"only the account's, at home", key(ours, "nobody"), "lambda:DeleteFunction", arn(ours, "given"), identityBased},
		{"a limit allows", key(ours, "session"), "lambda:GetFunction", f, ""},
		{"a limit says nothing", key(ours, "session"), "lambda:DeleteFunction", f, "because no session policy allows the "},
		{"a limit denies", key(ours, "session"), "lambda:GetFunction", arn(ours, "secret"), "with an explicit deny in a session policy"},
		{"a role allows", of("arn:aws:iam::123456789012:role/path/r"), "lambda:InvokeFunction", f, ""},
		{"a role says nothing", of("arn:aws:iam::123456789012:role/r"), "lambda:DeleteFunction", f, identityBased},
		{"no such role", of("arn:aws:iam::123456789012:role/q"), "lambda:InvokeFunction", f, identityBased},
		{"another account's role", of("arn:aws:iam::210987654321:role/r"), "lambda:InvokeFunction", f, identityBased},
		{"nonsense for a role", of("r"), "lambda:InvokeFunction", f, identityBased},
		{"a service", lambda.Principal{Service: "s3.amazonaws.com"}, "lambda:InvokeFunction", f, resourceBased},
		{"nobody", lambda.Principal{}, "lambda:InvokeFunction", f, resourceBased},
		{"from elsewhere", key(ours, "home"), "lambda:InvokeFunction", f, identityBased},
	} {
		err := a.Authorise(c.who, c.action, c.resource)
		if c.because == "" {
			if err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		name := c.who.ARN
		if name == "" {
			name = c.who.Service
		}
		if name == "" {
			name = "anonymous"
		}
		want := "User: " + name + " is not authorized to perform: " + c.action + " on resource: " + c.resource.String() + " " + c.because
		if strings.HasSuffix(want, "the ") {
			want += c.action + " action"
		}
		if e := lambda.AsError(err); e == nil || e.Code != "AccessDeniedException" || e.Status != 403 || e.Message != want {
			t.Errorf("%s: got %v, want %s", c.what, err, want)
		}
	}
	home := key(ours, "home")
	r := signed(t, "ROOT", secret, "", time.Now(), "")
	r.RemoteAddr = "10.1.2.3:456"
	caller, err := a.Authenticate(r, false)
	if home.From = caller.Principal.From; err != nil || a.Authorise(home, "lambda:InvokeFunction", f) != nil {
		t.Errorf("from home: %+v %v", caller, err)
	}
}

func arn2(account lambda.AccountID, name string) string {
	return "arn:aws:lambda:us-east-1:" + string(account) + ":function:" + name
}

// Without keys, functions may do anything in their account; with any, what their
// roles' policies allow.
func TestFunctionsWithoutKeys(t *testing.T) {
	t.Parallel()
	of := lambda.Principal{Account: ours, ARN: "arn:aws:sts::123456789012:assumed-role/r/f", Role: "arn:aws:iam::123456789012:role/r", Environment: "e"}
	f := lambda.FunctionARN{Scope: lambda.Scope{Account: ours, Region: "us-east-1"}, Name: "f"}
	if err := access("").Authorise(of, "lambda:InvokeFunction", f); err != nil {
		t.Error(err)
	}
	f.Account = theirs
	if err := access("").Authorise(of, "lambda:InvokeFunction", f); err == nil {
		t.Error("it may use another account's")
	}
	f.Account = ours
	if err := access("ROOT").Authorise(of, "lambda:InvokeFunction", f); err == nil {
		t.Error("it may without a policy, although there is a key")
	}
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	a := front.NewAccess(front.Config{Account: ours, Region: "us-east-1", Identities: people{credentials: map[string]identity.Credential{
		"AKIA":    {Principal: key(theirs, "ann"), Secret: "ann's secret"},
		"ASIA":    {Principal: key(theirs, "session"), Secret: "the session's", Token: "token", Expires: time.Now().Add(time.Hour)},
		"ASIAOLD": {Principal: key(theirs, "session"), Secret: "the session's", Token: "token", Expires: time.Now().Add(-time.Second)},
	}}})
	now := time.Now()
	for _, c := range []struct {
		what, key, secret, token string
		code                     string
	}{
		{"a key", "AKIA", "ann's secret", "", ""},
		{"a key with a guess", "AKIA", "guess", "", "InvalidSignatureException"},
		{"a key with a token", "AKIA", "ann's secret", "token", "UnrecognizedClientException"},
		{"a session", "ASIA", "the session's", "token", ""},
		{"a session without its token", "ASIA", "the session's", "", "UnrecognizedClientException"},
		{"a session with another token", "ASIA", "the session's", "tokem", "UnrecognizedClientException"},
		{"a session that has ended", "ASIAOLD", "the session's", "token", "ExpiredTokenException"},
		{"an unknown key", "AKIAX", "ann's secret", "", "UnrecognizedClientException"},
	} {
		r := signed(t, c.key, c.secret, c.token, now, "b")
		caller, err := a.Authenticate(r, false)
		if err == nil {
			err = caller.Verify([]byte("b"))
		}
		code := ""
		if f := front.Refusal(err); f != nil {
			code = f.Code
		}
		if code != c.code || code == "" && caller.Scope.Account != theirs || caller.Principal.AccessKey == "" {
			t.Errorf("%s: %+v %v", c.what, caller, err)
		}
	}
}

// A region becomes part of names and paths.
func TestRegions(t *testing.T) {
	t.Parallel()
	for _, region := range []string{"us east", "us.east", "US-EAST-1", "us/east", strings.Repeat("a", 33), "*", "é"} {
		r := signed(t, "any", "thing", "", time.Now(), "")
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "eu-west-1", region, 1))
		_, err := access("").Authenticate(r, false)
		if f := front.Refusal(err); f == nil || f.Status != 403 {
			t.Errorf("%s: %v", region, err)
		}
	}
}

func BenchmarkAuthorise(b *testing.B) {
	readers := parse(b, `{"Effect":"Allow","Action":["lambda:Get*","lambda:InvokeFunction"],"Resource":"arn:aws:lambda:*:*:function:*"}`)
	a := front.NewAccess(front.Config{Account: ours, Region: "us-east-1", Identities: people{
		credentials: map[string]identity.Credential{"AKIA": {}}, rights: map[string]identity.Rights{"admin": {All: true}, "reader": {Policies: []policy.Document{readers}}},
	}})
	f := lambda.FunctionARN{Scope: lambda.Scope{Account: ours, Region: "us-east-1"}, Name: "f"}
	for name, who := range map[string]lambda.Principal{"root": {Account: ours, ARN: lambda.RootARN(ours)}, "all": key(ours, "admin"), "policy": key(ours, "reader")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := a.Authorise(who, "lambda:InvokeFunction", f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
