// Package invoke carries one invocation from accepted to answered: it authorises
// the caller, resolves the function, checks the event, admits it under the
// account's concurrency and has the scheduler run it. The Lambda API's door
// calls it; later, so do function URLs and event sources.
package invoke

import (
	"cmp"
	"context"
	"net/http"
	"sync"

	"kiln/internal/lambda"
)

// Functions resolves what an ARN runs, and tells what of the account's concurrency is
// whose.
type Functions interface {
	Resolve(ctx context.Context, arn lambda.FunctionARN) (*lambda.Function, error)
	Share(arn lambda.FunctionARN) lambda.Share
	// Loops tells whether the function may be invoked in a loop.
	Loops(arn lambda.FunctionARN) bool
}

// Runner runs an invocation in some environment. It calls over once, when the
// answer is complete or will not come: after Invoke returned, if ctx ended first or
// the answer is a stream.
type Runner interface {
	Invoke(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation, over func()) (lambda.Result, error)
}

// Access says who may do what.
type Access interface {
	Authorise(who lambda.Principal, action string, resource lambda.ARN) error
}

// Observer is told of invocations that were not run.
type Observer interface {
	Throttled(fn *lambda.Function, reason string)
	Recursive(fn *lambda.Function)
}

// Config of a Service.
type Config struct {
	// Concurrency is how many invocations of one account run at once in a region.
	Concurrency int
}

// Service is safe for concurrent use.
type Service struct {
	functions Functions
	runner    Runner
	access    Access
	observer  Observer
	config    Config

	mu      sync.Mutex
	running map[pool]int // guarded by mu
}

// New returns a Service.
func New(functions Functions, runner Runner, access Access, observer Observer, config Config) *Service {
	return &Service{functions: functions, runner: runner, access: access, observer: observer, config: config, running: map[pool]int{}}
}

// Request is an invocation as its caller asked for it.
type Request struct {
	Principal     lambda.Principal
	ID            lambda.RequestID
	ARN           lambda.FunctionARN
	Type          lambda.InvocationType
	Payload       []byte // owned by the service from here on
	Tail          bool
	Stream        bool   // take the answer as it comes
	ClientContext string // base64, or ""
	TraceHeader   string
}

// Invoke runs the function and returns its result. A function error is a result;
// an error means that the function did not run, or that Kiln failed.
func (s *Service) Invoke(ctx context.Context, r Request) (lambda.Result, error) {
	if err := s.access.Authorise(r.Principal, "lambda:InvokeFunction", r.ARN); err != nil {
		return lambda.Result{}, err
	}
	fn, inv, err := s.prepare(ctx, r)
	if err != nil {
		return lambda.Result{}, err
	}
	if r.Type == lambda.DryRun {
		return lambda.Result{ExecutedVersion: fn.Version}, nil
	}
	return s.run(ctx, fn, inv)
}

// Prepare checks all of an invocation but who asks for it, and returns what Run runs,
// now or later.
func (s *Service) Prepare(ctx context.Context, r Request) (*lambda.Invocation, error) {
	_, inv, err := s.prepare(ctx, r)
	return inv, err
}

// Run is Invoke for what Prepare has returned.
func (s *Service) Run(ctx context.Context, inv *lambda.Invocation) (lambda.Result, error) {
	fn, err := s.functions.Resolve(ctx, inv.ARN)
	if err != nil {
		return lambda.Result{}, err
	}
	return s.run(ctx, fn, inv)
}

func (s *Service) prepare(ctx context.Context, r Request) (*lambda.Function, *lambda.Invocation, error) {
	fn, err := s.functions.Resolve(ctx, r.ARN)
	if err != nil {
		return nil, nil, err
	}
	if len(r.Payload) == 0 {
		r.Payload = []byte("{}")
	}
	if err := checkPayload(r.Payload); err != nil {
		return nil, nil, err
	}
	clientContext, err := decodeClientContext(r.ClientContext)
	if err != nil {
		return nil, nil, err
	}
	return fn, &lambda.Invocation{
		ID:            r.ID,
		ARN:           r.ARN,
		Payload:       r.Payload,
		ClientContext: clientContext,
		TraceHeader:   extend(r.TraceHeader, r.ARN),
		Tail:          r.Tail,
		Stream:        r.Stream,
	}, nil
}

func (s *Service) run(ctx context.Context, fn *lambda.Function, inv *lambda.Invocation) (lambda.Result, error) {
	if loops(inv.TraceHeader, inv.ARN) >= maxLoops && !s.functions.Loops(inv.ARN) {
		s.observer.Recursive(fn)
		return lambda.Result{}, recursive()
	}
	for {
		leave, throttled := s.admit(inv.ARN)
		if throttled != nil {
			s.observer.Throttled(fn, throttled.Reason)
			return lambda.Result{}, throttled
		}
		result, err := s.runner.Invoke(ctx, fn, inv, leave)
		if e := lambda.AsError(err); e != nil && e.Status == http.StatusTooManyRequests {
			s.observer.Throttled(fn, cmp.Or(e.Reason, noMemory))
			return result, err
		}
		if err == nil || ctx.Err() != nil {
			return result, err
		}
		// It did not run. Was the function deleted, or its code replaced, before it
		// had an environment? Then that is the answer, or the new code is.
		now, rerr := s.functions.Resolve(ctx, inv.ARN)
		if rerr != nil {
			return lambda.Result{}, rerr
		}
		if now.Build == fn.Build {
			return lambda.Result{}, err
		}
		fn = now
	}
}

// noMemory is the reason, which AWS has none for, of throttling an invocation for
// whose environment there is no memory.
const noMemory = "NoMemory"
