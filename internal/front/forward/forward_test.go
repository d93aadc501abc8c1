package forward_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/goleak"

	"kiln/internal/aws/sigv4"
	"kiln/internal/environment"
	"kiln/internal/front"
	"kiln/internal/front/forward"
	"kiln/internal/lambda"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rootKey, rootSecret = "AKIAROOT", "a secret of the root key"
	newKey, newSecret   = "AKIANEW", "a secret of Kiln's own"
)

// service is what is forwarded to: it tells what it got.
func service(t *testing.T, serve http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return s
}

// rig is the door, on a port outside and on one inside of environments.
type rig struct {
	t               *testing.T
	outside, inside *httptest.Server
	environment     environment.Credentials
	client          http.Client
}

func newRig(t *testing.T, key string, c forward.Config) *rig {
	t.Helper()
	c.Access = front.NewAccess(front.Config{Account: "123456789012", Region: "us-east-1", AccessKey: key, Secret: rootSecret})
	c.Admit = func(context.Context, int64) (func(), error) { return func() {}, nil }
	c.Log = slog.New(slog.DiscardHandler)
	c.Credentials = credentials.NewStaticCredentialsProvider(newKey, newSecret, "token")
	door, err := forward.New(c)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, outside: httptest.NewServer(door.Handler(false)), inside: httptest.NewServer(door.Handler(true))}
	g.environment = c.Access.Issue(&lambda.Function{ARN: lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: "f"}}, "e")
	g.client.Transport = &http.Transport{DisableCompression: true}
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		g.outside.Close()
		g.inside.Close()
		door.Close()
	})
	return g
}

// request is signed for the service, with the body's hash where that is s3.
func (g *rig) request(to *httptest.Server, key, secret, service, path, contentType, target string, body []byte) *http.Request {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), "POST", to.URL+path, bytes.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	if target != "" {
		r.Header.Set("X-Amz-Target", target)
	}
	hash := sigv4.BodyHash(body)
	if service == "s3" {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	c := aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}
	if key == g.environment.AccessKeyID {
		c.SessionToken = g.environment.SessionToken
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	if err := signer.SignHTTP(g.t.Context(), c, r, hash, service, "us-east-1", time.Now()); err != nil {
		g.t.Fatal(err)
	}
	return r
}

func (g *rig) do(r *http.Request) (*http.Response, string) {
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

const jsonType = "application/x-amz-json-1.0"

// TestAsItCame: what a client sends arrives, but for what is about its connection.
func TestAsItCame(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	s := service(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		got <- r
		w.Header().Set("X-Theirs", "1")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(418)
		fmt.Fprint(w, "answer")
	})
	for _, key := range []string{"", rootKey} {
		g := newRig(t, key, forward.Config{Endpoints: map[string]string{"s3": s.URL, "sqs": s.URL + "/base"}})
		r := g.request(g.outside, rootKey, rootSecret, "s3", "/b/a%2Fb%20c//d?x=1&y&list-type=2", "text/plain", "", []byte("body"))
		r.Header.Set("Connection", "X-Mine")
		r.Header.Set("X-Mine", "1")
		r.Header.Set("Upgrade", "h2c")
		response, body := g.do(r)
		if response.StatusCode != 418 || body != "answer" || response.Header.Get("X-Theirs") != "1" || response.Header.Get("X-Hop") != "" {
			t.Errorf("answer: %d %s %v", response.StatusCode, body, response.Header)
		}
		in := <-got
		sent, _ := io.ReadAll(in.Body)
		if in.RequestURI != "/b/a%2Fb%20c//d?list-type=2&x=1&y=" || in.Host != r.Host || string(sent) != "body" {
			t.Errorf("it got %s of %s: %s", in.RequestURI, in.Host, sent)
		}
		signature, err := sigv4.Parse(in)
		if err == nil {
			err = sigv4.Verify(in, signature, rootSecret, sigv4.BodyHash(sent), time.Now())
		}
		if err != nil {
			t.Errorf("the signature that arrived: %v", err)
		}
		var names []string
		for name := range in.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		want := []string{"Authorization", "Content-Length", "Content-Type", "User-Agent", "X-Amz-Content-Sha256", "X-Amz-Date"}
		if !slices.Equal(names, want) {
			t.Errorf("it got %v", names)
		}
		if response, _ := g.do(g.request(g.outside, rootKey, rootSecret, "sqs", "/q", jsonType, "AmazonSQS.X", []byte("{}"))); response.StatusCode != 418 {
			t.Errorf("below a path: %d", response.StatusCode)
		}
		if in := <-got; in.RequestURI != "/base/q" {
			t.Errorf("below a path it got %s", in.RequestURI)
		}
	}
}

