package functionurl_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/aws/sigv4"
	"kiln/internal/front"
	"kiln/internal/front/functionurl"
	"kiln/internal/front/gateway"
	"kiln/internal/invoke"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/scheduler"
	"kiln/internal/telemetry/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "123456789012"
	secret  = "a secret of the root key"
)

// rig is the one port with function URLs. What there is, and what functions return, is
// the test's to say.
type rig struct {
	*httptest.Server
	t       *testing.T
	metrics *metrics.Recorder
	client  http.Client

	mu     sync.Mutex
	owners map[string]registry.Owner // guarded by mu; by the ids of their URLs
	result lambda.Result             // guarded by mu; of the next invocations
	err    error                     // guarded by mu; in its place
	got    *lambda.Invocation        // guarded by mu; the last
}

func newRig(t *testing.T, key string) *rig {
	t.Helper()
	g := &rig{t: t, metrics: metrics.New(metrics.Config{}), owners: map[string]registry.Owner{}}
	access := front.NewAccess(front.Config{
		Account: account, Region: "us-east-1", AccessKey: key, Secret: secret, Hosts: []string{"kiln.example.com"}, Policy: g.policy,
	})
	door := functionurl.New(functionurl.Config{
		Access: access, URLs: g, Metrics: g.metrics, Log: slog.New(slog.DiscardHandler),
		Invoke: invoke.New(g, g, access, g, invoke.Config{Concurrency: 10}),
		Admit:  func(context.Context, int64) (func(), error) { return func() {}, nil },
	})
	says := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	gate := gateway.New(access, gateway.Doors{
		Services:  map[string]func(bool) http.Handler{"lambda": func(bool) http.Handler { return says("the Lambda API") }},
		Elsewhere: func(bool) http.Handler { return says("elsewhere") }, FunctionURLs: door.Handler, Operator: says("the operator"),
	})
	g.Server = httptest.NewServer(gate.Outside())
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, g.Listener.Addr().String())
	}}
	g.client.Transport = transport
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		g.Close()
	})
	return g
}

// create makes a function with a URL, which anybody may call where its AuthType is NONE,
// and returns its host.
func (g *rig) create(u lambda.FunctionURL) string {
	u.ID = lambda.NewFunctionURLID()
	o := registry.Owner{ARN: lambda.FunctionARN{Scope: lambda.Scope{Account: account, Region: "us-east-1"}, Name: lambda.FunctionName(u.ID), Qualifier: lambda.Latest}}
	o.Attached.URL = &u
	if u.AuthType == "NONE" {
		o.Attached.Policy.Statements = []lambda.Statement{
			{ID: "url", Action: "lambda:InvokeFunctionUrl", Principal: "*", URLAuthType: "NONE"},
			{ID: "invoke", Action: "lambda:InvokeFunction", Principal: "*", ViaURL: new(true)},
		}
	}
	g.put(o)
	return u.ID + ".lambda-url.us-east-1.localhost:4566"
}

func (g *rig) put(o registry.Owner) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.owners[o.Attached.URL.ID] = o
}

func (g *rig) OwnerByURL(id string) (registry.Owner, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o, ok := g.owners[id]
	if !ok {
		return o, lambda.NotFound("no such URL")
	}
	return o, nil
}

func (g *rig) policy(arn lambda.ARN) lambda.Policy {
	o, _ := g.OwnerByURL(string(arn.(lambda.FunctionARN).Name))
	return o.Attached.Policy
}

func (g *rig) Resolve(_ context.Context, arn lambda.FunctionARN) (*lambda.Function, error) {
	return &lambda.Function{ARN: arn, Version: lambda.Latest}, nil
}
func (g *rig) Share(lambda.FunctionARN) lambda.Share { return lambda.Share{} }
func (g *rig) Loops(lambda.FunctionARN) bool         { return false }
func (g *rig) Throttled(*lambda.Function, string)    {}
func (g *rig) Recursive(*lambda.Function)            {}

// Invoke is the runner.
func (g *rig) Invoke(_ context.Context, _ *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got = inv
	over()
	return g.result, g.err
}

// returns makes functions return that from now on.
func (g *rig) returns(r lambda.Result, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.result, g.err, g.got = r, err, nil
}

