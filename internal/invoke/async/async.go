// Package async carries asynchronous invocations: it accepts events into the durable
// queue, hands them to their functions, fairly over all of them, tries again as AWS
// does, and tells destinations and dead-letter queues of the end. An event is delivered
// at least once, in no promised order. The Lambda API's door calls it, and so will
// whatever else invokes functions without waiting. Running an invocation is the invoke
// package's, sending to other services the destination package's.
package async

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"kiln/internal/invoke"
	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
	"kiln/internal/registry"
	"kiln/internal/state"
	"kiln/internal/telemetry/metrics"
)

// Invoker runs invocations; it is invoke.Service.
type Invoker interface {
	Prepare(ctx context.Context, r invoke.Request) (*lambda.Invocation, error)
	Run(ctx context.Context, inv *lambda.Invocation) (lambda.Result, error)
}

// Functions is what is configured; it is registry.Registry.
type Functions interface {
	Get(arn lambda.FunctionARN) (*lambda.Function, error)
	Owner(arn lambda.FunctionARN) (registry.Owner, error)
	Share(arn lambda.FunctionARN) lambda.Share
}

// Roles says what functions may do with what their role allows.
type Roles interface {
	Authorise(who lambda.Principal, action string, resource lambda.ARN) error
	Acting(fn *lambda.Function) lambda.Principal
}

// Sender is destination.Sender.
type Sender interface {
	Record(ctx context.Context, to lambda.Destination, o destination.Outcome) error
	DeadLetter(ctx context.Context, to lambda.Destination, l destination.Letter) error
}

// Config of a Service.
type Config struct {
	// RetryDelay is from a function error to the next attempt. 0: DefaultRetryDelay.
	RetryDelay time.Duration
	// Deliveries is how many events are delivered at once, of all functions.
	Deliveries int
	// FunctionEvents and FunctionBytes bound what waits for one function,
	// AccountEvents and AccountBytes what waits for all of an account in a region.
	FunctionEvents, FunctionBytes int64
	AccountEvents, AccountBytes   int64
}

// Service is safe for concurrent use.
type Service struct {
	queue     state.Queue
	invoker   Invoker
	functions Functions
	roles     Roles
	sender    Sender
	metrics   *metrics.Recorder
	log       *slog.Logger
	config    Config

	wake chan struct{}  // has room for one: there may be something to take
	work sync.WaitGroup // deliveries, and calls of the queue

	ctx    context.Context // of what deliveries send
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when Run has returned

	mu      sync.Mutex
	lanes   map[lambda.FunctionARN]*lane // guarded by mu; those with events, by the unqualified ARN
	totals  map[lambda.Scope]total       // guarded by mu
	ring    []*lane                      // guarded by mu; those whose turn comes, the next first
	later   schedule                     // guarded by mu; lanes with something to come
	running int                          // guarded by mu; deliveries
	bytes   int64                        // guarded by mu; of those
	takes   int                          // guarded by mu; calls of the queue under way
	stopped bool                         // guarded by mu: nothing more is taken
}

// total is a number of events.
type total struct{ events, bytes int64 }

func (t *total) add(events, bytes int64) { t.events, t.bytes = t.events+events, t.bytes+bytes }

