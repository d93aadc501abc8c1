package front_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kiln/internal/front"
	"kiln/internal/lambda"
)

const secret = "a secret of the root key"

func access(key string, hosts ...string) *front.Access {
	c := front.Config{Account: "123456789012", Region: "us-east-1", Hosts: hosts}
	if key != "" {
		c.AccessKey, c.Secret = key, secret
	}
	return front.NewAccess(c)
}

func TestCheckBrowser(t *testing.T) {
	t.Parallel()
	a := access("", "kiln.example.com", "*.lambda.example.com")
	for _, c := range []struct {
		host, origin, site string
		ok                 bool
	}{
		{"localhost:4566", "", "", true},
		{"localhost", "", "", true},
		{"LOCALHOST.", "", "", true},
		{"127.0.0.1:4566", "", "", true},
		{"127.8.8.8", "", "", true},
		{"[::1]:4566", "", "", true},
		{"::1", "", "", true},
		{"fn.localhost:4566", "", "", true},
		{"kiln.example.com", "", "", true},
		{"Kiln.Example.com:80", "", "", true},
		{"x.lambda.example.com", "", "", true},
		{"evil.com", "", "", false},
		{"localhost.evil.com", "", "", false},
		{"evillocalhost", "", "", false},
		{"kiln.example.com.evil.com", "", "", false},
		{"lambda.example.com", "", "", false},
		{"xlambda.example.com", "", "", false},
		{"192.168.1.1", "", "", false},
		{"0.0.0.0:4566", "", "", false},
		{"", "", "", false},
		{"localhost:4566", "http://localhost:4566", "", true},
		{"localhost:4566", "http://localhost:4566", "same-origin", true},
		{"localhost:4566", "http://localhost:3000", "", false},
		{"localhost:4566", "http://evil.com", "", false},
		{"localhost:4566", "null", "", false},
		{"localhost:4566", "://", "", false},
		{"localhost:4566", "", "cross-site", false},
		{"localhost:4566", "", "same-site", false},
		{"localhost:4566", "", "none", true},
		{"localhost:4566", "", "something new", false},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		err := a.CheckBrowser(r)
		if e := lambda.AsError(err); (err == nil) != c.ok || err != nil && (e == nil || e.Status != http.StatusForbidden) {
			t.Errorf("Host %q, Origin %q, Sec-Fetch-Site %q: %v", c.host, c.origin, c.site, err)
		}
	}
}

// No name that is not a loopback one gets in, however it is written.
func FuzzCheckBrowser(f *testing.F) {
	for _, s := range []string{"localhost", "127.0.0.1:1", "[::1]", "evil.com", "localhost.evil.com", "[::ffff:127.0.0.1]", "localhost:1:2", ".localhost", "a@localhost"} {
		f.Add(s, "")
	}
	f.Add("localhost", "http://localhost")
	a := access("")
	f.Fuzz(func(t *testing.T, host, origin string) {
		r := httptest.NewRequest("POST", "/", nil)
		r.Host, r.Header = host, http.Header{"Origin": {origin}}
		if a.CheckBrowser(r) != nil {
			return
		}
		if !strings.Contains(strings.ToLower(host), "localhost") && !strings.Contains(host, "127.") && !strings.Contains(host, "1]") && !strings.Contains(host, ":") {
			t.Fatalf("Host %q is let in", host)
		}
		if origin != "" && !strings.HasSuffix(strings.ToLower(origin), strings.ToLower(host)) && !strings.Contains(origin, host) {
			t.Fatalf("Origin %q is let in to %q", origin, host)
		}
	})
}

