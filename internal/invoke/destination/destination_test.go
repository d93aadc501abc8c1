package destination_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	queue  lambda.Destination = "arn:aws:sqs:us-west-2:210987654321:failed"
	topic  lambda.Destination = "arn:aws:sns:us-west-2:210987654321:failed"
	bus    lambda.Destination = "arn:aws:events:us-west-2:210987654321:event-bus/default"
	bucket lambda.Destination = "arn:aws:s3:::records"

	trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a87bd80c:0"
)

// asked is a request that a service got.
type asked struct {
	operation string // such as SendMessage
	header    http.Header
	path      string
	body      string
	from      string          // the client's address
	gone      <-chan struct{} // closed when nobody waits for the answer
}

// sender sends to a server that answers as the function says.
func sender(t *testing.T, answer func(w http.ResponseWriter, a asked), change func(*destination.Config)) *destination.Sender {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := read(r)
		if err != nil {
			return // the test has ended
		}
		a := asked{header: r.Header, path: r.URL.Path, body: body, from: r.RemoteAddr, gone: r.Context().Done()}
		_, a.operation, _ = strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if form, err := url.ParseQuery(body); err == nil && form.Has("Action") {
			a.operation = form.Get("Action")
		}
		if r.Method == http.MethodPut {
			a.operation = "PutObject"
		}
		answer(w, a)
	}))
	var open atomic.Int64
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	cfg := destination.Config{
		Endpoint:    func(string) string { return server.URL },
		Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
	}
	if change != nil {
		change(&cfg)
	}
	s := destination.New(cfg)
	t.Cleanup(func() {
		s.Close()
		for end := time.Now().Add(10 * time.Second); open.Load() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d connections are left", open.Load())
				break
			}
		}
		server.Close()
	})
	return s
}

func read(r *http.Request) (string, error) {
	var from io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(from)
		if err != nil {
			return "", err
		}
		from = unpacked
	}
	b, err := io.ReadAll(from)
	return string(b), err
}

// fine answers as services do that take everything.
func fine(w http.ResponseWriter, a asked) {
	switch a.operation {
	case "GetQueueUrl":
		fmt.Fprint(w, `{"QueueUrl":"http://queues/210987654321/failed"}`)
	case "Publish":
		fmt.Fprint(w, `<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>`)
	case "PutEvents":
		fmt.Fprint(w, `{"FailedEntryCount":0,"Entries":[{"EventId":"e"}]}`)
	case "SendMessage":
		fmt.Fprint(w, `{"MessageId":"m"}`)
	}
}

// record keeps what was asked, and answers fine.
func record(to *[]asked) func(http.ResponseWriter, asked) {
	var mu sync.Mutex
	return func(w http.ResponseWriter, a asked) {
		mu.Lock()
		*to = append(*to, a)
		mu.Unlock()
		fine(w, a)
	}
}

func decode(t *testing.T, document string) (value any) {
	t.Helper()
	if err := json.Unmarshal([]byte(document), &value); err != nil {
		t.Fatalf("%v: %s", err, document)
	}
	return value
}

type object = map[string]any

