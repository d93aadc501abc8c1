package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kiln/internal/front"
	"kiln/internal/front/gateway"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	says := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	door := func(name string) func(inside bool) http.Handler {
		return func(inside bool) http.Handler {
			return says(name + map[bool]string{false: "", true: ", inside"}[inside])
		}
	}
	g := gateway.New(front.NewAccess(front.Config{Account: "123456789012", Region: "us-east-1"}), gateway.Doors{
		Services:  map[string]func(bool) http.Handler{"lambda": door("lambda"), "logs": door("logs")},
		Elsewhere: door("elsewhere"), FunctionURLs: door("function url"), Operator: says("operator"),
	})
	const form, jsonTarget = "application/x-www-form-urlencoded; charset=utf-8", "application/x-amz-json-1.0"
	for _, c := range []struct {
		what, path, host, service, contentType string
		inside                                 bool
		status                                 int
		answerType, want                       string // want: part of the body
	}{
		{"the Lambda API", "/2015-03-31/functions/", "localhost", "lambda", "", false, 200, "", "lambda"},
		{"the Lambda API, inside", "/2015-03-31/functions/", "localhost", "lambda", "", true, 200, "", "lambda, inside"},
		{"CloudWatch Logs", "/", "localhost", "logs", jsonTarget, false, 200, "", "logs"},
		{"CloudWatch Logs, inside", "/", "localhost", "logs", jsonTarget, true, 200, "", "logs, inside"},
		{"not signed", "/2015-03-31/functions/", "localhost", "", "", false, 200, "", "lambda"},
		{"health", "/_kiln/health", "localhost", "", "", false, 200, "", "operator"},
		{"metrics", "/metrics", "localhost", "", "", false, 200, "", "operator"},
		{"health, inside", "/_kiln/health", "localhost", "", "", true, 403, "application/json", `"Message":"Kiln's own paths`},
		{"metrics, inside", "/metrics", "localhost", "", "", true, 403, "application/json", "Kiln's own paths"},
		{"another host", "/metrics", "evil.com", "", "", false, 403, "application/json", "evil.com"},
		{"S3 on another host", "/bucket/key", "evil.com", "s3", "", false, 403, "application/xml", "<Code>AccessDeniedException</Code>"},
		{"another service", "/", "localhost", "sqs", form, false, 200, "", "elsewhere"},
		{"another service, inside", "/", "localhost", "sqs", jsonTarget, true, 200, "", "elsewhere, inside"},
		{"another service on another host", "/", "evil.com", "sqs", jsonTarget, false, 403, jsonTarget, "AccessDeniedException"},
		{"a function URL", "/", "x.lambda-url.us-east-1.localhost", "", "", false, 200, "", "function url"},
		{"a function URL, signed", "/metrics", "x.lambda-url.us-east-1.localhost:1", "logs", jsonTarget, true, 200, "", "function url, inside"},
		{"a function URL by its path", "/_kiln/url/x/", "localhost", "", "", false, 200, "", "function url"},
		{"a function URL on another host", "/", "x.lambda-url.us-east-1.evil.com", "", "", false, 403, "application/json", "evil.com"},
		{"by its path on another host", "/_kiln/url/x/", "evil.com", "", "", false, 403, "application/json", "evil.com"},
	} {
		r := httptest.NewRequest("POST", c.path, nil)
		r.Host = c.host
		if c.contentType != "" {
			r.Header.Set("Content-Type", c.contentType)
		}
		if c.service != "" {
			r.Header.Set("X-Amz-Date", "20260101T000000Z")
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/"+c.service+"/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64))
		}
		w := httptest.NewRecorder()
		if c.inside {
			g.Inside().ServeHTTP(w, r)
		} else {
			g.Outside().ServeHTTP(w, r)
		}
		if w.Code != c.status || c.answerType != "" && w.Header().Get("Content-Type") != c.answerType || !strings.Contains(w.Body.String(), c.want) || c.status == 200 && w.Body.String() != c.want {
			t.Errorf("%s: %d %s %s", c.what, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	}
}