// event is what the function got; nil if it was not invoked.
func (g *rig) event() (e map[string]any) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.got == nil {
		return nil
	}
	if err := json.Unmarshal(g.got.Payload, &e); err != nil {
		g.t.Fatal(err)
	}
	return e
}

// do makes a request: header is name: value lines.
func (g *rig) do(method, host, path, body string, header ...string) (*http.Response, string) {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), method, "http://"+host+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return g.send(r)
}

func (g *rig) send(r *http.Request) (*http.Response, string) {
	g.t.Helper()
	response, err := g.client.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return response, string(b)
}

func payload(s string) lambda.Result {
	return lambda.Result{Payload: []byte(s), ContentType: "application/json"}
}

func TestEvent(t *testing.T) {
	t.Parallel()
	g := newRig(t, "")
	host := g.create(lambda.FunctionURL{AuthType: "NONE"})
	id, _, _ := strings.Cut(host, ".")
	g.returns(payload(`"ok"`), nil)
	response, body := g.do("POST", host, "/a%2Fb/c%20d?x=1&y=%26&x=2&empty", `{"k":"<é>"}`,
		"Content-Type: application/json; charset=utf-8", "X-Many: 1", "X-Many: 2", "Cookie: a=1; b=2", "X-Forwarded-For: 9.9.9.9", "Connection: X-Hop", "X-Hop: no", "User-Agent: test")
	if response.StatusCode != 200 || body != "ok" {
		t.Fatalf("%d %s", response.StatusCode, body)
	}
	e := g.event()
	c := e["requestContext"].(map[string]any)
	if requestID := response.Header.Get("X-Amzn-Requestid"); c["requestId"] != requestID || requestID != string(g.got.ID) {
		t.Errorf("request id %s, in the event %v, of the invocation %s", requestID, c["requestId"], g.got.ID)
	}
	if at := time.UnixMilli(int64(c["timeEpoch"].(float64))).UTC(); time.Since(at) > time.Minute || c["time"] != at.Format("02/Jan/2006:15:04:05 +0000") {
		t.Errorf("time %v, %v", c["time"], at)
	}
	if trace := e["headers"].(map[string]any)["x-amzn-trace-id"]; trace != response.Header.Get("X-Amzn-Trace-Id") || !strings.HasPrefix(g.got.TraceHeader, trace.(string)) {
		t.Errorf("trace %v, answered %s, of the invocation %s", trace, response.Header.Get("X-Amzn-Trace-Id"), g.got.TraceHeader)
	}
	for _, m := range []string{"requestId", "time", "timeEpoch"} {
		delete(c, m)
	}
	delete(e["headers"].(map[string]any), "x-amzn-trace-id")
	same(t, e, `{
		"version": "2.0", "routeKey": "$default", "rawPath": "/a%2Fb/c%20d", "rawQueryString": "x=1&y=%26&x=2&empty",
		"cookies": ["a=1", "b=2"], "queryStringParameters": {"x": "1,2", "y": "&", "empty": ""},
		"headers": {"content-type": "application/json; charset=utf-8", "x-many": "1,2", "content-length": "12", "host": "`+host+`", "user-agent": "test",
			"accept-encoding": "gzip", "x-forwarded-for": "9.9.9.9,127.0.0.1", "x-forwarded-port": "4566", "x-forwarded-proto": "http"},
		"requestContext": {
			"accountId": "anonymous", "apiId": "`+id+`", "authentication": null,
			"domainName": "`+strings.TrimSuffix(host, ":4566")+`", "domainPrefix": "`+id+`",
			"http": {"method": "POST", "path": "/a%2Fb/c%20d", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"},
			"routeKey": "$default", "stage": "$default"
		},
		"body": "{\"k\":\"<é>\"}", "isBase64Encoded": false
	}`)

	// Whether it has a body, and how that is passed on.
	for _, c := range []struct{ contentType, body, want string }{
		{"", "", `null false`},
		{"", "x", `"eA==" true`},
		{"text/plain", "x", `"x" false`},
		{"TEXT/HTML; charset=x", "x", `"x" false`},
		{"application/javascript", "x", `"x" false`},
		{"application/xml", "x", `"x" false`},
		{"application/problem+json", "x", `"x" false`},
		{"image/svg+xml;charset", "x", `"x" false`},
		{"application/x-www-form-urlencoded", "a=b", `"YT1i" true`},
		{"multipart/form-data; boundary=b", "x", `"eA==" true`},
		{"application/octet-stream", "x", `"eA==" true`},
		{"text/plain", "\xff", `"/w==" true`},  // no UTF-8
		{"application/json", "{", `"{" false`}, // broken, which is the function's to see
	} {
		g.do("POST", host, "/", c.body, "Content-Type: "+c.contentType)
		e := g.event()
		got, _ := json.Marshal(e["body"])
		if s := fmt.Sprint(string(got), " ", e["isBase64Encoded"]); s != c.want {
			t.Errorf("%s, body %q: got %s, want %s", c.contentType, c.body, s, c.want)
		}
	}

	// By path, and by another name of Kiln.
	for _, c := range []struct{ host, path, want string }{
		{"localhost:4566", "/_kiln/url/" + id, "/"},
		{"localhost:4566", "/_kiln/url/" + id + "/", "/"},
		{"127.0.0.1:4566", "/_kiln/url/" + id + "/_kiln/health?q", "/_kiln/health"},
		{id + ".lambda-url.us-east-1.kiln.example.com", "/_kiln/health", "/_kiln/health"},
		{strings.ToUpper(host), "/2015-03-31/functions", "/2015-03-31/functions"},
		{host, "/_kiln/url/" + id + "/x", "/_kiln/url/" + id + "/x"},
		{host, "/metrics", "/metrics"},
	} {
		response, body := g.do("GET", c.host, c.path, "")
		byPath := strings.HasPrefix(c.host, "localhost") || strings.HasPrefix(c.host, "127")
		if e := g.event(); body != "ok" || e["rawPath"] != c.want {
			t.Errorf("%s%s: %s, path %v", c.host, c.path, body, e["rawPath"])
		} else if d := e["requestContext"].(map[string]any)["domainName"]; byPath && d != strings.TrimSuffix(host, ":4566") {
			t.Errorf("%s%s: domain name %v", c.host, c.path, d)
		}
		if csp := response.Header.Get("Content-Security-Policy"); strings.HasPrefix(csp, "sandbox") != byPath || strings.Contains(csp, "allow-same-origin") {
			t.Errorf("%s%s: Content-Security-Policy %q", c.host, c.path, csp)
		}
	}
}