// New returns a service that delivers nothing before Open and Run.
func New(queue state.Queue, invoker Invoker, functions Functions, roles Roles, sender Sender, metrics *metrics.Recorder, log *slog.Logger, config Config) *Service {
	if config.RetryDelay == 0 {
		config.RetryDelay = DefaultRetryDelay
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Service{
		queue: queue, invoker: invoker, functions: functions, roles: roles, sender: sender, metrics: metrics, log: log, config: config,
		wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, ended: make(chan struct{}), lanes: map[lambda.FunctionARN]*lane{}, totals: map[lambda.Scope]total{},
	}
}

// The lanes of the queue: what waits for a function, and what it could not tell anybody.
const (
	lanePrefix   = "async."
	parkedPrefix = "parked."
)

func laneName(prefix string, arn lambda.FunctionARN) string {
	return prefix + string(arn.Account) + "." + string(arn.Region) + "." + string(arn.Name)
}

// laneOwner is laneName the other way round.
func laneOwner(prefix, name string) (lambda.FunctionARN, bool) {
	parts := strings.Split(strings.TrimPrefix(name, prefix), ".")
	if len(parts) != 3 {
		return lambda.FunctionARN{}, false
	}
	return lambda.FunctionARN{Scope: lambda.Scope{Account: lambda.AccountID(parts[0]), Region: lambda.Region(parts[1])}, Name: lambda.FunctionName(parts[2])}, true
}

// Open counts what an earlier process has left. Call it before Accept and Run.
func (s *Service) Open(ctx context.Context) error {
	for _, prefix := range []string{lanePrefix, parkedPrefix} {
		backlogs, err := s.queue.Lanes(ctx, prefix)
		if err != nil {
			return fmt.Errorf("count the events that wait: %w", err)
		}
		for name, b := range backlogs {
			arn, ok := laneOwner(prefix, name)
			if !ok {
				s.log.Warn("events wait for what is no function", "lane", name, "events", b.Due+uint64(len(b.Later)))
				continue
			}
			s.mu.Lock()
			l := s.lane(arn)
			events := int64(b.Due) + int64(len(b.Later))
			s.count(l, events, int64(b.Bytes))
			if prefix == parkedPrefix {
				l.parked.add(events, int64(b.Bytes))
			} else {
				s.waits(l, b)
				s.line(l)
			}
			s.mu.Unlock()
		}
	}
	return nil
}

// Accept returns once the event is on disk. It is delivered later, however that may end.
func (s *Service) Accept(ctx context.Context, r invoke.Request) error {
	if err := s.roles.Authorise(r.Principal, "lambda:InvokeFunction", r.ARN); err != nil {
		return err
	}
	return s.accept(ctx, r)
}

func (s *Service) accept(ctx context.Context, r invoke.Request) error {
	inv, err := s.invoker.Prepare(ctx, r)
	if err != nil {
		return err
	}
	if len(inv.Payload) > lambda.MaxEventPayload {
		return lambda.RequestTooLarge("%d byte payload is too large for the Event invocation type (limit %d bytes)", len(inv.Payload), lambda.MaxEventPayload)
	}
	return s.publish(ctx, &event{ID: inv.ID, Qualifier: inv.ARN.Qualifier, Trace: inv.TraceHeader, ClientContext: inv.ClientContext, payload: inv.Payload}, inv.ARN.Unqualified())
}

// full is the reason, which AWS has none for, of refusing an event for which there is no room.
const full = "EventQueueFull"

// publish puts a new event into a function's lane.
func (s *Service) publish(ctx context.Context, e *event, arn lambda.FunctionARN) error {
	b, err := e.encode()
	if err != nil {
		return err
	}
	size := int64(len(b))
	s.mu.Lock()
	l := s.lane(arn)
	if what := s.over(l, size); what != "" {
		s.tidy(l)
		s.mu.Unlock()
		refusal := lambda.Throttled(full)
		refusal.Message = "Rate Exceeded. " + what
		return refusal
	}
	s.count(l, 1, size)
	l.arriving.add(1, size)
	s.mu.Unlock()
	l.still.RLock()
	defer l.still.RUnlock()
	err = s.queue.Publish(ctx, laneName(lanePrefix, arn), b)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.arriving.add(-1, -size)
	switch {
	case err == nil:
		s.metrics.Function(arn).EventReceived()
		l.due++
		l.misses, l.pause = 0, time.Time{}
		s.line(l)
	case !errors.Is(err, state.ErrUnknown) && (errors.Is(err, state.ErrFull) || errors.Is(err, state.ErrBroken)):
		s.count(l, -1, -size)
		s.tidy(l)
	default:
		s.count(l, -1, -size)
		s.doubt(l, size, comesAgain)
	}
	return err
}

// doubt counts an event of which it is not known whether it is stored, to be looked for
// after a while: in vain costs little, and what nobody looks for stays until the next
// start. s.mu is held.
func (s *Service) doubt(l *lane, size int64, after time.Duration) {
	s.count(l, 1, size)
	s.later.add(l, time.Now().Add(after), 1)
	s.wakeUp()
}

// over says which bound one more event would break. s.mu is held.
func (s *Service) over(l *lane, size int64) string {
	t := s.totals[l.arn.Scope]
	switch {
	case l.all.events+1 > s.config.FunctionEvents:
		return fmt.Sprintf("%d asynchronous events wait for the function, as many as may (async_function_events).", l.all.events)
	case l.all.bytes+size > s.config.FunctionBytes:
		return fmt.Sprintf("Asynchronous events of %d bytes wait for the function, as much as may (async_function_bytes).", l.all.bytes)
	case t.events+1 > s.config.AccountEvents:
		return fmt.Sprintf("%d asynchronous events wait in the account, as many as may (async_account_events).", t.events)
	case t.bytes+size > s.config.AccountBytes:
		return fmt.Sprintf("Asynchronous events of %d bytes wait in the account, as much as may (async_account_bytes).", t.bytes)
	}
	return ""
}

// count adds to what waits for a function, what is running included. s.mu is held.
func (s *Service) count(l *lane, events, bytes int64) {
	before := l.all
	l.all = total{max(0, before.events+events), max(0, before.bytes+bytes)} // what an earlier process left is counted about
	if l.all.events == 0 {
		l.all.bytes = 0
	}
	t := s.totals[l.arn.Scope]
	t.add(l.all.events-before.events, l.all.bytes-before.bytes)
	if t == (total{}) {
		delete(s.totals, l.arn.Scope)
	} else {
		s.totals[l.arn.Scope] = t
	}
}

// errStopping is why a delivery that the end of Kiln has cut off is none.
var errStopping = errors.New("kiln is stopping")
