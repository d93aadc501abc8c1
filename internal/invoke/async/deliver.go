package async

import (
	"context"
	"net/http"
	"time"

	"kiln/internal/invoke"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/state"
)

// deliver runs one event that was taken, or tells of its end, and settles it.
func (s *Service) deliver(l *lane, d state.Delivery) {
	defer s.leave(l, d)
	ctx := context.Background() // however Kiln ends, what came of the event is stored
	e, err := decode(d.Event())
	switch {
	case err != nil:
		s.log.Error("an event in the queue cannot be read and is dropped", "function", l.arn.String(), "error", err)
		s.metrics.Function(l.arn).EventDropped()
		s.drop(ctx, l, d)
	case s.stopping():
		s.handBack(ctx, l, d)
	case e.Ended != nil:
		s.tell(ctx, l, d, e)
	default:
		s.attempt(ctx, l, d, e)
	}
}

// attempt runs the event once, if it may run.
func (s *Service) attempt(ctx context.Context, l *lane, d state.Delivery, e *event) {
	arn := l.arn.Qualified(e.Qualifier)
	config, p := s.policy(arn)
	age := time.Since(d.Accepted())
	if age > p.age {
		s.end(ctx, l, d, e, config, destination.EventAgeExceeded, nil)
		return
	}
	if share := s.functions.Share(arn); share.Reserves && share.Reserved == 0 {
		s.end(ctx, l, d, e, config, destination.ZeroReservedConcurrency, nil)
		return
	}
	s.metrics.Function(l.arn).EventAge(age)
	result, err := s.invoker.Run(s.ctx, &lambda.Invocation{ID: e.ID, ARN: arn, Payload: e.payload, ClientContext: e.ClientContext, TraceHeader: e.Trace})
	defer result.Free()
	a := outcome(result, err)
	if a != succeeded && s.stopping() {
		s.handBack(ctx, l, d) // it was cut off, maybe: that is no attempt
		return
	}
	refusal := lambda.AsError(err)
	switch {
	case refusal != nil && refusal.Status == http.StatusNotFound:
		s.log.Warn("an asynchronous event is dropped: what it is for was deleted", "function", arn.String(), "request", e.ID)
		s.metrics.Function(l.arn).EventDropped()
		s.drop(ctx, l, d)
		return
	case refusal != nil && refusal.Status == http.StatusTooManyRequests:
		s.throttled(l)
	case a == notRun:
		s.log.Warn("an asynchronous event could not run and is tried again", "function", arn.String(), "request", e.ID, "error", err)
	default:
		s.ran(l)
	}
	var answer *response
	switch a {
	case succeeded, failed:
		e.Invoked++
		e.PutOff, e.Error = 0, ""
		e.answer = result.Payload
		answer = &response{StatusCode: http.StatusOK, ExecutedVersion: result.ExecutedVersion, FunctionError: result.FunctionError}
		if a == failed {
			e.fail(destination.ErrorMessage(result.Payload))
		}
	default:
		e.PutOff++
		e.fail(err.Error())
		if refusal != nil {
			answer = &response{StatusCode: refusal.Status, ExecutedVersion: lambda.Latest}
		}
	}
	condition, wait := p.next(e.Invoked, e.PutOff, time.Since(d.Accepted()), a)
	if condition != "" {
		s.end(ctx, l, d, e, config, condition, answer)
		return
	}
	e.answer = nil // the next attempt has one of its own
	s.again(ctx, l, d, e, wait)
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
func (s *Service) end(ctx context.Context, l *lane, d state.Delivery, e *event, config lambda.EventInvokeConfig, c destination.Condition, answer *response) {
	arn := l.arn.Qualified(e.Qualifier)
	e.Ended = &ended{Condition: c, At: time.Now().UTC(), Response: answer, Record: config.OnSuccess}
	if c != destination.Success {
		e.Ended.Record = config.OnFailure
		if fn, err := s.functions.Get(arn); err == nil {
			e.Ended.Letter = lambda.Destination(fn.Settings.DeadLetterTarget)
		}
		s.metrics.Function(l.arn).EventDropped()
		s.log.Info("an asynchronous event came to nothing", "function", arn.String(), "request", e.ID, "condition", c, "invoked", e.Invoked, "error", e.Error)
	}
	s.tell(ctx, l, d, e)
}

// stopping tells whether nothing more is begun.
func (s *Service) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// drop settles an event that is done with.
func (s *Service) drop(ctx context.Context, l *lane, d state.Delivery) {
	if err := d.Ack(ctx); err != nil {
		s.unsettled(l, d, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(l, -1, -int64(len(d.Event())))
}

// again has the queue keep an event for later.
func (s *Service) again(ctx context.Context, l *lane, d state.Delivery, e *event, wait time.Duration) {
	b, err := e.encode()
	if err == nil {
		err = d.Retry(ctx, wait, b)
	}
	if err != nil {
		s.unsettled(l, d, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(l, 0, int64(len(b)-len(d.Event())))
	s.later.add(time.Now().Add(wait), l.arn, 1)
}

// handBack has the queue hand an event out again as it is, to the next Kiln.
func (s *Service) handBack(ctx context.Context, l *lane, d state.Delivery) {
	if err := d.Retry(ctx, 0, nil); err != nil {
		s.unsettled(l, d, err)
	}
}

// comesAgain is after what time the queue hands out an event again that could not be settled.
const comesAgain = 35 * time.Second

func (s *Service) unsettled(l *lane, d state.Delivery, err error) {
	s.log.Error("an event is delivered again, because what became of it could not be stored", "function", l.arn.String(), "attempt", d.Attempt(), "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later.add(time.Now().Add(comesAgain), l.arn, 1)
}