// TestAnswer is what is made of what functions return.
func TestAnswer(t *testing.T) {
	t.Parallel()
	g := newRig(t, "")
	host := g.create(lambda.FunctionURL{AuthType: "NONE"})
	const failed = "502 application/json Internal Server Error"
	for _, c := range []struct{ result, want string }{
		{`"hello \"you\""`, `200 application/json hello "you"`},
		{`""`, `200 application/json `},
		{` {"a" : [1, 2]} `, `200 application/json {"a":[1,2]}`},
		{`{"body":"b","headers":{"x":"y"}}`, `200 application/json {"body":"b","headers":{"x":"y"}}`},
		{`{"StatusCode":500}`, `200 application/json {"StatusCode":500}`},
		{`[1, "a"]`, `200 application/json [1,"a"]`},
		{`1.50`, `200 application/json 1.50`},
		{`true`, `200 application/json true`},
		{`null`, `200 application/json null`},
		{`{"statusCode":201,"headers":{"content-type":"text/plain"},"body":"b"}`, `201 text/plain b`},
		{`{"statusCode":"404","body":"<p>"}`, `404 application/json <p>`},
		{`{"statusCode":200}`, `200 application/json `},
		{`{"statusCode":200,"body":null,"headers":null,"cookies":null,"isBase64Encoded":null}`, `200 application/json `},
		{`{"statusCode":200,"body":{"a": 1}}`, `200 application/json {"a":1}`},
		{`{"statusCode":200,"body":"AP8=","isBase64Encoded":true,"headers":{"Content-Type":"image/png"}}`, "200 image/png \x00\xff"},
		{`{"statusCode":599}`, `599 application/json `},
		{`{"statusCode":204,"body":"dropped"}`, `204 application/json `},
		{`{"statusCode":304}`, `304  `},
		{`{"statusCode":600}`, failed},
		{`{"statusCode":101}`, failed},
		{`{"statusCode":99}`, failed},
		{`{"statusCode":"ok"}`, failed},
		{`{"statusCode":null}`, failed},
		{`{"statusCode":200.5}`, failed},
		{`{"statusCode":200,"headers":{"x":1}}`, failed},
		{`{"statusCode":200,"headers":{"x":null}}`, failed},
		{`{"statusCode":200,"headers":["x"]}`, failed},
		{`{"statusCode":200,"cookies":"a=b"}`, failed},
		{`{"statusCode":200,"body":"!","isBase64Encoded":true}`, failed},
		{`{"statusCode":200,"isBase64Encoded":"yes"}`, failed},
		{`not JSON`, failed},
		{``, failed},
		{`{`, failed},
	} {
		g.returns(payload(c.result), nil)
		response, body := g.do("GET", host, "/", "")
		if got := fmt.Sprint(response.StatusCode, " ", response.Header.Get("Content-Type"), " ", body); got != c.want {
			t.Errorf("%s: got %q, want %q", c.result, got, c.want)
		}
	}

	g.returns(payload(`{"statusCode":200,"body":"12345","cookies":["a=1; Secure","b=2"],"headers":{
		"x-own":"1","connection":"close","content-length":"99","transfer-encoding":"chunked","x-amzn-requestid":"mine","date":"never","bad name":"x","x-line":"a\r\nx-injected: 1","access-control-allow-origin":"*"}}`), nil)
	for _, method := range []string{"GET", "HEAD"} {
		response, body := g.do(method, host, "/", "")
		h := response.Header
		if response.ContentLength != 5 || (body == "12345") != (method == "GET") || method == "HEAD" && body != "" {
			t.Errorf("%s: %d bytes, %q", method, response.ContentLength, body)
		}
		if cookies := h["Set-Cookie"]; !slices.Equal(cookies, []string{"a=1; Secure", "b=2"}) {
			t.Errorf("cookies %q", cookies)
		}
		if h.Get("X-Own") != "1" || h.Get("X-Amzn-Remapped-Connection") != "close" || h.Get("X-Amzn-Remapped-Content-Length") != "99" || h.Get("X-Amzn-Remapped-Date") != "never" ||
			response.Close || h.Get("X-Injected") != "" || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("X-Amzn-Requestid") == "mine" {
			t.Errorf("headers %v", h)
		}
	}

	prelude := `{"statusCode":206,"headers":{"x":"y"},"cookies":["c=d"]}` + strings.Repeat("\x00", 8)
	for _, c := range []struct{ result, want string }{
		{prelude + "body\x00", "206 application/octet-stream body\x00"},
		{prelude, "206 application/octet-stream "},
		{"{}" + strings.Repeat("\x00", 8) + "b", "200 application/octet-stream b"},
		{`{"statusCode":206}`, failed},
		{"no" + strings.Repeat("\x00", 8), failed},
	} {
		g.returns(lambda.Result{Payload: []byte(c.result), ContentType: "application/vnd.awslambda.http-integration-response"}, nil)
		response, body := g.do("GET", host, "/", "")
		if got := fmt.Sprint(response.StatusCode, " ", response.Header.Get("Content-Type"), " ", body); got != c.want {
			t.Errorf("%q: got %q, want %q", c.result, got, c.want)
		}
	}
}

