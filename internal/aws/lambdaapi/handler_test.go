package lambdaapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kiln/internal/aws/lambdaapi"
)

// fake is a Service whose built methods are functions.
type fake struct {
	lambdaapi.Unimplemented
	createFunction func(*lambdaapi.CreateFunctionInput) (*lambdaapi.CreateFunctionOutput, error)
	getFunction    func(*lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error)
	listFunctions  func(*lambdaapi.ListFunctionsInput) (*lambdaapi.ListFunctionsOutput, error)
	invoke         func(*lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error)
	stream         func(*lambdaapi.InvokeWithResponseStreamInput) (*lambdaapi.InvokeWithResponseStreamOutput, error)
	updateMapping  func(*lambdaapi.UpdateEventSourceMappingInput) (*lambdaapi.UpdateEventSourceMappingOutput, error)
}

func (f fake) CreateFunction(_ context.Context, in *lambdaapi.CreateFunctionInput) (*lambdaapi.CreateFunctionOutput, error) {
	return f.createFunction(in)
}
func (f fake) GetFunction(_ context.Context, in *lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error) {
	return f.getFunction(in)
}
func (f fake) ListFunctions(_ context.Context, in *lambdaapi.ListFunctionsInput) (*lambdaapi.ListFunctionsOutput, error) {
	return f.listFunctions(in)
}
func (f fake) Invoke(_ context.Context, in *lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error) {
	return f.invoke(in)
}
func (f fake) InvokeWithResponseStream(_ context.Context, in *lambdaapi.InvokeWithResponseStreamInput) (*lambdaapi.InvokeWithResponseStreamOutput, error) {
	return f.stream(in)
}
func (f fake) UpdateEventSourceMapping(_ context.Context, in *lambdaapi.UpdateEventSourceMappingInput) (*lambdaapi.UpdateEventSourceMappingOutput, error) {
	return f.updateMapping(in)
}
func (fake) DeleteFunction(context.Context, *lambdaapi.DeleteFunctionInput) (*lambdaapi.DeleteFunctionOutput, error) {
	return nil, nil
}

// handler lets everybody in.
func handler(s lambdaapi.Service) *lambdaapi.Handler {
	return &lambdaapi.Handler{
		Open: func(*http.Request, *lambdaapi.Operation, string) (lambdaapi.Call, error) {
			return lambdaapi.Call{Service: s}, nil
		},
		Fault: func(_ *http.Request, _ *lambdaapi.Operation, err error) *lambdaapi.Fault {
			return lambdaapi.NewFault("ServiceException", err.Error())
		},
		Admit: func(context.Context, int64) (func(), error) { return func() {}, nil },
	}
}

func client(t *testing.T, h http.Handler) *lambda.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return lambda.New(lambda.Options{
		Region:           "eu-west-1",
		BaseEndpoint:     &server.URL,
		Credentials:      credentials.NewStaticCredentialsProvider("AKID", "secret", ""),
		RetryMaxAttempts: 1,
		HTTPClient:       server.Client(),
	})
}

