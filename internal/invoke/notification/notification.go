// Package notification tells functions, queues and topics of what becomes of the objects
// in buckets: it keeps who is to be told of what, and writes S3's events. Whoever changes
// an object says so before, and what came of it after: an Intent. One that a crash has
// left open is settled by a look at the object, so that an event may come twice, and
// none is lost.
//
// It changes no objects, and runs no function: the door front/s3 does the one, and
// invoke/async, whose queue the events go into, has the other done.
package notification

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"kiln/internal/invoke"
	"kiln/internal/lambda"
	"kiln/internal/state"
	"kiln/internal/state/table"
)

const (
	// kind and intents begin the keys of records.
	kind    = "notification"
	intents = "s3intent"
	// lanePrefix begins the lanes of the queue in which events for queues and topics wait.
	lanePrefix = "notification."
	// maxOpen bounds the intents that are open at once; above it, changes are refused.
	maxOpen = 10_000
	// again is how long after a failure is tried again what could not be done.
	again = 2 * time.Second
	// maxAgain is the longest such pause of an event for a queue or topic.
	maxAgain = 5 * time.Minute
	// maxAge is how long an event for a queue or topic is kept trying, about as on AWS.
	maxAge = 24 * time.Hour
	// lookTimeout bounds a look at an object.
	lookTimeout = 20 * time.Second
	// maxSends is how many events are sent to queues and topics at once.
	maxSends = 16
)

// principal is in whose name functions are called.
const principal = "s3.amazonaws.com"

// Events takes events for functions; it is async.Service.
type Events interface {
	Accept(ctx context.Context, r invoke.Request) error
}

// Functions tells which there are; it is registry.Registry.
type Functions interface {
	Get(arn lambda.FunctionARN) (*lambda.Function, error)
}

// Access says who may do what; it is front.Access.
type Access interface {
	Authorise(who lambda.Principal, action string, resource lambda.ARN) error
}

// Sender sends to queues and topics; it is destination.Sender.
type Sender interface {
	Notify(ctx context.Context, to lambda.Destination, message string) error
}

// Objects has the objects; it is objects.Store.
type Objects interface {
	Do(scope lambda.Scope, r *http.Request) (*http.Response, error)
}

// Service is safe for concurrent use.
type Service struct {
	state     state.State
	queue     state.Queue
	buckets   *table.Table[Bucket]
	events    Events
	functions Functions
	access    Access
	sender    Sender
	objects   Objects
	log       *slog.Logger
	wake      chan struct{} // has room for one: something waits for Run

	mu    sync.Mutex
	last  int64              // guarded by mu; the last sequencer
	open  int                // guarded by mu; intents
	late  map[string]*Intent // guarded by mu; those to be settled, or told, by Run
	lanes map[string]bool    // guarded by mu; those with something to send
}

// Bucket is who is told of a bucket's objects.
type Bucket struct {
	Name    string
	Targets []Target
}

// New returns a Service that knows nothing before Open.
func New(st state.State, queue state.Queue, events Events, functions Functions, access Access, sender Sender, objects Objects, log *slog.Logger) *Service {
	return &Service{
		state: st, queue: queue, buckets: table.New[Bucket](st, kind), events: events, functions: functions, access: access, sender: sender, objects: objects, log: log,
		wake: make(chan struct{}, 1), late: map[string]*Intent{}, lanes: map[string]bool{},
	}
}

// Open loads what is kept, and settles what a crash has left. Call it before any object
// is changed.
func (s *Service) Open(ctx context.Context) error {
	if err := s.buckets.Open(ctx); err != nil {
		return err
	}
	lanes, err := s.queue.Lanes(ctx, lanePrefix)
	if err != nil {
		return fmt.Errorf("count the events for queues and topics: %w", err)
	}
	for lane := range lanes {
		s.lanes[lane] = true
	}
	return s.reopen(ctx)
}

// id is a bucket's in a key, which has no dots in its parts.
func id(bucket string) string { return strings.ReplaceAll(bucket, ".", "$") }