// TestFailures is what callers get when there is no answer of the function's.
func TestFailures(t *testing.T) {
	t.Parallel()
	g := newRig(t, "")
	host := g.create(lambda.FunctionURL{AuthType: "NONE"})
	id, _, _ := strings.Cut(host, ".")
	ok := payload(`"ok"`)
	forbidden := `{"Message":"Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"}`
	closed := g.create(lambda.FunctionURL{AuthType: "NONE"})
	half := func(keep int) string {
		host := g.create(lambda.FunctionURL{AuthType: "NONE"})
		id, _, _ := strings.Cut(host, ".")
		o, _ := g.OwnerByURL(id)
		o.Attached.Policy.Statements = o.Attached.Policy.Statements[keep : keep+1]
		g.put(o)
		return host
	}
	closedID, _, _ := strings.Cut(closed, ".")
	o, _ := g.OwnerByURL(closedID)
	o.Attached.Policy.Statements = nil
	g.put(o)
	signed := g.create(lambda.FunctionURL{AuthType: "AWS_IAM"})
	for _, c := range []struct {
		what, host, path, body string
		result                 lambda.Result
		err                    error
		status                 int
		kind, want             string
	}{
		{"no such URL", strings.Repeat("a", 32) + ".lambda-url.us-east-1.localhost", "/", "", ok, nil, 403, "AccessDeniedException", `{"Message":null}`},
		{"no id", "x.lambda-url.us-east-1.localhost", "/2015-03-31/functions", "", ok, nil, 403, "AccessDeniedException", `{"Message":null}`},
		{"another region", id + ".lambda-url.eu-west-1.localhost", "/", "", ok, nil, 403, "AccessDeniedException", `{"Message":null}`},
		{"no such URL by path", "localhost", "/_kiln/url/nope/", "", ok, nil, 403, "AccessDeniedException", `{"Message":null}`},
		{"a name that is not Kiln's", id + ".lambda-url.us-east-1.evil.com", "/", "", ok, nil, 403, "AccessDeniedException", "evil.com"},
		{"by path below a name that is not Kiln's", "evil.com", "/_kiln/url/" + id + "/", "", ok, nil, 403, "AccessDeniedException", "evil.com"},
		{"no policy", closed, "/", "", ok, nil, 403, "AccessDeniedException", forbidden},
		{"half a policy", half(0), "/", "", ok, nil, 403, "AccessDeniedException", forbidden},
		{"the other half", half(1), "/", "", ok, nil, 403, "AccessDeniedException", forbidden},
		{"not signed", signed, "/", "", ok, nil, 403, "AccessDeniedException", forbidden},
		{"removed meanwhile", host, "/", "", ok, lambda.NotFound("Function not found"), 403, "AccessDeniedException", `{"Message":null}`},
		{"throttled", host, "/", "", ok, lambda.Throttled("ReservedFunctionConcurrentInvocationLimitExceeded"), 429, "TooManyRequestsException", `"Rate Exceeded."`},
		{"shutting down", host, "/", "", ok, scheduler.ErrClosed, 503, "ServiceException", "shutting down"},
		{"a failure of Kiln's", host, "/", "", ok, errors.New("inner detail"), 500, "ServiceException", "its log says why"},
		{"a function error", host, "/", "", lambda.Result{Payload: []byte(`{"errorMessage":"x"}`), FunctionError: "Unhandled"}, nil, 502, "", "Internal Server Error"},
		{"too large", host, "/", strings.Repeat("x", lambda.MaxRequestPayload+1), ok, nil, 413, "RequestTooLargeException", "6291456"},
		{"too large in base64", host, "/", strings.Repeat("x", lambda.MaxRequestPayload*3/4), ok, nil, 413, "RequestTooLargeException", "6291456"},
	} {
		g.returns(c.result, c.err)
		response, body := g.do("POST", c.host, c.path, c.body)
		if response.StatusCode != c.status || response.Header.Get("X-Amzn-Errortype") != c.kind || !strings.Contains(body, c.want) || strings.Contains(body, "inner") {
			t.Errorf("%s: %d %s %s", c.what, response.StatusCode, response.Header.Get("X-Amzn-Errortype"), body)
		}
		if c.status == 429 && response.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.what)
		}
		if got := g.event(); c.err == nil && c.status != 502 && got != nil {
			t.Errorf("%s: the function was invoked", c.what)
		}
	}

	// A body of unknown length, and one just small enough.
	g.returns(ok, nil)
	for n, status := range map[int]int{lambda.MaxRequestPayload + 1: 413, lambda.MaxRequestPayload - 4096: 200} {
		r, err := http.NewRequest("POST", "http://"+host, io.MultiReader(strings.NewReader(strings.Repeat("x", n))))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/plain")
		if response, body := g.send(r); response.StatusCode != status {
			t.Errorf("%d bytes: %d %s", n, response.StatusCode, body)
		}
	}

	// Requests are counted by their status; those for URLs that nobody has, nowhere.
	recorder := httptest.NewRecorder()
	g.metrics.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	for _, series := range []string{`class="2xx",function="` + id + `",region="us-east-1"} 1`, `class="5xx",function="` + id + `",region="us-east-1"} 3`, `class="4xx",function="` + id + `",region="us-east-1"} 5`,
		`kiln_url_request_duration_seconds_count{account="123456789012",function="` + id + `",region="us-east-1"} 9`} {
		if !strings.Contains(recorder.Body.String(), series) {
			t.Errorf("no %s in\n%s", series, recorder.Body)
		}
	}
	if n := strings.Count(recorder.Body.String(), "kiln_url_request_duration_seconds_count"); n != 5 {
		t.Errorf("%d functions are counted", n)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	g := newRig(t, "")
	some := &lambda.CORS{Credentials: new(true), Headers: []string{"x-a", "x-b"}, Methods: []string{"GET", "PUT"}, Origins: []string{"https://a.example", "http://b.example:1"}, ExposeHeaders: []string{"x-e"}, MaxAge: new(60)}
	all := &lambda.CORS{Methods: []string{"*"}, Origins: []string{"*"}, Headers: []string{"*"}}
	hosts := map[string]string{
		"some": g.create(lambda.FunctionURL{AuthType: "NONE", CORS: some}),
		"iam":  g.create(lambda.FunctionURL{AuthType: "AWS_IAM", CORS: some}),
		"all":  g.create(lambda.FunctionURL{AuthType: "NONE", CORS: all}),
		"none": g.create(lambda.FunctionURL{AuthType: "NONE"}),
	}
	g.returns(payload(`{"statusCode":200,"body":"b","headers":{"access-control-allow-origin":"mine","access-control-allow-methods":"mine","vary":"Accept"}}`), nil)
	const preflight = "Access-Control-Request-Method: PUT"
	for _, c := range []struct {
		what, host, method string
		header             []string
		status             int
		invoked            bool
		want               string
	}{
		{"a preflight", "some", "OPTIONS", []string{"Origin: https://a.example", preflight}, 200, false,
			"Allow-Credentials=true Allow-Headers=x-a,x-b Allow-Methods=GET,PUT Allow-Origin=https://a.example Expose-Headers=x-e Max-Age=60 Vary=Origin"},
		{"a preflight where calls are signed", "iam", "OPTIONS", []string{"Origin: http://b.example:1", preflight}, 200, false,
			"Allow-Credentials=true Allow-Headers=x-a,x-b Allow-Methods=GET,PUT Allow-Origin=http://b.example:1 Expose-Headers=x-e Max-Age=60 Vary=Origin"},
		{"a preflight from elsewhere", "some", "OPTIONS", []string{"Origin: https://c.example", preflight}, 200, false, "Vary=Origin"},
		{"a preflight from anywhere", "all", "OPTIONS", []string{"Origin: null", preflight}, 200, false, "Allow-Headers=* Allow-Methods=* Allow-Origin=*"},
		{"OPTIONS that is no preflight", "some", "OPTIONS", []string{"Origin: https://a.example"}, 200, true,
			"Allow-Credentials=true Allow-Origin=https://a.example Expose-Headers=x-e Vary=Origin,Accept"},
		{"a call", "some", "GET", []string{"Origin: https://a.example", "Sec-Fetch-Site: cross-site"}, 200, true,
			"Allow-Credentials=true Allow-Origin=https://a.example Expose-Headers=x-e Vary=Origin,Accept"},
		{"a call from elsewhere", "some", "GET", []string{"Origin: https://c.example"}, 200, true, "Vary=Origin,Accept"},
		{"a call from anywhere", "all", "GET", []string{"Origin: https://c.example"}, 200, true, "Allow-Origin=* Vary=Accept"},
		{"a call that is refused", "iam", "GET", []string{"Origin: https://a.example"}, 403, false, "Allow-Credentials=true Allow-Origin=https://a.example Expose-Headers=x-e Vary=Origin"},
		{"a call without an origin", "some", "GET", nil, 200, true, "Allow-Methods=mine Allow-Origin=mine Vary=Accept"},
		{"no settings", "none", "GET", []string{"Origin: https://a.example"}, 200, true, "Allow-Methods=mine Allow-Origin=mine Vary=Accept"},
		{"a preflight without settings", "none", "OPTIONS", []string{"Origin: https://a.example", preflight}, 200, true, "Allow-Methods=mine Allow-Origin=mine Vary=Accept"},
	} {
		g.returns(g.result, nil)
		response, _ := g.do(c.method, hosts[c.host], "/", "", c.header...)
		var got []string
		for name, values := range response.Header {
			if name, ours := strings.CutPrefix(name, "Access-Control-"); ours || name == "Vary" {
				got = append(got, name+"="+strings.Join(values, ","))
			}
		}
		slices.Sort(got)
		if response.StatusCode != c.status || (g.event() != nil) != c.invoked || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %d, invoked: %v, %s", c.what, response.StatusCode, g.event() != nil, strings.Join(got, " "))
		}
	}
}