func TestCreateFunctionRoundTrip(t *testing.T) {
	t.Parallel()
	zip := bytes.Repeat([]byte{0, 1, 254, 255}, 1000)
	var got *lambdaapi.CreateFunctionInput
	c := client(t, handler(fake{createFunction: func(in *lambdaapi.CreateFunctionInput) (*lambdaapi.CreateFunctionOutput, error) {
		got = in
		return &lambdaapi.FunctionConfiguration{
			FunctionName:     in.FunctionName,
			Architectures:    []string{"x86_64"},
			CodeSize:         new(int64(len(in.Code.ZipFile))),
			Environment:      &lambdaapi.EnvironmentResponse{Variables: in.Environment.Variables},
			EphemeralStorage: &lambdaapi.EphemeralStorage{Size: new(512)},
			LastModified:     lambdaapi.ISO8601(time.Date(2026, 1, 31, 12, 34, 56, 789e6, time.UTC)),
			Layers:           []lambdaapi.Layer{},
			State:            new("Pending"),
		}, nil
	}}))
	out, err := c.CreateFunction(t.Context(), &lambda.CreateFunctionInput{
		FunctionName:  aws.String("f"),
		Role:          aws.String("arn:aws:iam::000000000000:role/r"),
		Runtime:       types.RuntimePython313,
		Handler:       aws.String("a.b"),
		Code:          &types.FunctionCode{ZipFile: zip},
		Environment:   &types.Environment{Variables: map[string]string{"AB": "ü <&> \"\\ \u2028", "CD": ""}},
		Timeout:       aws.Int32(900),
		Publish:       true,
		Architectures: []types.Architecture{types.ArchitectureX8664},
		Tags:          map[string]string{},
		VpcConfig:     &types.VpcConfig{SubnetIds: []string{}, Ipv6AllowedForDualStack: aws.Bool(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &lambdaapi.CreateFunctionInput{
		FunctionName: new("f"), Role: new("arn:aws:iam::000000000000:role/r"), Runtime: new("python3.13"), Handler: new("a.b"),
		Code:        &lambdaapi.FunctionCode{ZipFile: zip},
		Environment: &lambdaapi.Environment{Variables: map[string]string{"AB": "ü <&> \"\\ \u2028", "CD": ""}},
		Timeout:     new(900), Publish: new(true), Architectures: []string{"x86_64"},
		Tags:      map[string]string{},
		VpcConfig: &lambdaapi.VpcConfig{SubnetIds: []string{}, Ipv6AllowedForDualStack: new(true)},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("input:", d)
	}
	if aws.ToString(out.FunctionName) != "f" || out.CodeSize != 4000 || aws.ToString(out.LastModified) != "2026-01-31T12:34:56.789+0000" ||
		out.State != types.StatePending || *out.EphemeralStorage.Size != 512 || out.Layers == nil || out.FileSystemConfigs != nil {
		t.Errorf("output: %+v", out)
	}
	if d := cmp.Diff(got.Environment.Variables, out.Environment.Variables); d != "" {
		t.Error("variables:", d)
	}
}

func TestPathAndQuery(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:lambda:eu-west-1:000000000000:function:f"
	c := client(t, handler(fake{
		getFunction: func(in *lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error) {
			return &lambdaapi.GetFunctionOutput{
				Configuration: &lambdaapi.FunctionConfiguration{FunctionArn: in.FunctionName, Version: in.Qualifier},
				Code:          &lambdaapi.FunctionCodeLocation{Location: new("http://localhost/a?b=c&d=<e>")},
				Tags:          map[string]string{"k": "v"},
				Concurrency:   &lambdaapi.Concurrency{ReservedConcurrentExecutions: new(0)},
			}, nil
		},
		listFunctions: func(in *lambdaapi.ListFunctionsInput) (*lambdaapi.ListFunctionsOutput, error) {
			if lambdaapi.Value(in.MaxItems) != 7 || lambdaapi.Value(in.Marker) != "a/b+c =" || in.FunctionVersion != nil {
				return nil, fmt.Errorf("input: %+v", in)
			}
			return &lambdaapi.ListFunctionsOutput{Functions: []lambdaapi.FunctionConfiguration{{FunctionName: new("a")}, {FunctionName: new("b")}}, NextMarker: new("m")}, nil
		},
	}))
	got, err := c.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String(arn), Qualifier: aws.String("$LATEST")})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(got.Configuration.FunctionArn) != arn || aws.ToString(got.Configuration.Version) != "$LATEST" ||
		aws.ToString(got.Code.Location) != "http://localhost/a?b=c&d=<e>" || got.Tags["k"] != "v" || *got.Concurrency.ReservedConcurrentExecutions != 0 {
		t.Errorf("got %+v", got)
	}
	list, err := c.ListFunctions(t.Context(), &lambda.ListFunctionsInput{MaxItems: aws.Int32(7), Marker: aws.String("a/b+c =")})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Functions) != 2 || aws.ToString(list.NextMarker) != "m" {
		t.Errorf("got %+v", list)
	}
	if out, err := c.DeleteFunction(t.Context(), &lambda.DeleteFunctionInput{FunctionName: aws.String("f")}); err != nil || out.StatusCode != 204 {
		t.Errorf("delete: %+v, %v", out, err)
	}
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	var got *lambdaapi.InvokeInput
	c := client(t, handler(fake{invoke: func(in *lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error) {
		got = in
		return &lambdaapi.InvokeOutput{
			StatusCode: new(200), Payload: []byte(`{"a":1}`), ExecutedVersion: new("3"),
			FunctionError: new("Unhandled"), LogResult: new("bG9n"), DurableExecutionArn: new("arn"),
		}, nil
	}}))
	payload := []byte(" {\"event\": \"\u2603\"}\n")
	out, err := c.Invoke(t.Context(), &lambda.InvokeInput{
		FunctionName: aws.String("f"), Qualifier: aws.String("live"), Payload: payload,
		InvocationType: types.InvocationTypeRequestResponse, LogType: types.LogTypeTail,
		ClientContext: aws.String("e30="), TenantId: aws.String("t 1"), DurableExecutionName: aws.String("d"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &lambdaapi.InvokeInput{
		FunctionName: new("f"), Qualifier: new("live"), Payload: payload, InvocationType: new("RequestResponse"),
		LogType: new("Tail"), ClientContext: new("e30="), TenantId: new("t 1"), DurableExecutionName: new("d"),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("input:", d)
	}
	if out.StatusCode != 200 || string(out.Payload) != `{"a":1}` || aws.ToString(out.ExecutedVersion) != "3" || aws.ToString(out.FunctionError) != "Unhandled" ||
		aws.ToString(out.LogResult) != "bG9n" || aws.ToString(out.DurableExecutionArn) != "arn" {
		t.Errorf("output: %+v", out)
	}
}

func TestInvokeWithResponseStream(t *testing.T) {
	t.Parallel()
	c := client(t, handler(fake{stream: func(in *lambdaapi.InvokeWithResponseStreamInput) (*lambdaapi.InvokeWithResponseStreamOutput, error) {
		return &lambdaapi.InvokeWithResponseStreamOutput{
			ExecutedVersion: new("$LATEST"), ResponseStreamContentType: new("text/plain"),
			EventStream: func(s *lambdaapi.EventStream) error {
				for _, chunk := range []string{"hello ", string(in.Payload)} {
					if err := s.PayloadChunk([]byte(chunk)); err != nil {
						return err
					}
				}
				return s.InvokeComplete(lambdaapi.InvokeWithResponseStreamCompleteEvent{ErrorCode: new("Function.X"), LogResult: new("bG9n")})
			},
		}, nil
	}}))
	out, err := c.InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{FunctionName: aws.String("f"), Payload: []byte(`1`)})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(out.ExecutedVersion) != "$LATEST" {
		t.Errorf("output: %+v", out)
	}
	stream := out.GetStream()
	defer stream.Close()
	var answer []byte
	var complete types.InvokeWithResponseStreamCompleteEvent
	for e := range stream.Events() {
		switch e := e.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			answer = append(answer, e.Value.Payload...)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			complete = e.Value
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if string(answer) != "hello 1" || aws.ToString(complete.ErrorCode) != "Function.X" || aws.ToString(complete.LogResult) != "bG9n" || complete.ErrorDetails != nil {
		t.Errorf("got %q and %+v", answer, complete)
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 12, 34, 56, 789e6, time.UTC)
	c := client(t, handler(fake{updateMapping: func(in *lambdaapi.UpdateEventSourceMappingInput) (*lambdaapi.UpdateEventSourceMappingOutput, error) {
		return &lambdaapi.EventSourceMappingConfiguration{UUID: in.UUID, LastModified: &lambdaapi.Epoch{Time: at}}, nil
	}}))
	out, err := c.UpdateEventSourceMapping(t.Context(), &lambda.UpdateEventSourceMappingInput{UUID: aws.String("u")})
	if err != nil {
		t.Fatal(err)
	}
	if !out.LastModified.Equal(at) {
		t.Errorf("got %v, want %v", out.LastModified, at)
	}
}

func TestTypedErrors(t *testing.T) {
	t.Parallel()
	fault := func(f *lambdaapi.Fault) error {
		c := client(t, handler(fake{getFunction: func(*lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error) {
			return nil, fmt.Errorf("look up: %w", f)
		}}))
		_, err := c.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String("f")})
		return err
	}
	if e := as[*types.ResourceNotFoundException](t, fault(lambdaapi.NewFault("ResourceNotFoundException", "Function not found: x"))); aws.ToString(e.Message) != "Function not found: x" || aws.ToString(e.Type) != "User" {
		t.Errorf("got %+v", e)
	}
	if e := as[*types.ResourceConflictException](t, fault(lambdaapi.NewFault("ResourceConflictException", "busy"))); aws.ToString(e.Message) != "busy" || aws.ToString(e.Type) != "User" {
		t.Errorf("got %+v", e)
	}
	if e := as[*types.ServiceException](t, fault(lambdaapi.NewFault("ServiceException", "oh"))); aws.ToString(e.Message) != "oh" || aws.ToString(e.Type) != "Service" {
		t.Errorf("got %+v", e)
	}
	throttled := lambdaapi.NewFault("TooManyRequestsException", "Rate Exceeded.")
	throttled.Reason, throttled.RetryAfter = "ConcurrentInvocationLimitExceeded", 2
	if e := as[*types.TooManyRequestsException](t, fault(throttled)); e.Reason != types.ThrottleReasonConcurrentInvocationLimitExceeded || aws.ToString(e.RetryAfterSeconds) != "2" || aws.ToString(e.Message) != "Rate Exceeded." {
		t.Errorf("got %+v", e)
	}
}

func as[E error](t *testing.T, err error) E {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a %T", err, e)
	}
	return e
}

// do sends one request and returns its answer.
func do(t *testing.T, h http.Handler, method, target, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestHooks(t *testing.T) {
	t.Parallel()
	const target = "/2015-03-31/functions/f/invocations"
	var opened, admitted, released atomic.Int64
	var id string
	h := handler(fake{invoke: func(*lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error) {
		if admitted.Load() != 3 || released.Load() != 0 {
			return nil, errors.New("not within Admit")
		}
		return &lambdaapi.InvokeOutput{Payload: []byte("1")}, nil
	}})
	open := h.Open
	header := http.Header{}
	var verified []byte
	h.Open = func(r *http.Request, op *lambdaapi.Operation, requestID string) (lambdaapi.Call, error) {
		opened.Add(1)
		id = requestID
		call, err := open(r, op, requestID)
		call.Header = header
		header.Set("X-Amzn-Trace-Id", "root=1")
		call.Verify = func(b []byte) error {
			verified = b
			return nil
		}
		return call, err
	}
	h.Admit = func(_ context.Context, n int64) (func(), error) {
		admitted.Add(n)
		return func() { released.Add(n) }, nil
	}
	res, body := do(t, h, "POST", target, "123", nil)
	if body != "1" || res.StatusCode != 200 || res.Header.Get("X-Amzn-Requestid") != id || res.Header.Get("X-Amzn-Trace-Id") != "root=1" {
		t.Errorf("got %s %s %v", res.Status, body, res.Header)
	}
	if admitted.Load() != 3 || released.Load() != 3 || string(verified) != "123" || opened.Load() != 1 {
		t.Errorf("opened %d, admitted %d, released %d, verified %q", opened.Load(), admitted.Load(), released.Load(), verified)
	}

	for name, refuse := range map[string]func(*lambdaapi.Handler){
		"open": func(h *lambdaapi.Handler) {
			h.Open = func(*http.Request, *lambdaapi.Operation, string) (lambdaapi.Call, error) {
				return lambdaapi.Call{}, errors.New("no")
			}
		},
		"verify": func(h *lambdaapi.Handler) {
			h.Open = func(*http.Request, *lambdaapi.Operation, string) (lambdaapi.Call, error) {
				return lambdaapi.Call{Verify: func([]byte) error { return errors.New("no") }}, nil
			}
		},
		"admit": func(h *lambdaapi.Handler) {
			h.Admit = func(context.Context, int64) (func(), error) { return nil, errors.New("no") }
		},
	} {
		h := handler(nil) // would panic if it were called
		h.Fault = func(_ *http.Request, op *lambdaapi.Operation, err error) *lambdaapi.Fault {
			return lambdaapi.NewFault("AccessDeniedException", op.Name+": "+err.Error())
		}
		refuse(h)
		if res, body := do(t, h, "POST", target, "123", nil); res.StatusCode != 403 || body != `{"Message":"Invoke: no"}` {
			t.Errorf("%s: got %s %s", name, res.Status, body)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	t.Parallel()
	h := handler(fake{invoke: func(in *lambdaapi.InvokeInput) (*lambdaapi.InvokeOutput, error) {
		return &lambdaapi.InvokeOutput{Payload: fmt.Append(nil, len(in.Payload))}, nil
	}})
	const invoke = "/2015-03-31/functions/f/invocations"
	event := http.Header{"X-Amz-Invocation-Type": {"Event"}}
	for _, c := range []struct {
		name, method, target string
		size                 int
		header               http.Header
		status               int
		want                 string
	}{
		{"invoke at its limit", "POST", invoke, 6291456, nil, 200, "6291456"},
		{"invoke", "POST", invoke, 6291457, nil, 413, `{"Type":"User","message":"Request must be smaller than 6291456 bytes for the InvokeFunction operation"}`},
		{"event", "POST", invoke, 1048577, event, 413, `{"Type":"User","message":"Request must be smaller than 1048576 bytes for the InvokeFunction operation"}`},
		{"create", "POST", "/2015-03-31/functions", 70167212, nil, 413, `{"Message":"Request must be smaller than 70167211 bytes for the CreateFunction operation"}`},
		{"layer", "POST", "/2018-10-31/layers/l/versions", 70167212, nil, 413, `{"Message":"Request must be smaller than 70167211 bytes for the PublishLayerVersion operation"}`},
		{"other", "PUT", "/2015-03-31/functions/f/configuration", 1<<20 + 1, nil, 413, `{"Message":"Request must be smaller than 1048576 bytes for the UpdateFunctionConfiguration operation"}`},
	} {
		body := strings.Repeat(" ", c.size)
		if res, got := do(t, h, c.method, c.target, body, c.header); res.StatusCode != c.status || got != c.want {
			t.Errorf("%s: got %s %s", c.name, res.Status, got)
		}
		// The same without a length known beforehand.
		r := httptest.NewRequest(c.method, c.target, io.MultiReader(strings.NewReader(body)))
		r.Header = c.header
		r.ContentLength = -1
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || w.Body.String() != c.want {
			t.Errorf("%s, chunked: got %d %s", c.name, w.Code, w.Body)
		}
	}
}

// A refused body must not cost the client the answer. This client, as many do,
// reads nothing before it has written everything.
func TestLargeBodyGetsItsAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(handler(nil)) // would panic if it were called
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size = 11 << 20
	fmt.Fprintf(conn, "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 413 || !strings.Contains(string(body), "Request must be smaller than 6291456 bytes for the InvokeFunction operation") {
		t.Errorf("got %s %s", res.Status, body)
	}
}

func TestShortBody(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(handler(nil)) // would panic if it were called
	defer server.Close()
	for name, request := range map[string]string{
		"length":  "Content-Length: 10\r\n\r\n{}",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
	} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: x\r\n%s", request)
		conn.(*net.TCPConn).CloseWrite()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		conn.Close()
		if res.StatusCode != 400 || res.Header.Get("X-Amzn-Errortype") != "InvalidRequestContentException" || !strings.Contains(string(body), "The request body") {
			t.Errorf("%s: got %s %s", name, res.Status, body)
		}
	}
}

func TestAbsentAndEmpty(t *testing.T) {
	t.Parallel()
	h := handler(fake{getFunction: func(*lambdaapi.GetFunctionInput) (*lambdaapi.GetFunctionOutput, error) {
		return &lambdaapi.GetFunctionOutput{Configuration: &lambdaapi.FunctionConfiguration{
			Description: new(""), Layers: []lambdaapi.Layer{}, CodeSize: new(int64(0)),
			VpcConfig: &lambdaapi.VpcConfigResponse{SubnetIds: []string{}, VpcId: new(""), Ipv6AllowedForDualStack: new(false)},
		}}, nil
	}})
	res, body := do(t, h, "GET", "/2015-03-31/functions/f/", "", nil)
	want := `{"Configuration":{"CodeSize":0,"Description":"","VpcConfig":{"SubnetIds":[],"VpcId":"","Ipv6AllowedForDualStack":false},"Layers":[]}}`
	if body != want || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %s", body)
	}
}

func TestInputsAndOutputsAgreeWithJSON(t *testing.T) {
	t.Parallel()
	// The reader that is generated and the tags for encoding/json were made from
	// the same model and must understand each other.
	in := &lambdaapi.CreateFunctionInput{
		FunctionName: new("f"), Role: new("arn:aws:iam::000000000000:role/r"),
		Code:          &lambdaapi.FunctionCode{ZipFile: []byte{1, 2, 3}},
		LoggingConfig: &lambdaapi.LoggingConfig{LogFormat: new("JSON")}, FileSystemConfigs: []lambdaapi.FileSystemConfig{},
		Environment: &lambdaapi.Environment{Variables: map[string]string{"KEY": "v"}},
	}
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var got *lambdaapi.CreateFunctionInput
	h := handler(fake{createFunction: func(in *lambdaapi.CreateFunctionInput) (*lambdaapi.CreateFunctionOutput, error) {
		got = in
		return nil, nil
	}})
	if res, body := do(t, h, "POST", "/2015-03-31/functions", string(body), nil); res.StatusCode != 201 || body != "{}" {
		t.Fatalf("got %s %s", res.Status, body)
	}
	if d := cmp.Diff(in, got, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}