// TestWho may have requests forwarded, and where to.
func TestWho(t *testing.T) {
	t.Parallel()
	says := func(name string) string {
		return service(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) }).URL
	}
	dead := httptest.NewServer(nil)
	dead.Close()
	some := map[string]string{"sqs": says("queues"), "dynamodb": says("tables"), "dynamodbstreams": says("streams"), "sns": dead.URL, "s3": says("objects")}
	all := map[string]string{"*": says("all"), "sqs": says("queues")}
	open, keyed, others := newRig(t, "", forward.Config{Endpoints: some}), newRig(t, rootKey, forward.Config{Endpoints: some}), newRig(t, "", forward.Config{Endpoints: all})
	const form = "application/x-www-form-urlencoded; charset=utf-8"
	large := bytes.Repeat([]byte("x"), 17<<20)
	for _, c := range []struct {
		what            string
		g               *rig
		inside          bool
		key, secret     string
		service, target string
		contentType     string
		body            []byte
		status          int
		want            string // part of the body
	}{
		{"any key", open, false, "any", "any", "sqs", "AmazonSQS.ListQueues", jsonType, []byte("{}"), 200, "queues"},
		{"the root", keyed, false, rootKey, rootSecret, "sqs", "AmazonSQS.ListQueues", jsonType, []byte("{}"), 200, "queues"},
		{"another secret", keyed, false, rootKey, "another", "sqs", "", jsonType, []byte("{}"), 403, `"__type":"InvalidSignatureException"`},
		{"another key", keyed, false, "other", "other", "sqs", "", form, nil, 403, "<Code>UnrecognizedClientException</Code>"},
		{"an environment", open, true, open.environment.AccessKeyID, open.environment.SecretAccessKey, "sqs", "", jsonType, []byte("{}"), 200, "queues"},
		{"any key within an environment", open, true, "any", "any", "sqs", "", jsonType, nil, 403, "UnrecognizedClientException"},
		{"another secret within an environment", open, true, open.environment.AccessKeyID, "any", "s3", "", "text/plain", nil, 403, "<Code>InvalidSignatureException</Code>"},
		{"tables", open, false, "any", "any", "dynamodb", "DynamoDB_20120810.ListTables", jsonType, nil, 200, "tables"},
		{"streams of tables", open, false, "any", "any", "dynamodb", "DynamoDBStreams_20120810.ListStreams", jsonType, nil, 200, "streams"},
		{"all others", others, false, "any", "any", "kinesis", "Kinesis_20131202.ListStreams", jsonType, nil, 200, "all"},
		{"one that is not like all others", others, false, "any", "any", "sqs", "", jsonType, nil, 200, "queues"},
		{"nobody's", open, false, "any", "any", "events", "AWSEvents.PutEvents", jsonType, nil, 501, `"__type":"NotImplementedException"`},
		{"nobody's, says which setting", open, false, "any", "any", "secretsmanager", "", jsonType, nil, 501, "Set endpoints.secretsmanager in kiln.toml, KILN_ENDPOINTS=secretsmanager=URL or AWS_ENDPOINT_URL_SECRETS_MANAGER where"},
		{"nobody's, as a form", open, false, "any", "any", "ses", "", form, nil, 501, "<ErrorResponse><Error><Type>Sender</Type><Code>NotImplementedException</Code>"},
		{"one that is not there", open, false, "any", "any", "sns", "", form, nil, 503, "<Code>ServiceUnavailable</Code>"},
		{"large, where nobody verifies", open, false, "any", "any", "sqs", "", jsonType, large, 200, "queues"},
		{"large, with its hash", keyed, false, rootKey, rootSecret, "s3", "", "text/plain", large, 200, "objects"},
		{"large, with its hash and another secret", keyed, false, rootKey, "another", "s3", "", "text/plain", large, 403, "InvalidSignatureException"},
		{"too large to be verified", keyed, false, rootKey, rootSecret, "sqs", "", jsonType, large, 413, "RequestEntityTooLarge"},
	} {
		to := c.g.outside
		if c.inside {
			to = c.g.inside
		}
		response, body := c.g.do(c.g.request(to, c.key, c.secret, c.service, "/", c.contentType, c.target, c.body))
		if response.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s", c.what, response.StatusCode, body)
		}
	}
}