// TestSigned is who comes in where AuthType is AWS_IAM.
func TestSigned(t *testing.T) {
	t.Parallel()
	const key = "AKIAROOT"
	g := newRig(t, key)
	host := g.create(lambda.FunctionURL{AuthType: "AWS_IAM"})
	id, _, _ := strings.Cut(host, ".")
	for _, c := range []struct {
		what, host, path, key, secret, service, body string
		status                                       int
		want                                         string
	}{
		{"right", host, "/a%20b?x=1", key, secret, "lambda", "body", 200, "ok"},
		{"right by path", "localhost:4566", "/_kiln/url/" + id + "/x", key, secret, "lambda", "", 200, "ok"},
		{"another secret", host, "/", key, "another", "lambda", "", 403, "InvalidSignatureException"},
		{"another key", host, "/", "AKIAOTHER", secret, "lambda", "", 403, "UnrecognizedClientException"},
		{"another service", host, "/", key, secret, "execute-api", "", 403, "correct service: 'lambda'"},
	} {
		g.returns(payload(`"ok"`), nil)
		r, err := http.NewRequest("POST", "http://"+c.host+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		credentials := aws.Credentials{AccessKeyID: c.key, SecretAccessKey: c.secret}
		if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, sigv4.BodyHash([]byte(c.body)), c.service, "us-east-1", time.Now()); err != nil {
			t.Fatal(err)
		}
		response, body := g.send(r)
		if response.StatusCode != c.status || !strings.Contains(body+response.Header.Get("X-Amzn-Errortype"), c.want) {
			t.Errorf("%s: %d %s %s", c.what, response.StatusCode, response.Header.Get("X-Amzn-Errortype"), body)
		}
		if c.status != 200 {
			if g.event() != nil {
				t.Errorf("%s: the function was invoked", c.what)
			}
			continue
		}
		same(t, g.event()["requestContext"].(map[string]any)["authorizer"], `{"iam": {"accessKey": "`+key+`", "accountId": "`+account+`", "callerId": "`+account+`",
			"cognitoIdentity": null, "principalOrgId": null, "userArn": "arn:aws:iam::`+account+`:root", "userId": "`+account+`"}}`)
	}
}

