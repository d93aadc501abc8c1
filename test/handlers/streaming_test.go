package handlers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kiln/test/kiln"
)

// streamEvent is one thing that a caller of InvokeWithResponseStream learns, in
// the form in which the programs in testdata print it.
type streamEvent struct {
	Head          bool
	Status        int
	Version, Type string // the function's content type

	Text string // of a piece, its beginning

	Complete                           bool
	Size                               int
	SHA256                             string
	ErrorCode, ErrorDetails, LogResult string

	Refused string // an exception's code
}

// streamer is a client. It tells of each event as it comes.
type streamer func(t *testing.T, d *kiln.Daemon, name string, payload []byte, log string, got func(streamEvent))

// contentTypeHeader has the function's content type. SDKs show that of the event stream in its place.
const contentTypeHeader = "X-Amzn-Remapped-Content-Type"

func goStreamer(t *testing.T, d *kiln.Daemon, name string, payload []byte, log string, got func(streamEvent)) {
	t.Helper()
	out, err := d.Client().InvokeWithResponseStream(context.Background(), &lambda.InvokeWithResponseStreamInput{FunctionName: &name, Payload: payload, LogType: types.LogType(log)})
	if err != nil {
		var api smithy.APIError
		if !errors.As(err, &api) {
			t.Fatal(err)
		}
		got(streamEvent{Refused: api.ErrorCode()})
		return
	}
	response := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response)
	if got := aws.ToString(out.ResponseStreamContentType); got != "application/vnd.amazon.eventstream" {
		t.Errorf("the content type of the events is %s", got)
	}
	got(streamEvent{Head: true, Status: int(out.StatusCode), Version: aws.ToString(out.ExecutedVersion), Type: response.Header.Get(contentTypeHeader)})
	stream := out.GetStream()
	defer stream.Close()
	size, digest := 0, sha256.New()
	for e := range stream.Events() {
		switch e := e.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			size += len(e.Value.Payload)
			digest.Write(e.Value.Payload)
			got(streamEvent{Text: string(e.Value.Payload[:min(20, len(e.Value.Payload))])})
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			got(streamEvent{Complete: true, Size: size, SHA256: hex.EncodeToString(digest.Sum(nil)), ErrorCode: aws.ToString(e.Value.ErrorCode), ErrorDetails: aws.ToString(e.Value.ErrorDetails), LogResult: aws.ToString(e.Value.LogResult)})
		}
	}
	if err := stream.Err(); err != nil {
		t.Error(err)
	}
}

