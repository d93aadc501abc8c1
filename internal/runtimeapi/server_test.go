package runtimeapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"kiln/internal/lambda"
	"kiln/internal/runtimeapi"
	"kiln/internal/telemetry/delivery"
)

func TestMain(m *testing.M) {
	// net/http lingers for half a second on connections that it cut.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

const (
	patience = 30 * time.Second
	prefix   = "/2018-06-01/runtime/"
)

var arn = lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: "f", Qualifier: "live"}

// failer is what testing.T and rapid.T have in common.
type failer interface {
	Helper()
	Error(...any)
	Errorf(string, ...any)
	Fatal(...any)
	Fatalf(string, ...any)
}

// rig is a server with what it owes: bytes of room.
type rig struct {
	*runtimeapi.Server
	t       failer
	address string
	client  *http.Client
	room    atomic.Int64
	served  chan error
	offered []runtimeapi.Exchange // by run

	connections   []net.Conn // of senders
	subscriptions []delivery.Subscription
}

func newRig(t failer, external ...string) *rig {
	t.Helper()
	r := &rig{t: t, client: &http.Client{Transport: &http.Transport{}}, served: make(chan error, 1)}
	room := func(_ context.Context, n int64) (func(), error) {
		r.room.Add(n)
		var once atomic.Bool
		return func() {
			if once.Swap(true) {
				panic("room is released twice")
			}
			r.room.Add(-n)
		}, nil
	}
	r.Server = runtimeapi.New(runtimeapi.Config{
		Room:     room,
		Function: &lambda.Function{ARN: arn.Unqualified(), Version: "7", Settings: lambda.Settings{Handler: "a.b"}},
		External: external,
		Subscribe: func(s delivery.Subscription) bool {
			r.subscriptions = append(r.subscriptions, s)
			return true
		},
		Log: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	go func() { r.served <- r.Serve(l) }() // ended by close
	return r
}

// close ends the server and checks that nothing is owed.
func (r *rig) close() {
	r.t.Helper()
	r.client.CloseIdleConnections()
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
	if err := <-r.served; err != nil {
		r.t.Errorf("Serve: %v", err)
	}
	for _, x := range r.offered { // answers that the test did not look at
		select {
		case a := <-x.Answer():
			if a.Release != nil {
				a.Release()
			}
			if a.Stream != nil {
				a.Stream.Close()
			}
		default:
		}
	}
	for _, c := range r.connections {
		c.Close()
	}
	for end := time.Now().Add(patience); r.room.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Errorf("%d bytes of room were not given back", r.room.Load())
			return
		}
	}
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (r *rig) do(method, path, body string, headers ...string) reply {
	r.t.Helper()
	got, err := r.try(method, path, body, headers...)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) try(method, path, body string, headers ...string) (reply, error) {
	q, err := http.NewRequest(method, "http://"+r.address+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.client.Do(q)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, string(b)}, err
}

func (r *rig) next() reply { return r.do("GET", prefix+"invocation/next", "") }

func invocation() *lambda.Invocation {
	return &lambda.Invocation{ID: lambda.NewRequestID(), ARN: arn, Payload: []byte(`{"a":1}`), Deadline: time.UnixMilli(1_800_000_000_123)}
}

func (r *rig) answer(x runtimeapi.Exchange) runtimeapi.Answer {
	r.t.Helper()
	select {
	case a := <-x.Answer():
		if a.Release != nil {
			a.Release()
		}
		return a
	case <-time.After(patience):
		r.t.Fatal("no answer")
		return runtimeapi.Answer{}
	}
}

// run brings an invocation to the runtime.
func (r *rig) run() (*lambda.Invocation, runtimeapi.Exchange) {
	r.t.Helper()
	inv := invocation()
	return inv, r.give(inv)
}

func (r *rig) give(inv *lambda.Invocation) runtimeapi.Exchange {
	r.t.Helper()
	x := r.Offer(inv)
	r.offered = append(r.offered, x)
	if got := r.next(); got.status != 200 {
		r.t.Fatalf("next: %+v", got)
	}
	return x
}

func TestEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.close()
	inv := invocation()
	inv.ClientContext, inv.CognitoIdentity, inv.TraceHeader = `{"custom":{}}`, `{"id":1}`, "Root=1-2-3"
	x := r.Offer(inv)
	got := r.next()
	for name, want := range map[string]string{
		"Lambda-Runtime-Aws-Request-Id":       string(inv.ID),
		"Lambda-Runtime-Deadline-Ms":          "1800000000123",
		"Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:f:live",
		"Lambda-Runtime-Client-Context":       `{"custom":{}}`,
		"Lambda-Runtime-Cognito-Identity":     `{"id":1}`,
		"Lambda-Runtime-Trace-Id":             "Root=1-2-3",
		"Content-Type":                        "application/json",
	} {
		if got.header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
		}
	}
	if got.body != `{"a":1}` {
		t.Errorf("event %s", got.body)
	}
	if got := r.do("POST", prefix+"invocation/"+string(inv.ID)+"/response", `{"b":2}`, "Content-Type", "text/x"); got.status != 202 || got.body != `{"status":"OK"}` {
		t.Errorf("response: %+v", got)
	}
	if a := r.answer(x); string(a.Payload) != `{"b":2}` || a.ContentType != "text/x" || a.ErrorType != "" {
		t.Errorf("answer %+v", a)
	}
	select {
	case <-x.Idle():
		t.Error("idle before it asked for the next")
	default:
	}
	y := r.Offer(invocation())
	r.next()
	select {
	case <-x.Idle():
	case <-time.After(patience):
		t.Error("not idle after it asked for the next")
	}
	select {
	case <-y.Idle():
		t.Error("the second is idle while it runs")
	default:
	}
}

