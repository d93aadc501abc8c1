// Package invoke carries one invocation from accepted to answered: it authorises
// the caller, resolves the function, checks the event, admits it under the
// account's concurrency and has the scheduler run it. The Lambda API's door
// calls it; later, so do function URLs and event sources.
package invoke

import (
	"context"
	"sync"

	"kiln/internal/lambda"
)

// Functions resolves what an ARN runs, and tells what of the account's concurrency is
// whose.
type Functions interface {
	Resolve(ctx context.Context, arn lambda.FunctionARN) (*lambda.Function, error)
	// Reserved is how many invocations the function may run at once, where it reserves
	// any, and how many all functions of its account and region have reserved.
	Reserved(arn lambda.FunctionARN) (own int, reserves bool, all int)
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

// pool is what an invocation is counted in: what its function has reserved, or, without
// a name, what the others of the account and region share.
type pool struct {
	scope lambda.Scope
	name  lambda.FunctionName
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
	TraceHeader   string // "" for a new trace
}

// Invoke runs the function and returns its result. A function error is a result;
// an error means that the function did not run, or that Kiln failed.
func (s *Service) Invoke(ctx context.Context, r Request) (lambda.Result, error) {
	if err := s.access.Authorise(r.Principal, "lambda:InvokeFunction", r.ARN); err != nil {
		return lambda.Result{}, err
	}
	fn, err := s.functions.Resolve(ctx, r.ARN)
	if err != nil {
		return lambda.Result{}, err
	}
	if len(r.Payload) == 0 {
		r.Payload = []byte("{}")
	}
	if err := checkPayload(r.Payload); err != nil {
		return lambda.Result{}, err
	}
	clientContext, err := decodeClientContext(r.ClientContext)
	if err != nil {
		return lambda.Result{}, err
	}
	if r.Type == lambda.DryRun {
		return lambda.Result{ExecutedVersion: fn.Version}, nil
	}
	inv := &lambda.Invocation{
		ID:            r.ID,
		ARN:           r.ARN,
		Payload:       r.Payload,
		ClientContext: clientContext,
		TraceHeader:   r.TraceHeader,
		Tail:          r.Tail,
		Stream:        r.Stream,
	}
	for {
		in, throttled := s.admit(fn.ARN)
		if throttled != nil {
			s.observer.Throttled(fn, throttled.Reason)
			return lambda.Result{}, throttled
		}
		result, err := s.runner.Invoke(ctx, fn, inv, func() { s.leave(in) })
		if err == nil || ctx.Err() != nil {
			return result, err
		}
		// It did not run. Was the function deleted, or its code replaced, before it
		// had an environment? Then that is the answer, or the new code is.
		now, rerr := s.functions.Resolve(ctx, r.ARN)
		if rerr != nil {
			return lambda.Result{}, rerr
		}
		if now.Build == fn.Build {
			return lambda.Result{}, err
		}
		fn = now
	}
}

// admit counts an invocation in the pool that it belongs to now, which it leaves even
// if the function reserves more, or nothing any more, when it ends.
func (s *Service) admit(arn lambda.FunctionARN) (pool, *lambda.Error) {
	own, reserves, all := s.functions.Reserved(arn)
	in, limit, reason := pool{scope: arn.Scope}, s.config.Concurrency-all, "ConcurrentInvocationLimitExceeded"
	if reserves {
		in.name, limit, reason = arn.Name, own, "ReservedFunctionConcurrentInvocationLimitExceeded"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[in] >= limit {
		return in, lambda.Throttled(reason)
	}
	s.running[in]++
	return in, nil
}

func (s *Service) leave(in pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[in]--; s.running[in] == 0 {
		delete(s.running, in)
	}
}