// program is a client that is a program of testdata.
func program(name string, args ...string) streamer {
	return func(t *testing.T, d *kiln.Daemon, function string, payload []byte, log string, got func(streamEvent)) {
		t.Helper()
		cmd := exec.Command(name, append(slices.Clone(args), function, string(payload), log)...)
		cmd.Env = d.Environ()
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e streamEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Errorf("%v in %s", err, lines.Bytes())
			}
			got(e)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// streamers are the clients that this machine has.
func streamers(t *testing.T) map[string]streamer {
	t.Helper()
	found := map[string]streamer{"go": goStreamer}
	cache := filepath.Join(kiln.Root(), ".cache")
	for _, python := range []string{filepath.Join(cache, "venv", "bin", "python3"), "python3"} {
		if exec.Command(python, "-c", "import boto3").Run() == nil {
			found["boto3"] = program(python, filepath.Join("testdata", "stream.py"))
			break
		}
	}
	if _, err := os.Stat(filepath.Join(cache, "js", "node_modules", "@aws-sdk", "client-lambda")); err == nil {
		found["js"] = program("node", "--no-warnings", filepath.Join("testdata", "stream.mjs"), filepath.Join(cache, "js"))
	}
	if len(found) < 3 {
		t.Logf("not all clients are installed here; scripts/test.sh installs them")
	}
	return found
}

// gates answers the calls of handlers, each when the test has opened its name.
type gates struct {
	*httptest.Server

	mu     sync.Mutex
	opened map[string]chan struct{} // guarded by mu; closed when open
	passed map[string]chan struct{} // guarded by mu; closed when somebody came
}

func newGates(t *testing.T) *gates {
	g := &gates{opened: map[string]chan struct{}{}, passed: map[string]chan struct{}{}}
	g.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		shut(g.named(g.passed, name))
		select {
		case <-g.named(g.opened, name):
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gates) named(of map[string]chan struct{}, name string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if of[name] == nil {
		of[name] = make(chan struct{})
	}
	return of[name]
}

// shut closes what may be closed already; the test's own calls do not overlap.
func shut(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

func (g *gates) open(name string) { shut(g.named(g.opened, name)) }

// streamed is what a caller got.
type streamed struct {
	head, complete streamEvent
	pieces         []string
	refused        string
}

// stream calls the function; each, if not nil, is told of every piece as it comes.
func (f function) stream(with streamer, e event, log string, each func(piece string)) (s streamed) {
	f.t.Helper()
	payload, err := json.Marshal(e)
	if err != nil {
		f.t.Fatal(err)
	}
	with(f.t, f.d, f.name, payload, log, func(e streamEvent) {
		switch {
		case e.Head:
			s.head = e
		case e.Complete:
			s.complete = e
		case e.Refused != "":
			s.refused = e.Refused
		default:
			s.pieces = append(s.pieces, e.Text)
			if each != nil {
				each(e.Text)
			}
		}
	})
	return s
}

// streamFunctions are what the tests of streams call.
type streamFunctions struct{ d *kiln.Daemon }

func newStreamFunctions(t *testing.T, args ...string) streamFunctions {
	t.Helper()
	// Handlers call the test, which is on this machine.
	d := kiln.Start(t, arguments(append([]string{"--any-runtime", "--network", "host"}, args...)...)...)
	code := kiln.Zip(map[string]string{"stream.js": source(t, "stream.js")})
	d.Create("stream", "nodejs22.x", "stream.handler", code, all(timeout(60), memory(512)))
	d.Create("short", "nodejs22.x", "stream.handler", code, all(timeout(3), memory(512)))
	python, golang := anyPython(t), golang(t)
	d.Create("python", python.runtime, python.handler, python.code, all(timeout(60), memory(512)))
	d.Create("go", golang.runtime, golang.handler, golang.code, timeout(60))
	return streamFunctions{d}
}

func (s streamFunctions) named(t *testing.T, name string) function { return function{t, s.d, name} }

// TestStreaming is what callers get of streamed answers, and of others: each client
// sees each piece before the handler goes on to the next.
func TestStreaming(t *testing.T) {
	t.Parallel()
	functions := newStreamFunctions(t)
	large := sha256.Sum256(bytes.Repeat([]byte("0123456789abcdef"), 50<<20/16))
	text := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	const prelude = `{"statusCode":201,"headers":{"a":"b"}}` + "\x00\x00\x00\x00\x00\x00\x00\x00body"
	cases := []struct {
		name, function string
		event          event
		contentType    string
		pieces         []string // nil: any
		size           int
		sha256         string
		code, details  string // part of the details
		log            string // part of the log, which is asked for then
	}{
		{name: "pieces", function: "stream", event: event{"do": "pieces"}, contentType: "text/pieces", pieces: []string{"one", "two", "three"}, size: 11, sha256: text("onetwothree")},
		{name: "log", function: "stream", event: event{"do": "pieces"}, contentType: "text/pieces", size: 11, sha256: text("onetwothree"), log: "\nREPORT RequestId: "},
		{name: "large", function: "stream", event: event{"do": "large", "mb": 50}, contentType: "application/octet-stream", size: 50 << 20, sha256: hex.EncodeToString(large[:])},
		{name: "prelude", function: "stream", event: event{"do": "prelude"}, contentType: "application/vnd.awslambda.http-integration-response", size: len(prelude), sha256: text(prelude)},
		{name: "error before it begins", function: "stream", event: event{"do": "early"}, contentType: "application/octet-stream", sha256: text(""), code: "TypeError", details: `{"errorType":"TypeError","errorMessage":"early","trace":[`},
		{name: "error", function: "stream", event: event{"do": "late"}, contentType: "application/octet-stream", pieces: []string{"one"}, size: 3, sha256: text("one"), code: "TypeError", details: `{"errorType":"TypeError","errorMessage":"llll","trace":[`},
		{name: "long error", function: "stream", event: event{"do": "late", "length": 5000}, contentType: "application/octet-stream", pieces: []string{"one"}, size: 3, sha256: text("one"), code: "TypeError", details: `{"errorType":"TypeError","errorMessage":"llll`},
		{name: "exit", function: "stream", event: event{"do": "exit"}, contentType: "application/octet-stream", pieces: []string{"one"}, size: 3, sha256: text("one"), code: "Runtime.TruncatedResponse", log: "Status: error\tError Type: Runtime.ExitError"},
		{name: "timeout", function: "short", event: event{"do": "timeout"}, contentType: "application/octet-stream", pieces: []string{"one"}, size: 3, sha256: text("one"), code: "Sandbox.Timedout", details: "Task timed out after 3.00 seconds", log: "Status: timeout"},
		{name: "whole answer", function: "python", event: event{"do": "zone"}, contentType: "application/json", pieces: []string{`"00"`}, size: 4, sha256: text(`"00"`)},
		{name: "whole 6 MB", function: "python", event: event{"do": "size", "bytes": 6 << 20}, contentType: "application/json", size: 6<<20 + 2, sha256: text(`"` + strings.Repeat("x", 6<<20) + `"`)},
		{name: "too large", function: "python", event: event{"do": "size", "bytes": 7 << 20}, contentType: "application/json", sha256: text(""), code: "Unhandled", details: `"errorType":"Function.ResponseSizeTooLarge"`},
		{name: "whole error", function: "python", event: event{"do": "fail"}, contentType: "application/json", sha256: text(""), code: "Unhandled", details: `"ValueError"`, log: "boom"},
		{name: "exit instead", function: "python", event: event{"do": "exit", "code": 3}, contentType: "application/json", sha256: text(""), code: "Unhandled", details: `"errorType":"Runtime.ExitError"`},
		{name: "of AWS's client for Go", function: "go", event: event{"do": "pieces"}, contentType: "application/octet-stream", pieces: []string{"one", "two"}, size: 6, sha256: text("onetwo"), code: "errorString", details: `"errorMessage":"boom ü"`},
	}
	for name, client := range streamers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					g, log := newGates(t), "None"
					if c.log != "" {
						log = "Tail"
					}
					event := maps.Clone(c.event) // the clients run at once
					event["gate"] = g.URL
					got := functions.named(t, c.function).stream(client, event, log, g.open)
					if got.head.Status != 200 || got.head.Version != "$LATEST" || got.head.Type != c.contentType {
						t.Errorf("begins with %+v, want the type %s", got.head, c.contentType)
					}
					if c.pieces != nil && !slices.Equal(got.pieces, c.pieces) {
						t.Errorf("pieces %q, want %q", got.pieces, c.pieces)
					}
					if e := got.complete; !e.Complete || e.Size != c.size || e.SHA256 != c.sha256 {
						t.Errorf("%d bytes of digest %s, want %d of %s", e.Size, e.SHA256, c.size, c.sha256)
					}
					if e := got.complete; e.ErrorCode != c.code || !strings.Contains(e.ErrorDetails, c.details) || c.details == "" && e.ErrorDetails != "" {
						t.Errorf("ends with %s %s, want %s %s", e.ErrorCode, e.ErrorDetails, c.code, c.details)
					}
					if tail, err := decode(got.complete.LogResult); err != nil || !strings.Contains(tail, c.log) || c.log == "" && tail != "" {
						t.Errorf("log %q, %v, want %q in it", tail, err, c.log)
					}
				})
			}
			t.Run("refused", func(t *testing.T) {
				if got := functions.named(t, "absent").stream(client, event{}, "None", nil); got.refused != "ResourceNotFoundException" || got.head.Head {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

// TestStreamingOtherwise is a dry run, and callers who want the answer in one piece.
func TestStreamingOtherwise(t *testing.T) {
	t.Parallel()
	functions := newStreamFunctions(t)
	out, err := functions.d.Client().InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{FunctionName: aws.String("stream"), InvocationType: types.ResponseStreamingInvocationTypeDryRun})
	if err != nil || out.StatusCode != 204 {
		t.Errorf("dry run: %+v, %v", out, err)
	} else {
		for e := range out.GetStream().Events() {
			t.Errorf("dry run: %+v", e)
		}
		_ = out.GetStream().Close()
	}
	g := newGates(t)
	for _, name := range []string{"one", "two", "three"} {
		g.open(name)
	}
	for _, c := range []struct {
		function string
		event    event
		failed   string
		payload  string // its beginning
		size     int    // 0: any
	}{
		{"stream", event{"do": "pieces", "gate": g.URL}, "", "onetwothree", 11},
		{"stream", event{"do": "large", "mb": 6}, "", "0123456789", 6 << 20},
		{"stream", event{"do": "large", "mb": 7}, "Unhandled", `{"errorType":"Function.ResponseSizeTooLarge"`, 0},
		{"stream", event{"do": "late", "gate": g.URL}, "Unhandled", `{"errorType":"TypeError","errorMessage":"llll"`, 0},
		{"short", event{"do": "timeout", "gate": g.URL}, "Unhandled", `{"errorType":"Sandbox.Timedout"`, 0},
		{"go", event{"do": "pieces", "gate": g.URL}, "Unhandled", `{"errorMessage":"boom ü","errorType":"errorString"`, 0},
	} {
		r := functions.named(t, c.function).invoke(c.event)
		if r.failed != c.failed || !strings.HasPrefix(r.payload, c.payload) || c.size > 0 && len(r.payload) != c.size {
			t.Errorf("%s %v: got %q %.200s (%d bytes)", c.function, c.event, r.failed, r.payload, len(r.payload))
		}
	}
}

// TestStreamingCallers are slow, or leave. A stream is one of the account's
// invocations until its end.
func TestStreamingCallers(t *testing.T) {
	t.Parallel()
	functions := newStreamFunctions(t, "--concurrency", "1")
	d := functions.d
	begin := func(t *testing.T, name string, e event) *lambda.InvokeWithResponseStreamEventStream {
		t.Helper()
		payload, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		out, err := d.Client().InvokeWithResponseStream(context.Background(), &lambda.InvokeWithResponseStreamInput{FunctionName: &name, Payload: payload})
		if err != nil {
			t.Fatal(err)
		}
		return out.GetStream()
	}
	t.Run("concurrency", func(t *testing.T) {
		g := newGates(t)
		f := functions.named(t, "stream")
		got := f.stream(goStreamer, event{"do": "pieces", "gate": g.URL}, "None", func(piece string) {
			if _, err := f.try(event{}); err == nil || !strings.Contains(err.Error(), "TooManyRequestsException") {
				t.Errorf("within a stream, got %v", err)
			}
			g.open(piece)
		})
		if _, err := functions.named(t, "python").try(event{}); err != nil || got.complete.Size != 11 {
			t.Errorf("after the stream %+v, got %v", got.complete, err)
		}
	})
	t.Run("leaves", func(t *testing.T) {
		g := newGates(t)
		stream := begin(t, "stream", event{"do": "left", "gate": g.URL})
		<-stream.Events()
		_ = stream.Close()
		g.open("one")
		<-g.named(g.passed, "end") // what it wrote meanwhile was taken
		if busy := d.Metric("kiln_environments{", `state="busy"`); busy != 1 {
			t.Errorf("%v environments are busy while the handler runs on", busy)
		}
		g.open("end")
		kiln.Await(t, "the end of the invocation", func() bool { return d.Metric("kiln_environments{", `state="busy"`) == 0 })
		if n := d.Metric("kiln_invocation_errors_total{", `function="stream"`); n != 0 {
			t.Errorf("%v errors", n)
		}
	})
	t.Run("slow", func(t *testing.T) {
		stream := begin(t, "short", event{"do": "large", "mb": 150})
		defer stream.Close()
		<-stream.Events()
		kiln.Await(t, "the timeout", func() bool {
			return d.Metric("kiln_invocation_errors_total{", `function="short"`, `kind="timeout"`) == 1
		})
		size, code := 0, ""
		for e := range stream.Events() {
			switch e := e.(type) {
			case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
				size += len(e.Value.Payload)
			case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
				code = aws.ToString(e.Value.ErrorCode)
			}
		}
		// What the kernel keeps in its sockets had left already.
		if code != "Sandbox.Timedout" || size > 50<<20 {
			t.Errorf("ends with %q after %d bytes more", code, size)
		}
	})
}
