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
	g := gateway.New(front.NewAccess(front.Config{Account: "123456789012", Region: "us-east-1"}), gateway.Doors{
		"lambda": func(inside bool) http.Handler {
			return says(map[bool]string{false: "lambda", true: "lambda, inside"}[inside])
		},
		"logs": func(inside bool) http.Handler {
			return says(map[bool]string{false: "logs", true: "logs, inside"}[inside])
		},
	}, func(inside bool) http.Handler {
		return says(map[bool]string{false: "function url", true: "function url, inside"}[inside])
	}, says("operator"))
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
		{"S3", "/bucket/key", "localhost", "s3", "", false, 501, "application/xml", "<Error><Code>NotImplementedException</Code><Message>Kiln does not serve s3."},
		{"S3 on another host", "/bucket/key", "evil.com", "s3", "", false, 403, "application/xml", "<Code>AccessDeniedException</Code>"},
		{"SQS, query", "/", "localhost", "sqs", form, false, 501, "text/xml", "<ErrorResponse><Error><Type>Sender</Type><Code>NotImplementedException</Code>"},
		{"SQS, JSON", "/", "localhost", "sqs", jsonTarget, false, 501, "application/x-amz-json-1.0", `"__type":"NotImplementedException"`},
		{"a name with a dash", "/", "localhost", "execute-api", jsonTarget, false, 501, "application/x-amz-json-1.0", "AWS_ENDPOINT_URL_EXECUTE_API"},
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
