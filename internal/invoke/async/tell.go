package async

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kiln/internal/invoke"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

// maxTelling is for how long it is tried to tell of an end: as long as AWS keeps an event.
const maxTelling = 6 * time.Hour

// tell sends what became of an event to whoever is to know. What cannot be sent is tried
// again later and, when that has no end or no sense, parked until somebody redrives it.
func (s *Service) tell(ctx context.Context, h *handed, e *event) {
	var problems []error
	hopeless := false
	try := func(to *lambda.Destination, send func() error, failed func()) {
		if *to == "" {
			return
		}
		err := send()
		switch {
		case err == nil:
			*to = ""
			return
		case s.ctx.Err() == nil:
			failed()
		}
		hopeless = hopeless || final(err)
		problems = append(problems, err)
	}
	counts := s.metrics.Function(h.lane.arn)
	try(&e.Ended.Record, func() error { return s.record(s.ctx, h.lane.arn, e) }, counts.DestinationFailed)
	try(&e.Ended.Letter, func() error { return s.letter(s.ctx, h.lane.arn, e) }, counts.DeadLetterFailed)
	if len(problems) == 0 {
		s.drop(ctx, h)
		return
	}
	err := errors.Join(problems...)
	e.Ended.Tries++
	s.fail(h, e, err.Error())
	if s.ctx.Err() != nil {
		s.again(ctx, h, e, minPutOff)
		return
	}
	if hopeless || min(time.Since(e.Ended.At), time.Since(e.Ended.Anew)) > maxTelling {
		s.park(ctx, h, e, err)
		return
	}
	wait := backOff(e.Ended.Tries)
	s.log.Warn("the end of an asynchronous invocation could not be told and will be", "function", h.lane.arn.Qualified(e.Qualifier).String(), "request", e.ID, "again_in", wait, "error", err)
	s.again(ctx, h, e, wait)
}

// denied is the refusal of a function's own role.
type denied struct{ error }

func (d denied) Unwrap() error { return d.error }

// final tells whether trying again cannot help.
func final(err error) bool {
	var d denied
	refusal := lambda.AsError(err)
	return errors.As(err, &d) || destination.Permanent(err) || refusal != nil && refusal.Status < 500 && refusal.Status != 429
}

// record sends the record of an event's end to its destination.
func (s *Service) record(ctx context.Context, arn lambda.FunctionARN, e *event) error {
	o, to := e.outcome(arn), e.Ended.Record
	if err := s.may(to, o); err != nil {
		return err
	}
	if to.Service() != "lambda" {
		return s.sender.Record(ctx, to, o)
	}
	function, err := lambda.ParseFunctionARN(string(to))
	if err == nil {
		err = s.accept(ctx, invoke.Request{ID: lambda.NewRequestID(), ARN: function, Payload: o.Record(), TraceHeader: e.Trace})
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}

// letter sends an event that came to nothing to its dead-letter queue.
func (s *Service) letter(ctx context.Context, arn lambda.FunctionARN, e *event) error {
	if err := s.may(e.Ended.Letter, e.outcome(arn)); err != nil {
		return err
	}
	return s.sender.DeadLetter(ctx, e.Ended.Letter, e.letter())
}

// may asks whether the function's role allows it to send something there. The role of a
// function that is gone, or that nobody made here, is not asked.
func (s *Service) may(to lambda.Destination, o destination.Outcome) error {
	action, on := destination.Permission(to, o)
	fn, err := s.functions.Get(o.Function)
	if err != nil || on == nil {
		return nil
	}
	if err := s.roles.Authorise(s.roles.Acting(fn), action, on); err != nil {
		return denied{fmt.Errorf("send to %s: %w", to, err)}
	}
	return nil
}

// park puts an event aside for which nothing more can be done without somebody's help.
func (s *Service) park(ctx context.Context, h *handed, e *event, cause error) {
	arn := h.lane.arn.Qualified(e.Qualifier).String()
	s.mu.Lock()
	room := h.lane.parked.events < maxParked
	s.mu.Unlock()
	if !room {
		s.log.Error("the end of an asynchronous invocation is lost: it cannot be told, and too many are kept already (kiln queue redrive or purge makes room)", "function", arn, "request", e.ID, "condition", e.Ended.Condition, "error", cause)
		s.drop(ctx, h)
		return
	}
	e.Accepted = new(h.accepted)
	wait := backOff(e.Ended.Tries)
	var again []byte // it could not be parked
	s.settle(h, true, func() error {
		b, err := e.encode()
		if err == nil {
			err = s.queue.Publish(ctx, laneName(parkedPrefix, h.lane.arn), b)
		}
		if err != nil {
			s.log.Error("the end of an asynchronous invocation can neither be told nor parked now, and will be tried again", "function", arn, "request", e.ID, "again_in", wait, "error", errors.Join(cause, err))
			again, err = s.retry(ctx, h, e, wait)
			return err
		}
		s.log.Error("the end of an asynchronous invocation cannot be told; mend the cause, then run kiln queue redrive", "function", arn, "request", e.ID, "condition", e.Ended.Condition, "error", cause)
		s.mu.Lock()
		h.lane.parked.add(1, int64(len(b)))
		s.count(h.lane, 1, int64(len(b)))
		s.mu.Unlock()
		return h.Ack(ctx)
	}, func(l *lane) {
		if again != nil {
			s.putOff(h, again, wait)
		} else {
			s.count(l, -1, -h.size())
		}
	})
	if again != nil {
		s.recountParked(ctx, h.lane) // it may be parked all the same
	}
}

// recountParked asks the queue what of a lane is parked. Nothing is counted meanwhile.
func (s *Service) recountParked(ctx context.Context, l *lane) {
	l.still.Lock()
	defer l.still.Unlock()
	backlog, err := s.queue.Backlog(ctx, laneName(parkedPrefix, l.arn))
	if err != nil {
		return // the next start counts it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if events := int64(backlog.Due) + int64(len(backlog.Later)); events != l.parked.events {
		s.count(l, events-l.parked.events, int64(backlog.Bytes)-l.parked.bytes)
		l.parked = total{events, int64(backlog.Bytes)}
	}
}

// maxParked bounds the events of one function that are parked, but for those that are
// parked at the same moment.
const maxParked = 10_000