func signed(t *testing.T, key, secret, token string, at time.Time, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", "http://localhost:4566/2015-03-31/functions/f/invocations", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token}, r, hex.EncodeToString(sum[:]), "lambda", "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	open, keyed := access(""), access("ROOT")
	fn := &lambda.Function{ARN: lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: "f"}, Settings: lambda.Settings{Role: "arn:aws:iam::123456789012:role/path/r"}}
	ofOpen, ofKeyed := open.Issue(fn, "e1"), keyed.Issue(fn, "e2")
	gone := keyed.Issue(fn, "e3")
	keyed.Revoke(gone)
	now := time.Now()
	for _, c := range []struct {
		what   string
		access *front.Access
		inside bool
		r      *http.Request
		body   string // that arrives
		arn    string // of the principal; "": refused
	}{
		{"anybody, without keys", open, false, signed(t, "any", "thing", "", now, "b"), "b", "arn:aws:iam::123456789012:root"},
		{"long ago, without keys", open, false, signed(t, "any", "thing", "", now.Add(-time.Hour), "b"), "b", "arn:aws:iam::123456789012:root"},
		{"anybody, from inside", open, true, signed(t, "any", "thing", "", now, "b"), "b", ""},
		{"the root key", keyed, false, signed(t, "ROOT", secret, "", now, "b"), "b", "arn:aws:iam::123456789012:root"},
		{"the root key, another body", keyed, false, signed(t, "ROOT", secret, "", now, "b"), "B", ""},
		{"the root key, another secret", keyed, false, signed(t, "ROOT", "guess", "", now, "b"), "b", ""},
		{"the root key, an hour ago", keyed, false, signed(t, "ROOT", secret, "", now.Add(-time.Hour), "b"), "b", ""},
		{"another key", keyed, false, signed(t, "any", "thing", "", now, "b"), "b", ""},
		{"an environment", keyed, true, signed(t, ofKeyed.AccessKeyID, ofKeyed.SecretAccessKey, ofKeyed.SessionToken, now, "b"), "b", "arn:aws:sts::123456789012:assumed-role/r/f"},
		{"an environment, without keys", open, true, signed(t, ofOpen.AccessKeyID, ofOpen.SecretAccessKey, ofOpen.SessionToken, now, "b"), "b", "arn:aws:sts::123456789012:assumed-role/r/f"},
		{"an environment's key with a guess", open, false, signed(t, ofOpen.AccessKeyID, "guess", ofOpen.SessionToken, now, "b"), "b", ""},
		{"an environment without its token", open, true, signed(t, ofOpen.AccessKeyID, ofOpen.SecretAccessKey, "", now, "b"), "b", ""},
		{"another Kiln's environment", keyed, true, signed(t, ofOpen.AccessKeyID, ofOpen.SecretAccessKey, ofOpen.SessionToken, now, "b"), "b", ""},
		{"an environment that is closed", keyed, true, signed(t, gone.AccessKeyID, gone.SecretAccessKey, gone.SessionToken, now, "b"), "b", ""},
		{"the key of links with a guess", open, false, signed(t, "KILNLINK", "guess", "", now, "b"), "b", ""},
		{"no signature", open, false, httptest.NewRequest("POST", "http://localhost/", bytes.NewReader(nil)), "", ""},
	} {
		caller, err := c.access.Authenticate(c.r, c.inside)
		if err == nil && caller.Verify != nil {
			err = caller.Verify([]byte(c.body))
		}
		switch {
		case c.arn == "" && err == nil:
			t.Errorf("%s is let in as %+v", c.what, caller.Principal)
		case c.arn != "" && (err != nil || caller.Principal.ARN != c.arn || caller.Scope.Account != "123456789012" || caller.Scope.Region != "eu-west-1" || caller.Service != "lambda"):
			t.Errorf("%s: %+v, %v", c.what, caller, err)
		}
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	a := access("ROOT")
	theirs := lambda.Scope{Account: "210987654321", Region: "us-east-1"}
	link, err := a.Link("http://localhost:4566", "/_kiln/code/x", theirs, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	check := func(method, url string) error {
		r := httptest.NewRequest(method, url, nil)
		caller, err := a.Authenticate(r, false)
		if err == nil {
			err = caller.Verify(nil)
		}
		if err == nil && caller.Scope != theirs {
			t.Errorf("a link of %s counts for %s", theirs, caller.Scope)
		}
		return err
	}
	if err := check("GET", link); err != nil {
		t.Error(err)
	}
	if err := check("GET", strings.Replace(link, "code/x", "code/y", 1)); err == nil {
		t.Error("a link leads elsewhere too")
	}
	if err := check("DELETE", link); err == nil {
		t.Error("a link does other things too")
	}
	if err := check("GET", strings.Replace(link, "KILNLINK210987654321", "KILNLINK123456789012", 1)); err == nil {
		t.Error("a link counts for another account")
	}
	old, err := a.Link("http://localhost:4566", "/_kiln/code/x", theirs, -time.Minute)
	if err == nil && check("GET", old) == nil {
		t.Error("a link that has run out is let in")
	}
}