// TestRecords looks at what each service gets.
func TestRecords(t *testing.T) {
	t.Parallel()
	failed := outcome(func(o *destination.Outcome) {
		o.Condition, o.TraceHeader = destination.EventAgeExceeded, trace
	})
	for to, test := range map[lambda.Destination]struct {
		scope string // that is signed for
		want  func(t *testing.T, a asked)
	}{
		queue: {"us-west-2/sqs", func(t *testing.T, a asked) {
			want := object{
				"QueueUrl": "http://queues/210987654321/failed", "MessageBody": string(failed.Record()),
				"MessageSystemAttributes": object{"AWSTraceHeader": object{"DataType": "String", "StringValue": failed.TraceHeader}},
			}
			if d := cmp.Diff(any(want), decode(t, a.body)); d != "" {
				t.Error(d)
			}
		}},
		topic: {"us-west-2/sns", func(t *testing.T, a asked) {
			got, _ := url.ParseQuery(a.body)
			want := url.Values{"Action": {"Publish"}, "Version": {"2010-03-31"}, "TopicArn": {string(topic)}, "Message": {string(failed.Record())}}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if got := a.header.Get("X-Amzn-Trace-Id"); got != trace {
				t.Errorf("the trace header is %q", got)
			}
		}},
		bus: {"us-west-2/events", func(t *testing.T, a asked) {
			want := object{"Entries": []any{object{
				"Source": "lambda", "DetailType": "Lambda Function Invocation Result - Failure", "EventBusName": string(bus), "Detail": string(failed.Record()),
				"Resources": []any{string(bus), "arn:aws:lambda:eu-west-1:123456789012:function:my-function:$LATEST"}, "Time": 1772597167.0,
			}}}
			if d := cmp.Diff(any(want), decode(t, a.body)); d != "" {
				t.Error(d)
			}
		}},
		bucket: {"eu-west-1/s3", func(t *testing.T, a asked) {
			key := regexp.MustCompile(`^/records/aws/lambda/async/my-function/2026/03/04/2026-03-04T04\.06\.07-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
			if !key.MatchString(a.path) || a.body != string(failed.Record()) || a.header.Get("Content-Type") != "application/json" || a.header.Get("X-Amzn-Trace-Id") != trace {
				t.Errorf("%s: %s %v", a.path, a.body, a.header)
			}
			if _, on := destination.Permission(bucket, failed); "arn:aws:s3:::"+strings.TrimPrefix(a.path, "/") != on.String() {
				t.Errorf("it is at %s, permission was asked for %s", a.path, on)
			}
		}},
	} {
		t.Run(to.Service(), func(t *testing.T) {
			t.Parallel()
			var got []asked
			s := sender(t, record(&got), nil)
			if err := s.Record(t.Context(), to, failed); err != nil {
				t.Fatal(err)
			}
			last := got[len(got)-1]
			test.want(t, last)
			if sign := last.header.Get("Authorization"); !strings.Contains(sign, "/"+test.scope+"/aws4_request") {
				t.Errorf("signed with %s", sign)
			}
			before := len(got)
			if err := s.Record(t.Context(), to, failed); err != nil || len(got) != before+1 {
				t.Fatalf("once more: %v, %d requests", err, len(got)-before)
			}
			if again := got[len(got)-1]; again.body != last.body || again.path != last.path {
				t.Errorf("the same, sent again, is another: %v", again)
			}
			if to == bus {
				if err := s.Record(t.Context(), to, outcome(nil)); err != nil || !strings.Contains(got[len(got)-1].body, `"Lambda Function Invocation Result - Success"`) {
					t.Errorf("success: %v %s", err, got[len(got)-1].body)
				}
			}
		})
	}
}

// TestDeadLetters looks at what queues and topics get.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	letter := destination.Letter{RequestID: "r", Payload: []byte(`{"raise_error": 1}`), ErrorCode: 200, ErrorMessage: "no", TraceHeader: trace}
	text := func(value string) object { return object{"DataType": "String", "StringValue": value} }
	for name, test := range map[string]struct {
		change func(*destination.Letter)
		want   object // of attributes
	}{
		"error":              {nil, object{"ErrorMessage": text("no")}},
		"no message":         {func(l *destination.Letter) { l.ErrorMessage = "" }, object{}},
		"no code":            {func(l *destination.Letter) { l.ErrorCode = 0 }, object{"ErrorMessage": text("no"), "ErrorCode": nil}},
		"long":               {func(l *destination.Letter) { l.ErrorMessage = "a" + strings.Repeat("é", 2000) }, object{"ErrorMessage": text("a" + strings.Repeat("é", 511))}},
		"long when replaced": {func(l *destination.Letter) { l.ErrorMessage = strings.Repeat("\x00", 1024) }, object{"ErrorMessage": text(strings.Repeat("\uFFFD", 341))}},
		"what SQS refuses": {func(l *destination.Letter) { l.ErrorMessage = "\x1b[31m\tred\x00 \xff \uFFFF \U0001F600" },
			object{"ErrorMessage": text("\uFFFD[31m\tred\uFFFD \uFFFD \uFFFD \U0001F600")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := letter
			if test.change != nil {
				test.change(&l)
			}
			attributes := object{"RequestID": text("r"), "ErrorCode": object{"DataType": "Number", "StringValue": "200"}}
			for name, value := range test.want {
				attributes[name] = value
				if value == nil {
					delete(attributes, name)
				}
			}
			var got []asked
			s := sender(t, record(&got), nil)
			if err := s.DeadLetter(t.Context(), queue, l); err != nil {
				t.Fatal(err)
			}
			want := object{
				"QueueUrl": "http://queues/210987654321/failed", "MessageBody": `{"raise_error": 1}`, "MessageAttributes": attributes,
				"MessageSystemAttributes": object{"AWSTraceHeader": text(trace)},
			}
			if d := cmp.Diff(any(want), decode(t, got[1].body)); d != "" {
				t.Error(d)
			}
			if err := s.DeadLetter(t.Context(), topic, l); err != nil {
				t.Fatal(err)
			}
			form, _ := url.ParseQuery(got[2].body)
			published := object{}
			for n := 1; form.Has(fmt.Sprintf("MessageAttributes.entry.%d.Name", n)); n++ {
				at := fmt.Sprintf("MessageAttributes.entry.%d.", n)
				published[form.Get(at+"Name")] = object{"DataType": form.Get(at + "Value.DataType"), "StringValue": form.Get(at + "Value.StringValue")}
			}
			if d := cmp.Diff(attributes, published); d != "" || form.Get("Message") != `{"raise_error": 1}` || form.Get("TopicArn") != string(topic) {
				t.Error(d, form)
			}
		})
	}
}

// TestQueueURLs: a URL is looked up once, and again when the queue is gone.
func TestQueueURLs(t *testing.T) {
	t.Parallel()
	var asks, made atomic.Int64
	made.Store(1)
	s := sender(t, func(w http.ResponseWriter, a asked) {
		in := map[string]any{}
		_ = json.Unmarshal([]byte(a.body), &in)
		switch now := made.Load(); {
		case a.operation == "GetQueueUrl" && now > 0:
			asks.Add(1)
			if in["QueueName"] != "failed" || in["QueueOwnerAWSAccountId"] != "210987654321" {
				t.Errorf("asked for the URL of %v", in)
			}
			fmt.Fprintf(w, `{"QueueUrl":"http://queues/%d"}`, now)
		case a.operation == "SendMessage" && in["QueueUrl"] == fmt.Sprintf("http://queues/%d", now):
			fine(w, a)
		default:
			w.Header().Set("X-Amzn-Query-Error", "AWS.SimpleQueueService.NonExistentQueue;Sender")
			w.WriteHeader(400)
			fmt.Fprint(w, `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}`)
		}
	}, nil)
	send := func() error { return s.Record(t.Context(), queue, outcome(nil)) }
	for range 3 {
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	if n := asks.Load(); n != 1 {
		t.Errorf("asked for its URL %d times", n)
	}
	made.Store(2) // under another URL
	if err := send(); err != nil || asks.Load() != 2 {
		t.Errorf("made again: %v, asked %d times", err, asks.Load())
	}
	made.Store(0)
	if err := send(); !destination.Permanent(err) {
		t.Errorf("gone: %v", err)
	}
	made.Store(3)
	if err := send(); err != nil || asks.Load() != 3 {
		t.Errorf("back again: %v, asked %d times", err, asks.Load())
	}
}

// TestTraceHeader: SQS would refuse the message for one that is none.
func TestTraceHeader(t *testing.T) {
	t.Parallel()
	var got []asked
	s := sender(t, record(&got), nil)
	for _, header := range []string{"", "Root=1", "x", trace + "\n", trace + " \x00", trace + ";Self=" + strings.Repeat("a", 500), "Root=1-5759e988-bd862e3fe1be46a99427279g"} {
		if err := s.Record(t.Context(), queue, outcome(func(o *destination.Outcome) { o.TraceHeader = header })); err != nil {
			t.Fatal(err)
		}
		if sent := got[len(got)-1].body; strings.Contains(sent, "AWSTraceHeader") {
			t.Errorf("%q is passed on: %s", header, sent)
		}
	}
}

// No more than some go to one service at once. Whoever waits may give up, and the other
// services are not waited for.
func TestBounded(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	s := sender(t, func(w http.ResponseWriter, a asked) {
		if a.operation == "Publish" {
			entered <- struct{}{}
			<-leave
		}
		fine(w, a)
	}, nil)
	var sent sync.WaitGroup
	for range 16 {
		sent.Go(func() {
			if err := s.Record(t.Context(), topic, outcome(nil)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 16 {
		<-entered
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, gone)
	defer cancel()
	if err := s.Record(ctx, topic, outcome(nil)); !errors.Is(err, gone) || destination.Permanent(err) || len(entered) > 0 {
		t.Errorf("a seventeenth: %v", err)
	}
	if err := s.Record(t.Context(), queue, outcome(nil)); err != nil {
		t.Errorf("to another service: %v", err)
	}
	close(leave)
	sent.Wait()
}

// TestCredentials: what signs may change, the log tells once that nothing does, and
// connections are used again.
func TestCredentials(t *testing.T) {
	t.Parallel()
	var key atomic.Value
	found := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		if key.Load() == "" {
			return aws.Credentials{}, errors.New("there are none")
		}
		return aws.Credentials{AccessKeyID: key.Load().(string), SecretAccessKey: "secret"}, nil
	})
	for name, test := range map[string]struct {
		life time.Duration
		want []string // whose signature each request has
	}{
		"old": {1, []string{"ONE", "", "", "TWO", ""}},
		"new": {0, []string{"ONE", "ONE", "ONE", "ONE", "ONE"}},
	} {
		var got []asked
		var log bytes.Buffer
		s := sender(t, record(&got), func(c *destination.Config) {
			c.Credentials, c.CredentialsLife = found, test.life
			c.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		for i, k := range []string{"ONE", "", "", "TWO", ""} {
			key.Store(k)
			if err := s.Record(t.Context(), bucket, outcome(nil)); err != nil {
				t.Fatal(err)
			}
			sign := got[i].header.Get("Authorization")
			if who := test.want[i]; who == "" && sign != "" || !strings.Contains(sign, who) {
				t.Errorf("%s: request %d is signed %s, want %q", name, i, sign, who)
			}
			if test.life == 0 && got[i].from != got[0].from {
				t.Errorf("request %d came by a connection of its own", i)
			}
		}
		if n, want := strings.Count(log.String(), "there are none"), map[string]int{"old": 2}[name]; n != want {
			t.Errorf("%s: the log tells of it %d times, want %d: %s", name, n, want, &log)
		}
	}
}

// Neither variables of the environment nor redirects lead elsewhere than the
// configuration.
func TestNowhereElse(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s was asked for %s", r.Host, r.URL) }))
	defer elsewhere.Close()
	for _, name := range []string{"", "_SQS", "_SNS", "_EVENTBRIDGE", "_S3"} {
		t.Setenv("AWS_ENDPOINT_URL"+name, elsewhere.URL)
	}
	t.Setenv("AWS_USE_FIPS_ENDPOINT", "true")
	s := sender(t, fine, nil)
	moved := sender(t, func(w http.ResponseWriter, _ asked) {
		w.Header().Set("Location", elsewhere.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}, nil)
	for _, to := range []lambda.Destination{queue, topic, bus, bucket} {
		if err := s.Record(t.Context(), to, outcome(nil)); err != nil {
			t.Error(err)
		}
		if err := moved.Record(t.Context(), to, outcome(nil)); err == nil {
			t.Errorf("%s: a redirect is taken for an answer", to)
		}
	}
}