// TestStream is what a function streams, as it comes.
func TestStream(t *testing.T) {
	t.Parallel()
	g := newRig(t, "")
	host := g.create(lambda.FunctionURL{AuthType: "NONE", InvokeMode: "RESPONSE_STREAM"})
	const withPrelude = "application/vnd.awslambda.http-integration-response"
	prelude := `{"statusCode":201,"headers":{"content-type":"text/event-stream"},"cookies":["a=b"]}` + strings.Repeat("\x00", 8)
	g.returns(payload(` {"statusCode":201} `), nil) // of a function that does not stream
	if response, body := g.do("GET", host, "/", ""); response.StatusCode != 200 || body != ` {"statusCode":201} ` || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("not streamed: %d %s %s", response.StatusCode, body, response.Header.Get("Content-Type"))
	}
	for _, c := range []struct {
		what, contentType string
		pieces            []string
		end               lambda.StreamEnd
		want              string // "cut off" behind what came
	}{
		{"plain", "", []string{"a", "b"}, lambda.StreamEnd{}, "200 application/octet-stream ab"},
		{"plain, of a type", "text/html", []string{"a"}, lambda.StreamEnd{}, "200 text/html a"},
		{"nothing", "", nil, lambda.StreamEnd{}, "200 application/octet-stream "},
		{"with a prelude", withPrelude, []string{prelude[:10], prelude[10:], "a", "b"}, lambda.StreamEnd{}, "201 text/event-stream ab"},
		{"with a prelude and body in one", withPrelude, []string{prelude + "a\x00"}, lambda.StreamEnd{}, "201 text/event-stream a\x00"},
		{"a prelude alone", withPrelude, []string{prelude}, lambda.StreamEnd{}, "201 text/event-stream "},
		{"half a prelude", withPrelude, []string{prelude[:20]}, lambda.StreamEnd{}, "502 application/json Internal Server Error"},
		{"no prelude", withPrelude, []string{"no" + prelude}, lambda.StreamEnd{}, "502 application/json Internal Server Error"},
		{"an endless prelude", withPrelude, []string{strings.Repeat("x", 1<<20)}, lambda.StreamEnd{}, "502 application/json Internal Server Error"},
		{"an error before any byte", "", nil, lambda.StreamEnd{ErrorCode: "Error"}, "502 application/json Internal Server Error"},
		{"an error within", "", []string{"a"}, lambda.StreamEnd{ErrorCode: "Error"}, "200 application/octet-stream a, cut off"},
		{"an error behind the prelude", withPrelude, []string{prelude}, lambda.StreamEnd{ErrorCode: "Error"}, "201 text/event-stream , cut off"},
	} {
		s := lambda.NewStream()
		g.returns(lambda.Result{Stream: s, ContentType: c.contentType}, nil)
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			for _, p := range c.pieces {
				_, _ = s.Write([]byte(p))
			}
			s.Finish(c.end)
		}()
		response, err := g.client.Get("http://" + host)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		got := fmt.Sprint(response.StatusCode, " ", response.Header.Get("Content-Type"), " ", string(body))
		if err != nil {
			got += ", cut off"
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
		<-taken // nothing is left that writes
	}

	// Each piece comes before the next is made, and a function whose caller leaves is
	// not held up.
	s := lambda.NewStream()
	g.returns(lambda.Result{Stream: s, ContentType: withPrelude}, nil)
	write := func(p string) { _, _ = s.Write([]byte(p)) }
	begun := make(chan struct{})
	go func() { defer close(begun); write(prelude) }()
	response, err := g.client.Get("http://" + host)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	for range 3 {
		wrote := make(chan struct{})
		go func() { defer close(wrote); write("piece") }()
		if _, err := io.ReadFull(response.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		<-wrote
	}
	_ = response.Body.Close()
	for err == nil {
		_, err = s.Write([]byte("into the void"))
	}
	s.Finish(lambda.StreamEnd{})
}