// Targets are who is told of the objects of a bucket.
func (s *Service) Targets(scope lambda.Scope, bucket string) []Target {
	if b := s.buckets.Get(scope, id(bucket)); b != nil {
		return b.Targets
	}
	return nil
}

// Configure replaces who is told of the objects of a bucket. Unless it is not wanted,
// it is made sure that each can be: that S3 may call the function, and that a queue or
// topic takes the test event. Its errors are *Invalid where the configuration is to blame.
func (s *Service) Configure(ctx context.Context, scope lambda.Scope, bucket string, r Request, targets []Target, validate bool) error {
	if err := check(scope, targets); err != nil {
		return err
	}
	for _, t := range targets {
		if !validate {
			break
		}
		if err := s.reach(ctx, scope, bucket, r, t); err != nil {
			return err
		}
	}
	_, err := s.buckets.Change(ctx, scope, id(bucket), func(*Bucket) (*Bucket, error) {
		if len(targets) == 0 {
			return nil, nil
		}
		return &Bucket{bucket, targets}, nil
	})
	return err
}

// reach makes sure that a target can be told.
func (s *Service) reach(ctx context.Context, scope lambda.Scope, bucket string, r Request, t Target) error {
	if lambda.Destination(t.ARN).Service() != "lambda" {
		if err := s.sender.Notify(ctx, lambda.Destination(t.ARN), string(testMessage(bucket, r))); err != nil {
			return unreachable(t.ARN, err.Error())
		}
		return nil
	}
	arn, err := lambda.ParseFunctionARN(t.ARN)
	if err == nil {
		_, err = s.functions.Get(arn)
	}
	if err == nil {
		err = s.access.Authorise(s.caller(scope, bucket), "lambda:InvokeFunction", arn)
	}
	if err != nil {
		return unreachable(t.ARN, fmt.Sprintf("Not authorized to invoke function [%s]: %v", t.ARN, err))
	}
	return nil
}

// caller is S3 on behalf of a bucket.
func (s *Service) caller(scope lambda.Scope, bucket string) lambda.Principal {
	return lambda.Principal{Service: principal, SourceARN: bucketARN(bucket), SourceAccount: scope.Account}
}

// Run settles what could not be settled at once, and sends to queues and topics, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	for {
		s.settleLate(ctx)
		s.send(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-time.After(again):
		}
	}
}

func (s *Service) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sequencer orders the events of an object.
func (s *Service) sequencer() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last+1, time.Now().UnixNano())
	return fmt.Sprintf("00%016X", s.last)
}

// tell queues the event of an object for all who want it. What fails for good is logged.
func (s *Service) tell(ctx context.Context, scope lambda.Scope, bucket string, r Request, o Object) error {
	var problems []error
	for _, t := range s.Targets(scope, bucket) {
		if t.wants(o.Event, o.Key) {
			problems = append(problems, s.tellOne(ctx, scope, bucket, r, o, t))
		}
	}
	return errors.Join(problems...)
}

func (s *Service) tellOne(ctx context.Context, scope lambda.Scope, bucket string, r Request, o Object, t Target) error {
	text := message(scope, bucket, r, o, t, s.sequencer())
	if lambda.Destination(t.ARN).Service() != "lambda" {
		return s.post(ctx, scope, t, text)
	}
	arn, err := lambda.ParseFunctionARN(t.ARN)
	if err != nil {
		return nil // it was parsed when it was configured
	}
	return s.drop(s.events.Accept(ctx, invoke.Request{
		Principal: s.caller(scope, bucket), ID: lambda.NewRequestID(), ARN: arn, Type: lambda.Event, Payload: text, TraceHeader: invoke.Trace(r.Trace, r.Time),
	}), bucket, t)
}

// drop makes nothing of an error that will not pass: the function is gone, or S3 may no
// longer call it. AWS drops such events as well.
func (s *Service) drop(err error, bucket string, t Target) error {
	if e := lambda.AsError(err); e != nil && e.Status < http.StatusInternalServerError && e.Status != http.StatusTooManyRequests {
		s.log.Warn("an event of a bucket was dropped", "bucket", bucket, "target", t.ARN, "error", err)
		return nil
	}
	return err
}
