package jetstream

import (
	"context"

	"github.com/nats-io/nats.go"
)

// StoreBatch stores events as one atomic batch, however few they are, for the
// benchmark that finds from how many on that is worth it, and to fill queues fast.
func (q *Queue) StoreBatch(ctx context.Context, events ...Event) error {
	messages := make([]*nats.Msg, len(events))
	for i, e := range events {
		messages[i] = messageOf(e)
	}
	_, err := q.engine.storeBatch(ctx, messages)
	return err
}