// Every call in every state.
func TestStates(t *testing.T) {
	t.Parallel()
	type state struct {
		name string
		make func(r *rig) (id lambda.RequestID)
	}
	states := []state{
		{"started", func(*rig) lambda.RequestID { return lambda.NewRequestID() }},
		{"init failed", func(r *rig) lambda.RequestID {
			r.do("POST", prefix+"init/error", "{}")
			return lambda.NewRequestID()
		}},
		{"running", func(r *rig) lambda.RequestID { inv, _ := r.run(); return inv.ID }},
		{"streaming", func(r *rig) lambda.RequestID {
			inv, x := r.runStream()
			r.stream(inv)
			a := r.answer(x) // it has begun
			t.Cleanup(a.Stream.Close)
			return inv.ID
		}},
		{"answered", func(r *rig) lambda.RequestID {
			inv, x := r.run()
			r.do("POST", prefix+"invocation/"+string(inv.ID)+"/response", "1")
			r.answer(x)
			return inv.ID
		}},
	}
	type result map[string]string // by state: status and error type
	for _, c := range []struct {
		name, method, path string // ID in the path is the current request's
		want               result
	}{
		{"next", "GET", prefix + "invocation/next", result{"started": "200", "init failed": "403 InvalidStateTransition", "running": "403 InvalidStateTransition", "streaming": "403 InvalidStateTransition", "answered": "200"}},
		{"response", "POST", prefix + "invocation/ID/response", result{"started": "400 InvalidRequestID", "init failed": "400 InvalidRequestID", "running": "202", "streaming": "400 InvalidRequestID", "answered": "400 InvalidRequestID"}},
		{"error", "POST", prefix + "invocation/ID/error", result{"started": "400 InvalidRequestID", "init failed": "400 InvalidRequestID", "running": "202", "streaming": "400 InvalidRequestID", "answered": "400 InvalidRequestID"}},
		{"response of another", "POST", prefix + "invocation/other/response", result{"started": "400 InvalidRequestID", "init failed": "400 InvalidRequestID", "running": "400 InvalidRequestID", "streaming": "400 InvalidRequestID", "answered": "400 InvalidRequestID"}},
		{"init error", "POST", prefix + "init/error", result{"started": "202", "init failed": "403 InvalidStateTransition", "running": "403 InvalidStateTransition", "streaming": "403 InvalidStateTransition", "answered": "403 InvalidStateTransition"}},
		{"restore", "GET", prefix + "restore/next", result{"started": "404 NotFound", "init failed": "404 NotFound", "running": "404 NotFound", "streaming": "404 NotFound", "answered": "404 NotFound"}},
		{"wrong method", "POST", prefix + "invocation/next", result{"started": "405 MethodNotAllowed", "init failed": "405 MethodNotAllowed", "running": "405 MethodNotAllowed", "streaming": "405 MethodNotAllowed", "answered": "405 MethodNotAllowed"}},
		{"wrong version", "GET", "/2015-01-01/runtime/invocation/next", result{"started": "404 NotFound", "init failed": "404 NotFound", "running": "404 NotFound", "streaming": "404 NotFound", "answered": "404 NotFound"}},
		{"ping", "GET", "/2018-06-01/ping", result{"started": "200", "init failed": "200", "running": "200", "streaming": "200", "answered": "200"}},
	} {
		for _, s := range states {
			t.Run(c.name+" when "+s.name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				defer r.close()
				id := s.make(r)
				if c.name == "next" && strings.HasPrefix(c.want[s.name], "200") {
					r.Offer(invocation()) // or it would wait
				}
				got := r.do(c.method, strings.Replace(c.path, "ID", string(id), 1), "{}")
				text := fmt.Sprint(got.status)
				var document lambda.ErrorDocument
				if got.status >= 400 && json.Unmarshal([]byte(got.body), &document) == nil {
					text += " " + document.Type
				}
				if text != c.want[s.name] {
					t.Errorf("%s, want %s", text, c.want[s.name])
				}
			})
		}
	}
}