// same compares what was decoded with JSON.
func same(t *testing.T, got any, want string) {
	t.Helper()
	var w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestHostile are requests that are no good, on connections of their own.
func TestHostile(t *testing.T) {
	t.Parallel()
	g := newRig(t, "")
	host := g.create(lambda.FunctionURL{AuthType: "NONE"})
	g.returns(payload(`"ok"`), nil)
	for _, c := range []struct{ what, request, want string }{
		{"as AWS's clients send it", "GET /x HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: " + host + "\r\n\r\n", "HTTP/1.0 200"},
		{"a whole URL", "GET http://" + host + "/y HTTP/1.1\r\nHost: evil.com\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: " + host + "\r\nHost: localhost\r\n\r\n", "HTTP/1.1 400"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		{"a broken escape", "GET /%zz HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "HTTP/1.1 400"},
		{"a header without an end", "GET / HTTP/1.1\r\nHost: " + host + "\r\nX: " + strings.Repeat("x", 2<<20), "HTTP/1.1 431"},
		{"a length and chunks", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200"}, // chunks count, and the connection ends
		{"broken chunks", "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n", "HTTP/1.1 400"},
		{"less than it said", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 9\r\nConnection: close\r\n\r\nless", "HTTP/1.1 400"},
		{"a length that is too large", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", "HTTP/1.1 413"},
	} {
		connection, err := net.Dial("tcp", g.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(connection, c.request) // it may be refused on the way
		_ = connection.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(connection) // a reset behind the answer is no matter
		_ = connection.Close()
		if !strings.HasPrefix(string(answer), c.want) {
			t.Errorf("%s: got %.200q, want %s", c.what, answer, c.want)
		}
	}
}
