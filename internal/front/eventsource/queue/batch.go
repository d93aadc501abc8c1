package queue

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"kiln/internal/front/eventsource"
	"kiln/internal/lambda"
)

const (
	// atOnce is how many messages SQS hands out, or deletes, in one request.
	atOnce = 10
	// leastPoll is how long an empty answer to a long poll takes at least: a queue that
	// does not wait is not asked more often.
	leastPoll = time.Second
	// settleTimeout bounds deleting, and deletions is how often that is tried. What is not
	// deleted is handed out again.
	settleTimeout = 30 * time.Second
	deletions     = 3
)

// message is one that was received, as the function gets it.
type message struct {
	types.Message
	record []byte // JSON
}

// batch is what one invocation gets.
type batch struct {
	messages []message
	size     int       // bytes of the event
	received time.Time // the first of them
}

// add takes a message if there is room for it.
func (b *batch) add(m message) bool {
	size := b.size + len(m.record) + len(",")
	if len(b.messages) > 0 && size > lambda.MaxRequestPayload-len(eventHead)-len(eventTail) {
		return false
	}
	b.messages, b.size = append(b.messages, m), size
	return true
}

// collect waits at the queue for a batch: what is there, or what comes while the
// batching window is open. A batch without messages is none; what is in a batch is
// handled, whether ctx has ended or not.
func (p *poller) collect(ctx context.Context) (*batch, error) {
	p.mu.Lock()
	p.waiting++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.waiting--
		p.mu.Unlock()
	}()
	s := &p.Mapping.Settings
	window := time.Duration(*s.BatchingWindow) * time.Second
	b := &batch{}
	wait := longPoll
	for {
		asked := time.Now()
		got, err := p.receive(ctx, min(atOnce, *s.BatchSize-len(b.messages)), wait)
		if err != nil {
			if ctx.Err() != nil || len(b.messages) > 0 {
				err = nil // it shows again, with the next batch
			}
			return b, err
		}
		wanted, err := p.sift(ctx, got)
		if err != nil {
			return b, err
		}
		if len(b.messages) == 0 {
			b.received = asked
		}
		for i, m := range wanted {
			if !b.add(m) {
				p.giveBack(ctx, wanted[i:])
				return b, nil
			}
		}
		switch left := window - time.Since(b.received); {
		case len(b.messages) == 0:
			wait = longPoll
			if len(got) > 0 {
				continue
			}
			if early := leastPoll - time.Since(asked); early > 0 {
				pause(ctx, early)
			}
			return b, nil
		case window == 0 || left <= 0 || len(b.messages) == *s.BatchSize || ctx.Err() != nil:
			return b, nil
		default:
			wait = min(longPoll, left.Round(time.Second))
			if len(got) == 0 && wait < time.Second {
				pause(ctx, left)
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// receive takes up to n messages from the queue, or waits for one.
func (p *poller) receive(ctx context.Context, n int, wait time.Duration) ([]types.Message, error) {
	out, err := p.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &p.url, MaxNumberOfMessages: int32(n), WaitTimeSeconds: int32(wait / time.Second),
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		AttributeNames:              []types.QueueAttributeName{types.QueueAttributeNameAll}, //lint:ignore SA1019 its older name, which some servers alone know
	})
	if err != nil {
		return nil, err
	}
	p.Counter.Polled(len(out.Messages))
	return out.Messages, nil
}

// sift deletes the messages that the function does not want, and returns the others.
func (p *poller) sift(ctx context.Context, got []types.Message) (wanted []message, err error) {
	var unwanted []message
	for _, m := range got {
		record, seen, err := p.record(&m, p.Filter != nil)
		if err != nil {
			return nil, err
		}
		if p.Filter == nil || p.Filter.Match(seen) {
			wanted = append(wanted, message{m, record})
		} else {
			unwanted = append(unwanted, message{Message: m})
		}
	}
	p.Counter.FilteredOut(len(unwanted))
	p.delete(ctx, unwanted)
	return wanted, nil
}

// handle has the function handle a batch, and deletes what it has handled.
func (p *poller) handle(ctx context.Context, b *batch) error {
	result, end, err := p.invoke(ctx, b)
	defer result.Free()
	if end != ran {
		if end == kept {
			p.giveBack(ctx, b.messages)
		}
		return err
	}
	p.Counter.Invoked(len(b.messages))
	failed := func(*message) bool { return false }
	switch {
	case result.FunctionError != "":
		p.Tell(eventsource.ResultFailed)
		failed = func(*message) bool { return true }
		if !p.Reports() {
			p.slow()
		}
	case p.Reports():
		names, err := eventsource.FailedItems(result.Payload, func(id string) bool {
			return slices.ContainsFunc(b.messages, func(m message) bool { return *m.MessageId == id })
		})
		if err != nil {
			p.Tell("PROBLEM: " + err.Error())
			p.Log.Warn("the whole batch counts as failed", "error", err)
			failed = func(*message) bool { return true }
			break
		}
		failed = func(m *message) bool { return slices.Contains(names, *m.MessageId) }
		fallthrough
	default:
		p.Tell(eventsource.ResultOK)
	}
	done := slices.DeleteFunc(slices.Clone(b.messages), func(m message) bool { return failed(&m) })
	p.Counter.Failed(len(b.messages) - len(done))
	p.delete(ctx, done)
	return nil
}

// delete removes messages from the queue.
func (p *poller) delete(ctx context.Context, list []message) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	for part := range slices.Chunk(list, atOnce) {
		var err error
		for try := 0; len(part) > 0 && try < deletions; try++ {
			if part, err = p.deleteOnce(ctx, part); err != nil && ctx.Err() == nil {
				pause(ctx, firstRetry<<try)
			}
		}
		if len(part) > 0 {
			p.Log.Warn("messages that are done with could not be deleted: the queue will hand them out again", "messages", len(part), "error", err)
		}
	}
}

// deleteOnce returns those that are left.
func (p *poller) deleteOnce(ctx context.Context, list []message) ([]message, error) {
	in := &sqs.DeleteMessageBatchInput{QueueUrl: &p.url}
	for i, m := range list {
		in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: new(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle})
	}
	out, err := p.client.DeleteMessageBatch(ctx, in)
	if err != nil {
		return list, explain(err)
	}
	p.Counter.Deleted(len(list) - len(out.Failed))
	var left []message
	for _, f := range out.Failed {
		if i, bad := strconv.Atoi(*f.Id); bad == nil && i < len(list) {
			left = append(left, list[i])
			err = fmt.Errorf("SQS answers %s: %s", *f.Code, deref(f.Message))
		}
	}
	return left, err
}

// giveBack shows the queue's messages again that no function has seen.
func (p *poller) giveBack(ctx context.Context, list []message) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	for part := range slices.Chunk(list, atOnce) {
		in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &p.url}
		for i, m := range part {
			in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{Id: new(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 0})
		}
		if _, err := p.client.ChangeMessageVisibilityBatch(ctx, in); err != nil {
			p.Log.Debug("messages are not given back: the queue shows them again after their visibility timeout", "error", explain(err))
		}
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