// A model of the protocol against the server: whatever a runtime calls in whatever
// order, the server answers as the model says, and no answer is lost or doubled.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t)
		defer r.close()
		const (
			started, failed, running, answered = "started", "failed", "running", "answered"
		)
		state := started
		var current *lambda.Invocation
		var x runtimeapi.Exchange
		want := func(name string, got reply, status int) {
			if got.status != status {
				t.Fatalf("%s while %s: %d %s, want %d", name, state, got.status, got.body, status)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"next": func(t *rapid.T) {
				if state == running || state == failed {
					want("next", r.next(), 403)
					return
				}
				before, had := x, state == answered
				current = invocation()
				x = r.Offer(current)
				got := r.next()
				want("next", got, 200)
				if got.header.Get("Lambda-Runtime-Aws-Request-Id") != string(current.ID) {
					t.Fatal("another event")
				}
				if had {
					<-before.Idle()
				}
				select {
				case <-r.Ready():
				default:
					t.Fatal("not ready after next")
				}
				state = running
			},
			"response": func(t *rapid.T) {
				mine := rapid.Bool().Draw(t, "of the current invocation")
				id, body := lambda.NewRequestID(), rapid.StringN(0, 50, -1).Draw(t, "body")
				if mine && current != nil {
					id = current.ID
				}
				verb, errorType := "response", ""
				if rapid.Bool().Draw(t, "an error") {
					verb, errorType = "error", "Runtime.Unknown"
				}
				got := r.do("POST", prefix+"invocation/"+string(id)+"/"+verb, body)
				if state != running || !mine {
					want(verb, got, 400)
					return
				}
				want(verb, got, 202)
				if a := r.answer(x); string(a.Payload) != body || a.ErrorType != errorType {
					t.Fatalf("answer %+v, want %q", a, body)
				}
				state = answered
			},
			"init error": func(t *rapid.T) {
				got := r.do("POST", prefix+"init/error", `{"errorType":"x"}`, "Lambda-Runtime-Function-Error-Type", "Runtime.ImportModuleError")
				if state != started {
					want("init error", got, 403)
					return
				}
				want("init error", got, 202)
				if report := <-r.InitFailed(); report.Type != "Runtime.ImportModuleError" || string(report.Payload) != `{"errorType":"x"}` {
					t.Fatalf("report %+v", report)
				}
				state = failed
			},
			"": func(t *rapid.T) {
				if state != answered {
					return
				}
				select {
				case <-x.Idle():
					t.Fatal("idle, and nobody asked for the next event")
				default:
				}
			},
		})
	})
}

