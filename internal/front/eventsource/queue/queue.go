// Package queue reads SQS queues, standard and FIFO, for event source mappings: it is
// the driver of that kind of source. A message is deleted once its function has handled
// it; whatever comes to nothing is left to the queue, which shows it again when its
// visibility timeout has passed, and knows when that was often enough. The order within
// a FIFO queue's message group is the queue's: it hands out no message of a group while
// another is in flight.
package queue

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"golang.org/x/sync/errgroup"

	"kiln/internal/aws/sdk"
	"kiln/internal/front/eventsource"
	"kiln/internal/invoke"
	"kiln/internal/lambda"
)

// How many batches of a queue are with its function at once, as on AWS.
// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
const (
	firstConcurrency = 5
	growth           = 5 // more each second, while all are used: 300 a minute
	maxConcurrency   = 1250
	leastConcurrency = 2 // after function errors
)

// longPoll is how long the queue waits for a message before it says that there is none.
const longPoll = 20 * time.Second

// Driver is safe for concurrent use.
type Driver struct{}

// New returns the driver.
func New() Driver { return Driver{} }

// poller is that of one mapping.
type poller struct {
	*eventsource.Work
	client     *sqs.Client
	url        string
	visibility time.Duration
	timeout    time.Duration // of the function
	region     string
	group      *errgroup.Group

	mu      sync.Mutex
	workers int       // guarded by mu
	waiting int       // guarded by mu; of those, at the queue
	limit   int       // guarded by mu; of workers, now
	grown   time.Time // guarded by mu
}

// Poll implements eventsource.Driver.
func (d Driver) Poll(ctx context.Context, w *eventsource.Work) error {
	source := w.Mapping.Source.ARN
	of, err := arn.Parse(source)
	if err != nil {
		return err
	}
	config, err := w.Connector.Connect(ctx, "sqs", source)
	if err != nil {
		return err
	}
	p := &poller{Work: w, client: sqs.NewFromConfig(config), region: of.Region, workers: 1, limit: firstConcurrency, grown: time.Now()}
	if err := p.find(ctx, of); err != nil {
		return explain(err)
	}
	// One worker waits at the queue, and there are as many more as have a batch.
	var taking context.Context
	p.group, taking = errgroup.WithContext(ctx)
	p.group.Go(func() error { return p.work(taking) })
	if err := p.group.Wait(); err != nil && ctx.Err() == nil {
		return explain(err)
	}
	return nil
}

// find learns of the queue what has to be known.
func (p *poller) find(ctx context.Context, of arn.ARN) error {
	found, err := p.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &of.Resource, QueueOwnerAWSAccountId: &of.AccountID})
	if err != nil {
		return err
	}
	p.url = *found.QueueUrl
	out, err := p.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &p.url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameVisibilityTimeout}})
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(out.Attributes[string(types.QueueAttributeNameVisibilityTimeout)])
	if err != nil {
		return fmt.Errorf("SQS does not say what the queue's visibility timeout is: %w", err)
	}
	fn, err := p.Function(ctx)
	if err != nil {
		return err
	}
	p.visibility, p.timeout = time.Duration(seconds)*time.Second, fn.Settings.Timeout
	if p.visibility < p.timeout {
		p.Log.Warn("the queue shows messages again while the function may still handle them; set a visibility timeout of at least six times the function's timeout",
			"visibility_timeout", p.visibility, "function_timeout", p.timeout)
	}
	return nil
}

// explain says what a client's error says, without what the SDK says around it.
func explain(err error) error {
	if answer := sdk.Answer(err); answer != nil {
		return fmt.Errorf("SQS answers %s: %s", answer.ErrorCode(), answer.ErrorMessage())
	}
	return sdk.Cause(err, "SQS")
}

// work takes batches and handles them, one after the other.
func (p *poller) work(ctx context.Context) error {
	for {
		b, err := p.collect(ctx)
		if err == nil && len(b.messages) > 0 {
			p.another(ctx)
			err = p.handle(ctx, b)
		}
		if err != nil || ctx.Err() != nil || p.surplus(len(b.messages) == 0) {
			return err
		}
	}
}

// surplus tells a worker whether it is one too many, and counts it out then: it got
// nothing while another waits, or the limit was lowered. The last one never is.
func (p *poller) surplus(nothing bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers > p.limit || nothing && p.waiting > 0 {
		p.workers--
		return true
	}
	return false
}

// another sees to it that somebody waits at the queue while this worker is busy, within
// the limit, which grows while it is in the way.
func (p *poller) another(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := maxConcurrency
	if c := p.Mapping.Settings.MaximumConcurrency; c != nil {
		most = *c
	}
	if now := time.Now(); now.Sub(p.grown) >= time.Second {
		if p.workers >= p.limit {
			p.limit += growth
		}
		p.grown = now
	}
	p.limit = min(p.limit, most)
	if p.waiting > 0 || p.workers >= p.limit {
		return
	}
	p.workers++
	p.group.Go(func() error { return p.work(ctx) })
}

// slow lowers the limit after a function error.
func (p *poller) slow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit, p.grown = max(leastConcurrency, min(p.workers, p.limit)/2), time.Now()
}

// retry is how a poller keeps a batch that its function does not take now, while the
// queue leaves it to it.
const (
	firstRetry = 100 * time.Millisecond
	maxRetry   = 5 * time.Second
)

// fate is what became of a batch at the function.
type fate int

const (
	ran     fate = iota
	kept         // it did not run, and may at once elsewhere
	stopped      // it may not run: the queue decides what comes of it
)

// invoke has the function handle a batch. An error says that the function cannot be
// invoked at all.
func (p *poller) invoke(ctx context.Context, b *batch) (lambda.Result, fate, error) {
	// It must be done with the batch before others see it.
	until := b.received.Add(p.visibility - min(p.timeout, p.visibility/2))
	payload, trace := b.event()
	for pause := firstRetry; ; pause = min(2*pause, maxRetry) {
		result, err := p.Invoke(payload, trace)
		if err == nil {
			return result, ran, nil
		}
		p.Tell("PROBLEM: " + err.Error())
		switch e := lambda.AsError(err); {
		case e != nil && e.Code == invoke.Recursive:
			p.Log.Warn("a batch is left to the queue's redrive policy", "messages", len(b.messages), "error", err)
			return result, stopped, nil
		case e != nil && e.Status < http.StatusInternalServerError && !eventsource.Throttled(err):
			return result, kept, err
		}
		if time.Now().Add(pause).After(until) {
			return result, stopped, nil // others see it soon
		}
		select {
		case <-ctx.Done():
			return result, kept, nil
		case <-time.After(pause):
		}
	}
}
