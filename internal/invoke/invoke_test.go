package invoke_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var arn = lambda.FunctionARN{Scope: lambda.Scope{Account: "123456789012", Region: "us-east-1"}, Name: "f"}

// engine is what lies below the service, and who may call it.
type engine struct {
	resolve func() (*lambda.Function, error)
	invoke  func(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error)
	denied  error
	mayLoop bool

	mu        sync.Mutex
	recursive int                         // guarded by mu
	throttled []string                    // guarded by mu; reasons
	reserved  map[lambda.FunctionName]int // guarded by mu
	provides  map[lambda.FunctionARN]int  // guarded by mu; provisioned concurrency
}

func (e *engine) Resolve(context.Context, lambda.FunctionARN) (*lambda.Function, error) {
	if e.resolve == nil {
		return &lambda.Function{ARN: arn, Version: lambda.Latest, Build: "1"}, nil
	}
	return e.resolve()
}

func (e *engine) Share(arn lambda.FunctionARN) (share lambda.Share) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.reserved {
		share.Claimed += n
	}
	for owner, n := range e.provides {
		if _, reserves := e.reserved[owner.Name]; !reserves {
			share.Claimed += n
		}
		if owner.Name == arn.Name {
			share.Function += n
		}
	}
	share.Provisioned = e.provides[arn]
	share.Reserved, share.Reserves = e.reserved[arn.Name]
	return share
}

func (e *engine) Invoke(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
	return e.invoke(ctx, fn, inv, over)
}

func (e *engine) Authorise(lambda.Principal, string, lambda.ARN) error { return e.denied }

func (e *engine) Loops(lambda.FunctionARN) bool { return e.mayLoop }

func (e *engine) Recursive(*lambda.Function) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recursive++
}

func (e *engine) Throttled(_ *lambda.Function, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.throttled = append(e.throttled, reason)
}

func (e *engine) service(concurrency int) *invoke.Service {
	return invoke.New(e, e, e, e, invoke.Config{Concurrency: concurrency})
}

func echo(_ context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
	over()
	return lambda.Result{Payload: inv.Payload, ExecutedVersion: fn.Version}, nil
}

func TestPayload(t *testing.T) {
	t.Parallel()
	s := (&engine{invoke: echo}).service(1)
	for _, c := range []struct{ payload, answer, problem string }{
		{"", "{}", ""},
		{"null", "null", ""},
		{` {"a": 1.10} `, ` {"a": 1.10} `, ""}, // passed on as it is
		{`"\ud800"`, `"\ud800"`, ""},
		{"{", "", "line: 1, column: "},
		{"{\"a\":\n\n  x}", "", "line: 3, column: 3]"},
		{"{} {}", "", "line: 1, column: "},
		{"\ufeff{}", "", "Could not parse request body into json"},
		{"{'a':1}", "", "line: 1, column: 2]"},
		{"\"\n\x87\"", "", "Invalid UTF-8 start byte 0x87\n at [Source: REDACTED; line: 2, column: 1]"},
		{"\x00", "", "Could not parse request body into json"},
	} {
		result, err := s.Invoke(t.Context(), invoke.Request{ARN: arn, Payload: []byte(c.payload)})
		if c.problem == "" {
			if err != nil || string(result.Payload) != c.answer {
				t.Errorf("%q: %q, %v", c.payload, result.Payload, err)
			}
			continue
		}
		e := lambda.AsError(err)
		if e == nil || e.Code != "InvalidRequestContentException" || e.Status != 400 || !strings.Contains(e.Message, c.problem) {
			t.Errorf("%q: %v, want %q in it", c.payload, err, c.problem)
		}
		if strings.Contains(err.Error(), `\"a\"`) {
			t.Errorf("the message tells of the payload: %v", err)
		}
	}
}