func TestBodies(t *testing.T) {
	t.Parallel()
	const limit = lambda.MaxResponsePayload
	raw := func(headers, body string) func(*rig, lambda.RequestID) string {
		return func(r *rig, id lambda.RequestID) string {
			c, err := net.Dial("tcp", r.address)
			if err != nil {
				r.t.Fatal(err)
			}
			defer c.Close()
			_, _ = fmt.Fprintf(c, "POST %sinvocation/%s/response HTTP/1.1\r\nHost: x\r\n%s\r\n%s", prefix, id, headers, body)
			_ = c.(*net.TCPConn).CloseWrite()
			response, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				return "closed"
			}
			response.Body.Close()
			return fmt.Sprint(response.StatusCode)
		}
	}
	post := func(verb, body string, headers ...string) func(*rig, lambda.RequestID) string {
		return func(r *rig, id lambda.RequestID) string {
			return fmt.Sprint(r.do("POST", prefix+"invocation/"+string(id)+"/"+verb, body, headers...).status)
		}
	}
	for what, c := range map[string]struct {
		send                       func(*rig, lambda.RequestID) string
		status, errorType, payload string // payload: part of it
	}{
		"empty":              {post("response", ""), "202", "", ""},
		"largest":            {post("response", strings.Repeat("x", limit)), "202", "", "xxx"},
		"too large":          {post("response", strings.Repeat("x", limit+1)), "413", "Function.ResponseSizeTooLarge", fmt.Sprintf("Response payload size (%d bytes) exceeded maximum allowed payload size (%d bytes).", limit+1, limit)},
		"too large, chunked": {raw("Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", limit+5, strings.Repeat("x", limit+5))), "413", "Function.ResponseSizeTooLarge", fmt.Sprint(limit + 5)},
		"truncated":          {raw("Content-Length: 10\r\n", "12345"), "400", "Runtime.TruncatedResponse", ""},
		"truncated chunk":    {raw("Transfer-Encoding: chunked\r\n", "a\r\n12345"), "400", "Runtime.TruncatedResponse", ""},
		"bad chunk":          {raw("Transfer-Encoding: chunked\r\n", "zz\r\n12345"), "400", "Runtime.TruncatedResponse", ""},
		"bad mode":           {post("response", "1", "Lambda-Runtime-Function-Response-Mode", "quick"), "400", "Runtime.InvalidResponseModeHeader", "Invalid function response mode"},
		"streaming":          {raw("Transfer-Encoding: chunked\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n", "1\r\na\r\n1\r\nb\r\n0\r\n\r\n"), "202", "", "ab"},
		"error in trailer": {raw("Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n",
			"1\r\na\r\n0\r\nLambda-Runtime-Function-Error-Type: Runtime.Broken\r\nLambda-Runtime-Function-Error-Body: "+base64.StdEncoding.EncodeToString([]byte(`{"errorMessage":"m"}`))+"\r\n\r\n"), "202", "Runtime.Broken", `{"errorMessage":"m"}`},
		"bad trailer":      {raw("Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n", "1\r\na\r\n0\r\nLambda-Runtime-Function-Error-Type: x\r\nLambda-Runtime-Function-Error-Body: %\r\n\r\n"), "202", "Runtime.Unknown", `"Invalid error body"`},
		"error":            {post("error", `{"errorMessage":"m"}`, "Lambda-Runtime-Function-Error-Type", "Function.Broken"), "202", "Function.Broken", `{"errorMessage":"m"}`},
		"error with cause": {post("error", `{"errorMessage":"m","errorType":"t","stackTrace":["s"],"cause":{"x":1}}`, "Content-Type", "application/vnd.aws.lambda.error.cause+json"), "202", "Runtime.Unknown", `{"errorMessage":"m","errorType":"t","stackTrace":["s"]}`},
		"bad cause":        {post("error", `{`, "Content-Type", "application/vnd.aws.lambda.error.cause+json"), "202", "Runtime.Unknown", `"Invalid error body"`},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			defer r.close()
			inv, x := r.run()
			if got := c.send(r, inv.ID); got != c.status {
				t.Errorf("status %s, want %s", got, c.status)
			}
			a := r.answer(x)
			if a.ErrorType != c.errorType || !bytes.Contains(a.Payload, []byte(c.payload)) {
				t.Errorf("answer of type %q, %.200s; want %q, %.200s", a.ErrorType, a.Payload, c.errorType, c.payload)
			}
			r.run() // the runtime goes on
		})
	}
}

func TestErrorTypes(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                   "Runtime.Unknown",
		"Runtime.ExitError":                  "Runtime.ExitError",
		"Function.Mine":                      "Function.Mine",
		"Function.mine":                      "Function.Unknown",
		"Runtime.mine":                       "Runtime.Unknown",
		"TypeError":                          "Runtime.Unknown",
		"x Runtime.Fine y":                   "Runtime.Fine",
		"Sandbox.Timedout":                   "Runtime.Unknown",
		"Runtime.A":                          "Runtime.Unknown",
		"Runtime.<script>":                   "Runtime.Unknown",
		"Function." + strings.Repeat("é", 3): "Function.Unknown",
	} {
		r := newRig(t)
		inv, x := r.run()
		r.do("POST", prefix+"invocation/"+string(inv.ID)+"/error", "{}", "Lambda-Runtime-Function-Error-Type", given)
		if got := r.answer(x).ErrorType; got != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
		r.close()
	}
}

