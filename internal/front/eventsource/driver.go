// Package eventsource has functions called with what queues and streams have for
// them: it runs one poller for each event source mapping that is enabled, with the
// driver of its kind of source, as long as this node holds the mapping's lease. The
// drivers are its folders: queue (SQS), stream (Kinesis, DynamoDB Streams). The daemon
// builds it, and tells it of every change of a mapping; it keeps no mapping itself.
package eventsource

import (
	"context"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"kiln/internal/invoke/destination"
	"kiln/internal/lambda"
)

// Driver reads sources of some kinds.
//
// Poll reads the source of one mapping and has the function invoked with what it finds,
// until ctx ends: then it takes no more, finishes what it has in hand, and returns. It
// returns earlier with what keeps it from reading, and is called again after a pause
// that grows: so it forgets nothing that matters but what it wrote to Work.Positions.
// Poll is called concurrently for different mappings, never twice for one. When it
// returns, nothing that it started runs any more.
type Driver interface {
	Poll(ctx context.Context, w *Work) error
}

// Invoker runs functions for their owners' mappings.
type Invoker interface {
	// Invoke waits for the function's answer. A function error is a result; an error means
	// that the function did not run: it was throttled (a *lambda.Error with status 429), is
	// gone, or Kiln failed or ends. The trace is an X-Amzn-Trace-Id, or "".
	Invoke(ctx context.Context, function lambda.FunctionARN, payload []byte, trace string) (lambda.Result, error)
	// Function returns what the ARN runs now.
	Function(ctx context.Context, function lambda.FunctionARN) (*lambda.Function, error)
}

// Matcher decides which records a function gets.
type Matcher interface {
	// Match reports whether the JSON text of a record, in the form that filters see, is wanted.
	Match(record []byte) bool
}

// Connector finds services.
type Connector interface {
	// Connect returns what a client of the service is made with (sqs, kinesis,
	// dynamodbstreams), for the source of that ARN: its endpoint, its region, credentials.
	// The error says what to configure.
	Connect(ctx context.Context, service, source string) (aws.Config, error)
}

// Positions is what a driver remembers of a mapping, by the name of a shard or partition.
type Positions interface {
	// Get returns what was saved last, or nil.
	Get(shard string) []byte
	// Save returns once the value is on disk. It fails when another node has the mapping
	// now: then the driver ends. nil forgets the shard.
	Save(ctx context.Context, shard string, value []byte) error
	// Shards returns the names for which there is something.
	Shards() []string
}

// Counter counts the events of a mapping, by the names of CloudWatch's metrics.
type Counter interface {
	Polled(n int)      // PolledEventCount
	FilteredOut(n int) // FilteredOutEventCount
	Invoked(n int)     // InvokedEventCount
	Failed(n int)      // FailedInvokeEventCount
	Deleted(n int)     // DeletedEventCount
	Dropped(n int)     // DroppedEventCount
	Delivered(n int)   // OnFailureDestinationDeliveredEventCount
	// IteratorAge is the age of the last record of a batch that was read from a stream.
	IteratorAge(age time.Duration)
	// DestinationFailed counts a record that its destination did not take: DestinationDeliveryFailures.
	DestinationFailed()
}

// Failure is a batch that is given up, for its on-failure destination.
type Failure = destination.Batch

// Work is one mapping as it is now: a change of it ends the Poll, and begins another.
type Work struct {
	Mapping   *lambda.EventSourceMapping
	Filter    Matcher // nil wants everything
	Connector Connector
	Positions Positions
	Counter   Counter
	Log       *slog.Logger

	invoke  func(payload []byte, trace string) (lambda.Result, error)
	resolve func(ctx context.Context) (*lambda.Function, error)
	discard func(ctx context.Context, f Failure) error
	tell    func(result string)
}

// Invoke has the function called, and waits for its answer, beyond the end of Poll's
// context: an invocation that has begun is finished. It fails as Invoker.Invoke does.
// Whoever gets a result frees it.
func (w *Work) Invoke(payload []byte, trace string) (lambda.Result, error) {
	return w.invoke(payload, trace)
}

// Function is what the mapping is for, as it is now.
func (w *Work) Function(ctx context.Context) (*lambda.Function, error) { return w.resolve(ctx) }

// Discard sends a batch that is given up to the mapping's on-failure destination, which
// it must have. It tries again for a while; an error means that it is not there.
func (w *Work) Discard(ctx context.Context, f Failure) error { return w.discard(ctx, f) }

// Tell says how things are, as the mapping's LastProcessingResult: OK, No records
// processed, or PROBLEM: and what.
func (w *Work) Tell(result string) { w.tell(result) }

// The results that are told most.
const (
	ResultOK     = "OK"
	ResultNone   = "No records processed"
	ResultFailed = "PROBLEM: Function call failed"
)