// TestResign: of a service that is signed anew, the listed actions and no others.
func TestResign(t *testing.T) {
	t.Parallel()
	var host string
	s := service(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		signature, err := sigv4.Parse(r)
		if err == nil {
			err = sigv4.Verify(r, signature, newSecret, sigv4.BodyHash(body), time.Now())
		}
		if err != nil || signature.AccessKey != newKey || signature.SessionToken != "token" || r.Host != host {
			t.Errorf("it got %+v for %s: %v", signature, r.Host, err)
		}
		fmt.Fprintf(w, "done")
	})
	host = strings.TrimPrefix(s.URL, "http://")
	g := newRig(t, "", forward.Config{Endpoints: map[string]string{"*": s.URL}, Resign: map[string][]string{"sqs": {"SendMessage", "Get*"}}})
	const form, cbor = "application/x-www-form-urlencoded; charset=utf-8", "application/cbor"
	for _, c := range []struct {
		what, path, contentType, target, body string
		header                                string // name: value
		ok                                    bool
	}{
		{"listed", "/", jsonType, "AmazonSQS.SendMessage", "{}", "", true},
		{"by a pattern", "/", jsonType, "AmazonSQS.GetQueueUrl", "{}", "", true},
		{"not listed", "/", jsonType, "AmazonSQS.DeleteQueue", "{}", "", false},
		{"longer than what is listed", "/", jsonType, "AmazonSQS.SendMessageBatch", "{}", "", false},
		{"of a form", "/", form, "", "Action=SendMessage&MessageBody=x", "", true},
		{"of a form, not listed", "/", form, "", "Action=DeleteQueue", "", false},
		{"of a form, twice", "/", form, "", "Action=SendMessage&Action=DeleteQueue", "", false},
		{"of a form and a query", "/?Action=DeleteQueue", form, "", "Action=SendMessage", "", false},
		{"of a query", "/?Action=SendMessage", form, "", "", "", false},
		{"of a form and a target", "/", form, "AmazonSQS.SendMessage", "Action=DeleteQueue", "", false},
		{"a form that says it is JSON", "/", jsonType, "AmazonSQS.SendMessage", "Action=DeleteQueue", "", false},
		{"two targets", "/", jsonType, "AmazonSQS.SendMessage", "{}", "X-Amz-Target: AmazonSQS.DeleteQueue", false},
		{"a target and a query", "/?Action=DeleteQueue", jsonType, "AmazonSQS.SendMessage", "{}", "", false},
		{"a target and a path", "/service/SQS/operation/DeleteQueue", jsonType, "AmazonSQS.SendMessage", "{}", "", false},
		{"by its path", "/service/SQS/operation/SendMessage", cbor, "", "x", "Smithy-Protocol: rpc-v2-cbor", true},
		{"by its path, not listed", "/service/SQS/operation/DeleteQueue", cbor, "", "x", "Smithy-Protocol: rpc-v2-cbor", false},
		{"by its path and a target", "/service/SQS/operation/SendMessage", jsonType, "AmazonSQS.DeleteQueue", "{}", "Smithy-Protocol: rpc-v2-cbor", false},
		{"none", "/", jsonType, "", "{}", "", false},
	} {
		r := g.request(g.outside, "any", "any", "sqs", c.path, c.contentType, c.target, []byte(c.body))
		if name, value, ok := strings.Cut(c.header, ": "); ok {
			r.Header.Add(name, value)
		}
		response, body := g.do(r)
		if ok := response.StatusCode == 200 && body == "done"; ok != c.ok || !ok && response.StatusCode != 403 {
			t.Errorf("%s: %d %s", c.what, response.StatusCode, body)
		}
	}
}

// TestStreams: what a service streams is passed on as it comes, and a caller who leaves
// ends its request.
func TestStreams(t *testing.T) {
	t.Parallel()
	next, gone := make(chan struct{}), make(chan struct{})
	s := service(t, func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			fmt.Fprint(w, "piece")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
		<-r.Context().Done()
		close(gone)
	})
	g := newRig(t, "", forward.Config{Endpoints: map[string]string{"kinesis": s.URL}})
	response, err := g.client.Do(g.request(g.outside, "any", "any", "kinesis", "/", jsonType, "", nil))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := io.ReadFull(response.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
	_ = response.Body.Close()
	<-gone
}