// A request for the next event whose connection died takes no event along.
func TestDeadNext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.close()
	for range 20 {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(c, "GET %sinvocation/next HTTP/1.1\r\nHost: x\r\n\r\n", prefix)
		<-r.Ready()
		c.Close()
	}
	// The server notices in its own time: until it has, a dead connection may get
	// the event, and the runtime is told that it runs.
	inv := invocation()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		probe := r.do("GET", "/2018-06-01/ping", "")
		if probe.status == 200 || time.Now().After(end) {
			break
		}
	}
	time.AfterFunc(50*time.Millisecond, func() { r.Offer(inv) })
	if got := r.next(); got.status != 200 || got.header.Get("Lambda-Runtime-Aws-Request-Id") != string(inv.ID) {
		t.Errorf("%+v", got)
	}
}

// Bodies that are announced and do not come keep nobody out but themselves, and
// hold the room of one.
func TestHoard(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.close()
	for range 50 {
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = fmt.Fprintf(c, "POST %sinit/error HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{", prefix)
	}
	inv, x := r.run()
	if held := r.room.Load(); held > 1_000_000 {
		t.Errorf("they hold %d bytes of room", held)
	}
	// The one that is being read stands in the way, until it has stalled too long.
	if got := r.do("POST", prefix+"invocation/"+string(inv.ID)+"/response", "1"); got.status != 202 {
		t.Errorf("%+v", got)
	}
	r.answer(x)
}

func TestCloseWakesEverybody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := make(chan error, 1)
	go func() {
		response, err := r.client.Get("http://" + r.address + prefix + "invocation/next")
		if err == nil {
			response.Body.Close()
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		got <- err
	}()
	<-r.Ready()
	r.close()
	if err := <-got; err == nil || strings.Contains(err.Error(), "status 2") && !strings.Contains(err.Error(), "status 200") {
		t.Error(err)
	}
}

// Whatever a process of the function writes to the Runtime API: no panic, and the
// next invocation is carried.
func FuzzRuntimeAPI(f *testing.F) {
	const id = "00000000-0000-4000-8000-000000000000"
	f.Add([]byte("GET "+prefix+"invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"), false)
	f.Add([]byte("POST "+prefix+"invocation/"+id+"/response HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"), false)
	f.Add([]byte("POST "+prefix+"invocation/"+id+"/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nLambda-Runtime-Function-Error-Type: x\r\n\r\n"), false)
	f.Add([]byte("POST "+prefix+"invocation/"+id+"/response HTTP/1.1\r\nHost: x\r\n"+chunked+streamedMode+announced+"\r\n"+chunk("a")+trailer("x", "e30=")), true)
	f.Add([]byte("POST "+prefix+"invocation/"+id+"/error HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.aws.lambda.error.cause+json\r\nContent-Length: 100\r\n\r\n{"), false)
	f.Add([]byte("POST "+prefix+"init/error HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, stream bool) {
		r := newRig(t)
		defer r.close()
		inv := invocation()
		inv.ID, inv.Stream = id, stream
		x := r.Offer(inv)
		if got := r.next(); got.status != 200 {
			t.Fatalf("%+v", got)
		}
		answered := make(chan struct{})
		go func() { // ended by the fuzzer's answer, or by the one below
			defer close(answered)
			a := <-x.Answer()
			if a.Release != nil {
				a.Release()
			}
			if a.Stream != nil {
				r.rest(x, a.Stream)
			}
		}()
		c, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(data)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		c.Close()
		got := r.do("POST", prefix+"invocation/"+id+"/response", "1")
		<-answered
		select {
		case <-x.Idle(): // the fuzzer found the way to answer, and asked for the next event
			return
		default:
		}
		if got.status != 202 && got.status != 400 { // 400: after the fuzzer's answer
			t.Fatalf("the runtime's response: %+v", got)
		}
		r.run()
	})
}
