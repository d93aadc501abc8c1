package jetstream

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// resume has what an earlier process was handling when it died handed out again at
// once. The engine remembers whom it gave each event to, and would wait for ackWait;
// what it is told here, that they are given back, keeps their attempts.
func (q *Queue) resume(ctx context.Context) error {
	r, err := q.engine.current()
	if err != nil {
		return err
	}
	stream, err := r.js.Stream(ctx, queueStream)
	if err != nil {
		return fmt.Errorf("resume the events of an earlier process: %w", explain(err))
	}
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		if info.NumAckPending == 0 || info.Config.FilterSubject == "" {
			continue
		}
		if err := q.giveUp(ctx, r.conn, info); err != nil {
			return fmt.Errorf("resume the events of %s: %w", info.Config.Description, err)
		}
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("resume the events of an earlier process: %w", explain(err))
	}
	return nil
}

// giveUp gives back what a consumer has handed out: those of its messages up to the last
// one that it did which still exist.
func (q *Queue) giveUp(ctx context.Context, conn *nats.Conn, info *jetstream.ConsumerInfo) error {
	for from, left := info.AckFloor.Stream+1, 1; left > 0 && from <= info.Delivered.Stream; {
		begin := from
		var err error
		from, left, err = q.engine.readPage(ctx, queueStream, info.Config.FilterSubject, from, pageMessages, func(m message) error {
			if m.sequence > info.Delivered.Stream || q.survives(m.sequence, m.time) {
				return nil
			}
			// The subject that the engine takes answers to deliveries at.
			return conn.Publish(fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0", queueStream, info.Name, m.sequence, info.Delivered.Consumer), []byte("-NAK"))
		})
		if err != nil {
			return err
		}
		if from == begin {
			break
		}
	}
	return nil
}