func TestClientContext(t *testing.T) {
	t.Parallel()
	var got string
	e := &engine{invoke: func(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
		got = inv.ClientContext
		return echo(ctx, fn, inv, over)
	}}
	s := e.service(1)
	encode := base64.StdEncoding.EncodeToString
	for _, c := range []struct{ given, want, problem string }{
		{"", "", ""},
		{encode([]byte("{\"custom\":\n{\"a\":\t1}}")), `{"custom":{"a":1}}`, ""}, // it travels in a header
		{encode([]byte(`{"a":"\r\n"}`)), `{"a":"\r\n"}`, ""},
		{"not base64!", "", "valid Base64"},
		{encode([]byte("{")), "", "valid Base64"},
		{encode([]byte(`"` + strings.Repeat("x", 3000) + `"`)), "", "no more than 3583 bytes"},
	} {
		_, err := s.Invoke(t.Context(), invoke.Request{ARN: arn, ClientContext: c.given})
		if c.problem == "" && (err != nil || got != c.want) {
			t.Errorf("%q: %q, %v", c.given, got, err)
		}
		if e := lambda.AsError(err); c.problem != "" && (e == nil || e.Code != "InvalidRequestContentException" || !strings.Contains(e.Message, c.problem)) {
			t.Errorf("%.40q: %v, want %q in it", c.given, err, c.problem)
		}
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	ran := false
	e := &engine{invoke: func(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
		ran = true
		return echo(ctx, fn, inv, over)
	}}
	s := e.service(1)
	if result, err := s.Invoke(t.Context(), invoke.Request{ARN: arn, Type: lambda.DryRun}); err != nil || result.ExecutedVersion != lambda.Latest || ran {
		t.Errorf("a dry run: %+v, %v, ran %v", result, err, ran)
	}
	if _, err := s.Invoke(t.Context(), invoke.Request{ARN: arn, Type: lambda.DryRun, Payload: []byte("{")}); lambda.AsError(err) == nil {
		t.Error("a dry run takes what is not JSON")
	}
	e.resolve = func() (*lambda.Function, error) { return nil, lambda.NotFound("no f") }
	if _, err := s.Invoke(t.Context(), invoke.Request{ARN: arn, Payload: []byte("{")}); lambda.AsError(err).Code != "ResourceNotFoundException" {
		t.Errorf("no function and no JSON: %v", err)
	}
	e.denied = lambda.AccessDenied("no")
	if _, err := s.Invoke(t.Context(), invoke.Request{ARN: arn}); lambda.AsError(err).Code != "AccessDeniedException" {
		t.Errorf("no right and no function: %v", err)
	}
	if ran {
		t.Error("a refused invocation ran")
	}
}

// Exactly as many run as may, whatever their callers do, and each account and
// region has a count of its own.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	const limit, callers = 5, 50
	var mu sync.Mutex
	running, most := 0, 0
	release := make(chan struct{})
	var ended sync.WaitGroup
	e := &engine{invoke: func(ctx context.Context, _ *lambda.Function, _ *lambda.Invocation, over func()) (lambda.Result, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		ended.Go(func() { // it runs on when its caller leaves
			<-release
			mu.Lock()
			running--
			mu.Unlock()
			over()
		})
		select {
		case <-release:
			return lambda.Result{}, nil
		case <-ctx.Done():
			return lambda.Result{}, context.Cause(ctx)
		}
	}}
	s := e.service(limit)
	ctx, leave := context.WithCancel(t.Context())
	outcomes := make(chan error, callers)
	call := func() { _, err := s.Invoke(ctx, invoke.Request{ARN: arn}); outcomes <- err }
	var callersLeft sync.WaitGroup
	for range callers {
		callersLeft.Go(call)
	}
	throttled := func(n int) {
		t.Helper()
		for range n {
			err := lambda.AsError(<-outcomes)
			if err == nil || err.Code != "TooManyRequestsException" || err.Reason != "ConcurrentInvocationLimitExceeded" || err.Status != 429 {
				t.Errorf("an invocation too many: %v", err)
			}
		}
	}
	throttled(callers - limit)
	leave() // the callers are gone, their invocations are not
	callersLeft.Wait()
	for range limit {
		if err := <-outcomes; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	ctx = t.Context()
	call()
	throttled(1)
	other := arn
	other.Region = "eu-west-1"
	e.resolve = func() (*lambda.Function, error) { return &lambda.Function{ARN: other}, nil }
	close(release)
	if _, err := s.Invoke(t.Context(), invoke.Request{ARN: other}); err != nil {
		t.Errorf("another region: %v", err)
	}
	ended.Wait()
	e.resolve = nil
	if _, err := s.Invoke(t.Context(), invoke.Request{ARN: arn}); err != nil {
		t.Errorf("after all ended: %v", err)
	}
	ended.Wait()
	if most > limit+1 { // and the one of the other region
		t.Errorf("%d ran at once, the limit is %d", most, limit)
	}
	if len(e.throttled) != callers-limit+1 {
		t.Errorf("%d throttles were told, want %d", len(e.throttled), callers-limit+1)
	}
}

// A function that reserves concurrency has that much, and no more; the others share
// what is left.
func TestReservedConcurrency(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	started := make(chan struct{})
	e := &engine{invoke: func(_ context.Context, _ *lambda.Function, _ *lambda.Invocation, over func()) (lambda.Result, error) {
		defer over()
		started <- struct{}{}
		<-release
		return lambda.Result{}, nil
	}}
	reserve := func(reserved map[lambda.FunctionName]int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.reserved = reserved
	}
	s := invoke.New(byName{e}, e, e, e, invoke.Config{Concurrency: 5})
	var running sync.WaitGroup
	begin := func(name lambda.FunctionName) {
		running.Go(func() {
			if _, err := s.Invoke(t.Context(), invoke.Request{ARN: lambda.FunctionARN{Scope: arn.Scope, Name: name}}); err != nil {
				t.Error(err)
			}
		})
		<-started
	}
	throttled := func(name lambda.FunctionName, reason string) {
		t.Helper()
		_, err := s.Invoke(t.Context(), invoke.Request{ARN: lambda.FunctionARN{Scope: arn.Scope, Name: name}})
		if e := lambda.AsError(err); e == nil || e.Reason != reason || e.Message != "Rate Exceeded." {
			t.Errorf("%s: %v, want %s", name, err, reason)
		}
	}
	const own, shared = "ReservedFunctionConcurrentInvocationLimitExceeded", "ConcurrentInvocationLimitExceeded"
	reserve(map[lambda.FunctionName]int{"two": 2, "stopped": 0})
	for range 3 {
		begin("any")
	}
	throttled("any", shared)
	throttled("other", shared)
	throttled("stopped", own)
	begin("two")
	begin("two")
	throttled("two", own)
	// What runs when it begins or ceases to reserve runs on, and counts.
	reserve(map[lambda.FunctionName]int{"any": 4})
	throttled("two", shared)
	reserve(map[lambda.FunctionName]int{"any": 1})
	throttled("any", own)
	close(release)
	running.Wait()
	reserve(nil)
	release, started = make(chan struct{}), make(chan struct{})
	for range 5 { // nothing is left of any pool
		begin("two")
	}
	throttled("two", shared)
	close(release)
	running.Wait()
}

// byName resolves every name.
type byName struct{ *engine }

func (byName) Resolve(_ context.Context, arn lambda.FunctionARN) (*lambda.Function, error) {
	return &lambda.Function{ARN: arn, Version: lambda.Latest, Build: "1"}, nil
}

// A function that is changed or deleted while an invocation waits for an
// environment: the code that it waited for is gone.
func TestChangedWhileWaiting(t *testing.T) {
	t.Parallel()
	broken := errors.New("no such package")
	build := "1"
	e := &engine{}
	e.resolve = func() (*lambda.Function, error) {
		if build == "" {
			return nil, lambda.NotFound("Function not found: %s", arn)
		}
		return &lambda.Function{ARN: arn, Build: build, Version: lambda.Latest}, nil
	}
	change := "2"
	e.invoke = func(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error) {
		if fn.Build != build || change != build {
			build = change
			over()
			return lambda.Result{}, broken
		}
		return echo(ctx, fn, inv, over)
	}
	s := e.service(1)
	if result, err := s.Invoke(t.Context(), invoke.Request{ARN: arn, Payload: []byte("1")}); err != nil || string(result.Payload) != "1" {
		t.Errorf("changed: %+v, %v", result, err)
	}
	change = ""
	if _, err := s.Invoke(t.Context(), invoke.Request{ARN: arn}); lambda.AsError(err) == nil || lambda.AsError(err).Code != "ResourceNotFoundException" {
		t.Errorf("deleted: %v", err)
	}
	build, change = "3", "3"
	e.invoke = func(_ context.Context, _ *lambda.Function, _ *lambda.Invocation, over func()) (lambda.Result, error) {
		over()
		return lambda.Result{}, broken
	}
	if _, err := s.Invoke(t.Context(), invoke.Request{ARN: arn}); !errors.Is(err, broken) {
		t.Errorf("unchanged: %v", err)
	}
}
