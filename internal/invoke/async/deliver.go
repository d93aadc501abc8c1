package async

import (
	"context"
	"net/http"
	"time"

	"kiln/internal/invoke"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

// deliver runs one event that was taken, or tells of its end, and settles it.
func (s *Service) deliver(h *handed) {
	defer s.leave(h)
	ctx := context.Background() // however Kiln ends, what came of the event is stored
	e, err := decode(h.Event())
	if err == nil {
		s.mu.Lock()
		h.id, h.accepted = e.ID, e.accepted(h.Accepted())
		if e.Accepted != nil || h.Attempt() > 1 {
			h.lane.aged.remove(h.accepted)
		}
		s.mu.Unlock()
	}
	switch {
	case err != nil:
		s.log.Error("an event in the queue cannot be read and is dropped", "function", h.lane.arn.String(), "error", err)
		s.metrics.Function(h.lane.arn).EventDropped()
		s.drop(ctx, h)
	case s.stopping():
		s.handBack(ctx, h)
	case e.Ended != nil:
		s.tell(ctx, h, e)
	default:
		s.attempt(ctx, h, e)
	}
}

// attempt runs the event once, if it may run.
func (s *Service) attempt(ctx context.Context, h *handed, e *event) {
	arn := h.lane.arn.Qualified(e.Qualifier)
	config, p := s.policy(arn)
	age := time.Since(h.Accepted())
	if age > p.age {
		s.end(ctx, h, e, config, destination.EventAgeExceeded, nil)
		return
	}
	if share := s.functions.Share(arn); share.Reserves && share.Reserved == 0 {
		s.end(ctx, h, e, config, destination.ZeroReservedConcurrency, nil)
		return
	}
	s.metrics.Function(h.lane.arn).EventAge(age)
	result, err := s.invoker.Run(s.ctx, &lambda.Invocation{ID: e.ID, ARN: arn, Payload: e.payload, ClientContext: e.ClientContext, TraceHeader: e.Trace})
	defer result.Free()
	a := outcome(result, err)
	if a != succeeded && s.stopping() {
		s.handBack(ctx, h) // it was cut off, maybe: that is no attempt
		return
	}
	refusal := lambda.AsError(err)
	switch {
	case refusal != nil && refusal.Status == http.StatusNotFound:
		s.log.Warn("an asynchronous event is dropped: what it is for was deleted", "function", arn.String(), "request", e.ID)
		s.metrics.Function(h.lane.arn).EventDropped()
		s.drop(ctx, h)
		return
	case refusal != nil && refusal.Status == http.StatusTooManyRequests:
		s.throttled(h.lane)
	case a == notRun:
		s.log.Warn("an asynchronous event could not run and is tried again", "function", arn.String(), "request", e.ID, "error", err)
	default:
		s.ran(h.lane)
	}
	var answer *response
	switch a {
	case succeeded, failed:
		e.Invoked++
		e.PutOff, e.Error = 0, ""
		e.answer = result.Payload
		answer = &response{StatusCode: http.StatusOK, ExecutedVersion: result.ExecutedVersion, FunctionError: result.FunctionError}
		if a == failed {
			s.fail(h, e, destination.ErrorMessage(result.Payload))
		}
	default:
		e.PutOff++
		s.fail(h, e, err.Error())
		if refusal != nil {
			answer = &response{StatusCode: refusal.Status, ExecutedVersion: lambda.Latest}
		}
	}
	condition, wait := p.next(e.Invoked, e.PutOff, time.Since(h.Accepted()), a)
	if condition != "" {
		s.end(ctx, h, e, config, condition, answer)
		return
	}
	e.answer = nil // the next attempt has one of its own
	s.again(ctx, h, e, wait)
}

// outcome says what came of an invocation.
func outcome(result lambda.Result, err error) attempt {
	refusal := lambda.AsError(err)
	switch {
	case refusal != nil && refusal.Code == invoke.Recursive:
		return looping
	case err != nil:
		return notRun
	case result.FunctionError != "":
		return failed
	}
	return succeeded
}

// policy is what holds for events by the ARN's qualifier now.
func (s *Service) policy(arn lambda.FunctionARN) (lambda.EventInvokeConfig, policy) {
	p := policy{retries: DefaultRetries, age: DefaultAge, delay: s.config.RetryDelay}
	if arn.Qualifier == "" {
		arn.Qualifier = lambda.Latest
	}
	owner, err := s.functions.Owner(arn)
	if err != nil || owner.Attached.EventInvoke == nil {
		return lambda.EventInvokeConfig{}, p
	}
	config := *owner.Attached.EventInvoke
	if config.MaximumRetryAttempts != nil {
		p.retries = *config.MaximumRetryAttempts
	}
	if config.MaximumEventAge != nil {
		p.age = time.Duration(*config.MaximumEventAge) * time.Second
	}
	return config, p
}

// end is the end of an event's attempts. Whoever is to be told is told at once, or later.
func (s *Service) end(ctx context.Context, h *handed, e *event, config lambda.EventInvokeConfig, c destination.Condition, answer *response) {
	arn := h.lane.arn.Qualified(e.Qualifier)
	e.Ended = &ended{Condition: c, At: time.Now().UTC(), Response: answer}
	e.Ended.Record, e.Ended.Letter = s.targets(arn, config, c)
	if c != destination.Success {
		s.metrics.Function(h.lane.arn).EventDropped()
		s.log.Info("an asynchronous event came to nothing", "function", arn.String(), "request", e.ID, "condition", c, "invoked", e.Invoked, "error", e.Error)
	}
	s.tell(ctx, h, e)
}

// targets are who is to be told of an end.
func (s *Service) targets(arn lambda.FunctionARN, config lambda.EventInvokeConfig, c destination.Condition) (record, letter lambda.Destination) {
	if c == destination.Success {
		return config.OnSuccess, ""
	}
	if fn, err := s.functions.Get(arn); err == nil {
		letter = lambda.Destination(fn.Settings.DeadLetterTarget)
	}
	return config.OnFailure, letter
}

// fail remembers an error of an event, and of its function.
func (s *Service) fail(h *handed, e *event, says string) {
	e.fail(says)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.lane.problem = e.Error
}

// stopping tells whether nothing more is begun.
func (s *Service) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// settle has the queue do something with an event that was handed out; then counts it.
// Of one that was dropped meanwhile by Purge, nothing comes back.
func (s *Service) settle(h *handed, keeps bool, do func() error, counted func(l *lane)) {
	l := h.lane
	l.still.RLock()
	defer l.still.RUnlock()
	s.mu.Lock()
	purged := h.purges != l.purges
	s.mu.Unlock()
	if purged && keeps {
		s.log.Info("an asynchronous event was purged while it ran, and is not kept for later", "function", l.arn.String(), "request", h.id)
		do = func() error { return h.Ack(context.Background()) }
		counted = func(l *lane) { s.count(l, -1, -h.size()) }
	}
	err := do()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(l.out, h)
	if err == nil {
		counted(l)
		return
	}
	s.log.Error("an event is delivered again, because what became of it could not be stored", "function", l.arn.String(), "attempt", h.Attempt(), "error", err)
	s.later.add(l, time.Now().Add(comesAgain), 1)
	l.aged.add(h.accepted)
}

// comesAgain is after what time the queue hands out an event again that could not be settled.
const comesAgain = 35 * time.Second

// drop settles an event that is done with.
func (s *Service) drop(ctx context.Context, h *handed) {
	s.settle(h, false, func() error { return h.Ack(ctx) }, func(l *lane) { s.count(l, -1, -h.size()) })
}

// again has the queue keep an event for later.
func (s *Service) again(ctx context.Context, h *handed, e *event, wait time.Duration) {
	var b []byte
	s.settle(h, true, func() (err error) { b, err = s.retry(ctx, h, e, wait); return err }, func(*lane) { s.putOff(h, b, wait) })
}

// retry has the queue hand an event out again, as it is now.
func (s *Service) retry(ctx context.Context, h *handed, e *event, wait time.Duration) ([]byte, error) {
	b, err := e.encode()
	if err != nil {
		s.log.Error("an event is tried again as it was before", "function", h.lane.arn.String(), "request", e.ID, "error", err)
		b = h.Event()
	}
	if err = h.Retry(ctx, wait, b); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.doubt(h.lane, int64(len(b)), wait) // it may be there twice
	}
	return b, err
}

// putOff counts what retry did. s.mu is held.
func (s *Service) putOff(h *handed, b []byte, wait time.Duration) {
	s.count(h.lane, 0, int64(len(b))-h.size())
	s.later.add(h.lane, time.Now().Add(wait), 1)
	h.lane.aged.add(h.accepted)
}

// handBack has the queue hand an event out again as it is, to the next Kiln.
func (s *Service) handBack(ctx context.Context, h *handed) {
	s.settle(h, false, func() error { return h.Retry(ctx, 0, nil) }, func(*lane) {})
}
